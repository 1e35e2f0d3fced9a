"""``stillhouse reproduce``: a student made again from its night's code and data."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import asdict
from pathlib import Path

import click

from stillhouse.cli.report import plain_console, plain_table
from stillhouse.cli.run import prepare_environment

__all__ = ["show_reproduction"]


def show_reproduction(workspace: Path, name: str, *, keep: Path | None, as_json: bool) -> int:
    """Make a version again and print which outputs are byte-identical, and how far the others differ.

    Returns:
        0 where every output that can be is byte-identical, otherwise 1.

    Raises:
        NightError: its night cannot be performed again.
        RegistryError: there is no such version.
    """
    prepare_environment(workspace)
    from tasks.graph import hush
    from tasks.naming import version_named
    from tasks.reproduction import reproduce
    from tasks.versions import require_workspace

    hush()
    require_workspace(workspace)
    version = version_named(workspace, name)
    found = reproduce(workspace, version, lambda stage: click.echo(f"{stage} …", err=True), keep)
    if as_json:
        facts = {"version": found.version, "night": found.night, "identical": found.identical}
        click.echo(json.dumps(facts | {"outputs": [asdict(one) for one in found.outputs]}, indent=1))
        return int(not found.identical)
    console = plain_console()
    columns = (("stage", "left"), ("output", "left"), ("", "left"), ("how far", "text"))
    table = plain_table(f"Student version {found.version}, made again from night {found.night}", *columns)
    for one in found.outputs:
        table.add_row(one.stage, one.path, one.state, one.says)
    console.print(table)
    count = Counter(one.state for one in found.outputs)
    click.echo(f"{count['identical']} identical, {count['differs']} differ, {count['by nature']} differ by nature")
    return int(not found.identical)
