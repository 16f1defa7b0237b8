"""How many locks a query over all partitions takes, and for how many the server has room."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from xraylog.database import schema
from xraylog.database.session import Connection

# What the server promises to each session and each prepared transaction. It has a little more, for its own processes
# and for the sessions beside ours. All who read the same partitions share the entry of each.
ROOM = """
    SELECT current_setting('max_locks_per_transaction')::integer,
           current_setting('max_connections')::integer + current_setting('max_prepared_transactions')::integer
"""
# The planner locks each partition, and each of its indexes, to look at them.
TAKEN = """
    SELECT count(DISTINCT i.inhrelid), count(DISTINCT i.inhrelid) + count(x.indexrelid)
    FROM pg_inherits i
    LEFT JOIN pg_index x ON x.indrelid = i.inhrelid
    WHERE i.inhparent = to_regclass('logs')
"""


# The locks of one more partition, and the first of the days that always get one: the log is full of them.
OF_ONE_MORE = """
    SELECT 1 + greatest(%s, (SELECT count(*) FROM pg_index WHERE indrelid = 'logs'::regclass)),
           ((now() AT TIME ZONE 'UTC')::date - %s)::text
"""
RECENT_DAYS = 45


class LockTable(NamedTuple):
    """The room for locks at a server."""

    per_transaction: int  # max_locks_per_transaction
    sessions: int

    @classmethod
    def of(cls, conn: Connection) -> LockTable:
        """Return that of the server of a session."""
        ((per_transaction, sessions),) = conn.execute(ROOM)
        return cls(per_transaction, sessions)

    @property
    def room(self) -> int:
        """Return how many locks all sessions together can hold."""
        return self.per_transaction * self.sessions

    def shortage(self, partitions: int, locks: int) -> str | None:
        """Say which setting lets a query over this many partitions take its locks; None where there is room for it."""
        room, needed = self.room, -(-locks // self.sessions)
        if locks <= room:
            return None
        return (
            f"a query over all of {partitions} partitions takes {locks} locks, and the server has room for {room}: "
            f"ALTER SYSTEM SET max_locks_per_transaction = {needed} (now {self.per_transaction}), and restart it"
        )


def shortage_of_logs(conn: Connection) -> str | None:
    """Say which setting lets a query over all partitions that `logs` has take its locks; None where there is room."""
    return LockTable.of(conn).shortage(*taken(conn))


def taken(conn: Connection) -> tuple[int, int]:
    """Return how many partitions `logs` has, and how many locks a query over all of them takes."""
    ((partitions, locks),) = conn.execute(TAKEN)
    return partitions, locks


class Refused(NamedTuple):
    """Days that get no partition, and why."""

    days: list[str]
    shortage: str  # which setting would give them one


def without_room(conn: Connection, days: Sequence[str]) -> Refused | None:
    """Return those of these days, of which each would be a new partition, that a query over all could not lock as well.

    The latest days come first, and recent ones always get their partition: a client can forge old days, and today's
    lines need today's. Call it in a transaction.
    """
    table = LockTable.of(conn)
    ((of_one, recent),) = conn.execute(OF_ONE_MORE, [len(schema.LOGS_INDEXES), RECENT_DAYS])
    partitions, locks = taken(conn)
    old = sorted(day for day in days if day < recent)
    free = (table.room - locks) // of_one - (len(days) - len(old))
    if len(old) <= free:
        return None
    wanted = len(days)
    shortage = table.shortage(partitions + wanted, locks + wanted * of_one)
    return Refused(old[: len(old) - max(0, free)], shortage or "")
