"""Remove names that no row of `logs` refers to, while other nodes' runs may store rows.

A run commits its names before the rows that use them, so a name that is unused now may belong to a row that is stored
next. This is safe because:

* Names are removed only while no run is in a transaction that stores rows. For that, we try to take the locks of all
  nodes, and do not wait for them.
* A run that has committed its names, but not yet its rows, holds no lock. If its name is removed, a foreign key refuses
  its rows, on each load path. Then nothing is stored, and the run recreates the name (`Loader.load`). This happens at
  most once, because the run waits for its node's lock meanwhile, and gets it next.
* A name that a stored row uses cannot be removed, because the same foreign keys refuse that. So a reference table is
  skipped unless each column of `logs` that refers to it has such a foreign key. It is also skipped if another table
  refers to it, which may need names that `logs` does not use.
"""

from __future__ import annotations

import time
from array import array
from collections.abc import Iterator, Sequence

from psycopg import errors
from psycopg.sql import SQL, Composed, Identifier

from xraylog.database import ddl, deadline, dns_names, positions, session
from xraylog.database.capabilities import Capabilities
from xraylog.database.session import Connection

INDEXED = ("users", "endpoints")  # first, because logs has indexes on these ids, which make each DELETE fast
TABLES = [*INDEXED, *(table for table in ddl.REFERENCE_TABLES if table not in (*INDEXED, "nodes"))]
BATCH_NAMES = 1_000  # in one transaction, for which runs that store rows wait
MAX_STATEMENT_TIME = "10s"  # of that transaction: a third of the longest time that such a run waits
MAX_SCAN_S = 3600  # for a query that reads all of `logs`, and gets no answer before
MAX_SECONDS = 60  # for all tables, because this run holds the lock of its log meanwhile
PAUSE_S = 0.1  # between two attempts to take the locks of all nodes

# Whether each column that refers to the table has a foreign key that refuses a DELETE: on logs, or, on PostgreSQL 10,
# on each partition. Then the first other table that refers to it.
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
    """Remove unused names; yield a message for each table that had some or was skipped. Reads `logs` once a table."""
    until: float | None = None
    for table in TABLES:
        if reason := _reason_to_skip(conn, table):
            yield f"{table}: no name is removed: {reason}"
            continue
        ids = _unused(conn, table)
        until = until or time.monotonic() + MAX_SECONDS
        removed = _remove(conn, table, ids, until)
        left = f", and {len(ids) - removed} are left for another day" if removed < len(ids) else ""
        if ids:
            yield f"{table}: {removed} names that no row of logs uses are removed{left}"


def _reason_to_skip(conn: Connection, table: str) -> str | None:
    values = {
        "table": table,
        "columns": _columns(table),
        "keys_on_parent": Capabilities.of(conn).keys_on_partitioned,
    }
    with session.transaction(conn):
        ((is_guarded, other),) = conn.execute(GUARDED, values)
    if not is_guarded:
        return f"expected a foreign key on each of logs.{', '.join(_columns(table))} that keeps used names, found none"
    return f"{other} refers to it, too" if other else None


def _columns(table: str) -> list[str]:
    return [column for column, referenced in ddl.KEYS.items() if referenced == table]


def _find(table: str, has_dns_names: bool) -> Composed:
    """Return the query for the ids that no row uses. It groups first, which each server of Citus does for its rows."""
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
        conn.execute("SELECT set_config('cursor_tuple_fraction', '1', true)")  # plan for all rows, not for the first
        cursor.itersize = 10_000
        cursor.execute(query)
        ids.extend(row[0] for row in cursor)
    return ids


def _remove(conn: Connection, table: str, ids: Sequence[int], until: float) -> int:
    """Remove names until none are left or the time is over; return how many were removed."""
    removed = done = 0
    while done < len(ids) and time.monotonic() < until:
        try:
            count = _remove_batch(conn, table, list(ids[done : done + BATCH_NAMES]))
        except (errors.ForeignKeyViolation, errors.DeadlockDetected, errors.QueryCanceled):
            break  # a run has used a name meanwhile, or waits for us
        if count is None:
            time.sleep(PAUSE_S)
        else:
            removed, done = removed + count, done + BATCH_NAMES
    return removed


# It has no subquery that looks for used names, because Citus refuses that. If a row uses one of these names by now, a
# foreign key refuses the whole statement.
DELETE = "DELETE FROM {} WHERE id = ANY(%s)"


def _remove_batch(conn: Connection, table: str, ids: list[int]) -> int | None:
    """Remove names in one transaction; return how many, or None if a run is storing rows."""
    with session.transaction(conn):
        keys = [session.lock_key(positions.node_lock(name)) for (name,) in conn.execute("SELECT name FROM nodes")]
        ((is_free,),) = conn.execute(
            "SELECT coalesce(bool_and(pg_try_advisory_xact_lock(key)), true) FROM unnest(%s::bigint[]) AS key", [keys]
        )
        if not is_free:
            return None
        conn.execute("SELECT set_config('statement_timeout', %s, true)", [MAX_STATEMENT_TIME])
        return conn.execute(SQL(DELETE).format(Identifier(table)), [ids]).rowcount
