"""Store batches in `logs`: rows, unparsed lines and position in one transaction, all or nothing.

There are three load paths. `attach`: many rows of a day that has no partition yet. `foreign_keys`: many rows of other
days, if the role may disable the triggers of the foreign keys; the keys are then checked in bulk. Otherwise COPY with
these triggers, for any role that may insert.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import itertools
import math
import operator
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from typing import TypeVar

import psycopg
from psycopg import errors

from xraylog import prefetch
from xraylog.database import partitions, positions, references, session, table_faults
from xraylog.database.partitions import PartitionMissing
from xraylog.database.positions import Position, PositionUpdate
from xraylog.database.references import References, Resolved
from xraylog.database.rejection import Refusals
from xraylog.database.session import Connection, Unavailable, Unsuitable
from xraylog.load_result import LoadResult
from xraylog.loading import copy_rows, foreign_keys, rejects
from xraylog.loading.batch_source import BatchSource
from xraylog.loading.binary_rows import TypesChanged
from xraylog.loading.bulk import PREFETCH_BYTES, BatchRejected, BulkLoader, prepare_all
from xraylog.loading.foreign_keys import ForeignKeyChecks, NamesMissing
from xraylog.loading.rejects import RejectedRows, Store
from xraylog.prefetch import Prefetcher
from xraylog.records import Batch, Records

# A name or a partition can vanish between two statements, and another run's retention drops many, one at a time.
MAX_ATTEMPTS = 10

Result = TypeVar("Result")


class Target:
    """One database, and what a run has learned about it. It has a loader for each node."""

    def __init__(
        self,
        conn: Connection,
        open_second_session: Callable[[], AbstractContextManager[Connection]],
        has_reject_reason: bool = True,
    ) -> None:
        """`open_second_session`: bulk loads commit names there while rows are stored in `conn`."""
        self.conn = conn
        self.open_second_session = open_second_session
        self.references = References(conn)
        self.days = partitions.Partitions(conn)
        self.keys = ForeignKeyChecks(conn, has_reject_reason)
        self.dropped_by: list[tuple[str, str]] = []  # triggers on `logs` that may have dropped rows
        self.refusals = Refusals()
        self._loaders: dict[str, Loader] = {}

    def accounted(self, result: LoadResult) -> LoadResult:
        """Return the result, with rows that vanished counted as dropped if a trigger on `logs` can explain it."""
        if result.unaccounted <= 0:
            return result
        self.dropped_by = self.dropped_by or table_faults.triggers(self.conn, "logs")
        return dataclasses.replace(result, dropped=result.unaccounted) if self.dropped_by else result

    def node_id(self, node: str) -> int:
        """Return the id of the node; add a new node."""
        return references.node_id(self.references, node)

    def loader(self, node: str) -> Loader:
        """Return the loader of a node."""
        if node not in self._loaders:
            self._loaders[node] = Loader(self, node)
        return self._loaders[node]

    def store_resolved(
        self, days: Iterable[str], names: Mapping[str, Iterable[str]], store: Callable[[Resolved], Result]
    ) -> tuple[Result, Counter[str]]:
        """Create partitions and names, then call `store`, which runs a transaction; retry if one of them vanishes.

        Return what `store` returns, and how many names were new, by table. After MAX_ATTEMPTS, raise Unavailable for
        partitions and Unsuitable for names.
        """
        new_names: Counter[str] = Counter()
        conflict: psycopg.Error | None = None
        is_dropped = False
        for _ in range(MAX_ATTEMPTS):
            try:
                self.days.ensure(days)
                resolved = self.references.resolve(names)
                new_names.update(resolved.new)
                return store(resolved), new_names
            except (errors.ForeignKeyViolation, NamesMissing, PartitionMissing) as error:
                self.references.forget()
                self.days.forget()
                is_dropped = isinstance(error, PartitionMissing)
            except TypesChanged:
                self.keys.forget()
            except (errors.DeadlockDetected, errors.SerializationFailure) as error:
                conflict = error
        if conflict is not None:
            raise conflict
        if is_dropped:  # by another run's retention, which will end
            raise Unavailable("partitions vanish while rows of their days are stored")
        to_do = "SELECT usename, application_name, query FROM pg_stat_activity"
        raise Unsuitable(f"names vanish while rows that use them are stored; to see what deletes them: {to_do}")

    @contextlib.contextmanager
    def transaction(self, node: str, node_id: int, names: Resolved, count: int) -> Iterator[Store]:
        """Open a transaction of a node, for about `count` rows; yield the functions that store records in `logs`.

        Raises NamesMissing at its end.
        """
        in_bulk, row_format = self.keys.checked_in_bulk(count), self.keys.row_format(count)

        def copy(records: Records) -> int:
            rows = row_format.rows(records, names.ids, node_id)
            with self.keys.without_triggers() if in_bulk else contextlib.nullcontext():
                return copy_rows.copy(self.conn, [("logs", rows)] if rows else [], row_format)

        def insert(records: Records) -> int:
            return copy_rows.insert(self.conn, self.keys.text.rows(records, names.ids, node_id), self.keys.text)

        with session.transaction(self.conn, positions.node_lock(node), by_index=True):
            yield Store(copy, insert)
            if in_bulk:
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
        one_by_one_until = 0.0  # offset
        while True:
            try:
                batches = source.batches(position.offset)
                for result, new_position in self._load_from(batches, source, position, one_by_one_until):
                    position = new_position
                    yield result, position
            except BatchRejected as rejected:  # load the batches one by one, which finds the rows at fault
                self._keys.forget()
                one_by_one_until = rejected.end
            else:
                return

    def _load_from(
        self, batches: Iterator[Batch], source: BatchSource, position: Position, one_by_one_until: float
    ) -> Iterator[tuple[LoadResult, Position]]:
        """Load batch by batch until `one_by_one_until`, and while few rows arrive; after that in bulk."""
        for group in prefetch.chunks(batches, _has_many_rows):
            if group[0].start >= one_by_one_until and _has_many_rows(group):
                yield from self._load_in_bulk(itertools.chain(prefetch.pop_all(group), batches), source, position)
                return
            for batch in prefetch.pop_all(group):
                result, (position, *_) = self.load(batch, *source.position_updates(position, batch.end))
                del batch  # before the next one is read
                yield result, position

    def _load_in_bulk(
        self, batches: Iterator[Batch], source: BatchSource, position: Position
    ) -> Iterator[tuple[LoadResult, Position]]:
        with contextlib.ExitStack() as stack:
            try:
                names = References(stack.enter_context(self._target.open_second_session()))
            except (Unavailable, Unsuitable):  # the server has no second session: continue with this one
                yield from self._load_from(batches, source, position, math.inf)
                return
            row_format = self._keys.detect().row_format
            resolver = stack.enter_context(ThreadPoolExecutor(1))
            refusals = self._target.refusals
            prepared = prepare_all(names, resolver, position.node_id, row_format, refusals, batches)
            prefetched = stack.enter_context(Prefetcher(prepared, PREFETCH_BYTES, operator.attrgetter("size")))
            node_lock = positions.node_lock(self._node)
            bulk = BulkLoader(self._conn, self._days, self._keys, prefetched, source, position, node_lock, row_format)
            for result, end in bulk.load_all():
                yield self._target.accounted(result), end

    def load(self, batch: Batch, *updates: PositionUpdate) -> tuple[LoadResult, list[Position]]:
        """Store a batch and update positions, in one transaction; the first update is that of the batch's own log.

        Raises PositionConflict if another run stored it, and Unsuitable if the database rejects more than a few rows.
        """
        (stored, rejected, moved), new_names = self._target.store_resolved(
            batch.days(), batch.records.names(), functools.partial(self._store, batch, updates)
        )
        return self._target.accounted(LoadResult.of(batch, stored, rejected, new_names)), moved

    def _store(
        self, batch: Batch, updates: Sequence[PositionUpdate], names: Resolved
    ) -> tuple[int, int, list[Position]]:
        """Run the transaction; return the numbers of rows and of unparsed lines, and the new positions."""
        position = updates[0].position
        try:
            with self._target.transaction(self._node, position.node_id, names, len(batch.records)) as store:
                rows = RejectedRows(batch, self._target.refusals)
                usable = rows.without_days(self._days.refused(batch.days()), rows.without_names(names.refused))
                stored, rejected = rejects.copy_or_reject(self._conn, rows, usable, position, store)
                return stored, rejected, [positions.move(self._conn, update) for update in updates]
        except (errors.DataError, errors.IntegrityError) as error:
            table_faults.raise_if_records_are_refused(self._conn, error)
            raise


def _has_many_rows(batches: Sequence[Batch]) -> bool:
    """Return whether these batches are worth the second session that a bulk load opens."""
    return sum(len(batch.records) for batch in batches) >= foreign_keys.MIN_BULK_ROWS
