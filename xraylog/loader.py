"""Batches into `logs`: rows, rejected lines and position in one transaction, all or nothing.

There are three ways in. Days without a partition, and many rows of them: `newdays`. Many rows of other days, where
the role may switch the row triggers of the foreign keys off: `keys`. All else: COPY with the row triggers, which any
role that may insert can do.
"""

from __future__ import annotations

import contextlib
import itertools
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

import psycopg
from psycopg import errors

from xraylog import database, keys, newdays, partitions, positions, references, refusals, rows, schema
from xraylog.ahead import Ahead
from xraylog.database import Connection, Unavailable, Unsuitable
from xraylog.keys import Keys, Locked, NamesMissing
from xraylog.partitions import PartitionMissing
from xraylog.positions import Move, Position
from xraylog.records import Batch, LoadResult, Records
from xraylog.references import References, Resolved

TOGETHER_S = 1.0  # batches that come within it are committed together: a commit costs as much as a fifth of a batch
TRIES = 3  # a name or a partition can vanish between two statements, but hardly three times

Read = Callable[[int], Iterator[Batch]]  # what stands behind an offset of the log
MoveBehind = Callable[[Position, Batch], Move]  # of the log's position; the lines are on disk then


class Refused(Exception):
    """Batches could not be stored together: nothing of them is, and they must be read again, one by one."""


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
            for result, position in self._load_all(read, position, behind, together=True):  # noqa: B020  # goes on there
                yield result, position
        except Refused:
            yield from self._load_all(read, position, behind, together=False)

    def _load_all(
        self, read: Read, position: Position, behind: MoveBehind, together: bool
    ) -> Iterator[tuple[LoadResult, Position]]:
        with self._prepared(read(position.offset), position.node_id, together) as coming:
            if isinstance(coming, Ahead):
                for ready in coming:
                    first = [ready]
                    del ready  # whoever takes it lets go of it before the next one is read
                    result, position = self._load_together(first, coming, position, behind)
                    yield result, position
            else:
                for ready in coming:
                    result, (position,) = self._load(ready, behind(position, ready.batch))
                    del ready
                    yield result, position

    @contextlib.contextmanager
    def _prepared(
        self, batches: Iterator[Batch], node_id: int, ahead: bool
    ) -> Iterator[Ahead[Ready] | Iterator[Ready]]:
        """The batches with their names: of many rows over a second session, while those before them are stored."""
        with contextlib.ExitStack() as stack:
            first = next(batches, None)
            names = None
            if ahead and first is not None and len(first.records) >= keys.FEWEST:
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
        locked = self._keys.of_transaction(len(ready.batch.records))
        with database.transaction(self._conn, self._node_lock):
            stored, rejected = self._put(ready, moves[0].position, {}, locked)
            return stored, rejected, [positions.move(self._conn, move) for move in moves]

    def _load_together(
        self, first: list[Ready], coming: Ahead[Ready], position: Position, behind: MoveBehind
    ) -> tuple[LoadResult, Position]:
        """Store a batch, and those that come soon behind it, in one transaction. Raises Refused."""
        try:
            days = self._new_days(first[0].batch, coming)
            self._days.ensure(first[0].batch.days().keys() - days)
            locked = None if days else self._keys.of_transaction(len(first[0].batch.records))
            with database.transaction(self._conn, *([schema.PARTITIONS_LOCK] if days else []), self._node_lock):
                tables = newdays.make(self._conn, sorted(days)) if days else {}
                total, batch = self._fill(first, coming, position, tables, locked)
                newdays.attach(self._conn, tables)
                return total, positions.move(self._conn, behind(position, batch))
        except newdays.Taken:
            return self._load_together(first, coming, position, behind)
        except (psycopg.Error, NamesMissing, PartitionMissing) as error:
            if self._conn.broken:
                raise
            self._forget()
            raise Refused from error  # one by one they are met again, and told apart

    def _fill(
        self,
        first: list[Ready],
        coming: Ahead[Ready],
        position: Position,
        tables: Mapping[str, str],
        locked: Locked | None,
    ) -> tuple[LoadResult, Batch]:
        """Batches into `logs`, or into the tables of their days. What was stored, and the last batch."""
        total, until = LoadResult(), time.monotonic() + (newdays.LONGEST_S if tables else TOGETHER_S)
        ready = first.pop()
        while True:
            stored, rejected = self._put(ready, position, tables, locked)
            total += LoadResult(ready.batch.lines, stored, rejected, ready.batch.ignored, ready.names.new)
            if not self._goes_on(coming.peek(), tables, until):
                return total, ready.batch
            ready = next(coming)

    def _goes_on(self, following: Ready | None, tables: Mapping[str, str], until: float) -> bool:
        """Whether the batch that follows can be part of the transaction."""
        if following is None or time.monotonic() > until:
            return False
        days = following.batch.days().keys()
        return (not tables or bool(days & tables.keys())) and self._days.known(days - tables.keys())

    def _put(
        self, ready: Ready, position: Position, tables: Mapping[str, str], locked: Locked | None
    ) -> tuple[int, int]:
        """Rows and rejected lines of one batch, in the current transaction; `tables` of days that have their own."""
        if locked is not None:
            locked.lock({**ready.names.ids, "nodes": {"": ready.node_id}})

        def into(table: str, records: Records) -> int:
            return rows.copy(self._conn, table, ready.text(records))

        def copy(records: Records) -> int:
            if tables:
                return newdays.copy(tables, into, records)
            with locked.without_triggers() if locked is not None else contextlib.nullcontext():
                return into("logs", records)

        return refusals.put(self._conn, ready.batch, position, ready.names.refused, copy)

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


def node_lock(node: str) -> str:
    """The name of the lock under which a node's lines and positions are stored."""
    return f"node {node}"
