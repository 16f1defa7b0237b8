"""How far each log is stored: rows of log_positions, updated in the transaction that stores the lines.

A log is recognised by its fingerprint, never by path or inode, because a renamed, copied or restored log keeps its
bytes. The path is kept for people, and to notice that a log was emptied or replaced.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, TypeAlias

from xraylog.database import interference
from xraylog.database.session import Connection, Unsuitable
from xraylog.records import Fingerprint, Origin


class Owner(NamedTuple):
    """The installation that stores lines, with positions of its own: a copied machine has the same node and paths."""

    id: bytes | None = None  # None: all positions belong to it
    is_new: bool = True  # it has stored nothing, or lost its state: it resumes where the node was


ANYBODY = Owner()
# Returns the digest of the log's text before an offset; None for an archive, for which it is not computed.
TailAt: TypeAlias = Callable[[int], "bytes | None"]
NO_TEXT = b""  # returned if the log no longer has that text
UNKNOWN_SIZE = 1 << 62  # of a file that a buffered batch is from


class Range(NamedTuple):
    """A stored range of a log with a gap before it: the lines in the gap were not available."""

    id: int  # of the row
    start: int
    end: int


class PositionConflict(Exception):
    """Another run has moved the position that this run started from: nothing of the batch was stored."""


@dataclass(frozen=True, slots=True)
class Position:
    """The place in a log up to which lines are stored, as this run knows it."""

    id: int | None  # of its row; None: it has no row yet
    node_id: int
    source: str  # the path of the log, for people
    known_path: str  # the path in the row, which differs if the log was renamed or copied
    committed_offset: int  # the offset in the row, bytes
    offset: int  # where this run continues: 0 for --again
    lost_offset: int | None = None  # how far another file, which had this path before, was stored
    head_digests: tuple[bytes, ...] = ()  # digests of the fingerprints that a position in this log can have
    newest_id: int = 0  # the largest id of the rows that were found for it
    stored_from: int = 0  # the offset from which on lines are stored: not 0 after a gap
    later: tuple[Range, ...] = ()  # the stored ranges after `offset`, in the order of the file
    owner: bytes | None = None  # the installation
    others: tuple[tuple[int, int], ...] = ()  # id and offset of other installations' rows with the same beginning

    @classmethod
    def start(cls, node_id: int, source: str, owner: Owner = ANYBODY) -> Position:
        """Return the beginning of a log of which nothing is stored: it has no row yet."""
        return cls(None, node_id, source, source, 0, 0, owner=owner.id)

    def after(self, offset: int) -> Position:
        """Return the position that storing lines from `offset` on moves: this one, unless a gap comes before them."""
        if offset <= self.offset:
            return self
        for found in self.later:
            if found.start <= offset <= found.end:
                return replace(self, id=found.id, committed_offset=found.end, offset=found.end, stored_from=found.start)
        return replace(self, id=None, committed_offset=0, offset=offset, stored_from=offset)

    def gaps(self, end: int) -> list[tuple[int, int]]:
        """Return the ranges before `end` that are not stored."""
        return [(start, stop) for start, stop in gaps(self.offset, self.later, end) if stop is not None]


class PositionUpdate(NamedTuple):
    """The new offset of a position, and the fingerprint of the log there."""

    position: Position
    offset: int
    fingerprint: Fingerprint
    tail: bytes | None = None  # digest of the text before it; None: not computed


def node_lock(node: str) -> str:
    """Return the name of the advisory lock under which a node's lines and positions are stored."""
    return f"node {node}"


class Row(NamedTuple):
    """One row of log_positions."""

    id: int
    source: str
    position: int
    head_length: int
    head: bytes
    stored_from: int
    tail: bytes | None
    installation: bytes | None  # None: written by an older version; it belongs to any
    is_of_node: bool  # False: of this installation, which had another node name before

    def belongs_to(self, owner: Owner) -> bool:
        """Return whether this installation may move it."""
        return owner.id is None or self.installation is None or self.installation == owner.id

    def is_known(self, owner: Owner, tail_at: TailAt | None) -> bool:
        """Return whether this position, of another installation, is in a copy of the same text as the log."""
        tail = NO_TEXT if tail_at is None else tail_at(self.position)
        return owner.is_new if tail == NO_TEXT else self.tail in (None, tail)

    def is_in_file(self, size: int, tail_at: TailAt | None) -> bool:
        """Return whether a file of this size has this position, and the text before it: another one can begin alike."""
        if self.position > size or self.tail is None or tail_at is None:
            return self.position <= size
        return tail_at(self.position) in (self.tail, NO_TEXT, None)


