"""One batch, one transaction: its rows, its rejected lines and its position, all or nothing.

Rows go through COPY with the row triggers of the foreign keys on: any role that may insert can do it.
"""

from __future__ import annotations

import collections
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import psycopg
from psycopg import errors
from psycopg.errors import DataError, IntegrityError

from xraylog import database, partitions, positions, references
from xraylog.database import Connection, Unsuitable
from xraylog.positions import Move, Position
from xraylog.records import UTC, AccessRecord, Batch, LoadResult, Records
from xraylog.references import References

COPY_LOGS = """
    COPY logs ("timestamp", source_ip, source_port, action, protocol_id, destination_id, destination_port,
               inbound_tag_id, outbound_tag_id, user_id, node_id)
    FROM STDIN
"""
COPY_REJECTED = "COPY rejected_lines (node_id, source, line_offset, reason, line) FROM STDIN"

TRIES = 3  # a name or a partition can vanish between two statements, but hardly three times
FEW_REFUSED = 100  # rows: up to here the rows are at fault, and beyond it and 1 % of the batch the schema is
MOST_KEPT = 16 << 20  # bytes of a rejected line: a field of PostgreSQL ends at 1 GiB, and bytea travels as hex
NULL = "\\N"
ROW = f"%s{UTC}\t%s\t%s\t%s\t%s\n"


@dataclass(frozen=True, slots=True)
class Rejected:
    """A line for rejected_lines."""

    offset: int
    reason: str
    line: bytes


class Target:
    """One connection, with what a run has learned over it; makes a loader for each node."""

    def __init__(self, conn: Connection) -> None:
        self.conn = conn
        self.references = References(conn)
        self.days = partitions.Partitions(conn)
        self._loaders: dict[str, Loader] = {}

    def node_id(self, node: str) -> int:
        """The node's id, made when the node is new."""
        return references.node_id(self.references, node)

    def loader(self, node: str) -> Loader:
        """What stores the batches of a node."""
        if node not in self._loaders:
            self._loaders[node] = Loader(self.conn, self.references, self.days, node)
        return self._loaders[node]


class Loader:
    """Stores the batches of one log over one connection."""

    def __init__(self, conn: Connection, references: References, days: partitions.Partitions, node: str) -> None:
        self._conn = conn
        self._references = references
        self._days = days
        self._node_lock = node_lock(node)

    def load(self, batch: Batch, *moves: Move) -> tuple[LoadResult, list[Position]]:
        """Store a batch and make the moves, in one transaction; the first move is that of the batch's own log.

        Raises Moved when another run stored it, and Unsuitable when the database refuses more than some rows.
        """
        new_names: collections.Counter[str] = collections.Counter()
        again: psycopg.Error | None = None
        for _ in range(TRIES):
            try:
                new_names.update(self._prepare(batch))
                rows, rejected, moved = self._store(batch, moves)
            except (errors.ForeignKeyViolation, partitions.PartitionMissing):
                self._references.forget()
                self._days.forget()
                continue
            except (errors.DeadlockDetected, errors.SerializationFailure) as error:
                again = error
                continue
            return LoadResult(batch.lines, rows, rejected, batch.ignored, new_names), moved
        if again is not None:
            raise again
        raise Unsuitable("names or partitions vanish while rows that use them are stored; what deletes them?")

    def _prepare(self, batch: Batch) -> dict[str, int]:
        """Names and partitions first, in short transactions of their own: no lock of theirs is held long."""
        self._days.ensure(batch.days())
        return self._references.resolve(batch.names())

    def _store(self, batch: Batch, moves: Sequence[Move]) -> tuple[int, int, list[Position]]:
        """One transaction; once more, by halves, when the database refuses a value. Rows, rejected, new positions."""
        refusals = Refusals(batch)
        usable = refusals.without_names(self._references.refused)
        try:
            return self._commit(batch, moves, usable, refusals, self._copy_at_once)
        except (DataError, IntegrityError) as error:
            _raise_unless_poison(error)
        return self._commit(batch, moves, usable, refusals, self._copy_by_halves)

    def _commit(
        self,
        batch: Batch,
        moves: Sequence[Move],
        usable: Sequence[int],
        refusals: Refusals,
        copy: Callable[[Batch, Sequence[int], int, Refusals], int],
    ) -> tuple[int, int, list[Position]]:
        own = moves[0].position
        with database.transaction(self._conn, self._node_lock):
            rows = copy(batch, usable, own.node_id, refusals)
            rejected = [Rejected(offset, bad.reason, bad.line) for offset, bad in batch.bad_lines] + refusals.found
            self._copy_rejected(own, sorted(rejected, key=lambda line: line.offset))
            return rows, len(rejected), [positions.move(self._conn, move) for move in moves]

    def _copy_at_once(self, batch: Batch, usable: Sequence[int], node_id: int, _: Refusals) -> int:
        records = batch.records
        if len(usable) < len(records):
            records = records.some(usable)
        return self._copy_rows(records, node_id)

    def _copy_by_halves(self, batch: Batch, usable: Sequence[int], node_id: int, refusals: Refusals) -> int:
        """Find the rows that the database refuses, and load the others.

        The server's CONTEXT names the row only for some errors, and in its own language.
        """
        try:
            with self._conn.transaction():
                return self._copy_at_once(batch, usable, node_id, refusals)
        except (DataError, IntegrityError) as error:
            _raise_unless_poison(error)
            if len(usable) == 1:
                refusals.add(usable[0], database.message(error), error.diag.constraint_name)
                return 0
        middle = len(usable) // 2
        first, second = usable[:middle], usable[middle:]
        return self._copy_by_halves(batch, first, node_id, refusals) + self._copy_by_halves(
            batch, second, node_id, refusals
        )

    def _copy_rows(self, records: Records, node_id: int) -> int:
        if not records:
            return 0
        with self._conn.cursor() as cursor:
            with cursor.copy(COPY_LOGS) as copy:
                copy.write(copy_text(records, self._references, node_id))
            return cursor.rowcount

    def _copy_rejected(self, position: Position, rejected: Sequence[Rejected]) -> None:
        if not rejected:
            return
        with self._conn.cursor() as cursor, cursor.copy(COPY_REJECTED) as copy:
            for line in rejected:
                reason, kept = line.reason, line.line[:MOST_KEPT]
                if len(kept) < len(line.line):
                    reason += f" (its first {MOST_KEPT} of {len(line.line)} bytes)"
                copy.write_row((position.node_id, position.source, line.offset, reason, kept))


