"""Many batches: names and text of the next one are made while those before it are stored, many in one transaction.

Each commit, and each moment in which the server waits for our next word, is time in which no row is stored. So batches
that come soon after one another go through one COPY, and are committed together.
Nothing is mended here: what the database refuses is `Refused` as a whole, and whoever called loads it batch by batch.
"""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import psycopg

from xraylog.database import partitions, positions, schema, session
from xraylog.database.partitions import PartitionMissing
from xraylog.database.positions import Position
from xraylog.database.references import References
from xraylog.database.session import Connection
from xraylog.loading import attach, copy_rows, rejects
from xraylog.loading.batch_source import BatchSource
from xraylog.loading.foreign_keys import Keys, NamesMissing
from xraylog.loading.rejects import Refusals, Rejected
from xraylog.prefetch import Prefetcher
from xraylog.records import Batch, LoadResult

SECONDS = 1.0  # as long as batches of days that have a partition come together
MOST_REJECTED = 1 << 20  # bytes of lines for rejected_lines, which wait for the end of the COPY
PREFETCH_BYTES = 6 << 20  # of rows that wait while the server is busy with a day: a quarter of a second of ours
ID_BYTES = 60  # an int in a set


class Refused(Exception):
    """Nothing of these batches is stored; up to the offset `end` they must be read again, and loaded one by one."""

    def __init__(self, end: int) -> None:
        super().__init__(end)
        self.end = end


@dataclass(frozen=True, slots=True)
class Ready:
    """What a transaction needs of a batch, whose names are committed. Not the batch itself: many of these wait."""

    end: int
    days: Counter[str]
    rows: list[tuple[str, bytes]]  # for COPY, day by day
    rejected: list[Rejected]
    used: Mapping[str, set[int]]  # ids of names that the rows refer to, by table
    result: LoadResult  # without the rows, which COPY counts

    @property
    def size(self) -> int:
        """Bytes, roughly."""
        rejected = sum(len(line.line) for line in self.rejected)
        return sum(len(text) for _, text in self.rows) + rejected + ID_BYTES * sum(map(len, self.used.values()))


def prepare(names: References, batch: Batch, node_id: int) -> Ready:
    """Names first, in a short transaction of their own: no lock of theirs is held long. Raises Unsuitable."""
    resolved = names.resolve(batch.records.names())
    refused = Refusals(batch)
    records = refused.records.some(refused.without_names(resolved.refused))
    rejected = refused.rejected()
    return Ready(
        batch.end,
        batch.days(),
        [(day, copy_rows.copy_text(found, resolved.ids, node_id)) for day, found in records.by_day().items()],
        rejected,
        resolved.used(node_id),
        LoadResult(batch.lines, 0, len(rejected), batch.ignored, resolved.new),
    )


@dataclass(slots=True)
class Taken:
    """What one transaction has taken so far."""

    end: int
    result: LoadResult = field(default_factory=LoadResult)
    rejected: list[Rejected] = field(default_factory=list)
    used: dict[str, set[int]] = field(default_factory=lambda: {table: set() for table in schema.UNIQUE})

    def add(self, ready: Ready, with_names: bool) -> None:
        """One more batch."""
        self.end = ready.end
        self.result += ready.result
        self.rejected += ready.rejected
        if with_names:
            for table, ids in ready.used.items():
                self.used[table] |= ids


class Together:
    """Stores batches that become ready in another thread."""

    def __init__(
        self,
        conn: Connection,
        days: partitions.Partitions,
        keys: Keys,
        prefetched: Prefetcher[Ready],
        source: BatchSource,
        node_lock: str,
    ) -> None:
        self._conn = conn
        self._days = days
        self._keys = keys
        self._coming = prefetched
        self._source = source
        self._node_lock = node_lock

    def load_all(self, position: Position) -> Iterator[tuple[LoadResult, Position]]:
        """Store them; yields after each commit. Raises Refused."""
        for ready in self._coming:
            first = [ready]
            del ready  # whoever takes it lets go of it before the next one is read
            result, position = self._load(first, position)
            yield result, position

    def _load(self, first: list[Ready], position: Position) -> tuple[LoadResult, Position]:
        taken = Taken(first[0].end)
        try:
            days = self._new_days(first[0])
            self._days.ensure(first[0].days.keys() - days)
            if days:
                return self._load_new_days(sorted(days), first, taken, position)
            as_a_set = self._keys.as_a_set(first[0].days.total())
            with session.transaction(self._conn, self._node_lock, by_index=True):
                until = time.monotonic() + (SECONDS if as_a_set else 0)
                with self._keys.without_triggers() if as_a_set else contextlib.nullcontext():
                    stored = copy_rows.copy(self._conn, self._parts(first, taken, {}, until))
                if as_a_set:
                    self._keys.lock(taken.used)
                return self._finish(taken, stored, position)
        except attach.Taken:
            return self._load(first, position)
        except (psycopg.Error, NamesMissing, PartitionMissing) as error:
            if self._conn.broken:
                raise
            raise Refused(taken.end) from error

    def _load_new_days(
        self, days: list[str], first: list[Ready], taken: Taken, position: Position
    ) -> tuple[LoadResult, Position]:
        with session.transaction(self._conn, schema.PARTITIONS_LOCK, self._node_lock):
            tables = attach.make(self._conn, days)
            until = time.monotonic() + attach.LONGEST_S
            stored = copy_rows.copy(self._conn, self._parts(first, taken, tables, until))
            attach.attach(self._conn, tables)
            return self._finish(taken, stored, position)

    def _finish(self, taken: Taken, stored: int, position: Position) -> tuple[LoadResult, Position]:
        rejects.store(self._conn, position, taken.rejected)
        update = self._source.position_update(position, taken.end)
        return taken.result + LoadResult(rows=stored), positions.move(self._conn, update)

    def _new_days(self, ready: Ready) -> set[str]:
        """Days of the batch that have no partition, and many rows in it and the next one."""
        counts = ready.days
        if self._days.known(counts) or not self._keys.look().by_day:
            return set()
        missing = self._days.missing(counts)
        if any(counts[day] < attach.MANY for day in missing) and (following := self._coming.peek()):
            counts = counts + following.days
        return {day for day in missing if counts[day] >= attach.MANY}

    def _parts(
        self, first: list[Ready], taken: Taken, tables: Mapping[str, str], until: float
    ) -> Iterator[tuple[str, bytes]]:
        """Batches as text for `logs`, or for the tables of their days, as long as they may come together.

        Runs inside a COPY: nothing may be asked of the server here.
        """
        ready = first.pop()
        while True:
            taken.add(ready, with_names=not tables)
            for day, text in ready.rows:
                yield tables.get(day, "logs"), text
            del ready
            if not self._goes_on(taken, tables, until):
                return
            ready = next(self._coming)

    def _goes_on(self, taken: Taken, tables: Mapping[str, str], until: float) -> bool:
        """Whether the batch that follows can be part of the transaction."""
        if time.monotonic() >= until or sum(len(line.line) for line in taken.rejected) > MOST_REJECTED:
            return False
        following = self._coming.peek()
        if following is None:
            return False
        days = following.days.keys()
        return (not tables or bool(days & tables.keys())) and self._days.known(days - tables.keys())
