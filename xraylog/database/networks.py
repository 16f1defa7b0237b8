"""Fill the table `networks`: which country and provider a network has. It exists only if the operator loaded a file.

Networks with a country do not overlap, and neither do those with a provider. So the network of an address is the last
one that does not begin after it, which a B-tree finds. That takes 0.02 ms, where GiST took 3.4 ms
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
LOCK = "LOCK TABLE networks IN SHARE ROW EXCLUSIVE MODE"  # one load at a time, and the table can be read meanwhile
# A file with countries replaces the countries of its versions of IP, one with providers the providers.
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
REPLACED_ROWS_EXIST = """
    SELECT EXISTS (SELECT 1 FROM networks
                   WHERE family(network) = ANY (%s)
                     AND (country IS NOT NULL AND %s OR provider IS NOT NULL AND %s
                          OR country IS NULL AND provider IS NULL))
"""
# Files are checked before they are sent, so these errors mean that the operator has changed the table.
TABLE_CHANGED = (
    errors.IntegrityError,
    errors.StringDataRightTruncation,
    errors.UndefinedFunction,
    errors.DatatypeMismatch,
)
TO_RECREATE = "as its owner: DROP TABLE networks; then the next load recreates it"
COUNTS = "SELECT count(*), count(country), count(provider) FROM networks"


@dataclass(frozen=True, slots=True)
class Part:
    """The content of one file, which replaces countries or providers of the same versions of IP."""

    rows: Iterable[str]  # chunks of rows as COPY reads them
    has_country: bool
    has_provider: bool
    versions: frozenset[int]

    @property
    def replacements(self) -> tuple[str, ...]:
        """Return the statements that delete what the file replaces."""
        if self.has_country and self.has_provider:
            return REPLACE_ALL
        return REPLACE_COUNTRY if self.has_country else REPLACE_PROVIDER


def _delete_replaced(conn: Connection, part: Part) -> None:
    for statement in part.replacements:
        conn.execute(statement, [sorted(part.versions)])
    ((exist,),) = conn.execute(REPLACED_ROWS_EXIST, [sorted(part.versions), part.has_country, part.has_provider])
    if exist:
        _raise_interference(conn, "keeps rows that are to be replaced")


def _copy(conn: Connection, part: Part) -> None:
    sent = 0
    with conn.cursor() as cursor:
        with cursor.copy(COPY) as copy:
            for chunk in part.rows:
                copy.write(chunk)
                sent += chunk.count("\n")
        if cursor.rowcount < sent:
            _raise_interference(conn, "drops rows")


def _raise_interference(conn: Connection, what: str) -> None:
    """Raise Unsuitable with the statements that remove the triggers, rules and policies on the table."""
    statements = "; ".join(interference.removals(conn, TABLE.name))
    way_out = f"as its owner, or a superuser of PostgreSQL: {statements}" if statements else TO_RECREATE
    raise Unsuitable(f"{TABLE.name} {what}, and nothing was loaded; {way_out}")


@dataclass(frozen=True, slots=True)
class Counts:
    """The number of rows of the table."""

    networks: int
    with_country: int
    with_provider: int


def replace(conn: Connection, parts: Iterable[Part]) -> Counts:
    """Replace what the parts have, in one transaction; return how many rows the table has then. Raises Unsuitable.

    No two parts may have countries, or providers, of the same version of IP, because their networks could overlap.
    """
    parts = list(parts)
    with session.transaction(conn):
        TABLE.ensure(conn)
        conn.execute(LOCK)
        try:
            for part in parts:
                _delete_replaced(conn, part)
            for part in parts:
                _copy(conn, part)
        except errors.ObjectNotInPrerequisiteState as error:  # a publication needs a key to replicate a DELETE
            way_out = "as its owner: ALTER TABLE networks REPLICA IDENTITY FULL"
            raise Unsuitable(f"{session.message(error)}; {way_out}") from error
        except TABLE_CHANGED as error:
            raise Unsuitable(f"{session.message(error)}; {TO_RECREATE}") from error
        counts = Counts(*(conn.execute(COUNTS).fetchone() or (0, 0, 0)))
    with contextlib.suppress(psycopg.Error):  # all is stored; if this role may not, autovacuum does it later
        conn.execute("VACUUM ANALYZE networks")
    return counts
