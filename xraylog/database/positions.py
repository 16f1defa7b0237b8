"""How far each log file is stored: rows of log_positions, updated in the transaction that stores the lines.

A file is recognised by its fingerprint, never by its path or inode: a renamed, copied or restored log keeps its
bytes. The path is kept for people, and to notice that a log was emptied or replaced.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from xraylog.database.session import Connection
from xraylog.records import Fingerprint


class PositionConflict(Exception):
    """Another run moved the position that this run started from: nothing of the batch was stored."""


@dataclass(frozen=True, slots=True)
class Position:
    """The place in one log up to which lines are stored, as this run knows it."""

    id: int | None  # of its row; None: no line of this file has been stored
    node_id: int
    source: str  # the log's path, for people
    known_path: str  # the path in the row: another one for a renamed log, or for a copy
    committed_offset: int  # what the row says, bytes
    offset: int  # where this run continues: 0 for --again
    lost_offset: int | None = None  # how far the file that had this path before was stored
    head_digests: tuple[bytes, ...] = ()  # digests under which a position in this file can be stored
    newest_id: int = 0  # the largest id of the rows that were found for it


class PositionUpdate(NamedTuple):
    """Where a position moves to, and the fingerprint of its file there."""

    position: Position
    offset: int
    fingerprint: Fingerprint


def node_lock(node: str) -> str:
    """Return the name of the lock under which a node's lines and positions are stored."""
    return f"node {node}"


SELECT_POSITIONS = """
    SELECT id, source, position, head_length, head
    FROM log_positions
    WHERE node_id = %(node_id)s AND (source = %(source)s OR head = ANY(%(head_digests)s::bytea[]))
    ORDER BY position DESC, updated_at DESC
"""

# Once a day is enough to keep the position of a log that exists and does not change.
TOUCH_POSITION = """
    UPDATE log_positions SET updated_at = now()
    WHERE id = %s AND updated_at < now() - interval '1 day'
"""


# A kill came between the drain and the update of the position. No file has its old head any more; if it were kept, a
# new log that begins with the same lines would be taken for the old one.
DELETE_DRAINED = """
    DELETE FROM log_positions
    WHERE node_id = %s AND source = %s AND substring(head FOR %s) = %s
"""


def find(
    conn: Connection,
    node_id: int,
    source: str,
    fingerprints: Sequence[Fingerprint],
    previous_digest: bytes | None = None,
    size: int | None = None,
) -> Position:
    """Return where to resume in the file with these fingerprints, as `lookup` does, and keep its row alive.

    `previous_digest`: the beginning of the digest that the file had before it was drained. Call it in a transaction
    that holds the node's lock: a dead run's backend may still be committing.
    """
    position = lookup(conn, node_id, source, fingerprints, size)
    if position.offset:
        conn.execute(TOUCH_POSITION, [position.id])
    elif previous_digest:
        conn.execute(DELETE_DRAINED, [node_id, source, len(previous_digest), previous_digest])
        return Position(None, node_id, source, source, 0, 0)
    return position


def lookup(
    conn: Connection, node_id: int, source: str, fingerprints: Sequence[Fingerprint], size: int | None = None
) -> Position:
    """Return where to resume in the file with these fingerprints: after the longest matching position, or 0.

    `size`: a larger position belongs to another file. Changes nothing.
    """
    digests = tuple(fingerprint.digest for fingerprint in fingerprints)
    values = {"node_id": node_id, "source": source, "head_digests": [*digests]}
    rows = conn.execute(SELECT_POSITIONS, values).fetchall()
    newest_id = max((row[0] for row in rows), default=0)
    for row_id, path, offset, head_length, head in rows:
        if (size is None or offset <= size) and Fingerprint(head_length, head) in fingerprints:
            found = Position(row_id, node_id, source, path, offset, offset)
            break
    else:
        found = _unmatched(node_id, source, rows)
    return replace(found, head_digests=digests, newest_id=newest_id)


def _unmatched(node_id: int, source: str, rows: Sequence[tuple[int, str, int, int, bytes]]) -> Position:
    """Return the start of a file that no position matches. The newest row with its path shows what was there before:
    another file, or this one before it was emptied.
    """
    same_path = [row for row in rows if row[1] == source]
    if not same_path:
        return Position(None, node_id, source, source, 0, 0)
    last = max(same_path, key=lambda row: row[0])
    if last[2] == 0:
        return Position(last[0], node_id, source, source, 0, 0)
    return Position(None, node_id, source, source, 0, 0, lost_offset=last[2])


# Conditional: of two runs that start from the same position only one can store the lines after it.
UPDATE_POSITION = """
    UPDATE log_positions
    SET source = %(source)s, position = %(offset)s, head_length = %(length)s, head = %(digest)s, updated_at = now()
    WHERE id = %(id)s AND position = %(committed_offset)s
"""

# Not where another run, without a lock in common with ours, has started with the same lines: a copy, an archive of
# them, or the same pipe. It can be anywhere in them by now: batches are committed by time.
INSERT_POSITION = """
    INSERT INTO log_positions (node_id, source, position, head_length, head)
    SELECT %(node_id)s, %(source)s, %(offset)s, %(length)s, %(digest)s
    WHERE NOT EXISTS (
        SELECT FROM log_positions
        WHERE node_id = %(node_id)s
          AND (position = %(offset)s AND head_length = %(length)s AND head = %(digest)s
               OR id > %(newest_id)s AND head = ANY(%(head_digests)s::bytea[]))
    )
    RETURNING id
"""


def move(conn: Connection, update: PositionUpdate) -> Position:
    """Move a position and return it. Raises PositionConflict when its row is not where this run left it."""
    position, offset = update.position, update.offset
    values = {
        "id": position.id,
        "node_id": position.node_id,
        "source": position.source,
        "committed_offset": position.committed_offset,
        "offset": offset,
        "length": update.fingerprint.length,
        "digest": update.fingerprint.digest,
        "head_digests": [*position.head_digests],
        "newest_id": position.newest_id,
    }
    if position.id is None:
        for (row_id,) in conn.execute(INSERT_POSITION, values):
            return replace(position, id=row_id, committed_offset=offset, offset=offset)
        raise PositionConflict(f"{position.source}: expected no position at {offset}, found another run's")
    if conn.execute(UPDATE_POSITION, values).rowcount != 1:
        expected = f"expected its position at {position.committed_offset}, found another run's"
        raise PositionConflict(f"{position.source}: {expected}")
    return replace(position, committed_offset=offset, offset=offset)


DELETE_OLD = """
    DELETE FROM log_positions
    WHERE node_id = %s AND updated_at < now() - interval '1 month' AND id IS DISTINCT FROM %s
"""


def forget_old(conn: Connection, position: Position) -> None:
    """Delete the positions of this node that no run has found for a month, except this one."""
    conn.execute(DELETE_OLD, [position.node_id, position.id])
