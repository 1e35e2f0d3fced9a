"""List every public name in tests/contract/public_names.txt."""

from __future__ import annotations

import importlib.util

from stillhouse.runner.closure import package_root


def main() -> None:
    """Write what the contract test reads, by the test's own rule."""
    path = package_root().parent / "tests" / "contract" / "test_public_names.py"
    spec = importlib.util.spec_from_file_location("names", path)
    if spec is None or spec.loader is None:
        raise FileNotFoundError(path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.LISTED.write_text("\n".join(module.surface()) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
