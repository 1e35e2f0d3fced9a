"""The public surface, listed: a name that appears or goes is a decision, seen in review."""

import ast
from pathlib import Path

from stillhouse.runner.closure import package_root

LISTED = Path(__file__).with_name("public_names.txt")
ROOT = package_root().parent


def modules():
    for folder in (ROOT / "src" / "stillhouse", ROOT / "flows", ROOT / "tasks"):
        yield from sorted(folder.rglob("*.py"))


def names(path):
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", None) == "__all__":
            return ast.literal_eval(node.value)
    return None


def surface():
    for path in modules():
        found = names(path)
        if path.name not in ("__init__.py", "__main__.py"):
            assert found is not None, f"{path} must say in __all__ what is public"
            module = path.relative_to(ROOT).with_suffix("").as_posix().removeprefix("src/").replace("/", ".")
            yield from (f"{module}.{name}" for name in sorted(found))


def test_public_names_are_those_listed():
    assert "\n".join(surface()) + "\n" == LISTED.read_text(), "run `make names` and look at the difference"
