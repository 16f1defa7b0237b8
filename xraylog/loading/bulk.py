"""Bulk load: prepare the next batches while earlier ones are copied; commit many in one transaction.

No row is stored during a commit, nor while the server waits for the client. So batches that arrive in quick succession
form a group, which has one COPY and one commit. There is no recovery here: if the database rejects a row, it rejects
the group, and the caller retries batch by batch.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from concurrent.futures import Executor, Future, wait
from dataclasses import dataclass, field

import psycopg

from xraylog.database import ddl, partitions, positions, schema, session
from xraylog.database.partitions import PartitionMissing
from xraylog.database.positions import Position
from xraylog.database.references import References, Resolved
from xraylog.database.rejection import Refusals
from xraylog.database.session import Connection
from xraylog.load_result import LoadResult
from xraylog.loading import attach, copy_rows, foreign_keys, rejects
from xraylog.loading.batch_source import BatchSource
from xraylog.loading.binary_rows import TypesChanged
from xraylog.loading.copy_rows import RowFormat
from xraylog.loading.foreign_keys import ForeignKeyChecks, NamesMissing
from xraylog.loading.rejects import Rejected, RejectedRows
from xraylog.prefetch import Prefetcher, one_ahead
from xraylog.records import Batch

MAX_GROUP_S = 1.0  # how long a group may grow, if its days have partitions
MAX_GROUP_DAYS = 200  # its transaction locks the partition of each day, and the indexes
MAX_REJECTED_BYTES = 1 << 20  # of lines for rejected_lines, which are kept in memory until the COPY ends
PREFETCH_BYTES = 6 << 20  # of rows prepared ahead while the server is busy: a quarter of a second of our work
FEW_NAMES_S = 0.05  # long enough for the names of most batches: then the next batch need not be in memory, too
ID_BYTES = 60  # memory of an int in a set


class BatchRejected(Exception):
    """Nothing of a group was stored. Read its batches again, and load them one by one up to the offset `end`."""

    def __init__(self, end: int) -> None:
        super().__init__(end)
        self.end = end


@dataclass(frozen=True, slots=True)
class PreparedBatch:
    """What a transaction needs of a batch whose names are committed. Without the batch itself: many of these wait."""

    end: int
    days: Counter[str]
    rows: list[tuple[str, bytes]]  # day by day
    rejected: list[Rejected]
    used: Mapping[str, set[int]]  # ids of names that the rows refer to, by table
    result: LoadResult  # without the rows, which COPY counts

    @property
    def size(self) -> int:
        """Bytes in memory, roughly."""
        rejected = sum(len(line.line) for line in self.rejected)
        return sum(len(text) for _, text in self.rows) + rejected + ID_BYTES * sum(map(len, self.used.values()))


def prepare_all(
    names: References,
    resolver: Executor,
    node_id: int,
    row_format: RowFormat,
    refusals: Refusals,
    batches: Iterator[Batch],
) -> Iterator[PreparedBatch]:
    """Prepare the batches in order. Raises Unsuitable.

    If the server takes long to add the names of a batch, the next batch is parsed meanwhile. Names are committed in
    short transactions of their own, so that none stays locked for long.
    """

    def start(batch: Batch) -> tuple[Batch, Future[Resolved]]:
        return batch, resolver.submit(names.resolve, batch.records.names())

    def is_ready(started: tuple[Batch, Future[Resolved]]) -> bool:
        return bool(wait([started[1]], FEW_NAMES_S).done)

    def finish(batch: Batch, resolved: Future[Resolved]) -> PreparedBatch:
        return prepare(batch, resolved.result(), node_id, row_format, refusals)

    started: Iterator[tuple[Batch, Future[Resolved]]] = one_ahead(map(start, batches), is_ready)
    return itertools.starmap(finish, started)  # keeps no batch that is prepared


def prepare(batch: Batch, resolved: Resolved, node_id: int, row_format: RowFormat, refusals: Refusals) -> PreparedBatch:
    """Encode the rows of a batch whose names are resolved. Raises BatchRejected."""
    rows = RejectedRows(batch, refusals)
    records = rows.records.select(rows.without_names(resolved.refused))
    rejected = rows.rejected()
    try:
        rows_by_day = [(day, row_format.rows(found, resolved.ids, node_id)) for day, found in records.by_day().items()]
    except TypesChanged as error:
        raise BatchRejected(batch.end) from error
    return PreparedBatch(
        batch.end,
        batch.days(),
        rows_by_day,
        rejected,
        resolved.used(node_id),
        dataclasses.replace(LoadResult.of(batch, len(records), len(rejected), resolved.new), rows=0),
    )


@dataclass(slots=True)
class Group:
    """The batches of one transaction, so far."""

    end: int
    result: LoadResult = field(default_factory=LoadResult)
    days: set[str] = field(default_factory=set)
    rejected: list[Rejected] = field(default_factory=list)
    used: dict[str, set[int]] = field(default_factory=lambda: {table: set() for table in ddl.REFERENCE_TABLES})

    def add(self, batch: PreparedBatch, with_names: bool) -> None:
        """Add one more batch."""
        self.end = batch.end
        self.result += batch.result
        self.days.update(batch.days)
        self.rejected += batch.rejected
        if with_names:
            for table, ids in batch.used.items():
                self.used[table] |= ids


class BulkLoader:
    """Stores batches of one log that are prepared in another thread."""

    def __init__(
        self,
        conn: Connection,
        days: partitions.Partitions,
        keys: ForeignKeyChecks,
        prefetched: Prefetcher[PreparedBatch],
        source: BatchSource,
        position: Position,
        node_lock: str,
        row_format: RowFormat,
    ) -> None:
        self._conn = conn
        self._days = days
        self._keys = keys
        self._prefetched = prefetched
        self._source = source
        self._position = position
        self._node_lock = node_lock
        self._row_format = row_format

    def load_all(self) -> Iterator[tuple[LoadResult, Position]]:
        """Store the batches; yield after each commit. Raises BatchRejected."""
        for batch in self._prefetched:
            first = [batch]
            del batch  # `_parts` drops the only reference before the next one is read
            result = self._load_group(first)
            yield result, self._position

    def _load_group(self, first: list[PreparedBatch]) -> LoadResult:
        group = Group(first[0].end)
        try:
            new_days = self._new_days(first[0])
            self._days.ensure(first[0].days.keys() - new_days)
            if self._days.refused(first[0].days):
                raise BatchRejected(group.end)
            if new_days:
                return self._load_new_days(sorted(new_days), first, group)
            return self._load_into_partitions(first, group)
        except attach.PartitionExists:
            return self._load_group(first)
        except (psycopg.Error, NamesMissing, PartitionMissing) as error:
            if self._conn.broken:
                raise
            raise BatchRejected(group.end) from error

    def _load_into_partitions(self, first: list[PreparedBatch], group: Group) -> LoadResult:
        in_bulk = self._keys.checked_in_bulk(self._rows(first[0]))
        with session.transaction(self._conn, self._node_lock, by_index=True):
            until = time.monotonic() + (MAX_GROUP_S if in_bulk else 0)
            with self._keys.without_triggers() if in_bulk else contextlib.nullcontext():
                stored = copy_rows.copy(self._conn, self._parts(first, group, {}, until), self._row_format)
            if in_bulk:
                self._keys.lock(group.used)
            position = self._finish(group)
        self._position = position
        return group.result + LoadResult(rows=stored)

    def _load_new_days(self, days: list[str], first: list[PreparedBatch], group: Group) -> LoadResult:
        with session.transaction(self._conn, schema.PARTITIONS_LOCK, self._node_lock):
            tables = attach.create_tables(self._conn, days)
            until = time.monotonic() + attach.MAX_LOCK_S
            parts = self._parts(first, group, tables, until)
            stored = copy_rows.copy(self._conn, parts, self._row_format, created=tables.values())
            attach.attach(self._conn, tables)
            position = self._finish(group)
        self._position = position
        return group.result + LoadResult(rows=stored)

    def _finish(self, group: Group) -> Position:
        rejects.write_rejects(self._conn, self._position, group.rejected)
        updates = self._source.position_updates(self._position, group.end)
        position, *_ = [positions.move(self._conn, update) for update in updates]
        return position

    def _new_days(self, batch: PreparedBatch) -> set[str]:
        """Return the days without a partition that have many rows in this batch and the prepared ones after it."""
        counts = batch.days
        if self._days.are_known(counts) or not self._keys.detect().can_attach:
            return set()
        missing = self._days.missing(counts)
        for following in self._ahead():
            few = {day for day in missing if counts[day] < attach.MIN_ATTACH_ROWS}
            if few.isdisjoint(following.days):
                break
            counts = counts + following.days
        return {day for day in missing if counts[day] >= attach.MIN_ATTACH_ROWS}

    def _rows(self, batch: PreparedBatch) -> int:
        """Return how many rows this batch and the prepared ones after it have; it stops counting at MIN_BULK_ROWS."""
        rows = batch.days.total()
        for following in self._ahead():
            if rows >= foreign_keys.MIN_BULK_ROWS:
                break
            rows += following.days.total()
        return rows

    def _ahead(self) -> Iterator[PreparedBatch]:
        """Yield the batches after the current one, as far as they are prepared, or have room to be."""
        for number in itertools.count():
            if (following := self._prefetched.peek(number)) is None:
                return
            yield following

    def _parts(
        self, first: list[PreparedBatch], group: Group, tables: Mapping[str, str], until: float
    ) -> Iterator[tuple[str, bytes]]:
        """Yield table and rows of each day until the group is complete. The table is `logs`, or the day's own table.

        Runs inside a COPY, so it must not send a query.
        """
        batch = first.pop()
        while True:
            group.add(batch, with_names=not tables)
            for day, text in batch.rows:
                yield tables.get(day, "logs"), text
            del batch
            if not self._continues(group, tables, until):
                return
            batch = next(self._prefetched)

    def _continues(self, group: Group, tables: Mapping[str, str], until: float) -> bool:
        """Return whether the next batch can join the group."""
        if time.monotonic() >= until or sum(len(line.line) for line in group.rejected) > MAX_REJECTED_BYTES:
            return False
        following = self._prefetched.peek()
        if following is None:
            return False
        days = following.days.keys()
        if len(group.days | days) > MAX_GROUP_DAYS:
            return False
        return (not tables or bool(days & tables.keys())) and self._days.are_known(days - tables.keys())
