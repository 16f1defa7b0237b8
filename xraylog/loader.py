"""Batches into `logs`: rows, rejected lines and position in one transaction, all or nothing.

There are three ways in. Days without a partition, and many rows of them: `newdays`. Many rows of other days, where
the role may switch the row triggers of the foreign keys off: `keys`. All else: COPY with the row triggers, which any
role that may insert can do.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

import psycopg
from psycopg import errors

from xraylog import database, keys, newdays, partitions, positions, references, refusals, rows, schema
from xraylog.ahead import Ahead
from xraylog.database import Connection, Unavailable, Unsuitable
from xraylog.keys import Keys, NamesMissing
from xraylog.partitions import PartitionMissing
from xraylog.positions import Move, Position
from xraylog.records import Batch, LoadResult, Records
from xraylog.references import References, Resolved

TRIES = 3  # a name or a partition can vanish between two statements, but hardly three times

Read = Callable[[int], AbstractContextManager[Iterator[Batch]]]  # what stands behind an offset of the log
MoveBehind = Callable[[Position, Batch], Move]  # of the log's position; the lines are on disk then


class DayRefused(Exception):
    """A day could not be loaded as a whole: nothing of it is stored, and its batches must be read again."""


class Target:
    """One database, with what a run has learned of it; makes a loader for each node."""

    def __init__(self, conn: Connection, beside: Callable[[], AbstractContextManager[Connection]]) -> None:
        """`beside` opens a second session, in which names are committed while rows are stored in the first."""
        self.conn = conn
        self.beside = beside
        self.references = References(conn)
        self.days = partitions.Partitions(conn)
        self.keys = Keys(conn)
        self._loaders: dict[str, Loader] = {}

    def node_id(self, node: str) -> int:
        """The node's id, made when the node is new."""
        return references.node_id(self.references, node)

    def loader(self, node: str) -> Loader:
        """What stores the batches of a node."""
        if node not in self._loaders:
            self._loaders[node] = Loader(self, node)
        return self._loaders[node]


@dataclass(frozen=True, slots=True)
class Ready:
    """A batch, and all that its transaction needs to know: its names are committed."""

    batch: Batch
    names: Resolved
    node_id: int
    rows: bytes  # of all records; empty when some use a name that was refused

    def text(self, records: Records) -> bytes:
        """Rows for COPY of some of the records."""
        whole = records is self.batch.records and not self.names.refused
        return self.rows if whole else rows.copy_text(records, self.names.ids, self.node_id)


def prepare(names: References, batch: Batch, node_id: int) -> Ready:
    """Names first, in a short transaction of their own: no lock of theirs is held long."""
    resolved = names.resolve(batch.records.names())
    text = b"" if resolved.refused else rows.copy_text(batch.records, resolved.ids, node_id)
    return Ready(batch, resolved, node_id, text)


