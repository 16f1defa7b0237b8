"""Remove what is older than `[retention] days`: partitions of `logs`, unparsed lines, and unused names.

`expired` finds what is too old, `drop_table` drops one table, `prune` removes names. An error in one part does not stop
the others: all errors are reported at the end.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime

import psycopg
from psycopg import errors

from xraylog.database import dns_names, interference, partitions, session
from xraylog.database.session import Connection, Unavailable, Unsuitable
from xraylog.maintenance import drop_table, expired, prune
from xraylog.maintenance.expired import ExpiredTable

MAX_ATTEMPTS = 5  # to read the catalog while other sessions drop days, each in milliseconds
MAX_DROPPING_S = 60  # dropping thousands of forged days would delay the next lines by a quarter of an hour
AS_OWNER = "as their owner, or a superuser of PostgreSQL: "
CHUNK_ROWS = 10_000  # deleted in one transaction
NAMES = "unused names"
GRANTS = {  # what this role needs for each part, in addition to owning the tables that are dropped
    "rejected_lines": ("SELECT, DELETE ON rejected_lines",),
    "dns_names": ("SELECT, DELETE ON dns_names",),
    NAMES: (f"SELECT, DELETE ON {', '.join(prune.TABLES)}", "SELECT ON logs, nodes"),
}


def enforce(conn: Connection, days: int, now: datetime, prune_names: bool) -> Iterator[str]:
    """Drop what has expired; yield a message for each thing done.

    Raises Unavailable if other sessions hold locks for too long; and, at the end, Unsuitable with what there is to fix.
    """
    reason, cutoff, found = _read_state(conn, days, now)
    if reason is not None:
        yield f"nothing old is dropped: {reason}"
        return
    trouble = list(_not_ours(conn, found))
    dropped, deadline = 0, time.monotonic() + MAX_DROPPING_S
    for number, table in enumerate(found):
        if dropped and time.monotonic() > deadline:
            yield f"{len(found) - number} more tables from before {cutoff:%Y-%m-%d} are left for the next runs"
            prune_names = False  # it reads all of logs, so only the run that drops the last table does it
            break
        if table.is_foreign:
            yield f"{table}: is a foreign table, or has one in it, and is not dropped"
        elif table.is_ours:
            with _collect_errors(conn, table.name, trouble, table.oid):
                if drop_table.drop(conn, table, cutoff):
                    dropped += 1
                    yield f"{table} is dropped: rows from before {cutoff:%Y-%m-%d} are not kept"
    with _collect_errors(conn, "rejected_lines", trouble):
        if removed := _remove_rejected(conn, cutoff):
            yield f"rejected_lines: {removed} lines from before {cutoff:%Y-%m-%d} are removed"
    with _collect_errors(conn, "dns_names", trouble):
        if removed := _remove_dns_names(conn, cutoff):
            yield f"dns_names: {removed} names from before {cutoff:%Y-%m-%d} are removed"
    if dropped and prune_names:
        with _collect_errors(conn, NAMES, trouble):
            # While prune reads all of logs, no partition could be created.
            partitions.Partitions(conn).ensure([f"{now:%Y-%m-%d}"])
            yield from prune.remove(conn)
    if trouble:
        raise Unsuitable("; ".join(trouble))


def _read_state(conn: Connection, days: int, now: datetime) -> tuple[str | None, datetime, list[ExpiredTable]]:
    """Return why nothing may be dropped (or None), the first moment that is kept, and the expired tables.

    Tries again if another session drops a table meanwhile, because pg_get_expr of PostgreSQL 10 then raises an internal
    error.
    """

    def read() -> tuple[str | None, datetime, list[ExpiredTable]]:
        with session.transaction(conn):
            reason = expired.reason_to_wait(conn)
            cutoff = expired.cutoff_at(conn, days, now)
            return reason, cutoff, expired.tables_before(conn, cutoff) if reason is None else []

    for _ in range(MAX_ATTEMPTS - 1):
        with contextlib.suppress(errors.InternalError_):
            return read()
    return read()


@contextlib.contextmanager
def _collect_errors(conn: Connection, what: str, trouble: list[str], oid: int | None = None) -> Iterator[None]:
    """Add an error in the block to `trouble`, so that it does not stop the rest; raise Unavailable for a temporary one.

    `what`: where it happened, for the message. `oid`: of the table to be dropped, if it is one.
    """
    try:
        yield
    except Unsuitable as error:
        trouble.append(str(error))
    except psycopg.Error as error:
        message = f"{what}: {session.message(error)}"
        if conn.broken or session.is_temporary(error):
            raise Unavailable(message) from error
        with session.transaction(conn):
            statements = interference.culprits(conn, error)
            if oid is not None and isinstance(error, errors.DependentObjectsStillExist):
                statements += interference.dependents(conn, [oid])
            if isinstance(error, errors.InsufficientPrivilege):
                ((role,),) = conn.execute("SELECT quote_ident(current_user)")
                statements += [f"GRANT {right} TO {role}" for right in GRANTS.get(what, ())]
        way_out = f"{AS_OWNER}{'; '.join(statements)}" if statements else ""
        detail = (error.diag.message_detail or "").replace("\n", ", ")
        trouble.append("; ".join(filter(None, (message, detail, way_out))))


def _not_ours(conn: Connection, found: Iterable[ExpiredTable]) -> Iterator[str]:
    """Yield a complaint for each other role that owns expired tables."""
    tables: dict[str, list[str]] = {}
    for table in found:
        if not table.is_ours:
            tables.setdefault(table.owner, []).append(table.name)
    for owner, names in tables.items():
        ((role,),) = conn.execute("SELECT quote_ident(current_user)")
        more = f" and {len(names) - 1} more" if len(names) > 1 else ""
        yield (
            f"{names[0]}{more}: expected tables that {role} may drop, found those of {owner}; "
            f"ALTER TABLE … OWNER TO {role}, or GRANT {owner} TO {role}"
        )


OLD_REJECTED = "SELECT count(*) FROM rejected_lines WHERE rejected_at < %s"
# By ctid, because a table created by hand may have no id.
REMOVE_REJECTED = """
    DELETE FROM rejected_lines
    WHERE ctid = ANY(ARRAY(SELECT ctid FROM rejected_lines WHERE rejected_at < %s LIMIT %s))
