"""How many locks a query over all partitions takes, and for how many the server has room."""

from __future__ import annotations

from typing import NamedTuple

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


class LockTable(NamedTuple):
    """The room for locks at a server."""

    per_transaction: int  # max_locks_per_transaction
    sessions: int

    @classmethod
    def of(cls, conn: Connection) -> LockTable:
        """Return that of the server of a session."""
        ((per_transaction, sessions),) = conn.execute(ROOM)
        return cls(per_transaction, sessions)

    def shortage(self, partitions: int, locks: int) -> str | None:
        """Say which setting lets a query over this many partitions take its locks; None where there is room for it."""
        room, needed = self.per_transaction * self.sessions, -(-locks // self.sessions)
        if locks <= room:
            return None
        return (
            f"a query over all of {partitions} partitions takes {locks} locks, and the server has room for {room}: "
            f"ALTER SYSTEM SET max_locks_per_transaction = {needed} (now {self.per_transaction}), and restart it"
        )


def shortage_of_logs(conn: Connection) -> str | None:
    """Say which setting lets a query over all partitions that `logs` has take its locks; None where there is room."""
    ((partitions, locks),) = conn.execute(TAKEN)
    return LockTable.of(conn).shortage(partitions, locks)
