"""Find out whether an update of the operating system has changed the sort order on which indexes of names rely."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from psycopg.sql import Identifier

from xraylog.database import ddl
from xraylog.database.capabilities import Capabilities
from xraylog.database.session import Connection

VERSIONS = """
    SELECT datname, datcollversion, pg_database_collation_actual_version(oid)
    FROM pg_database
    WHERE datname = current_database()
"""


class Changed(NamedTuple):
    """A changed sort order: what was found, and the statements that fix it."""

    found: str
    to_do: str


def changed(conn: Connection) -> Changed | None:
    """Return what to do if the sort order has changed since the indexes were built; None before PostgreSQL 15.

    An index in the wrong order finds some names and not others, so each run would add these again.
    """
    if not Capabilities.of(conn).collation_versions:
        return None
    ((name, built, now),) = conn.execute(VERSIONS)
    if None in (built, now) or built == now:
        return None
    database = Identifier(name).as_string(conn)
    return Changed(
        f"the indexes were built with version {built} of the operating system's order of text, which is {now} now",
        f"REINDEX DATABASE {database}; ALTER DATABASE {database} REFRESH COLLATION VERSION",
    )


OF_COLUMNS = """
    SELECT quote_ident(c.relname), quote_ident(a.attname), quote_ident(n.nspname) || '.' || quote_ident(k.collname),
           k.collversion, pg_collation_actual_version(k.oid)
    FROM pg_attribute a
    JOIN pg_class c ON c.oid = a.attrelid
    JOIN pg_collation k ON k.oid = a.attcollation
    JOIN pg_namespace n ON n.oid = k.collnamespace
    WHERE c.relname = ANY(%s) AND pg_table_is_visible(c.oid) AND k.collversion IS NOT NULL
"""


def changed_columns(conn: Connection) -> Iterator[Changed]:
    """Yield the same for columns with a collation of their own, whose version every server knows."""
    for table, column, name, built, now in conn.execute(OF_COLUMNS, [list(ddl.REFERENCE_TABLES)]):
        if now not in (None, built):
            yield Changed(
                f"the index of {table}.{column} was built with version {built} of {name}, which is {now} now",
                f"REINDEX TABLE {table}; ALTER COLLATION {name} REFRESH VERSION",
            )