"""


def _remove_rejected(conn: Connection, cutoff: datetime) -> int:
    def count() -> int:
        ((number,),) = conn.execute(OLD_REJECTED, [cutoff])
        return int(number)

    return _remove_chunks(
        conn, "rejected_lines", count, lambda limit: conn.execute(REMOVE_REJECTED, [cutoff, limit]).rowcount
    )


def _remove_dns_names(conn: Connection, cutoff: datetime) -> int:
    with session.transaction(conn):
        if not dns_names.expired(conn, cutoff):  # the table may not exist
            return 0
    return _remove_chunks(
        conn, "dns_names", lambda: dns_names.expired(conn, cutoff), lambda limit: dns_names.remove(conn, cutoff, limit)
    )


def _remove_chunks(conn: Connection, table: str, count: Callable[[], int], remove: Callable[[int], int]) -> int:
    """Delete rows, a limited number in each transaction, which so holds locks only briefly; return how many.

    No more than there are at first: a trigger may insert again what is deleted. Raises Unsuitable if a trigger or a
    rule keeps rows. `count`: returns how many are still there.
    """
    with session.transaction(conn):
        found = count()
    removed, deleted = 0, CHUNK_ROWS
    while deleted == CHUNK_ROWS and removed <= found:  # at least once: a right that is missing is reported in time
        with session.transaction(conn):
            removed += (deleted := remove(CHUNK_ROWS))
    if found:
        with session.transaction(conn):
            if (left := count()) and (statements := interference.removals(conn, table)):
                raise Unsuitable(
                    f"{table} keeps {left} rows that are older than [retention] days; {AS_OWNER}{'; '.join(statements)}"
                )
    return removed