def node_lock(node: str) -> str:
    """The name of the lock under which a node's lines and positions are stored."""
    return f"node {node}"


def copy_text(records: Records, references: References, node_id: int) -> str:
    """Rows for COPY_LOGS. Nothing needs escaping: names are ids here, the rest the parser has validated."""
    user, protocol = references.ids("users"), references.ids("protocols")
    endpoint, tag = references.ids("endpoints"), references.ids("tags")
    requests = {
        request: _fields(
            request.action,
            request.protocol and protocol[request.protocol],
            request.destination and endpoint[request.destination],
            request.destination_port,
        )
        for request in set(records.requests)
    }
    routes = {
        route: _fields(
            route.inbound_tag and tag[route.inbound_tag],
            route.outbound_tag and tag[route.outbound_tag],
            route.email and user[route.email],
            node_id,
        )
        for route in set(records.routes)
    }
    columns = zip(
        records.timestamps,
        [NULL if address is None else address for address in records.source_ips],
        [NULL if port is None else port for port in records.source_ports],
        map(requests.__getitem__, records.requests),
        map(routes.__getitem__, records.routes),
        strict=True,
    )
    return "".join(map(ROW.__mod__, columns))


def _fields(*values: str | int | None) -> str:
    return "\t".join(NULL if value is None else str(value) for value in values)


def _raise_unless_poison(error: psycopg.Error) -> None:
    """What another try mends is no fault of the rows."""
    if isinstance(error, errors.ForeignKeyViolation):
        raise error
    # "no partition of relation" has the SQLSTATE of a CHECK, but no constraint's name
    if isinstance(error, errors.CheckViolation) and error.diag.constraint_name is None:
        raise partitions.PartitionMissing from error


class Refusals:
    """The records of one batch that the database refuses, as lines for rejected_lines."""

    def __init__(self, batch: Batch) -> None:
        self.found: list[Rejected] = []
        self._batch = batch
        self._reasons: collections.Counter[str] = collections.Counter()

    def without_names(self, refused: Mapping[tuple[str, str], str]) -> Sequence[int]:
        """The indices of the records that use none of the refused names; the others are refused."""
        records = self._batch.records
        if not refused:
            return range(len(records))
        usable = []
        for index, record in enumerate(records):
            reasons = [refused[name] for name in _names(record) if name in refused]
            if reasons:
                self.add(index, reasons[0], None)
            else:
                usable.append(index)
        return usable

    def add(self, index: int, reason: str, constraint: str | None) -> None:
        """Refuse a record. Raises Unsuitable when so many are refused for one reason that the schema is at fault."""
        self._reasons[constraint or reason] += 1
        if max(self._reasons.values()) >= max(FEW_REFUSED, len(self._batch.records) / 100):
            raise Unsuitable(f"the tables do not fit: {reason}, for more than 1 % of the rows of a batch")
        offset, line = self._batch.line(index)
        self.found.append(Rejected(offset, reason, line))


def _names(record: AccessRecord) -> list[tuple[str, str]]:
    """Table and name of every name that a record uses."""
    used = (
        ("users", record.email),
        ("protocols", record.protocol),
        ("endpoints", record.destination),
        ("tags", record.inbound_tag),
        ("tags", record.outbound_tag),
    )
    return [(table, name) for table, name in used if name is not None]
