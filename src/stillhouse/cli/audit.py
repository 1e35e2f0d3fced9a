"""``stillhouse audit``: where a student or a teacher came from, every link checked again."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.text import Text
from rich.tree import Tree

from stillhouse.cli.report import plain_console, plain_table
from stillhouse.errors import RegistryError

if TYPE_CHECKING:
    from stillhouse.lineage.audit import Link

__all__ = ["show_audit", "show_reached"]

#: OpenLineage's own name for the namespace that a client's events are in.
_NAMESPACE = "OPENLINEAGE_NAMESPACE"

#: Colours of a terminal; the word is always there too.
_STYLES = {"verified": "green", "noted": "yellow", "missing": "red", "altered": "bold red"}


def show_audit(workspace: Path, what: str, *, as_json: bool, openlineage: bool, require_signature: bool) -> int:
    """Print the tree of everything that a student or a teacher came from.

    Args:
        workspace: the folder of ``params.yaml``.
        what: a version by number or alias, ``teacher@3``, or the path of a package or of one of its files.
        as_json: print JSON.
        openlineage: print the record as OpenLineage events, one a line, where every link is verified; otherwise
            nothing, and the tree as an error.
        require_signature: an unsigned record, or one of an unknown key, fails too.

    Returns:
        0 where no link is missing or altered, otherwise 1.

    Raises:
        RegistryError: there is no such version.
    """
    from stillhouse.tracking.registry import STUDENT
    from tasks.audit import audit, audited_events
    from tasks.champion import repair
    from tasks.naming import model_and_version
    from tasks.reach import version_on_disk
    from tasks.versions import require_workspace

    require_workspace(workspace)
    path = next((one for one in (Path(what), workspace / what) if one.exists()), None)
    if path is not None:
        model, version = STUDENT, version_on_disk(workspace, path)
    else:
        try:
            repair(workspace)
        except RegistryError:
            if not what[-1:].isdigit():
                raise  # whom an alias means cannot be said; a number is audited all the same
        model, version = model_and_version(workspace, what)
    tree = audit(workspace, version, served=path, model=model)
    unsigned = require_signature and any(link.name == "signature" and link.state == "noted" for link in tree.walk())
    whole = tree.whole and not unsigned
    if as_json:
        click.echo(json.dumps(tree.as_dict() | {"whole": whole}, indent=1))
        return int(not whole)
    if openlineage and whole:
        for event in audited_events(workspace, version, os.environ.get(_NAMESPACE) or "stillhouse", model=model):
            click.echo(json.dumps(event))
        return 0
    plain_console(stderr=openlineage).print(_branch(tree))
    if unsigned:
        click.echo("stillhouse: the record must be signed by a trusted key, and is not (--require-signature)", err=True)
    return int(not whole)


def _branch(link: Link) -> Tree:
    name = f"  {link.name}" + (f"  {link.hash[:12]}" if link.hash else "")
    text = Text.assemble((f"{link.state:<8}", _STYLES[link.state]), name, f"  {link.says}")
    tree = Tree(text)
    for below in link.below:
        tree.children.append(_branch(below))
    return tree


def show_reached(workspace: Path, data: str, *, as_json: bool) -> int:
    """Print every student that a snapshot's file reached.

    Returns:
        0.

    Raises:
        RegistryError: ``data`` names no file, or a record is not what was registered.
    """
    from tasks.reach import reached
    from tasks.versions import require_workspace

    require_workspace(workspace)
    found = reached(workspace, data)
    if as_json:
        rows = [
            {
                "version": one.info.version,
                "name": one.info.name,
                "night": one.info.night,
                "through": one.through,
                "file": one.file,
            }
            for one in found
        ]
        click.echo(json.dumps(rows, indent=1))
        return 0
    if not found:
        click.echo("it reached no registered student")
        return 0
    console = plain_console()
    columns = (
        ("version", "right"),
        ("student", "left"),
        ("night", "left"),
        ("through night", "left"),
        ("file", "left"),
    )
    table = plain_table(f"Students that {data} reached", *columns)
    for one in found:
        table.add_row(str(one.info.version), one.info.name, one.info.night, one.through, one.file)
    console.print(table)
    return 0
