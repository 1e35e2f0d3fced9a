"""Write each stage's import closure among its deps in dvc.yaml; the contract test holds them equal."""

from __future__ import annotations

import re

from stillhouse.runner.closure import import_closure, package_root
from stillhouse.runner.stage import load_stage

GRAPH = package_root().parent / "dvc.yaml"
_STAGE = re.compile(r"^  (\w+):$")
_CODE = re.compile(r"^ +- src/\S+\.py$")


def main() -> None:
    """Rewrite dvc.yaml in place; everything but the code deps stays to the letter."""
    lines: list[str] = []
    stage = ""
    for line in GRAPH.read_text(encoding="utf-8").splitlines():
        if found := _STAGE.match(line):
            stage = found.group(1)
        if _CODE.match(line):
            continue
        if line.strip() in ("deps:", "deps: []"):
            indent = line[: len(line) - len(line.lstrip())]
            function, _ = load_stage(stage)
            lines.append(f"{indent}deps:")
            lines += [f"{indent}  - src/{file}" for file in import_closure(function.__module__)]
            continue
        lines.append(line)
    GRAPH.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
