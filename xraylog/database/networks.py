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
from psycopg import errors

from xraylog.database import interference, session
from xraylog.database.optional import OptionalTable
from xraylog.database.session import Connection, Unsuitable

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
TABLE = OptionalTable(
    "networks", ("network", "country", "asn", "provider"), CREATE, ("SELECT", "INSERT", "UPDATE", "DELETE")
)
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
ARE_LEFT = """
    SELECT EXISTS (SELECT 1 FROM networks
                   WHERE family(network) = ANY (%s)
                     AND (country IS NOT NULL AND %s OR provider IS NOT NULL AND %s
                          OR country IS NULL AND provider IS NULL))
"""
# What a file has is checked before it is sent: it is the table that does not take it.
NOT_AS_MADE = (
    errors.IntegrityError,
    errors.StringDataRightTruncation,
    errors.UndefinedFunction,
    errors.DatatypeMismatch,
)
TO_MAKE_ANEW = "the next load makes the table anew after this, as its owner: DROP TABLE networks"
COUNTS = "SELECT count(*), count(country), count(provider) FROM networks"


@dataclass(frozen=True, slots=True)
class Part:
    """What one file has: its rows replace those about the same, of the same versions of IP."""

    rows: Iterable[str]  # as COPY reads them, some at a time
    has_country: bool
    has_provider: bool
    versions: frozenset[int]

    @property
    def replacements(self) -> tuple[str, ...]:
        """Return the statements that make room for it."""
        if self.has_country and self.has_provider:
            return REPLACE_ALL
        return REPLACE_COUNTRY if self.has_country else REPLACE_PROVIDER


def _make_room(conn: Connection, part: Part) -> None:
    for statement in part.replacements:
        conn.execute(statement, [sorted(part.versions)])
    ((are_left,),) = conn.execute(ARE_LEFT, [sorted(part.versions), part.has_country, part.has_provider])
    if are_left:
        _raise_for_others(conn, "keeps rows that are to be replaced")


def _copy(conn: Connection, part: Part) -> None:
    sent = 0
    with conn.cursor() as cursor:
        with cursor.copy(COPY) as copy:
            for some in part.rows:
                copy.write(some)
                sent += some.count("\n")
        if cursor.rowcount < sent:
            _raise_for_others(conn, "drops rows")


def _raise_for_others(conn: Connection, what: str) -> None:
    """Raise Unsuitable with the statements that take away what others put on the table."""
    statements = "; ".join(interference.removals(conn, TABLE.name))
    mend = f"as its owner, or a superuser of PostgreSQL: {statements}" if statements else TO_MAKE_ANEW
    raise Unsuitable(f"{TABLE.name} {what}, and nothing was loaded; {mend}")


@dataclass(frozen=True, slots=True)
class Counts:
    """Rows of the table."""

    networks: int
    with_country: int
    with_provider: int


def replace(conn: Connection, parts: Iterable[Part]) -> Counts:
    """Replace what the files have, in one transaction; return what the table has then. Raises Unsuitable.

    No two parts are about the same, of one version of IP: their networks would overlap.
    """
    parts = list(parts)
    with session.transaction(conn):
        TABLE.ensure(conn)
        conn.execute(LOCK)
        try:
            for part in parts:
                _make_room(conn, part)
            for part in parts:
                _copy(conn, part)
        except errors.ObjectNotInPrerequisiteState as error:  # it has no key: a publication could not say which row
            mend = "as its owner: ALTER TABLE networks REPLICA IDENTITY FULL"
            raise Unsuitable(f"{session.message(error)}; {mend}") from error
        except NOT_AS_MADE as error:
            raise Unsuitable(f"{session.message(error)}; {TO_MAKE_ANEW}") from error
        counts = Counts(*(conn.execute(COUNTS).fetchone() or (0, 0, 0)))
    with contextlib.suppress(psycopg.Error):  # all is stored: what this role may not do, autovacuum does later
        conn.execute("VACUUM ANALYZE networks")
    return counts
