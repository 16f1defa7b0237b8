"""The table `networks`: which country and which provider a network has. Only there if the operator loaded a file.

Networks with a country do not overlap, and neither do those with a provider: so the one that has an address is the last
one that is not after it, which a B-tree finds. GiST took 3.4 ms for an address where that takes 0.02
(benchmarks/networks.py).
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from dataclasses import dataclass

import psycopg
from psycopg.sql import Identifier

from xraylog.database import session
from xraylog.database.session import Connection, Unsuitable

COLUMNS = ("network", "country", "asn", "provider")
CREATE = """
    CREATE TABLE networks (
        network  cidr NOT NULL,
        country  text,
        asn      bigint,
        provider text
    );
    CREATE INDEX ON networks (network) WHERE country IS NOT NULL;
    CREATE INDEX ON networks (network) WHERE provider IS NOT NULL;
"""
# One row, if there is such a table in the search path: whether it is our own, and what this role may do.
STATE = """
    SELECT (SELECT count(*) = 4 FROM pg_attribute a
            WHERE a.attrelid = c.oid AND a.attname = ANY (%s) AND NOT a.attisdropped),
           has_table_privilege(c.oid, 'SELECT'),
           has_table_privilege(c.oid, 'SELECT') AND has_table_privilege(c.oid, 'INSERT')
           AND has_table_privilege(c.oid, 'UPDATE') AND has_table_privilege(c.oid, 'DELETE')
    FROM pg_class c
    WHERE c.oid = to_regclass('networks') AND c.relkind IN ('r', 'v', 'm', 'f', 'p')
"""
MAY_CREATE = "SELECT current_schema(), has_schema_privilege(current_schema(), 'CREATE')"
LOCK = "LOCK TABLE networks IN SHARE ROW EXCLUSIVE MODE"  # one load at a time; questions go on
# What a file is about is replaced, for the versions of IP that it has; the rest stays.
REPLACE_ALL = ("DELETE FROM networks WHERE family(network) = ANY (%s)",)
REPLACE_COUNTRY = (
    "DELETE FROM networks WHERE provider IS NULL AND family(network) = ANY (%s)",
    "UPDATE networks SET country = NULL WHERE country IS NOT NULL AND family(network) = ANY (%s)",
)
REPLACE_PROVIDER = (
    "DELETE FROM networks WHERE country IS NULL AND family(network) = ANY (%s)",
    "UPDATE networks SET asn = NULL, provider = NULL WHERE provider IS NOT NULL AND family(network) = ANY (%s)",
)
COPY = "COPY networks (network, country, asn, provider) FROM STDIN"
GRANT = "GRANT SELECT, INSERT, UPDATE, DELETE ON networks TO"
COUNTS = "SELECT count(*), count(country), count(provider) FROM networks"


@dataclass(frozen=True, slots=True)
class State:
    """What there is, and what this role may do with it."""

    exists: bool = False
    is_ours: bool = False
    may_read: bool = False
    may_write: bool = False


@dataclass(frozen=True, slots=True)
class Part:
    """What one file has: its rows replace those about the same, of the same versions of IP."""

    rows: str  # as COPY reads them
    has_country: bool
    has_provider: bool
    versions: frozenset[int]

    @property
    def replacements(self) -> tuple[str, ...]:
        """Return the statements that make room for it."""
        if self.has_country and self.has_provider:
            return REPLACE_ALL
        return REPLACE_COUNTRY if self.has_country else REPLACE_PROVIDER


@dataclass(frozen=True, slots=True)
class Counts:
    """Rows of the table."""

    networks: int
    with_country: int
    with_provider: int


def state(conn: Connection) -> State:
    """Return what there is of the table. Changes nothing."""
    row = conn.execute(STATE, [list(COLUMNS)]).fetchone()
    return State() if row is None else State(True, *row)


def replace(conn: Connection, parts: Iterable[Part]) -> Counts:
    """Replace what the files have, in one transaction; return what the table has then. Raises Unsuitable.

    No two parts are about the same, of one version of IP: their networks would overlap.
    """
    parts = list(parts)
    with session.transaction(conn):
        _ensure(conn)
        conn.execute(LOCK)
        for part in parts:
            for statement in part.replacements:
                conn.execute(statement, [sorted(part.versions)])
        for part in parts:
            with conn.cursor().copy(COPY) as copy:
                copy.write(part.rows)
        counts = Counts(*(conn.execute(COUNTS).fetchone() or (0, 0, 0)))
    with contextlib.suppress(psycopg.Error):  # all is stored: what this role may not do, autovacuum does later
        conn.execute("VACUUM ANALYZE networks")
    return counts


def _ensure(conn: Connection) -> None:
    """Create the table, or raise Unsuitable with what the role lacks."""
    found = state(conn)
    role = Identifier(conn.info.user).as_string(conn)
    if found.exists and not found.is_ours:
        raise Unsuitable(
            f"networks: expected the columns {', '.join(COLUMNS)}, found another application's table; use a schema of "
            f"our own, as a superuser: CREATE SCHEMA xraylog AUTHORIZATION {role}; "
            "then [postgresql] options = -c search_path=xraylog"
        )
    if found.exists and not found.may_write:
        raise Unsuitable(f"networks: expected the right to write it, found none; as its owner: {GRANT} {role}")
    if found.exists:
        return
    ((schema, may_create),) = conn.execute(MAY_CREATE)
    if not may_create:
        where = "a schema" if schema is None else f"schema {Identifier(schema).as_string(conn)}"
        raise Unsuitable(
            f"networks: expected the table, or the right to create it in {where}, found neither; as its owner: "
            f"{' '.join(CREATE.split())} {GRANT} {role}"
        )
    conn.execute(CREATE)
