"""Parse unparsed lines again, and move those that are records now from `rejected_lines` into `logs`.

The caller passes the parser as a function. The transaction that stores a batch's records also deletes its lines, so
each line is in exactly one of the tables, even if the run is killed.
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from psycopg import errors
from psycopg.errors import DataError, IntegrityError

from xraylog.database import citus, interference, retry, schema, session
from xraylog.database.references import Resolved
from xraylog.database.session import Connection, Unsuitable
from xraylog.load_result import LoadResult
from xraylog.loading import rejects
from xraylog.loading.loader import Target
from xraylog.records import CUT_REASON, DAY, AccessRecord, BadLine, Ignored, Records

BATCH_BYTES = 8 << 20  # of lines; a longer line is a batch of its own

# Takes a line, and the reason why it was not parsed before.
Parse: TypeAlias = Callable[[bytes, str], AccessRecord | BadLine | Ignored]
ParsedLine: TypeAlias = tuple[int, "AccessRecord | BadLine | Ignored"]  # with the id of the row in rejected_lines
Parsed: TypeAlias = Sequence[ParsedLine]
StillRejected: TypeAlias = list[tuple[int, str]]  # ids of rows that stay in rejected_lines, each with the reason
Moved: TypeAlias = tuple[LoadResult, StillRejected]

COUNTS = """
    SELECT n.id, n.name = %s, count(*), min(r.id), max(r.id)
    FROM rejected_lines r
    LEFT JOIN nodes n ON n.id = r.node_id
    GROUP BY n.id, n.name
"""

# At most `lines` lines of at most `bytes` bytes in total, but at least one line. octet_length does not read the line.
READ = """
    SELECT id, CASE WHEN reason ~ %(cut)s THEN NULL ELSE line::bytea END, coalesce(reason, '')
    FROM (
        SELECT id, reason, line, row_number() OVER by_id AS number, sum(octet_length(line)) OVER by_id AS bytes
        FROM (
            SELECT id, reason, line
            FROM rejected_lines
            WHERE node_id = %(node_id)s AND id BETWEEN %(first)s AND %(last)s
            ORDER BY id
            LIMIT %(lines)s
        ) AS following
        WINDOW by_id AS (ORDER BY id)
    ) AS measured
    WHERE number = 1 OR bytes <= %(bytes)s
    ORDER BY id
"""

# Rows that are not returned were moved by another replay, or removed by hand.
DELETE_LINES = """
    DELETE FROM rejected_lines
    WHERE id = ANY(%s::bigint[])
    RETURNING id
