"""``stillhouse compare``: two versions side by side."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from stillhouse.cli.report import figure_or_dash, plain_console, plain_table
from stillhouse.reporting import SilentReporter

if TYPE_CHECKING:
    from tasks.comparison import Comparison, Side

__all__ = ["show_comparison"]


def show_comparison(workspace: Path, first: str, second: str, *, as_json: bool) -> None:
    """Print how two versions rank the targets of the prepared data, and what else they differ in.

    Raises:
        NightError: no data is prepared here.
        RegistryError: a version is not there, or its files are not what the ledger names.
    """
    from tasks.champion import repair
    from tasks.comparison import compare
    from tasks.naming import version_named
    from tasks.versions import require_workspace

    require_workspace(workspace)
    repair(workspace)
    found = compare(workspace, version_named(workspace, first), version_named(workspace, second), SilentReporter())
    if as_json:
        click.echo(json.dumps(_facts(found), indent=1))
        return
    console = plain_console()
    names = [f"version {side.info.version}" for side in (found.first, found.second)]
    table = plain_table("Side by side, on the prepared data", ("", "left"), *((name, "right") for name in names))
    for label, a, b in _rows(found):
        table.add_row(label, a, b)
    console.print(table)
    table = plain_table(
        f"NDCG@10 over the same users; interval of the difference ({found.confidence:.0%}, bootstrap over users)",
        *(("protocol", "left"), ("targets", "left"), ("users", "right"), *((name, "right") for name in names)),
        *(("difference", "right"), ("interval", "left"), ("", "left")),
    )
    for one in found.differences:
        word = "better" if one.low > 0 else "worse" if one.high < 0 else "not told apart"
        table.add_row(
            *(one.protocol.replace("_", " "), one.part, f"{one.users:,}", f"{one.first:.4f}", f"{one.second:.4f}"),
            *(f"{one.second - one.first:+.4f}", f"{one.low:+.4f} to {one.high:+.4f}", word),
        )
    console.print(table)
    if found.settings:
        table = plain_table("Settings that differ", ("setting", "left"), *((name, "text") for name in names))
        for name, (a, b) in found.settings.items():
            table.add_row(name, json.dumps(a), json.dumps(b))
        console.print(table)


def _rows(found: Comparison) -> Iterable[tuple[str, str, str]]:
    sides = (found.first, found.second)

    def row(label: str, values: Iterable[Any]) -> tuple[str, str, str]:
        a, b = (value if isinstance(value, str) else figure_or_dash(value) for value in values)
        return label, a, b

    for label, name in (("student", "name"), ("night", "night"), ("gate", "verdict")):
        yield row(label, (getattr(side.info, name) for side in sides))
    for protocol in ("leave_one_out", "time_window"):
        for metric, shown in (("ndcg_at_10", "NDCG@10"), ("hr_at_10", "HR@10")):
            values = ((side.metrics.get(protocol) or {}).get(metric) for side in sides)
            yield row(f"{shown}, {protocol.replace('_', ' ')}", values)
    for label, name in (("bytes", "bytes"), ("parameters", "parameters"), ("FLOPs a request", "flops")):
        yield row(label, (side.metrics.get(name) for side in sides))
    for label, name in (("median ms", "p50_ms"), ("p99 ms", "p99_ms")):
        yield row(label, (side.timings.get(name) for side in sides))


def _facts(found: Comparison) -> dict[str, Any]:
    def side(one: Side) -> dict[str, Any]:
        info = {"version": one.info.version, "name": one.info.name, "night": one.info.night, "gate": one.info.verdict}
        return info | {"metrics": one.metrics, "timings": one.timings}

    return {
        "first": side(found.first),
        "second": side(found.second),
        "confidence": found.confidence,
        "differences": [asdict(one) for one in found.differences],
        "settings": {name: list(pair) for name, pair in found.settings.items()},
    }