class Loader:
    """Stores the batches of one node."""

    def __init__(self, target: Target, node: str) -> None:
        self._target = target
        self._conn = target.conn
        self._days = target.days
        self._keys = target.keys
        self._references = [target.references]  # and those of a second session
        self._node_lock = node_lock(node)

    def load(self, batch: Batch, *moves: Move) -> tuple[LoadResult, list[Position]]:
        """Store a batch and make the moves, in one transaction; the first move is that of the batch's own log.

        Raises Moved when another run stored it, and Unsuitable when the database refuses more than some rows.
        """
        return self._load(self._prepare(batch, moves[0].position.node_id), *moves)

    def load_all(self, read: Read, position: Position, behind: MoveBehind) -> Iterator[tuple[LoadResult, Position]]:
        """Store all that stands behind the position; yields after each commit. Raises what `load` raises."""
        try:
            for result, position in self._load_all(read, position, behind, by_day=True):  # noqa: B020  # goes on there
                yield result, position
        except DayRefused:
            yield from self._load_all(read, position, behind, by_day=False)

    def _load_all(
        self, read: Read, position: Position, behind: MoveBehind, by_day: bool
    ) -> Iterator[tuple[LoadResult, Position]]:
        with read(position.offset) as batches, self._prepared(batches, position.node_id) as coming:
            for ready in coming:
                days = self._new_days(ready.batch, coming) if by_day and isinstance(coming, Ahead) else set()
                if days and isinstance(coming, Ahead):
                    with contextlib.suppress(newdays.Taken):
                        result, position = self._load_days(days, ready, coming, position, behind)
                        yield result, position
                        continue
                result, (position,) = self._load(ready, behind(position, ready.batch))
                del ready  # before the next one is read
                yield result, position

    @contextlib.contextmanager
    def _prepared(self, batches: Iterator[Batch], node_id: int) -> Iterator[Ahead[Ready] | Iterator[Ready]]:
        """The batches with their names: of many rows over a second session, while those before them are stored."""
        with contextlib.ExitStack() as stack:
            first = next(batches, None)
            names = None
            if first is not None and len(first.records) >= keys.FEWEST:
                with contextlib.suppress(Unavailable, Unsuitable):  # no session is left: one must do
                    names = References(stack.enter_context(self._target.beside()))
            batches = itertools.chain([] if first is None else [first], batches)
            del first
            if names is None:
                yield (self._prepare(batch, node_id) for batch in batches)
            else:
                self._references = [self._target.references, names]
                yield stack.enter_context(Ahead(prepare(names, batch, node_id) for batch in batches))

    def _prepare(self, batch: Batch, node_id: int) -> Ready:
        return prepare(self._target.references, batch, node_id)

    def _load(self, ready: Ready, *moves: Move) -> tuple[LoadResult, list[Position]]:
        batch, new_names = ready.batch, Counter(ready.names.new)
        again: psycopg.Error | None = None
        for _ in range(TRIES):
            try:
                self._days.ensure(batch.days())
                stored, rejected, moved = self._store(ready, moves)
            except (errors.ForeignKeyViolation, NamesMissing, PartitionMissing):
                self._forget()
                ready = self._prepare(batch, ready.node_id)
                new_names.update(ready.names.new)
                continue
            except (errors.DeadlockDetected, errors.SerializationFailure) as error:
                again = error
                continue
            return LoadResult(batch.lines, stored, rejected, batch.ignored, new_names), moved
        if again is not None:
            raise again
        raise Unsuitable("names or partitions vanish while rows that use them are stored; what deletes them?")

    def _store(self, ready: Ready, moves: Sequence[Move]) -> tuple[int, int, list[Position]]:
        """One transaction. Rows, rejected lines, and the new positions."""
        as_a_set = self._keys.as_a_set(len(ready.batch.records))
        copy = functools.partial(self._copy_as_a_set if as_a_set else self._copy, ready, "logs")
        with database.transaction(self._conn, self._node_lock):
            stored, rejected = self._put(ready, moves[0].position, copy)
            return stored, rejected, [positions.move(self._conn, move) for move in moves]

    def _put(self, ready: Ready, position: Position, copy: Callable[[Records], int]) -> tuple[int, int]:
        return refusals.put(self._conn, ready.batch, position, ready.names.refused, copy)

    def _copy(self, ready: Ready, table: str, records: Records) -> int:
        return rows.copy(self._conn, table, ready.text(records))

    def _copy_as_a_set(self, ready: Ready, table: str, records: Records) -> int:
        used = {name: sorted(ids.values()) for name, ids in ready.names.ids.items()}
        with self._keys.checked({**used, "nodes": [ready.node_id]}):
            return self._copy(ready, table, records)

    def _forget(self) -> None:
        for known in self._references:
            known.forget()
        self._days.forget()

    def _new_days(self, batch: Batch, coming: Ahead[Ready]) -> set[str]:
        """Days of the batch that have no partition, and many rows in it and the next one."""
        counts = batch.days()
        if self._days.known(counts) or not self._keys.look().by_day:
            return set()
        missing = self._days.missing(counts)
        if any(counts[day] < newdays.MANY for day in missing) and (following := coming.peek()):
            counts += following.batch.days()
        return {day for day in missing if counts[day] >= newdays.MANY}

    def _load_days(
        self, days: set[str], ready: Ready, coming: Ahead[Ready], position: Position, behind: MoveBehind
    ) -> tuple[LoadResult, Position]:
        """Load these days, as far as they reach, in one transaction. Raises Taken before it takes another batch."""
        self._days.ensure(ready.batch.days().keys() - days)
        try:
            with database.transaction(self._conn, schema.PARTITIONS_LOCK, self._node_lock):
                tables = newdays.make(self._conn, sorted(days))
                total, batch = self._fill(tables, ready, coming, position)
                newdays.attach(self._conn, tables)
                return total, positions.move(self._conn, behind(position, batch))
        except (psycopg.Error, NamesMissing, PartitionMissing) as error:
            if self._conn.broken:
                raise
            self._forget()
            raise DayRefused from error  # batch by batch it is met again, and told apart

    def _fill(
        self, tables: dict[str, str], ready: Ready, coming: Ahead[Ready], position: Position
    ) -> tuple[LoadResult, Batch]:
        """Batches into the tables of their days, as long as they follow. What was stored, and the last batch."""
        total, until = LoadResult(), time.monotonic() + newdays.LONGEST_S
        while True:
            batch = ready.batch
            copy = functools.partial(newdays.copy, tables, functools.partial(self._copy, ready))
            stored, rejected = self._put(ready, position, copy)
            total += LoadResult(batch.lines, stored, rejected, batch.ignored, ready.names.new)
            following = coming.peek()
            if following is None or time.monotonic() > until:
                return total, batch
            days = following.batch.days().keys()
            if not days & tables.keys() or not self._days.known(days - tables.keys()):
                return total, batch
            ready = next(coming)


def node_lock(node: str) -> str:
    """The name of the lock under which a node's lines and positions are stored."""
    return f"node {node}"
