"""Which files of the library a function's module pulls in.

DVC notices an edit only in files that a stage declares. This module computes,
from the source text alone, every file of the package that importing a module
can execute, imports inside functions included. The contract test holds
``dvc.yaml`` to it, and a stage's resume state is keyed by it.
"""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path

import stillhouse

__all__ = ["import_closure", "package_root"]


def package_root() -> Path:
    """Return the folder that holds the package ``stillhouse``."""
    return Path(stillhouse.__file__).parent.parent


def import_closure(module: str) -> tuple[str, ...]:
    """Return the package's files that importing ``module`` can execute, sorted.

    Args:
        module: dotted name, such as ``stillhouse.stages.prepare``.

    Returns:
        Paths relative to `package_root`, with forward slashes. Packages'
        ``__init__.py`` count only where they hold more than a docstring.
    """
    found: dict[str, Path] = {}
    waiting = [module]
    while waiting:
        name = waiting.pop()
        path = _file(name)
        if path is None or name in found:
            continue
        found[name] = path
        waiting.extend(_imports(path))
        waiting.extend(_parents(name))
    root = package_root()
    return tuple(sorted(p.relative_to(root).as_posix() for p in found.values() if not _is_empty_package(p)))


def _parents(name: str) -> list[str]:
    parts = name.split(".")
    return [".".join(parts[:end]) for end in range(1, len(parts))]


@cache
def _file(name: str) -> Path | None:
    base = package_root().joinpath(*name.split("."))
    for path in (base.with_suffix(".py"), base / "__init__.py"):
        if path.is_file():
            return path
    return None


@cache
def _imports(path: Path) -> tuple[str, ...]:
    names: list[str] = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            names.append(node.module)
            names += [f"{node.module}.{alias.name}" for alias in node.names]
    return tuple(name for name in names if name.split(".")[0] == "stillhouse")


@cache
def _is_empty_package(path: Path) -> bool:
    if path.name != "__init__.py":
        return False
    body = ast.parse(path.read_text(encoding="utf-8")).body
    return all(isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) for node in body)
