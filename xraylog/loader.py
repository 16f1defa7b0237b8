"""Batches into `logs`: rows, rejected lines and position in one transaction, all or nothing.

There are three ways in. Days without a partition, and many rows of them: `newdays`. Many rows of other days, where
the role may switch the row triggers of the foreign keys off: `keys`. All else: COPY with the row triggers, which any
role that may insert can do.
"""

from __future__ import annotations

import contextlib
import functools
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager

import psycopg
from psycopg import errors

from xraylog import database, newdays, partitions, positions, references, refusals, rows, schema
from xraylog.database import Connection, Unavailable, Unsuitable
from xraylog.keys import Keys, NamesMissing
from xraylog.partitions import PartitionMissing
from xraylog.positions import Move, Position
from xraylog.records import Batch, LoadResult, Records
from xraylog.references import References

TRIES = 3  # a name or a partition can vanish between two statements, but hardly three times

Read = Callable[[int], AbstractContextManager[Iterator[Batch]]]  # what stands behind an offset of the log
MoveBehind = Callable[[Position, Batch], Move]  # of the log's position; the lines are on disk then


class DayRefused(Exception):
    """A day could not be loaded as a whole: nothing of it is stored, and its batches must be read again."""


class Target:
    """One database, with what a run has learned of it; makes a loader for each node."""

    def __init__(self, conn: Connection, beside: Callable[[], AbstractContextManager[Connection]]) -> None:
        """`beside` opens a second session: names are committed in one while a day is loaded in the other."""
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