"""
KEPT = "SELECT EXISTS (SELECT 1 FROM rejected_lines WHERE id = ANY(%s::bigint[]))"


@dataclass(frozen=True, slots=True)
class Pending:
    """The unparsed lines of this node, and how many other nodes have."""

    node_id: int | None = None  # None: there are none of this node
    first: int = 0  # the smallest id of this node's rows
    last: int = 0  # the largest one
    others: int = 0  # number of lines of other nodes, which are left to them: their logs may have other time zones


@dataclass(frozen=True, slots=True)
class SortedLines:
    """Lines sorted by what the replay does with them."""

    records: Records = field(default_factory=Records)
    ids: list[int] = field(default_factory=list)  # the id of the row in rejected_lines, for each record
    ignored: dict[int, Ignored] = field(default_factory=dict)  # by the same id
    still_rejected: StillRejected = field(default_factory=list)


class BatchRejected(Exception):
    """The database rejected a row of a batch, so no line of the batch was moved. The message has the reason."""


def pending(conn: Connection, tables: schema.Findings, node: str) -> Pending:
    """Return what there is to replay for this node. Raises Unsuitable if rejected_lines has no unique id."""
    if "id" not in tables.tables["rejected_lines"].unique:  # a table created by hand
        raise Unsuitable(
            "rejected_lines.id: expected a unique column, found none; "
            "ALTER TABLE rejected_lines ADD UNIQUE (id), or ADD id bigserial UNIQUE"
        )
    ours, others = Pending(), 0
    with session.transaction(conn):  # it sets lock_timeout
        nodes = conn.execute(COUNTS, [node]).fetchall()
    for node_id, is_ours, count, first, last in nodes:
        if is_ours:
            ours = Pending(node_id, first, last)
        else:
            others += count
    return Pending(ours.node_id, ours.first, ours.last, others)


def replay(target: Target, node: str, found: Pending, parse: Parse, lines: int) -> Iterator[Moved]:
    """Parse the pending lines, at most `lines` at a time; yield the result of each commit."""
    if found.node_id is None:
        return
    first = found.first
    while rows := _read(target.conn, found, first, lines):
        first = rows[-1][0] + 1
        parsed = [(row_id, _parse(parse, line, reason)) for row_id, line, reason in rows]
        yield from _move_by_halves(target, node, found.node_id, parsed)


def _read(conn: Connection, found: Pending, first: int, lines: int) -> list[tuple[int, bytes | None, str]]:
    """Return ids, lines and reasons from the id `first` on; None for a line of which only the beginning was kept."""
    values = {
        "cut": CUT_REASON,
        "node_id": found.node_id,
        "first": first,
        "last": found.last,
        "lines": lines,
        "bytes": BATCH_BYTES,
    }
    with session.transaction(conn):
        return conn.execute(READ, values, binary=True).fetchall()  # binary: bytea as text is twice as long


def _parse(parse: Parse, line: bytes | None, reason: str) -> AccessRecord | BadLine | Ignored:
    """Parse a line if a log could have it; otherwise return it as a bad line."""
    if line is None:
        return BadLine(b"", "expected a whole line, found its beginning")
    if b"\n" in line:  # inserted by hand; names that contain a line end could not be looked up
        return BadLine(line, "expected one line, found several")
    return parse(line, reason)


def _move_by_halves(target: Target, node: str, node_id: int, parsed: Parsed) -> Iterator[Moved]:
    """Move a batch; if the database rejects a row of it, halve it until the rejected rows are found.

    Each half is a transaction of its own. Thousands of rows may be rejected again, and with all of them in one
    transaction, the node's other runs would wait long.
    """

    def leave(line: ParsedLine, rejected: Exception) -> Moved:
        return LoadResult(lines=1, rejected=1), [(line[0], str(rejected))]

    move = functools.partial(_move, target, node, node_id)
    yield from retry.bisect(parsed, move, leave, (BatchRejected,))


def _move(target: Target, node: str, node_id: int, parsed: Parsed) -> Moved:
    """Prepare days and names, then move a batch. Raises BatchRejected."""
    lines = _sort(parsed)
    stay = LoadResult(lines=len(lines.still_rejected), rejected=len(lines.still_rejected))
    if not lines.ids and not lines.ignored:
        return stay, lines.still_rejected
    days = {minute[:DAY] for minute in set(lines.records.minutes)}
    target.days.ensure(days)
    for reason in target.days.refused(days).values():
        raise BatchRejected(reason)
    store = functools.partial(_store, target, node, node_id, lines)
    moved, _ = target.store_resolved(days, lines.records.names(), store)
    return stay + moved, lines.still_rejected


def _sort(parsed: Parsed) -> SortedLines:
    lines = SortedLines()
    for row_id, line in parsed:
        if isinstance(line, AccessRecord):
            lines.records.append(line)
            lines.ids.append(row_id)
        elif isinstance(line, BadLine):
            lines.still_rejected.append((row_id, line.reason))
        else:
            lines.ignored[row_id] = line
    return lines


def _store(
    target: Target, node: str, node_id: int, lines: SortedLines, names: Resolved, by_insert: bool = False
) -> LoadResult:
    """Delete the lines and store their records in one transaction. Raises BatchRejected.

    `by_insert`: use INSERT, whose errors have a SQLSTATE where Citus hides that of COPY.
    """
    for refused in names.refused.values():
        raise BatchRejected(refused.reason)
    try:
        with target.transaction(node, node_id, names, len(lines.ids)) as store:
            moved, ignored = _delete(target.conn, lines.ids), _delete(target.conn, list(lines.ignored))
            _raise_if_kept(target.conn, {*lines.ids, *lines.ignored})
            records = lines.records.select([index for index, row_id in enumerate(lines.ids) if row_id in moved])
            rows = store.insert(records) if by_insert and records else store.copy(records)
            if rows < len(records):
                raise BatchRejected("a trigger on logs drops it")
    except (DataError, IntegrityError) as error:
        rejects.raise_unless_row_is_at_fault(target.conn, error, lines.records)
        raise BatchRejected(session.message(error)) from error
    except errors.FeatureNotSupported as error:  # RETURNING from a table with a rule
        if removals := interference.removals(target.conn, "rejected_lines"):
            raise _keeps_lines(removals) from error
        raise
    except errors.InternalError_ as error:
        if by_insert or not citus.lost_the_reason(target.conn, error):
            raise
        if len(lines.ids) > 1:
            raise BatchRejected(session.message(error)) from error
        return _store(target, node, node_id, lines, names, by_insert=True)
    return LoadResult(len(moved) + len(ignored), rows, 0, Counter(lines.ignored[row_id] for row_id in ignored))


def _raise_if_kept(conn: Connection, ids: set[int]) -> None:
    """Raise Unsuitable if lines are still there, whatever the DELETE said: a trigger or a rule kept them."""
    if ids and conn.execute(KEPT, [list(ids)]).fetchone() == (True,):
        raise _keeps_lines(interference.removals(conn, "rejected_lines"))


def _keeps_lines(removals: Sequence[str]) -> Unsuitable:
    to_do = "; ".join(removals) or "see why: \\d rejected_lines"
    return Unsuitable(
        "rejected_lines keeps lines that a replay deletes, so they were not moved; as its owner, or a superuser of "
        f"PostgreSQL: {to_do}"
    )


def _delete(conn: Connection, ids: Sequence[int]) -> set[int]:
    """Delete these lines; return the ids of those that were there."""
    cursor = conn.execute(DELETE_LINES, [ids]) if ids else None
    if cursor is None or cursor.description is None:  # a rule did something else
        return set()
    return {row_id for (row_id,) in cursor}
