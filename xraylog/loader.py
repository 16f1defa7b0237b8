"""One batch, one transaction: its rows, its rejected lines and its position, all or nothing.

Rows go through COPY with the row triggers of the foreign keys on: any role that may insert can do it.
"""

from __future__ import annotations

import collections
from collections.abc import Sequence
from dataclasses import dataclass

import psycopg
from psycopg import errors
from psycopg.errors import DataError, IntegrityError

from xraylog import database, positions, schema
from xraylog.database import Connection, Unsuitable
from xraylog.positions import Position
from xraylog.records import AccessRecord, Batch, Fingerprint, LoadResult
from xraylog.references import References

COPY_LOGS = """
    COPY logs ("timestamp", source_ip, source_port, action, protocol_id, destination_id, destination_port,
               inbound_tag_id, outbound_tag_id, user_id, node_id)
    FROM STDIN
"""
COPY_REJECTED = "COPY rejected_lines (node_id, source, line_offset, reason, line) FROM STDIN"

TRIES = 3  # a name or a partition can vanish between two statements, but hardly three times
FEW_REFUSED = 100  # rows: up to here the rows are at fault, and beyond it and 1 % of the batch the schema is
NULL = "\\N"
ROW = "\t".join(["%s"] * 11) + "\n"


@dataclass(frozen=True, slots=True)
class Rejected:
    """A line for rejected_lines."""

    offset: int
    reason: str
    line: bytes


class Loader:
    """Stores the batches of one log over one connection."""

    def __init__(self, conn: Connection, references: References, days: schema.Partitions, node: str) -> None:
        self._conn = conn
        self._references = references
        self._days = days
        self._node_lock = node_lock(node)

    def load(self, batch: Batch, position: Position, fingerprint: Fingerprint) -> tuple[LoadResult, Position]:
        """Store a batch, and that its file is stored up to its end, where the file has this fingerprint.

        Raises Moved when another run stored it, and Unsuitable when the database refuses more than some rows.
        """
        new_names: collections.Counter[str] = collections.Counter()
        again: psycopg.Error | None = None
        for _ in range(TRIES):
            new_names.update(self._prepare(batch))
            try:
                rows, rejected, moved = self._store(batch, position, fingerprint)
            except (errors.ForeignKeyViolation, schema.PartitionMissing):
                self._references.forget()
                self._days.forget()
                continue
            except (errors.DeadlockDetected, errors.SerializationFailure) as error:
                again = error
                continue
            result = LoadResult(batch.lines, rows, rejected, batch.ignored, new_names)
            return result, moved
        if again is not None:
            raise again
        raise Unsuitable("names or partitions vanish while rows that use them are stored; what deletes them?")

    def _prepare(self, batch: Batch) -> dict[str, int]:
        """Names and partitions first, in short transactions of their own: no lock of theirs is held long."""
        self._days.ensure({record.timestamp[:10] for record in batch.records})
        return self._references.resolve(names_of(batch.records))

    def _store(self, batch: Batch, position: Position, fingerprint: Fingerprint) -> tuple[int, int, Position]:
        """One transaction; once more, row by row where needed, when the database refuses a value."""
        rejected = [Rejected(offset, bad.reason, bad.line) for offset, bad in batch.bad_lines]
        try:
            with database.transaction(self._conn, self._node_lock):
                rows = self._copy_rows(batch.records, position.node_id)
                self._copy_rejected(position, rejected)
                return rows, len(rejected), positions.move(self._conn, position, batch.end, fingerprint)
        except (DataError, IntegrityError) as error:
            _raise_unless_poison(error)
        with database.transaction(self._conn, self._node_lock):
            refused = _Refusals(self, batch, position.node_id)
            rows = refused.copy(0, len(batch.records))
            self._copy_rejected(position, rejected + refused.found)
            moved = positions.move(self._conn, position, batch.end, fingerprint)
            return rows, len(rejected) + len(refused.found), moved

    def _copy_rows(self, records: Sequence[AccessRecord], node_id: int) -> int:
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
                copy.write_row((position.node_id, position.source, line.offset, line.reason, line.line))


def node_lock(node: str) -> str:
    """The name of the lock under which a node's lines and positions are stored."""
    return f"node {node}"


def names_of(records: Sequence[AccessRecord]) -> dict[str, set[str]]:
    """The distinct names that these records use, by reference table."""
    names = {
        "users": {record.email for record in records},
        "protocols": {record.protocol for record in records},
        "endpoints": {record.destination for record in records},
        "tags": {record.inbound_tag for record in records} | {record.outbound_tag for record in records},
    }
    return {table: {name for name in found if name is not None} for table, found in names.items()}


def copy_text(records: Sequence[AccessRecord], references: References, node_id: int) -> str:
    """Rows for COPY_LOGS. Nothing needs escaping: names are ids here, the rest the parser has validated."""
    user, protocol = references.ids("users"), references.ids("protocols")
    endpoint, tag = references.ids("endpoints"), references.ids("tags")
    rows = []
    for at, ip, port, action, network, host, host_port, inbound, outbound, email in records:
        values = (
            at,
            NULL if ip is None else ip,
            NULL if port is None else port,
            action,
            NULL if network is None else protocol[network],
            NULL if host is None else endpoint[host],
            NULL if host_port is None else host_port,
            NULL if inbound is None else tag[inbound],
            NULL if outbound is None else tag[outbound],
            NULL if email is None else user[email],
            node_id,
        )
        rows.append(ROW % values)
    return "".join(rows)


def _raise_unless_poison(error: psycopg.Error) -> None:
    """What another try mends is no fault of the rows."""
    if isinstance(error, errors.ForeignKeyViolation):
        raise error
    # "no partition of relation" has the SQLSTATE of a CHECK, but no constraint's name
    if isinstance(error, errors.CheckViolation) and error.diag.constraint_name is None:
        raise schema.PartitionMissing from error


class _Refusals:
    """Finds the rows that the database refuses by halving, inside a transaction; loads the others.

    The server's CONTEXT names the row only for some errors, and in its own language.
    """

    def __init__(self, loader: Loader, batch: Batch, node_id: int) -> None:
        self.found: list[Rejected] = []
        self._loader = loader
        self._batch = batch
        self._node_id = node_id
        self._reasons: collections.Counter[str] = collections.Counter()

    def copy(self, first: int, end: int) -> int:
        """Load records [first, end); returns how many rows that made."""
        if first == end:
            return 0
        try:
            with self._loader._conn.transaction():  # noqa: SLF001  # a part of the loader, on its connection
                return self._loader._copy_rows(self._batch.records[first:end], self._node_id)  # noqa: SLF001
        except (DataError, IntegrityError) as error:
            _raise_unless_poison(error)
            if end - first == 1:
                self._refuse(first, error)
                return 0
        middle = (first + end) // 2
        return self.copy(first, middle) + self.copy(middle, end)

    def _refuse(self, index: int, error: psycopg.Error) -> None:
        reason = database.message(error)
        self._reasons[error.diag.constraint_name or error.diag.message_primary or ""] += 1
        if max(self._reasons.values()) > max(FEW_REFUSED - 1, len(self._batch.records) // 100):
            raise Unsuitable(f"the table logs does not fit: {reason}, for more than 1 % of the rows of a batch")
        offset, line = self._batch.line(index)
        self.found.append(Rejected(offset, reason, line))