# The last columns are read via jsonb, because an older database lacks them, and a dry run does not add them.
SELECT_POSITIONS = """
    SELECT id, source, position, head_length, head, coalesce((to_jsonb(p) ->> 'stored_from')::bigint, 0),
           (to_jsonb(p) ->> 'tail')::bytea, (to_jsonb(p) ->> 'installation')::bytea, node_id = %(node_id)s
    FROM log_positions p
    WHERE (source = %(source)s OR head = ANY(%(head_digests)s::bytea[]))
      AND (node_id = %(node_id)s OR %(is_file)s AND (to_jsonb(p) ->> 'installation')::bytea = %(owner)s::bytea)
    ORDER BY position DESC, updated_at DESC
"""

# A new timestamp once a day is enough to keep the position of a log that exists and does not change. But the row is
# written each time: the commit of a dead run may not be on a standby yet, and its lines must not leave the log before
# it is. Our commit waits for both. Two statements, because Citus refuses now() in a CASE. The row is ours from now on:
# once the log is drained, nothing else tells that an installation which has lost its state had recognised it.
TOUCH_OLD = """
    UPDATE log_positions SET updated_at = now(), installation = coalesce(%s::bytea, installation)
    WHERE id = %s AND updated_at < now() - interval '1 day'
"""
TOUCH = """
    UPDATE log_positions SET updated_at = updated_at, installation = coalesce(%s::bytea, installation) WHERE id = %s
"""


# For a run that was killed after the drain and before it updated the position. No file has the old head any more; if
# the row were kept, a new log that begins with the same lines would be taken for the old one.
DELETE_DRAINED = """
    DELETE FROM log_positions
    WHERE node_id = %s AND source = %s AND substring(head FOR %s) = %s
      AND (installation IS NULL OR installation = %s::bytea OR %s)
"""


def find(
    conn: Connection,
    node_id: int,
    origin: Origin,
    *,
    size: int | None = None,
    owner: Owner = ANYBODY,
    tail_at: TailAt | None = None,
    on_delete: Callable[[], None] | None = None,
) -> Position:
    """Return where to resume in a log, like `lookup`, and mark its row as used.

    A row with the digest that the log had before it was drained is deleted, and then `on_delete` is called. Call this
    in a transaction that holds the node's lock, because the session of a dead run may still be committing.
    """
    position = lookup(conn, node_id, origin, size=size, owner=owner, tail_at=tail_at)
    previous_digest = origin.previous_digest
    if position.offset:
        if not conn.execute(TOUCH_OLD, [owner.id, position.id]).rowcount:
            conn.execute(TOUCH, [owner.id, position.id])
    elif previous_digest:
        is_of_any_owner = owner.id is None or owner.is_new
        values = [node_id, origin.source, len(previous_digest), previous_digest, owner.id, is_of_any_owner]
        if conn.execute(DELETE_DRAINED, values).rowcount and on_delete is not None:
            on_delete()
        return Position.start(node_id, origin.source, owner)
    return position


