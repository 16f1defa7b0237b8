"""Roles for the tests of the migration."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from helpers.migration import PASSWORD
from psycopg.sql import SQL, Identifier, Literal

from xraylog.database.session import Connection


@pytest.fixture
def role(conn: Connection, database: dict[str, str]) -> Iterator[Callable[[str], str]]:
    """Create roles that are dropped at the end of the test."""
    made: list[str] = []

    def make_role(suffix: str) -> str:
        made.append(f"{suffix}_of_{database['dbname']}")
        conn.execute(SQL("CREATE ROLE {} LOGIN PASSWORD {}").format(Identifier(made[-1]), Literal(PASSWORD)))
        return made[-1]

    yield make_role
    for name in made:
        conn.execute(SQL("DROP OWNED BY {} CASCADE").format(Identifier(name)))
        conn.execute(SQL("DROP ROLE {}").format(Identifier(name)))
