"""How far each log file has been stored: rows of log_positions, moved in the transaction that stores the lines.

A file is recognised by its fingerprint, never by its path or inode: a renamed, copied or restored log keeps its
bytes. The path is kept for people, and to notice that a log was emptied or replaced.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from xraylog.database.session import Connection
from xraylog.records import Fingerprint


class Moved(Exception):
    """Somebody else moved the position that this run started from: nothing of the batch was stored."""


@dataclass(frozen=True, slots=True)
class Position:
    """The place in one log up to which lines are stored, as this run knows it."""

    id: int | None  # of its row; None: no line of this file has been stored
    node_id: int
    source: str  # the log's path, for people
    found_as: str  # the path that the row had: another one for a renamed log, or for a copy
    stored: int  # what the row says: bytes
    offset: int  # where this run goes on: 0 for --again
    lost: int | None = None  # how far the file that had this path before was stored
    heads: tuple[bytes, ...] = ()  # digests under which a position in this file can be stored
    newest: int = 0  # the largest id of the rows that were found for it


@dataclass(frozen=True, slots=True)
class Move:
    """Where a position goes, and what its file is recognised by there."""

    position: Position
    offset: int
    fingerprint: Fingerprint


def node_lock(node: str) -> str:
    """Return the name of the lock under which a node's lines and positions are stored."""
    return f"node {node}"


KNOWN = """
    SELECT id, source, position, head_length, head
    FROM log_positions
    WHERE node_id = %(node_id)s AND (source = %(source)s OR head = ANY(%(heads)s::bytea[]))
    ORDER BY position DESC, updated_at DESC
"""

# Once a day is enough to keep the position of a log that is there and unchanged.
STILL_THERE = """
    UPDATE log_positions SET updated_at = now()
    WHERE id = %s AND updated_at < now() - interval '1 day'
"""


# A kill came between the drain and the move of the position. Its old head is no file's any more; were it kept, a
# new log that begins with the same lines would be taken for the old one.
FORGET_DRAINED = """
    DELETE FROM log_positions
    WHERE node_id = %s AND source = %s AND substring(head FOR %s) = %s
"""


def find(
    conn: Connection,
    node_id: int,
    source: str,
    fingerprints: Sequence[Fingerprint],
    predecessor: bytes | None = None,
    size: int | None = None,
) -> Position:
    """Where to go on in the file with these fingerprints, as `look` says; keeps what a run still needs of it.

    `predecessor`: the beginning of the digest that the file had before it was drained. Call it in a transaction that
    holds the node's lock: a dead run's backend may still be committing.
    """
    position = look(conn, node_id, source, fingerprints, size)
    if position.offset:
        conn.execute(STILL_THERE, [position.id])
    elif predecessor:
        conn.execute(FORGET_DRAINED, [node_id, source, len(predecessor), predecessor])
        return Position(None, node_id, source, source, 0, 0)
    return position


def look(
    conn: Connection, node_id: int, source: str, fingerprints: Sequence[Fingerprint], size: int | None = None
) -> Position:
    """Where to go on in the file with these fingerprints: behind the longest position that matches, else at 0.

    `size`: what is longer is a position in another file. Changes nothing.
    """
    heads = tuple(fingerprint.digest for fingerprint in fingerprints)
    rows = conn.execute(KNOWN, {"node_id": node_id, "source": source, "heads": [*heads]}).fetchall()
    newest = max((row[0] for row in rows), default=0)
    for row_id, found_as, position, head_length, head in rows:
        if (size is None or position <= size) and Fingerprint(head_length, head) in fingerprints:
            return Position(row_id, node_id, source, found_as, position, position, heads=heads, newest=newest)
    return replace(_unknown(node_id, source, rows), heads=heads, newest=newest)


def _unknown(node_id: int, source: str, rows: Sequence[tuple[int, str, int, int, bytes]]) -> Position:
    """No position fits the file. One of the same path says what was there before, or that we emptied it."""
    same_path = [row for row in rows if row[1] == source]
    if not same_path:
        return Position(None, node_id, source, source, 0, 0)
    last = max(same_path, key=lambda row: row[0])
    if last[2] == 0:
        return Position(last[0], node_id, source, source, 0, 0)
    return Position(None, node_id, source, source, 0, 0, lost=last[2])


# Conditional: two runs that both believe in the same old position cannot both store what follows it.
MOVE = """
    UPDATE log_positions
    SET source = %(source)s, position = %(offset)s, head_length = %(length)s, head = %(digest)s, updated_at = now()
    WHERE id = %(id)s AND position = %(stored)s
"""

# Not where another run, without a lock in common with ours, has begun with the same lines: a copy, an archive of them,
# or the same pipe. It can be anywhere in them by now: batches are committed by time.
BEGIN = """
    INSERT INTO log_positions (node_id, source, position, head_length, head)
    SELECT %(node_id)s, %(source)s, %(offset)s, %(length)s, %(digest)s
    WHERE NOT EXISTS (
        SELECT FROM log_positions
        WHERE node_id = %(node_id)s
          AND (position = %(offset)s AND head_length = %(length)s AND head = %(digest)s
               OR id > %(newest)s AND head = ANY(%(heads)s::bytea[]))
    )
    RETURNING id
"""


def move(conn: Connection, move: Move) -> Position:
    """Move a position. Raises Moved when its row is not where this run left it."""
    position, offset = move.position, move.offset
    values = {
        "id": position.id,
        "node_id": position.node_id,
        "source": position.source,
        "stored": position.stored,
        "offset": offset,
        "length": move.fingerprint.length,
        "digest": move.fingerprint.digest,
        "heads": [*position.heads],
        "newest": position.newest,
    }
    if position.id is None:
        for (row_id,) in conn.execute(BEGIN, values):
            return replace(position, id=row_id, stored=offset, offset=offset)
        raise Moved(f"{position.source}: expected no position at {offset}, found another run's")
    if conn.execute(MOVE, values).rowcount != 1:
        raise Moved(f"{position.source}: expected its position at {position.stored}, found another run's")
    return replace(position, stored=offset, offset=offset)


FORGET_OLD = """
    DELETE FROM log_positions
    WHERE node_id = %s AND updated_at < now() - interval '1 month' AND id IS DISTINCT FROM %s
"""


def forget_old(conn: Connection, position: Position) -> None:
    """Remove the positions of this node that no run has met for a month, but not this one."""
    conn.execute(FORGET_OLD, [position.node_id, position.id])