def lookup(
    conn: Connection,
    node_id: int,
    origin: Origin,
    *,
    size: int | None = None,
    owner: Owner = ANYBODY,
    tail_at: TailAt | None = None,
) -> Position:
    """Return where to resume in the log with this origin's fingerprints: after the longest matching position, or 0.

    `size`: of a file, in which a position has to be. `tail_at`: for the log, if it is available: a position of another
    installation counts if it has the same text before it, and is not moved. Changes nothing.
    """
    source, fingerprints = origin.source, origin.fingerprints
    digests = tuple(fingerprint.digest for fingerprint in fingerprints)
    values = {"node_id": node_id, "source": source, "head_digests": [*digests], "owner": owner.id}
    values["is_file"] = size is not None  # an archive may be loaded under another node on purpose
    rows = [Row(*row) for row in conn.execute(SELECT_POSITIONS, values)]
    ours = [row for row in rows if row.is_of_node and (owner.is_new or row.belongs_to(owner))]
    matching = [
        row
        for row in rows
        if Fingerprint(row.head_length, row.head) in fingerprints
        and (size is None or row.is_in_file(size, tail_at))
        and (row.belongs_to(owner) or row.is_known(owner, tail_at))
    ]
    ranges = [Range(row.id, row.stored_from, row.position) for row in matching if row.stored_from and row in ours]
    for row in matching:
        if not row.stored_from:
            row_id, committed = (row.id, row.position) if row in ours else (None, 0)
            found = Position(row_id, node_id, source, row.source, committed, row.position)
            break
    else:
        start = Position.start(node_id, source)
        found = start if ranges else _unmatched(start, [row for row in ours if not row.stored_from])
    newest_id = max((row.id for row in rows), default=0)
    others = tuple((row.id, row.position) for row in rows if row not in matching and not row.belongs_to(owner))
    found = replace(found, head_digests=digests, newest_id=newest_id, owner=owner.id, others=others)
    return _past(found, sorted(ranges, key=lambda found: found[1:]))


def _past(position: Position, ranges: Iterable[Range]) -> Position:
    """Return the position after those stored ranges that follow it without a gap."""
    offset, later = position.offset, []
    for found in ranges:
        if found.start <= offset:
            offset = max(offset, found.end)
        else:
            later.append(found)
    return replace(position, offset=offset, later=tuple(later))


def gaps(offset: int, stored: Iterable[Range], end: int | None) -> Iterator[tuple[int, int | None]]:
    """Yield the ranges from `offset` to `end`, None for the end of the file, that are not in `stored`."""
    for found in stored:
        if end is not None and found.start >= end:
            break
        if offset < found.start:
            yield offset, found.start
        offset = max(offset, found.end)
    if end is None or offset < end:
        yield offset, end


def _unmatched(start: Position, rows: Sequence[Row]) -> Position:
    """Return the start of a log that no position matches, with what is known of its path.

    The newest row with its path shows what was there before: another file, or this one before it was emptied.
    """
    last = max((row for row in rows if row.source == start.source), key=lambda row: row.id, default=None)
    if last is None:
        return start
    return replace(start, lost_offset=last.position) if last.position else replace(start, id=last.id)


# Conditional, so that of two runs that start from the same position only one can store the lines after it.
UPDATE_POSITION = """
    UPDATE log_positions
    SET source = %(source)s, position = %(offset)s, head_length = %(length)s, head = %(digest)s, updated_at = now(),
        tail = %(tail)s::bytea, installation = %(owner)s::bytea
    WHERE id = %(id)s AND position = %(committed_offset)s
"""

# Finds another run, without a lock in common with ours, that has stored the same lines: from a copy, an archive, or the
# same pipe. It can be at any offset by now, because batches are committed by time. Rows of other installations that
# this run found at its start do not count.
OF_ANOTHER_RUN = """
    SELECT 1 FROM log_positions
    WHERE node_id = %(node_id)s
      AND (position = %(offset)s AND head_length = %(length)s AND head = %(digest)s AND id <> ALL(%(others)s::bigint[])
           AND (tail IS NULL OR %(tail)s::bytea IS NULL OR tail = %(tail)s::bytea)
           OR id > %(newest_id)s AND head = ANY(%(head_digests)s::bytea[]))
"""
INSERT_POSITION = f"""
    INSERT INTO log_positions (node_id, source, position, head_length, head, stored_from, tail, installation)
    SELECT %(node_id)s, %(source)s, %(offset)s, %(length)s, %(digest)s, %(stored_from)s, %(tail)s::bytea,
           %(owner)s::bytea
    WHERE NOT EXISTS ({OF_ANOTHER_RUN})
    RETURNING id
"""
UNMOVED = "SELECT 1 FROM log_positions WHERE id = %(id)s AND position = %(committed_offset)s"


