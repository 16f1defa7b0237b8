"""Roles for the tests of the migration."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from psycopg.sql import SQL, Identifier

from xraylog.database.session import Connection


@pytest.fixture
def role(conn: Connection, database: dict[str, str]) -> Iterator[Callable[[str], str]]:
    """Create roles that are dropped at the end of the test."""
    made: list[str] = []

    def make_role(suffix: str) -> str:
        made.append(f"{suffix}_of_{database['dbname']}")
        conn.execute(SQL("CREATE ROLE {} LOGIN PASSWORD 'only for this test'").format(Identifier(made[-1])))
        return made[-1]

    yield make_role
    for name in made:
        conn.execute(SQL("DROP OWNED BY {} CASCADE").format(Identifier(name)))
        conn.execute(SQL("DROP ROLE {}").format(Identifier(name)))
