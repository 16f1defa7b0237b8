"""Batches into `logs`: rows, rejected lines and position in one transaction, all or nothing.

There are three ways in. Days without a partition, and many rows of them: `newdays`. Many rows of other days, where
the role may switch the row triggers of the foreign keys off: `keys`. All else: COPY with the row triggers, which any
role that may insert can do.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import math
import operator
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import TypeVar

import psycopg
from psycopg import errors

from xraylog.database import partitions, positions, references, session
from xraylog.database.partitions import PartitionMissing
from xraylog.database.positions import Position, PositionUpdate
from xraylog.database.references import References, Resolved
from xraylog.database.session import Connection, Unavailable, Unsuitable
from xraylog.loading import copy_rows, foreign_keys, rejects
from xraylog.loading.batch_source import BatchSource
from xraylog.loading.bulk import PREFETCH_BYTES, Refused, Together, prepare
from xraylog.loading.foreign_keys import Keys, NamesMissing
from xraylog.prefetch import Prefetcher
from xraylog.records import Batch, LoadResult, Records

# A name or a partition can vanish between two statements. Another run's retention drops one after the other.
TRIES = 10

Stored = TypeVar("Stored")


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

    def store_with(
        self, days: Iterable[str], names: Mapping[str, Iterable[str]], store: Callable[[Resolved], Stored]
    ) -> tuple[Stored, Counter[str]]:
        """Have partitions and names, then `store`, which is a transaction; again when one of them vanished meanwhile.

        Returns what `store` does, and how many names were new, by table. When they vanish each time,
        raises Unavailable for partitions, Unsuitable for names.
        """
        new_names: Counter[str] = Counter()
        again: psycopg.Error | None = None
        dropped = False
        for _ in range(TRIES):
            try:
                self.days.ensure(days)
                resolved = self.references.resolve(names)
                new_names.update(resolved.new)
                return store(resolved), new_names
            except (errors.ForeignKeyViolation, NamesMissing, PartitionMissing) as error:
                self.references.forget()
                self.days.forget()
                dropped = isinstance(error, PartitionMissing)
            except (errors.DeadlockDetected, errors.SerializationFailure) as error:
                again = error
        if again is not None:
            raise again
        if dropped:  # another run's retention, which comes to its end
            raise Unavailable("partitions vanish while rows of their days are stored")
        raise Unsuitable("names vanish while rows that use them are stored; what deletes them?")

    @contextlib.contextmanager
    def transaction(self, node: str, node_id: int, names: Resolved, count: int) -> Iterator[Callable[[Records], int]]:
        """One transaction of a node, for about `count` rows; yields what copies records with these names into `logs`.

        Raises NamesMissing at its end.
        """
        as_a_set = self.keys.as_a_set(count)

        def copy(records: Records) -> int:
            text = copy_rows.copy_text(records, names.ids, node_id)
            with self.keys.without_triggers() if as_a_set else contextlib.nullcontext():
                return copy_rows.copy(self.conn, [("logs", text)] if text else [])

        with session.transaction(self.conn, positions.node_lock(node), by_index=True):
            yield copy
            if as_a_set:
                self.keys.lock(names.used(node_id))


class Loader:
    """Stores the batches of one node."""

    def __init__(self, target: Target, node: str) -> None:
        self._target = target
        self._node = node
        self._conn = target.conn
        self._days = target.days
        self._keys = target.keys

    def load_all(self, source: BatchSource, position: Position) -> Iterator[tuple[LoadResult, Position]]:
        """Store all lines after the position; yield after each commit. Raises what `load` raises."""
        alone_until = 0.0
        while True:
            try:
                stored = self._load_from(source.batches(position.offset), position, source, alone_until)
                for result, position in stored:  # goes on there
                    yield result, position
            except Refused as refused:  # one by one it is met again, and told apart
                alone_until = refused.end
            else:
                return

    def _load_from(
        self, batches: Iterator[Batch], position: Position, source: BatchSource, alone_until: float
    ) -> Iterator[tuple[LoadResult, Position]]:
        """Batch by batch up to an offset, and as long as they are small."""
        while (batch := next(batches, None)) is not None:
            if batch.start >= alone_until and len(batch.records) >= foreign_keys.FEWEST:
                batches = itertools.chain([batch], batches)
                del batch
                yield from self._load_together(batches, position, source)
                return
            result, (position,) = self.load(batch, source.position_update(position, batch.end))
            del batch  # before the next one is read
            yield result, position

    def _load_together(
        self, batches: Iterator[Batch], position: Position, source: BatchSource
    ) -> Iterator[tuple[LoadResult, Position]]:
        with contextlib.ExitStack() as stack:
            try:
                names = References(stack.enter_context(self._target.beside()))
            except (Unavailable, Unsuitable):  # no session is left: one must do
                yield from self._load_from(batches, position, source, math.inf)
                return
            ready = (prepare(names, batch, position.node_id) for batch in batches)
            prefetched = stack.enter_context(Prefetcher(ready, PREFETCH_BYTES, operator.attrgetter("size")))
            together = Together(self._conn, self._days, self._keys, prefetched, source, positions.node_lock(self._node))
            yield from together.load_all(position)

    def load(self, batch: Batch, *updates: PositionUpdate) -> tuple[LoadResult, list[Position]]:
        """Store a batch and update positions, in one transaction; the first update is that of the batch's own log.

        Raises PositionConflict when another run stored it, and Unsuitable when the database refuses more than some rows.
        """
        (stored, rejected, moved), new_names = self._target.store_with(
            batch.days(), batch.records.names(), functools.partial(self._store, batch, updates)
        )
        return LoadResult(batch.lines, stored, rejected, batch.ignored, new_names), moved

    def _store(
        self, batch: Batch, updates: Sequence[PositionUpdate], names: Resolved
    ) -> tuple[int, int, list[Position]]:
        """One transaction. Rows, rejected lines, and the new positions."""
        position = updates[0].position
        with self._target.transaction(self._node, position.node_id, names, len(batch.records)) as copy:
            stored, rejected = rejects.put(self._conn, batch, position, names.refused, copy)
            return stored, rejected, [positions.move(self._conn, update) for update in updates]
