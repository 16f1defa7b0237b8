"""Databases with the rows of helpers.report_data: inserted once, then copied as a template."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest
from helpers.report_data import ROWS, fill, read
from helpers.site import Site, create_database, drop_database
from psycopg.sql import SQL, Identifier

from xraylog.database import ddl
from xraylog.database.session import Connection
from xraylog.report.model import Findings


@pytest.fixture(scope="session")
def template(server_keywords: dict[str, str]) -> Iterator[str]:
    """A database with ROWS that no session is in, or it could not be copied."""
    keywords = create_database(server_keywords)
    with psycopg.connect(**keywords, autocommit=True) as conn:  # type: ignore[arg-type]
        fill(conn, ROWS)
    yield keywords["dbname"]
    drop_database(keywords)


@pytest.fixture
def database(request: pytest.FixtureRequest, server_keywords: dict[str, str]) -> Iterator[dict[str, str]]:
    """libpq's keywords for the test's own database: with ROWS in it if the test asks for `filled`, else empty."""
    template = request.getfixturevalue("template") if "filled" in request.fixturenames else "template0"
    keywords = create_database(server_keywords, template)
    yield keywords
    drop_database(keywords)


@pytest.fixture
def filled(conn: Connection) -> Connection:
    """A session in the test's database, which holds ROWS."""
    return conn


@pytest.fixture(scope="session")
def shared(server_keywords: dict[str, str], template: str) -> Iterator[dict[str, str]]:
    """libpq's keywords for a database with ROWS that no test changes."""
    keywords = create_database(server_keywords, template)
    yield keywords
    drop_database(keywords)


@pytest.fixture(scope="session")
def found(shared: dict[str, str]) -> Findings:
    """What a page of `shared` shows."""
    return read(shared)


@pytest.fixture
def stored(shared: dict[str, str]) -> Iterator[Connection]:
    """A session in `shared` that may only read."""
    with psycopg.connect(**shared, autocommit=True, options="-c default_transaction_read_only=on") as conn:  # type: ignore[arg-type]
        yield conn


@pytest.fixture
def role(site: Site, conn: Connection) -> Iterator[Identifier]:
    """The role of the site's config; it owns nothing and may read nothing yet."""
    name = f"reader_of_{site.database['dbname']}"
    role = Identifier(name)
    conn.execute(SQL("CREATE ROLE {} LOGIN PASSWORD 'only for this test'").format(role))
    site.set("postgresql", user=name, password="only for this test")  # noqa: S106  # of this role alone
    yield role
    conn.execute(SQL("DROP OWNED BY {}").format(role))
    conn.execute(SQL("DROP ROLE {}").format(role))


@pytest.fixture
def reader(conn: Connection, role: Identifier) -> None:
    """The same role, which may read what a page needs: not the partitions, and no table that may not be there."""
    for table in ddl.TABLES:
        conn.execute(SQL("GRANT SELECT ON {} TO {}").format(Identifier(table), role))
