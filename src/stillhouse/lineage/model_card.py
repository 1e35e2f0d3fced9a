"""The model card: one page that says what a student or a teacher is, how good, and where it came from."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

__all__ = ["model_card", "teacher_card"]

_PROTOCOLS = {"time_window": "events after the night's training data", "leave_one_out": "last event of each user"}
#: What would make a link, a picture, a tag or a heading of a name.
_MARKS = re.compile(r"[\\`*\[\]<>]")
_SHOWN = ("ndcg_at_10", "hr_at_10", "mrr", "coverage_at_10", "popularity_bias_at_10")


def model_card(
    predicate: Mapping[str, Any], *, verdict: str, reason: str, timings: Mapping[str, Any] | None = None
) -> str:
    """Return the card as Markdown.

    Args:
        predicate: from `stillhouse.lineage.record.gather`.
        verdict: the gate's word.
        reason: the gate's reason, one line.
        timings: what ``evaluate@NAME`` measured: ``p50_ms``, ``p99_ms``, ``latency_threads``.
    """
    night, student = predicate["night"], predicate["student"]
    parts = [
        f"# {student['name']}, night {night['id']}",
        f"Recommends the next item from a person's history. Gate: **{verdict}**: {_plain(reason)}",
        _quality(student["metrics"]),
        _cost(student["package"], timings),
        _origin(predicate),
        _use(student["package"]),
    ]
    return "\n\n".join(parts) + "\n"


def teacher_card(predicate: Mapping[str, Any], *, reason: str) -> str:
    """Return the card of a teacher as Markdown.

    Args:
        predicate: from `stillhouse.lineage.record.gather_teacher`.
        reason: why it was let through, one line.
    """
    night, teacher = predicate["night"], predicate["teacher"]
    checkpoint = predicate["links"]["teacher"]
    parts = [
        f"# Teacher, night {night['id']}",
        f"Its scores are what the night's students learn. Check: **passed**: {_plain(reason)}",
        _quality(teacher["metrics"]),
        _cost(teacher["metrics"], None),
        f"{_origin(predicate)}\n- Weights: {_start(teacher)}.",
        "## Where it is\n\n"
        f"In DVC, as `{checkpoint['md5']}`; no copy is kept here. "
        f"`git checkout night/{night['id']}/closed` in a clone, then `dvc pull {checkpoint['path']}`, restores it.",
    ]
    return "\n\n".join(parts) + "\n"


def _plain(text: str) -> str:
    """Return ``text``, which may hold names from the data, so that Markdown shows it as it is, on one line."""
    return _MARKS.sub(r"\\\g<0>", " ".join(text.split()))


def _start(teacher: Mapping[str, Any]) -> str:
    before = teacher["from"]
    if before is None:
        return str(teacher["start"])
    version = "the teacher" if before["version"] is None else f"teacher version {before['version']},"
    return f"{teacher['start']}, from {version} of night {before['night']}"


def _quality(metrics: Mapping[str, Any]) -> str:
    protocols = {name: metrics[name] for name in _PROTOCOLS if metrics.get(name)}
    if not protocols:
        return "## Quality\n\nNothing was measured."
    popularity = metrics.get("popularity") or {}
    lines = ["| | " + " | ".join(_PROTOCOLS[name] for name in protocols) + " |", "|---" * (len(protocols) + 1) + "|"]
    for metric in _SHOWN:
        values = [figures.get(metric) for figures in protocols.values()]
        if any(value is not None for value in values):
            lines.append(f"| {metric} | " + " | ".join(_number(value) for value in values) + " |")
    baseline = [(popularity.get(name) or {}).get("ndcg_at_10") for name in protocols]
    if any(value is not None for value in baseline):
        lines.append("| ndcg_at_10 of popularity | " + " | ".join(_number(value) for value in baseline) + " |")
    lines.append(
        "| users or events ranked | " + " | ".join(_number(one.get("users")) for one in protocols.values()) + " |"
    )
    return "## Quality\n\nRanked against every item of the vocabulary.\n\n" + "\n".join(lines)


def _cost(package: Mapping[str, Any], timings: Mapping[str, Any] | None) -> str:
    figures = {
        "bytes": package.get("bytes"),
        "parameters": package.get("parameters"),
        "parameters without embeddings": package.get("parameters_without_embeddings"),
        "FLOPs a request": package.get("flops"),
    }
    if timings:
        threads = timings.get("latency_threads")
        figures[f"median ms, one user, {threads} thread(s)"] = timings.get("p50_ms")
        figures[f"p99 ms, one user, {threads} thread(s)"] = timings.get("p99_ms")
    rows = [f"| {name} | {_number(value)} |" for name, value in figures.items() if value is not None]
    return "\n".join(["## Cost", "", "| | |", "|---|---|", *rows])


def _origin(predicate: Mapping[str, Any]) -> str:
    night, verdict, links = predicate["night"], predicate["verdict"], predicate["links"]
    accepted, quarantined = (_number(verdict.get(name)) for name in ("accepted_rows", "quarantined_rows"))
    ancestor = predicate["ancestor"]
    lines = [
        f"- Data up to {night.get('as_of')}: {accepted} rows accepted, {quarantined} in quarantine.",
        f"- Code: `{night['tag']}` ({night['commit'][:12]}).",
        f"- Started from night {ancestor['night']}." if ancestor else "- A first night: nothing was inherited.",
    ]
    lines.extend(
        f"- {name.replace('_', ' ').capitalize()}: `{links[name]['md5']}` ({links[name]['path']})."
        for name in ("teacher", "soft_targets", "checkpoint")
        if name in links
    )
    lines.append("- The whole record, with every hash: `lineage.json` beside this card.")
    return "## Where it came from\n\n" + "\n".join(lines)


def _use(package: Mapping[str, Any]) -> str:
    repeat = "may" if package.get("repeat_items") else "are never"
    again = "be recommended again" if package.get("repeat_items") else "recommended again"
    return (
        "## Use\n\n"
        'A table with a column `history` (lists of item ids, oldest first); `params={"k": 10}`. '
        f"It looks at the last {_number(package.get('length'))} events; items of the history {repeat} {again}. "
        "An empty or wholly unknown history gets the most popular items, and the answer says so. "
        "Items that came after this night are not in the vocabulary."
    )


def _number(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, float):
        return f"{value:.4g}"
    return f"{value:,}" if isinstance(value, int) else str(value)