class Loader:
    """Stores the batches of one node."""

    def __init__(self, target: Target, node: str) -> None:
        self._target = target
        self._conn = target.conn
        self._references = target.references
        self._days = target.days
        self._keys = target.keys
        self._node_lock = node_lock(node)

    def load_all(self, read: Read, position: Position, behind: MoveBehind) -> Iterator[tuple[LoadResult, Position]]:
        """Store all that stands behind the position; yields after each commit. Raises what `load` raises."""
        try:
            for result, position in self._load_days_and_batches(read, position, behind):  # noqa: B020  # goes on there
                yield result, position
        except DayRefused:
            yield from self._load_batches(read, position, behind)

    def _load_batches(
        self, read: Read, position: Position, behind: MoveBehind
    ) -> Iterator[tuple[LoadResult, Position]]:
        with read(position.offset) as batches:
            for batch in batches:
                result, (position,) = self.load(batch, behind(position, batch))
                del batch  # before the next one is read
                yield result, position

    def _load_days_and_batches(
        self, read: Read, position: Position, behind: MoveBehind
    ) -> Iterator[tuple[LoadResult, Position]]:
        with read(position.offset) as batches:
            coming = Coming(batches)
            while coming.batch is not None:
                if days := self._new_days(coming):
                    with contextlib.suppress(newdays.Taken):
                        result, position = self._load_days(days, coming, position, behind)
                        yield result, position
                    continue
                batch = coming.take()
                result, (position,) = self.load(batch, behind(position, batch))
                del batch
                yield result, position

    def load(self, batch: Batch, *moves: Move) -> tuple[LoadResult, list[Position]]:
        """Store a batch and make the moves, in one transaction; the first move is that of the batch's own log.

        Raises Moved when another run stored it, and Unsuitable when the database refuses more than some rows.
        """
        new_names: Counter[str] = Counter()
        again: psycopg.Error | None = None
        for _ in range(TRIES):
            try:
                new_names.update(self._prepare(batch))
                stored, rejected, moved = self._store(batch, moves)
            except (errors.ForeignKeyViolation, NamesMissing, PartitionMissing):
                self._references.forget()
                self._days.forget()
                continue
            except (errors.DeadlockDetected, errors.SerializationFailure) as error:
                again = error
                continue
            return LoadResult(batch.lines, stored, rejected, batch.ignored, new_names), moved
        if again is not None:
            raise again
        raise Unsuitable("names or partitions vanish while rows that use them are stored; what deletes them?")

    def _prepare(self, batch: Batch) -> dict[str, int]:
        """Names and partitions first, in short transactions of their own: no lock of theirs is held long."""
        self._days.ensure(batch.days())
        return self._references.resolve(batch.records.names())

    def _store(self, batch: Batch, moves: Sequence[Move]) -> tuple[int, int, list[Position]]:
        """One transaction. Rows, rejected lines, and the new positions."""
        own = moves[0].position
        as_a_set = self._keys.as_a_set(len(batch.records))
        copy = functools.partial(self._copy_as_a_set if as_a_set else self._copy, self._conn, own.node_id, "logs")
        with database.transaction(self._conn, self._node_lock):
            stored, rejected = refusals.put(self._conn, batch, own, self._references.refused, copy)
            return stored, rejected, [positions.move(self._conn, move) for move in moves]

    def _copy(self, conn: Connection, node_id: int, table: str, records: Records) -> int:
        return rows.copy(conn, table, records, self._references.ids, node_id)

    def _copy_as_a_set(self, conn: Connection, node_id: int, table: str, records: Records) -> int:
        with self._keys.checked({**self._references.used(records.names()), "nodes": [node_id]}):
            return self._copy(conn, node_id, table, records)

    def _new_days(self, coming: Coming) -> set[str]:
        """Days of the next batch that have no partition, and many rows in what is known to come."""
        batches = [batch for batch in (coming.batch, coming.following) if batch is not None]
        if sum(len(batch.records) for batch in batches) < newdays.MANY:
            return set()
        days = newdays.many(batch.days() for batch in batches) & batches[0].days().keys()
        return days & self._days.missing(days) if days and self._keys.look().by_day else set()

    def _load_days(
        self, days: set[str], coming: Coming, position: Position, behind: MoveBehind
    ) -> tuple[LoadResult, Position]:
        """Load these days, as far as they reach, in one transaction. Raises Taken before anything is taken."""
        with contextlib.ExitStack() as stack:
            try:
                self._days.ensure(coming.days() - days)
                conn = stack.enter_context(self._target.beside())
            except (Unavailable, Unsuitable) as error:
                raise DayRefused from error
            try:
                with database.transaction(conn, schema.PARTITIONS_LOCK, self._node_lock):
                    return self._load_into_tables(conn, days, coming, position, behind)
            except (NamesMissing, PartitionMissing) as error:
                raise DayRefused from error
            except psycopg.Error as error:
                if conn.broken or self._conn.broken:
                    raise
                raise DayRefused from error  # whatever it was: one by one, it is met and told apart

    def _load_into_tables(
        self, conn: Connection, days: set[str], coming: Coming, position: Position, behind: MoveBehind
    ) -> tuple[LoadResult, Position]:
        tables, until = newdays.make(conn, sorted(days)), time.monotonic() + newdays.LONGEST_S
        copy = functools.partial(newdays.copy, tables, functools.partial(self._copy, conn, position.node_id))
        total = LoadResult()
        while coming.days() & days and self._days.known(coming.days() - days) and time.monotonic() < until:
            batch = coming.take()
            new_names = self._references.resolve(batch.records.names())
            stored, rejected = refusals.put(conn, batch, position, self._references.refused, copy)
            total += LoadResult(batch.lines, stored, rejected, batch.ignored, new_names)
        newdays.attach(conn, tables)
        return total, positions.move(conn, behind(position, batch))


class Coming:
    """Batches, of which two can be seen before they are taken."""

    def __init__(self, batches: Iterator[Batch]) -> None:
        self._batches = batches
        self.batch = next(batches, None)
        self.following = next(batches, None)

    def days(self) -> set[str]:
        """Of the next batch; none at the end."""
        return set() if self.batch is None else set(self.batch.days())

    def take(self) -> Batch:
        """The next batch. Raises IndexError at the end."""
        taken, self.batch = self.batch, self.following
        self.following = next(self._batches, None)
        if taken is None:
            raise IndexError("expected a batch, found the end")
        return taken


def node_lock(node: str) -> str:
    """The name of the lock under which a node's lines and positions are stored."""
    return f"node {node}"
