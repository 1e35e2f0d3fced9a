"""Data Docs that open without a network.

Great Expectations' pages fetch their style, their scripts and a logo from five
hosts, and its index draws its table by script. Here the pages lose every
script and every reference that a browser would fetch, gain a small style of
their own, and the index becomes a plain page with the verdict on it.
"""

from __future__ import annotations

import html
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

__all__ = ["make_offline"]

_SCRIPTS = re.compile(r"<script\b.*?</script\s*>", re.DOTALL | re.IGNORECASE)
_LINKS = re.compile(r"<link\b[^>]*>", re.IGNORECASE)
_PICTURES = re.compile(r"<(img|iframe|source|video|audio|embed|object|form|base)\b[^>]*>", re.IGNORECASE)
_ORDERS = re.compile(r"<meta\b[^>]*http-equiv[^>]*>", re.IGNORECASE)
_URLS = re.compile(r"url\((?!#)[^)]*\)|@import[^;]*;", re.IGNORECASE)
#: Boxes that open by script: they would be in the way, or never open.
_HANDLERS = re.compile(r"\son[a-z]+=\"[^\"]*\"", re.IGNORECASE)

#: A page may show its own style and nothing else, whatever a cell of the data holds.
_POLICY = (
    "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'; "
    "form-action 'none'; base-uri 'none'\">"
)

#: What the pages use of Bootstrap, in brief.
_STYLE = """
*{box-sizing:border-box}
body{font:15px/1.45 system-ui,sans-serif;color:#212529;background:#fff;margin:0 auto;max-width:1200px;padding:16px}
a{color:#0a58ca;text-decoration:none} a:hover{text-decoration:underline}
table{border-collapse:collapse;width:100%;margin:8px 0} th{text-align:left}
td,th{padding:6px 8px;border-top:1px solid #dee2e6;vertical-align:top;overflow-wrap:break-word}
h5,h6{font-size:1em;margin:2px 0} .ge-section{padding-bottom:0}
.row{display:flex;flex-wrap:wrap} .col-12{width:100%} .col-6,.col-md-6{width:50%}
.col-md-2{width:18%} .col-md-10{width:82%}
.container,.container-fluid{width:100%;padding-top:0}
.nav,.list-unstyled,.breadcrumb{list-style:none;margin:0;padding:0} .breadcrumb{display:flex;gap:8px}
.alert,.card{border:1px solid #dee2e6;border-radius:4px;padding:10px 12px;margin:8px 0;background:#f6f7f8}
.badge{border-radius:4px;padding:1px 6px;font-size:85%;background:#e9ecef;color:#212529;white-space:normal}
.popover,.modal,.cooltip .top,.btn,.dropdown-menu,[data-toggle=popover],footer,
.sticky>.card.mb-3,.sticky .card-header+.card-body input{display:none!important}
.fa-check-circle:before,.fa-check:before{content:"✓"} .fa-times:before{content:"✗"}
.fa-exclamation-triangle:before{content:"!"}
i{font-style:normal;font-weight:700} .text-success,.ok{color:#13795b} .text-danger,.bad{color:#b02a37}
.d-none,[hidden]{display:none} .sticky .card.d-md-block{display:block!important;max-height:none!important}
nav,nav .nav,.card-body{max-height:none!important} .collapse{display:block} .sticky{position:static}
@media(max-width:800px){.col-md-2,.col-md-10,.col-6{width:100%}}
"""


def make_offline(docs: Path, verdict: Mapping[str, Any]) -> None:
    """Rewrite the site in ``docs`` so that no page fetches anything, and its index shows ``verdict``."""
    shutil.rmtree(docs / "static", ignore_errors=True)
    pages = sorted(path for path in docs.rglob("*.html") if path.name != "index.html")
    for page in pages:
        page.write_text(_plain(page.read_text(encoding="utf-8")), encoding="utf-8")
    names = [page.relative_to(docs).as_posix() for page in pages]
    (docs / "index.html").write_text(_index(names, verdict), encoding="utf-8")


def _plain(text: str) -> str:
    for pattern in (_SCRIPTS, _LINKS, _PICTURES, _ORDERS, _HANDLERS):
        text = pattern.sub("", text)
    text = _URLS.sub("none", text)
    text = text.replace("<head>", f"<head>{_POLICY}", 1)
    return text.replace("</head>", f"<style>{_STYLE}</style></head>", 1)


def _index(pages: list[str], verdict: Mapping[str, Any]) -> str:
    titles = {"expectations": "the suite: what is expected", "validations": "the results, with examples"}
    links = "".join(
        f'<li><a href="{html.escape(page)}">{titles.get(page.split("/")[0], page)}</a></li>' for page in pages
    )
    rows = "".join(_row(check) for check in verdict["checks"])
    counts = (
        f"{verdict['accepted_rows']:,} of {verdict['snapshot_rows']:,} rows accepted, "
        f"{verdict['quarantined_rows']:,} in quarantine"
    )
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>What data may enter</title>'
        f"{_POLICY}<style>{_STYLE}</style></head><body><h1>What data may enter</h1><p>{counts}.</p>"
        f"<ul>{links}</ul><table><tr><th></th><th>check</th><th>found</th><th>limit</th><th>in words</th></tr>{rows}"
        "</table></body></html>\n"
    )


def _row(check: Mapping[str, Any]) -> str:
    mark = '<td class="ok">✓</td>' if check["passed"] else '<td class="bad">✗</td>'
    cells = (check["name"], _shown(check["value"]), _shown(check["limit"]), check["text"])
    return f"<tr>{mark}{''.join(f'<td>{html.escape(cell)}</td>' for cell in cells)}</tr>"


def _shown(value: object) -> str:
    if isinstance(value, list):
        joint = " to " if value and all(isinstance(one, int | float) for one in value) else ", "
        return joint.join(_shown(one) for one in value)
    return f"{value:,}" if isinstance(value, int | float) else str(value)
