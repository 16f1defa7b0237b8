"""Compare how many locks a query of all partitions takes with how many the server has room for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from xraylog.database import ddl
from xraylog.database.session import Connection

# The locks that the server guarantees to each session and each prepared transaction. It has room for a few more, for
# its own processes. Sessions that read the same partitions share the entries for these.
ROOM = """
    SELECT current_setting('max_locks_per_transaction')::integer,
           current_setting('max_connections')::integer + current_setting('max_prepared_transactions')::integer
"""
# The planner locks each partition and each of its indexes to inspect them.
TAKEN = """
    SELECT count(DISTINCT i.inhrelid), count(DISTINCT i.inhrelid) + count(x.indexrelid)
    FROM pg_inherits i
    LEFT JOIN pg_index x ON x.indrelid = i.inhrelid
    WHERE i.inhparent = to_regclass('logs')
"""


# The locks for one more partition, and the first of the recent days, which always get a partition: most lines are of
# these days.
OF_ONE_MORE = """
    SELECT 1 + greatest(%s, (SELECT count(*) FROM pg_index WHERE indrelid = 'logs'::regclass)),
           ((now() AT TIME ZONE 'UTC')::date - %s)::text
"""
RECENT_DAYS = 45


class LockTable(NamedTuple):
    """The size of a server's lock table."""

    per_transaction: int  # max_locks_per_transaction
    sessions: int

    @classmethod
    def of(cls, conn: Connection) -> LockTable:
        """Return the size for the server of this session."""
        ((per_transaction, sessions),) = conn.execute(ROOM)
        return cls(per_transaction, sessions)

    @property
    def room(self) -> int:
        """Return how many locks all sessions together can hold."""
        return self.per_transaction * self.sessions

    def shortage(self, partitions: int, locks: int) -> str | None:
        """Return which setting has to be raised before a query of this many partitions can take its locks, or None."""
        room, needed = self.room, -(-locks // self.sessions)
        if locks <= room:
            return None
        return (
            f"a query over all of {partitions} partitions takes {locks} locks, and the server has room for {room}: "
            f"ALTER SYSTEM SET max_locks_per_transaction = {needed} (now {self.per_transaction}), and restart it"
        )


def shortage_of_logs(conn: Connection) -> str | None:
    """Return which setting has to be raised before a query of all of `logs` can take its locks; None if none has."""
    return LockTable.of(conn).shortage(*count_locks(conn))


def count_locks(conn: Connection) -> tuple[int, int]:
    """Return how many partitions `logs` has, and how many locks a query of all of them takes."""
    ((partitions, locks),) = conn.execute(TAKEN)
    return partitions, locks


class Refused(NamedTuple):
    """Days that get no partition, and why."""

    days: list[str]
    shortage: str  # which setting has to be raised before they can have one


def days_without_room(conn: Connection, days: Sequence[str]) -> Refused | None:
    """Return which of these new days cannot get a partition, because a query of all could not lock them as well.

    The latest days get theirs first, and recent days always, because a client can forge old dates. Call it in a
    transaction.
    """
    table = LockTable.of(conn)
    ((of_one, recent),) = conn.execute(OF_ONE_MORE, [len(ddl.LOGS_INDEXES), RECENT_DAYS])
    partitions, locks = count_locks(conn)
    old = sorted(day for day in days if day < recent)
    free = (table.room - locks) // of_one - (len(days) - len(old))
    if len(old) <= free:
        return None
    wanted = len(days)
    shortage = table.shortage(partitions + wanted, locks + wanted * of_one)
    return Refused(old[: len(old) - max(0, free)], shortage or "")
