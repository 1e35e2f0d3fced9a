"""What ``dvc.yaml`` says of one stage: which of its arguments it takes, and which it makes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stillhouse.errors import NightError
from stillhouse.params.base import read_yaml

__all__ = ["Declared", "declared", "require_fresh"]


@dataclass(frozen=True)
class Declared:
    """The paths of a stage's command, by argument."""

    taken: dict[str, Path]
    """Those among its ``deps``."""
    made: dict[str, Path]
    """Those among its ``outs``."""
    kept: frozenset[str]
    """Which of ``made`` the stage finds as they stand (``persist``), and itself says what is still good of them."""


def declared(workspace: Path, name: str) -> Declared:
    """Return what the command of a stage names, below ``workspace``; nothing where there is no such stage.

    Args:
        workspace: the folder of ``dvc.yaml``.
        name: the stage, with ``@INSTANCE`` where it has one.

    Raises:
        ParamsError: there is no ``dvc.yaml`` that can be read.
    """
    base, _, instance = name.partition("@")
    stage = read_yaml(workspace / "dvc.yaml").get("stages", {}).get(base, {})
    stage = stage.get("do", stage)

    pairs = [word.split("=", 1) for word in stage.get("cmd", "").split() if "=" in word]

    def among(key: str) -> dict[str, tuple[Path, Mapping[str, Any]]]:
        listed = dict((one, {}) if isinstance(one, str) else next(iter(one.items())) for one in stage.get(key, []))
        return {
            word: (workspace / path.replace("${key}", instance), listed[path]) for word, path in pairs if path in listed
        }

    made = among("outs")
    kept = frozenset(word for word, (_, said) in made.items() if said.get("persist"))
    taken = {word: path for word, (path, _) in among("deps").items()}
    return Declared(taken, {word: path for word, (path, _) in made.items()}, kept)


def require_fresh(workspace: Path, name: str, paths: Mapping[str, Path]) -> None:
    """Refuse a stage whose outputs stand already: DVC removes them, by hand nobody does, and a training ends with them.

    Args:
        workspace: the folder of ``dvc.yaml``.
        name: the stage, with ``@INSTANCE`` where it has one.
        paths: argument → path, as the stage is given them.

    Raises:
        NightError: an output is there.
        ParamsError: there is no ``dvc.yaml`` that can be read.
    """
    outputs = declared(workspace, name)
    for argument in outputs.made.keys() - outputs.kept:
        if argument != "run" and argument in paths and paths[argument].exists():  # the runner writes `run` anew
            raise NightError(
                f"stage {name} must find no {argument} of an earlier run, found {paths[argument]}: remove it, or "
                f"`dvc repro {name}`, which does and runs the stage"
            )
