"""Sessions of dead runs with open transactions: the next run of the node ends them, or reports them.

A run that was killed, or that gave up waiting, leaves a session whose process may be frozen, or wait for a standby. It
holds the lock of its node, new names, or the lock on partitions.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass

from psycopg import errors
from psycopg.sql import SQL

from xraylog.database import positions, session
from xraylog.database.capabilities import Capabilities
from xraylog.database.session import Connection, Unavailable

END_S = 5.0  # for a session to end after its SIGTERM
PAUSE_S = 0.05
COPY_PAUSE_S = 1.0  # in which a COPY that is alive moves

# A bigint is a lock's two halves in pg_locks. What a session does is hidden from other roles.
HOLDERS = """
    SELECT DISTINCT a.pid, a.usename::text, a.usename = session_user,
           extract(epoch FROM clock_timestamp() - a.state_change)::float8, {copied}
    FROM pg_locks l
    JOIN pg_stat_activity a ON a.pid = l.pid
    WHERE l.locktype = 'advisory' AND l.granted AND l.pid <> pg_backend_pid()
      AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
      AND (l.classid::bigint << 32) | l.objid::bigint = ANY(%s) AND l.objsubid = 1
    ORDER BY a.pid
"""
COPIED = "(SELECT bytes_processed FROM pg_catalog.pg_stat_progress_copy p WHERE p.pid = a.pid)"
TERMINATE = "SELECT pg_terminate_backend(%s)"


@dataclass(frozen=True, slots=True)
class Holder:
    """A session that holds a lock, as far as this role can see it."""

    pid: int
    role: str
    is_own: bool  # of our own role
    silent_s: float | None  # since its last statement began or ended; None: hidden
    copied: int | None  # bytes of the COPY that it is in

    def is_dead(self, timeout_s: float) -> bool:
        """Return whether its run must have given up: a run waits no longer than `timeout_s`."""
        return self.silent_s is not None and self.silent_s > timeout_s

    def __str__(self) -> str:
        silent = "" if self.silent_s is None else f", which has not moved for {self.silent_s:.0f} s"
        return f"process {self.pid} of the server, a session of role {self.role}{silent}"


def holders(conn: Connection, *locks: str) -> list[Holder]:
    """Return the other sessions that hold one of these advisory locks."""
    copied = COPIED if Capabilities.of(conn).copy_progress else "NULL::bigint"
    query = SQL(HOLDERS).format(copied=SQL(copied))
    found = session.answer(conn, query, [[*map(session.lock_key, locks)]])
    return list({row[0]: Holder(*row) for row in found}.values())


def locks_of(node: str) -> tuple[str, str]:
    """Return the names of the locks that mark the sessions of a node's runs."""
    return session.run_mark(node), positions.node_lock(node)


def find(conn: Connection, node: str, timeout_s: float) -> list[Holder]:
    """Return the dead sessions of this node."""
    return _dead_ones(conn, node, holders(conn, *locks_of(node)), timeout_s)


def _dead_ones(conn: Connection, node: str, found: list[Holder], timeout_s: float) -> list[Holder]:
    """Return those sessions that have been silent for longer than a run waits, except a COPY whose bytes move."""
    dead = [holder for holder in found if holder.is_dead(timeout_s)]
    if any(holder.copied is not None for holder in dead):
        time.sleep(COPY_PAUSE_S)
        copied = {holder.pid: holder.copied for holder in holders(conn, *locks_of(node))}
        dead = [holder for holder in dead if holder.pid in copied and copied[holder.pid] == holder.copied]
    return dead


def end(conn: Connection, node: str, timeout_s: float) -> Iterator[str]:
    """End the dead sessions of this role and node, and yield a message for each; afterwards the node's lock is free.

    Raises Unavailable, which names the sessions that keep the lock.
    """
    found = holders(conn, *locks_of(node))
    for holder in _dead_ones(conn, node, found, timeout_s):
        if not holder.is_own:
            continue
        with session.transaction(conn):
            conn.execute(TERMINATE, [holder.pid])
        if not _has_ended(conn, node, holder):
            raise Unavailable(
                f"{holder}, is dead, keeps the locks of node {node}, and does not end; "
                f"if it is frozen, on the server's machine: kill -CONT {holder.pid}"
            )
        yield f"{holder}, kept the locks of node {node}: it was dead, and has been ended"
    if found and holders(conn, positions.node_lock(node)):
        _wait(conn, node)


def _has_ended(conn: Connection, node: str, ended: Holder) -> bool:
    until = time.monotonic() + END_S
    while any(holder.pid == ended.pid for holder in holders(conn, *locks_of(node))):
        if time.monotonic() > until:
            return False
        time.sleep(PAUSE_S)
    return True


def _wait(conn: Connection, node: str) -> None:
    """Wait for sessions that may be alive, or that this role may not end."""
    lock = positions.node_lock(node)
    try:
        with session.transaction(conn, lock):
            pass
    except errors.LockNotAvailable as error:
        found = holders(conn, lock)
        names = "; ".join(map(str, found)) or "a session that has ended since"
        remedy = "; ".join(f"SELECT pg_terminate_backend({holder.pid})" for holder in found)
        raise Unavailable(f"the lock of node {node} is held by {names}; to end it: {remedy}") from error
