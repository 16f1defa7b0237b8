"""Find what is older than `[retention] days`: partitions of `logs`, unparsed lines, names of addresses.

A partition is expired if its upper bound in the catalog is not after the cutoff, the first moment that is kept. Nothing
here changes the database.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import Enum

from xraylog.database import detach, dns_names, markers, schema, session
from xraylog.database.session import Connection


class Stage(Enum):
    """How far the removal of a table is."""

    ATTACHED = "a partition"
    PENDING = "half detached"
    DETACHED = "detached"


@dataclass(frozen=True, slots=True)
class ExpiredTable:
    """A table that is to be dropped."""

    oid: int
    name: str  # quoted, with the schema if needed
    bounds: str  # as the catalog writes them, in UTC; empty for a detached table, which has none
    stage: Stage
    owner: str  # a role, quoted
    is_ours: bool  # this role may drop it
    is_foreign: bool  # it is a foreign table, or has one among its own partitions

    def __str__(self) -> str:
        return f"{self.name} ({self.bounds or 'detached before'})"


# Uses the earlier of two clocks, ours and the server's: one that is fast must not empty the database.
CUTOFF = """
    SELECT (date_trunc('day', least(%s, now()) AT TIME ZONE 'UTC') - make_interval(days => %s)) AT TIME ZONE 'UTC'
"""

# DEFAULT and MAXVALUE give no upper bound, so such partitions never expire. A lower bound of MINVALUE does not matter.
# A pending partition without our comment is left to the session that detaches it.
EXPIRED = """
    WITH RECURSIVE direct AS (
        SELECT c.oid, c.relowner, pg_get_expr(c.relpartbound, c.oid) AS bounds,
               coalesce((to_jsonb(i) ->> 'inhdetachpending')::boolean, false) AS is_pending,
               coalesce(obj_description(c.oid, 'pg_class') = %(mark)s, false) AS is_marked
        FROM pg_inherits i
        JOIN pg_class c ON c.oid = i.inhrelid
        WHERE i.inhparent = 'logs'::regclass AND (%(oid)s::oid IS NULL OR c.oid = %(oid)s::oid)
    ), expired AS (
        SELECT * FROM direct
        WHERE substring(bounds FROM 'TO \\(''([^'']*)''\\)')::timestamptz <= %(cutoff)s
          AND (is_marked OR NOT is_pending)
    ), part (root, oid) AS (
        SELECT oid, oid FROM expired
        UNION ALL
        SELECT root, inhrelid FROM pg_inherits JOIN part ON part.oid = inhparent
    )
    SELECT oid, oid::regclass::text, replace(bounds, 'FOR VALUES ', ''), is_pending,
           quote_ident(pg_get_userbyid(relowner)), pg_has_role(relowner, 'USAGE'),
           EXISTS (SELECT FROM part JOIN pg_class c ON c.oid = part.oid WHERE root = expired.oid AND c.relkind = 'f')
    FROM expired
    ORDER BY is_pending DESC, substring(bounds FROM 'TO \\(''([^'']*)''\\)')::timestamptz
"""


def tables(conn: Connection, days: int, now: datetime) -> list[ExpiredTable]:
    """Return the tables that a run at `now` would drop, the oldest first. Changes nothing."""
    with session.transaction(conn):
        if reason_to_wait(conn) is not None:
            return []
        return tables_before(conn, cutoff_at(conn, days, now))


def count_unparsed_lines(conn: Connection, days: int, now: datetime) -> int:
    """Return how many unparsed lines a run at `now` would remove. Changes nothing."""
    with session.transaction(conn):
        if reason_to_wait(conn) is not None:
            return 0
        ((count,),) = conn.execute(
            "SELECT count(*) FROM rejected_lines WHERE rejected_at < %s", [cutoff_at(conn, days, now)]
        )
        return int(count)


def count_dns_names(conn: Connection, days: int, now: datetime) -> int:
    """Return how many names of addresses a run at `now` would remove. Changes nothing."""
    with session.transaction(conn):
        return 0 if reason_to_wait(conn) is not None else dns_names.expired(conn, cutoff_at(conn, days, now))


def reason_to_wait(conn: Connection) -> str | None:
    """Return why nothing may be dropped from `logs` now; None if it may. Call it in a transaction."""
    found = schema.inspect(conn)
    if found.misfits:
        return found.misfits[0]
    if "logs" not in found.tables or "rejected_lines" not in found.tables:
        return "the tables do not exist yet"
    if found.has_old:
        return "logs_old of a migration still exists, and has to be compared with logs before anything is dropped"
    return None


def cutoff_at(conn: Connection, days: int, now: datetime) -> datetime:
    """Return the start of the UTC day that is `days` days before that of `now`. Call it in a transaction."""
    ((moment,),) = conn.execute(CUTOFF, [now, days])
    return moment  # type: ignore[no-any-return]


def tables_before(conn: Connection, cutoff: datetime, oid: int | None = None) -> list[ExpiredTable]:
    """Return the tables that killed runs left detached, then the expired partitions: all, or the one of this oid."""
    found = [
        ExpiredTable(oid, name, bounds, Stage.PENDING if pending else Stage.ATTACHED, owner, ours, foreign)
        for oid, name, bounds, pending, owner, ours, foreign in conn.execute(
            EXPIRED, {"cutoff": cutoff, "mark": markers.EXPIRED, "oid": oid}
        )
    ]
    detached = [
        ExpiredTable(table.oid, table.sql, bounds="", stage=Stage.DETACHED, owner="", is_ours=True, is_foreign=False)
        for table in detach.pending_drops(conn)
        if not table.is_pending
    ]
    return detached + found
