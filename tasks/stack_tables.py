"""Makes Prefect's tables on a PostgreSQL without the extension ``pg_trgm``; a program of its own.

Prefect asks for the extension for seven indexes that speed up looking for a
part of a name. Without it they become plain ones of the same names, so that later
versions of Prefect find what they expect.
"""

from __future__ import annotations

import asyncio
from typing import Any

__all__ = ["main", "plain"]


def plain(statement: str) -> str | None:
    """Return a statement of Prefect's without ``pg_trgm``; ``None``: it is left out.

    >>> plain("CREATE EXTENSION IF NOT EXISTS pg_trgm;") is None
    True
    >>> plain("CREATE INDEX i ON flow USING gin (name gin_trgm_ops);")
    'CREATE INDEX i ON flow (name);'
    >>> plain("SELECT 1")
    'SELECT 1'
    """
    if "EXTENSION" in statement and "pg_trgm" in statement:
        return None
    return statement.replace("USING gin (name gin_trgm_ops)", "(name)")


def main() -> None:
    """Bring the database that the environment names to this Prefect's version."""
    from alembic.operations import Operations
    from prefect.server.database import provide_database_interface

    execute = Operations.execute

    def without(self: Operations, sqltext: Any, **options: Any) -> None:
        statement = plain(sqltext) if isinstance(sqltext, str) else sqltext
        if statement is not None:
            execute(self, statement, **options)

    Operations.execute = without  # type: ignore[method-assign]
    asyncio.run(provide_database_interface().run_migrations_upgrade())


if __name__ == "__main__":
    main()
