"""Many batches: names and text of the next one are made while those before it are stored, many in one transaction.

Each commit, and each moment in which the server waits for our next word, is time in which no row is stored. So batches
that come soon after one another go through one COPY, and are committed together.
Nothing is mended here: what the database refuses is `Refused` as a whole, and whoever called loads it batch by batch.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

import psycopg

from xraylog import database, newdays, partitions, positions, refusals, rows, schema
from xraylog.ahead import Ahead
from xraylog.database import Connection
from xraylog.keys import Keys, NamesMissing
from xraylog.partitions import PartitionMissing
from xraylog.positions import Move, Position
from xraylog.records import Batch, LoadResult, Records
from xraylog.references import References, Resolved
from xraylog.refusals import Refusals, Rejected

SECONDS = 1.0  # as long as batches of days that have a partition come together
MOST_REJECTED = 1 << 20  # bytes of lines for rejected_lines, which wait for the end of the COPY

MoveBehind = Callable[[Position, Batch], Move]  # of the log's position; the lines are on disk then


class Refused(Exception):
    """Nothing of these batches is stored; up to the offset `end` they must be read again, and loaded one by one."""

    def __init__(self, end: int) -> None:
        super().__init__(end)
        self.end = end


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

    def used(self) -> dict[str, set[int]]:
        """The ids of the names that its rows refer to, by table."""
        return {**{table: set(ids.values()) for table, ids in self.names.ids.items()}, "nodes": {self.node_id}}


def prepare(names: References, batch: Batch, node_id: int) -> Ready:
    """Names first, in a short transaction of their own: no lock of theirs is held long."""
    resolved = names.resolve(batch.records.names())
    text = b"" if resolved.refused else rows.copy_text(batch.records, resolved.ids, node_id)
    return Ready(batch, resolved, node_id, text)


@dataclass(slots=True)
class Taken:
    """What one transaction has taken so far."""

    last: Batch
    result: LoadResult = field(default_factory=LoadResult)  # without the rows, which COPY counts
    rejected: list[Rejected] = field(default_factory=list)
    used: dict[str, set[int]] = field(default_factory=lambda: {table: set() for table in schema.UNIQUE})

    def add(self, ready: Ready, rejected: list[Rejected]) -> None:
        """One more batch."""
        self.last = batch = ready.batch
        self.result += LoadResult(batch.lines, 0, len(rejected), batch.ignored, ready.names.new)
        self.rejected += rejected
        for table, ids in ready.used().items():
            self.used[table] |= ids


class Together:
    """Stores batches that become ready in another thread."""

    def __init__(
        self, conn: Connection, days: partitions.Partitions, keys: Keys, coming: Ahead[Ready], node_lock: str
    ) -> None:
        self._conn = conn
        self._days = days
        self._keys = keys
        self._coming = coming
        self._node_lock = node_lock

    def load_all(self, position: Position, behind: MoveBehind) -> Iterator[tuple[LoadResult, Position]]:
        """Store them; yields after each commit. Raises Refused."""
        for ready in self._coming:
            first = [ready]
            del ready  # whoever takes it lets go of it before the next one is read
            result, position = self._load(first, position, behind)
            yield result, position

    def _load(self, first: list[Ready], position: Position, behind: MoveBehind) -> tuple[LoadResult, Position]:
        taken = Taken(first[0].batch)
        try:
            days = self._new_days(first[0].batch)
            self._days.ensure(first[0].batch.days().keys() - days)
            if days:
                return self._load_new_days(sorted(days), first, taken, position, behind)
            as_a_set = self._keys.as_a_set(len(first[0].batch.records))
            with database.transaction(self._conn, self._node_lock):
                until = time.monotonic() + (SECONDS if as_a_set else 0)
                with self._keys.without_triggers() if as_a_set else contextlib.nullcontext():
                    stored = rows.copy(self._conn, self._parts(first, taken, {}, until))
                if as_a_set:
                    self._keys.lock(taken.used)
                return self._finish(taken, stored, position, behind)
        except newdays.Taken:
            return self._load(first, position, behind)
        except (psycopg.Error, NamesMissing, PartitionMissing) as error:
            if self._conn.broken:
                raise
            raise Refused(taken.last.end) from error

    def _load_new_days(
        self, days: list[str], first: list[Ready], taken: Taken, position: Position, behind: MoveBehind
    ) -> tuple[LoadResult, Position]:
        with database.transaction(self._conn, schema.PARTITIONS_LOCK, self._node_lock):
            tables = newdays.make(self._conn, days)
            until = time.monotonic() + newdays.LONGEST_S
            stored = rows.copy(self._conn, self._parts(first, taken, tables, until))
            newdays.attach(self._conn, tables)
            return self._finish(taken, stored, position, behind)

    def _finish(self, taken: Taken, stored: int, position: Position, behind: MoveBehind) -> tuple[LoadResult, Position]:
        refusals.store(self._conn, position, taken.rejected)
        return taken.result + LoadResult(rows=stored), positions.move(self._conn, behind(position, taken.last))

    def _new_days(self, batch: Batch) -> set[str]:
        """Days of the batch that have no partition, and many rows in it and the next one."""
        counts = batch.days()
        if self._days.known(counts) or not self._keys.look().by_day:
            return set()
        missing = self._days.missing(counts)
        if any(counts[day] < newdays.MANY for day in missing) and (following := self._coming.peek()):
            counts += following.batch.days()
        return {day for day in missing if counts[day] >= newdays.MANY}

    def _parts(
        self, first: list[Ready], taken: Taken, tables: Mapping[str, str], until: float
    ) -> Iterator[tuple[str, bytes]]:
        """Batches as text for `logs`, or for the tables of their days, as long as they may come together.

        Runs inside a COPY: nothing may be asked of the server here.
        """
        ready = first.pop()
        while True:
            refused = Refusals(ready.batch)
            usable = refused.records.some(refused.without_names(ready.names.refused))
            taken.add(ready, refused.rejected())
            for table, records in newdays.split(tables, usable) if tables else [("logs", usable)]:
                yield table, ready.text(records)
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
        days = following.batch.days().keys()
        return (not tables or bool(days & tables.keys())) and self._days.known(days - tables.keys())