INSERT_COPY = """
    INSERT INTO log_positions (node_id, source, position, head_length, head, tail, installation)
    VALUES (%s, %s, %s, %s, %s, %s, %s)
"""


def insert(conn: Connection, update: PositionUpdate) -> None:
    """Insert a position next to those of other installations."""
    at, head = update.position, update.fingerprint
    conn.execute(INSERT_COPY, [at.node_id, at.source, update.offset, *head, update.tail, at.owner])


def move(conn: Connection, update: PositionUpdate) -> Position:
    """Move a position, and return it. Insert its row if it has none.

    Raises PositionConflict if the row is not where this run left it, and Unsuitable if the row cannot be written.
    """
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
        "stored_from": position.stored_from,
        "tail": update.tail,
        "owner": position.owner,
        "others": [number for number, place in position.others if place == offset],
    }
    if position.id is None:
        for (row_id,) in conn.execute(INSERT_POSITION, values):
            return replace(position, id=row_id, committed_offset=offset, offset=offset)
        if conn.execute(OF_ANOTHER_RUN, values).fetchone() is None:
            _raise_if_dropped(conn)
        raise PositionConflict(f"{position.source}: expected no position at {offset}, found another run's")
    if conn.execute(UPDATE_POSITION, values).rowcount != 1:
        if conn.execute(UNMOVED, values).fetchone() is not None:
            _raise_if_dropped(conn)
        expected = f"expected its position at {position.committed_offset}, found another run's"
        raise PositionConflict(f"{position.source}: {expected}")
    return replace(position, committed_offset=offset, offset=offset)


def _raise_if_dropped(conn: Connection) -> None:
    """Raise Unsuitable if a trigger, rule or policy of others can be why no row of log_positions was written."""
    if statements := interference.removals(conn, "log_positions"):
        raise Unsuitable(
            "log_positions does not take how far a log is stored, and nothing of the log was stored; as its owner, or "
            f"a superuser of PostgreSQL: {'; '.join(statements)}"
        )


SELECT_BATCHES = """
    SELECT head FROM log_positions WHERE node_id = %s AND head_length = 0
"""


def batch_position(node_id: int, buffer: str) -> Position:
    """Return the position whose row marks one batch of a buffer as imported: its head is the batch's digest."""
    return Position.start(node_id, buffer)


def imported_batches(conn: Connection, node_id: int) -> set[bytes]:
    """Return the digests of the batches that were imported, from the buffer or from a copy of it."""
    return {digest for (digest,) in conn.execute(SELECT_BATCHES, [node_id])}


SELECT_TEXTS = """
    SELECT position, head_length, head, tail
    FROM log_positions
    WHERE node_id = %s AND source = %s AND stored_from = 0 AND head_length > 0 AND tail IS NOT NULL
    ORDER BY id DESC
    LIMIT 50
"""


def texts(conn: Connection, node_id: int, source: str) -> list[tuple[int, Fingerprint, bytes]]:
    """Return length, beginning and end of the latest stored texts of this source."""
    rows = conn.execute(SELECT_TEXTS, [node_id, source])
    return [(length, Fingerprint(head_length, head), tail) for length, head_length, head, tail in rows]


DELETE_RANGES = """
    DELETE FROM log_positions
    WHERE node_id = %s AND stored_from > 0 AND head = ANY(%s::bytea[])
      AND (installation IS NULL OR %s::bytea IS NULL OR installation = %s::bytea)
"""


def forget_ranges(conn: Connection, position: Position) -> None:
    """Delete the ranges of this log, because the position is past them, or goes back to 0."""
    owner = position.owner
    conn.execute(DELETE_RANGES, [position.node_id, [*position.head_digests], owner, owner])


DELETE_OLD = """
    DELETE FROM log_positions
    WHERE node_id = %s AND updated_at < now() - interval '1 month' AND id IS DISTINCT FROM %s AND stored_from >= 0
"""


def forget_old(conn: Connection, position: Position) -> None:
    """Delete the positions of this node, except this one, that no run has used for a month."""
    conn.execute(DELETE_OLD, [position.node_id, position.id])
