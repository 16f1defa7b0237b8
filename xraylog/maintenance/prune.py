"""Names that no row of `logs` refers to, and how they are removed while other nodes' runs may be at work.

A run commits its names before the rows that use them, so a name that is unused now may be that of a row to come. What
protects that row:

* Names are removed only while no run is in a transaction that stores rows: its node's lock is tried, never waited for.
* A run may stand between its names and its rows, and holds nothing then. Its rows meet the foreign keys: by row, as a
  set, or at ATTACH, the server says that the name is gone, nothing is stored, and the run makes the name again
  (`Loader.load`). It waited for its node's lock meanwhile and has it next, so that is once, not again and again.
* A name that a stored row uses cannot be removed: the same foreign keys refuse it. So a table of names is left alone
  unless every column of `logs` that refers to it has a foreign key that refuses; and also when another table refers
  to it, which may want to keep names that `logs` does not use.
"""

from __future__ import annotations

import time
from array import array
from collections.abc import Iterator, Sequence

from psycopg import errors
from psycopg.sql import SQL, Composed, Identifier

from xraylog.database import deadline, dns_names, positions, schema, session
from xraylog.database.capabilities import Capabilities
from xraylog.database.session import Connection

INDEXED = ("users", "endpoints")  # first: an index of logs finds the rows that use their names
TABLES = [*INDEXED, *(table for table in schema.REFERENCE_TABLES if table not in (*INDEXED, "nodes"))]
BATCH_NAMES = 1_000  # names a transaction: storing runs wait for it
MAX_STATEMENT_TIME = "10s"  # of a transaction that they wait for: a third of what they wait in all
MAX_SCAN_S = 3600  # without a word from the server, which reads all of `logs`
MAX_SECONDS = 60  # for all of them: this run holds its log meanwhile
PAUSE_S = 0.1

# Every column that refers to the table, with a foreign key on logs, or on each partition of PostgreSQL 10.
GUARDED = """
    WITH RECURSIVE part (oid, level) AS (
        SELECT 'logs'::regclass::oid, 0
        UNION ALL
        SELECT inhrelid, level + 1 FROM pg_inherits JOIN part ON part.oid = inhparent
    ), storing AS (
        SELECT part.oid FROM part JOIN pg_class c ON c.oid = part.oid
        WHERE CASE WHEN %(keys_on_parent)s THEN level = 0 ELSE c.relkind <> 'p' END
    )
    SELECT (SELECT bool_and(EXISTS (
                SELECT FROM pg_constraint k
                JOIN pg_attribute a ON a.attrelid = k.conrelid AND k.conkey = ARRAY[a.attnum]
                WHERE k.contype = 'f' AND k.conrelid = storing.oid AND k.confrelid = to_regclass(%(table)s)
                  AND k.confdeltype IN ('a', 'r') AND a.attname = name))
            FROM storing, unnest(%(columns)s::text[]) AS name) IS NOT FALSE,
           (SELECT min(conrelid::regclass::text) FROM pg_constraint
            WHERE contype = 'f' AND confrelid = to_regclass(%(table)s) AND conrelid NOT IN (SELECT oid FROM part))
"""


def remove(conn: Connection) -> Iterator[str]:
    """Remove unused names; yield a message for each table. Reads all of `logs` once for each table."""
    until: float | None = None
    for table in TABLES:
        if reason := _reason_to_leave(conn, table):
            yield f"{table}: no name is removed: {reason}"
            continue
        ids = _unused(conn, table)
        until = until or time.monotonic() + MAX_SECONDS
        removed = _remove(conn, table, ids, until)
        left = f", and {len(ids) - removed} are left for another day" if removed < len(ids) else ""
        if ids:
            yield f"{table}: {removed} names that no row of logs uses are removed{left}"


def _reason_to_leave(conn: Connection, table: str) -> str | None:
    values = {
        "table": table,
        "columns": _columns(table),
        "keys_on_parent": Capabilities.of(conn).keys_on_partitioned,
    }
    with session.transaction(conn):
        ((is_guarded, other),) = conn.execute(GUARDED, values)
    if not is_guarded:
        return f"expected a foreign key on each of logs.{', '.join(_columns(table))} that would refuse it, found none"
    return f"{other} refers to it, too" if other else None


def _columns(table: str) -> list[str]:
    return [column for column, referenced in schema.KEYS.items() if referenced == table]


def _find(table: str, has_dns_names: bool) -> Composed:
    """Return the query for the ids that no row uses. Grouped first, by each of Citus's servers for itself."""
    used = [
        SQL("SELECT l.{0} FROM logs l WHERE l.{0} IS NOT NULL GROUP BY l.{0}").format(Identifier(column))
        for column in _columns(table)
    ]
    if table == "endpoints" and has_dns_names:
        used.append(SQL(dns_names.USED).format())
    return SQL(" EXCEPT ").join([SQL("SELECT id FROM {}").format(Identifier(table)), *used])


def _unused(conn: Connection, table: str) -> Sequence[int]:
    """Return the ids of unused names. There may be millions, at 8 bytes each."""
    ids = array("q")
    with deadline.allow(conn, MAX_SCAN_S), session.transaction(conn), conn.cursor("unused_names") as cursor:
        query = _find(table, dns_names.TABLE.state(conn).is_there)
        conn.execute("SELECT set_config('cursor_tuple_fraction', '1', true)")  # all of it is wanted, not the first rows
        cursor.itersize = 10_000
        cursor.execute(query)
        ids.extend(row[0] for row in cursor)
    return ids


def _remove(conn: Connection, table: str, ids: Sequence[int], until: float) -> int:
    """Remove names until none are left, or the time is over; return how many."""
    removed = done = 0
    while done < len(ids) and time.monotonic() < until:
        try:
            count = _remove_batch(conn, table, list(ids[done : done + BATCH_NAMES]))
        except (errors.ForeignKeyViolation, errors.DeadlockDetected, errors.QueryCanceled):
            break  # a run was faster, or waits for us
        if count is None:
            time.sleep(PAUSE_S)
        else:
            removed, done = removed + count, done + BATCH_NAMES
    return removed


# Without a subquery, which Citus refuses: if a row uses one of them by now, the foreign keys refuse all.
DELETE = "DELETE FROM {} WHERE id = ANY(%s)"


def _remove_batch(conn: Connection, table: str, ids: list[int]) -> int | None:
    """Remove names in one transaction; return None when a run is storing rows."""
    with session.transaction(conn):
        keys = [session.lock_key(positions.node_lock(name)) for (name,) in conn.execute("SELECT name FROM nodes")]
        ((is_free,),) = conn.execute(
            "SELECT coalesce(bool_and(pg_try_advisory_xact_lock(key)), true) FROM unnest(%s::bigint[]) AS key", [keys]
        )
        if not is_free:
            return None
        conn.execute("SELECT set_config('statement_timeout', %s, true)", [MAX_STATEMENT_TIME])
        return conn.execute(SQL(DELETE).format(Identifier(table)), [ids]).rowcount
