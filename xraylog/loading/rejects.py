"""What the database refuses of one batch: values that no other try will mend, as lines for rejected_lines."""

from __future__ import annotations

import collections
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import psycopg
from psycopg import errors
from psycopg.errors import DataError, IntegrityError

from xraylog.database import session
from xraylog.database.partitions import PartitionMissing
from xraylog.database.positions import Position
from xraylog.database.session import Connection, Unsuitable
from xraylog.records import AccessRecord, Batch, Records

COPY_REJECTED = "COPY rejected_lines (node_id, source, line_offset, reason, line) FROM STDIN"

FEW_REFUSED = 100  # rows: up to here the rows are at fault, and beyond it and 1 % of the batch the schema is
MOST_KEPT = 16 << 20  # bytes of a rejected line: a field of PostgreSQL ends at 1 GiB, and bytea travels as hex
CUT = r" \(its first [0-9]+ of [0-9]+ bytes\)$"  # how the reason ends of a line that is not kept whole


@dataclass(frozen=True, slots=True)
class Rejected:
    """A line for rejected_lines."""

    offset: int
    reason: str
    line: bytes


class Refusals:
    """The records of one batch that the database refuses, as lines for rejected_lines."""

    def __init__(self, batch: Batch) -> None:
        self.found: list[Rejected] = []
        self._batch = batch
        self._reasons: collections.Counter[str] = collections.Counter()

    @property
    def records(self) -> Records:
        """The batch's."""
        return self._batch.records

    def rejected(self) -> list[Rejected]:
        """The bad lines and what was refused, in the log's order."""
        bad_lines = [Rejected(offset, bad.reason, bad.line) for offset, bad in self._batch.bad_lines]
        return sorted(bad_lines + self.found, key=lambda line: line.offset)

    def without_names(self, refused: Mapping[tuple[str, str], str]) -> Sequence[int]:
        """The indices of the records that use none of the refused names; the others are refused."""
        if not refused:
            return range(len(self.records))
        usable = []
        for index, record in enumerate(self.records):
            reasons = [refused[name] for name in _names(record) if name in refused]
            if reasons:
                self.add(index, reasons[0], None)
            else:
                usable.append(index)
        return usable

    def add(self, index: int, reason: str, constraint: str | None) -> None:
        """Refuse a record. Raises Unsuitable when so many are refused for one reason that the schema is at fault."""
        self._reasons[constraint or reason] += 1
        if max(self._reasons.values()) >= max(FEW_REFUSED, len(self.records) / 100):
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


def put(
    conn: Connection,
    batch: Batch,
    position: Position,
    refused_names: Mapping[tuple[str, str], str],
    copy: Callable[[Records], int],
) -> tuple[int, int]:
    """Have `copy` store the batch's records; what the database refuses goes to rejected_lines with the bad lines.

    In a transaction. Returns the rows and the rejected lines.
    """
    refusals = Refusals(batch)
    stored = _copy_by_halves(conn, refusals.without_names(refused_names), copy, refusals)
    rejected = refusals.rejected()
    store(conn, position, rejected)
    return stored, len(rejected)


def _copy_by_halves(conn: Connection, usable: Sequence[int], copy: Callable[[Records], int], refusals: Refusals) -> int:
    """Find the rows that the database refuses, and load the others.

    The server's CONTEXT names the row only for some errors, and in its own language.
    """
    try:
        with conn.transaction():
            return copy(refusals.records.some(usable))
    except (DataError, IntegrityError) as error:
        raise_unless_poison(error)
        if len(usable) == 1:
            refusals.add(usable[0], session.message(error), error.diag.constraint_name)
            return 0
    middle = len(usable) // 2
    return _copy_by_halves(conn, usable[:middle], copy, refusals) + _copy_by_halves(
        conn, usable[middle:], copy, refusals
    )


def store(conn: Connection, position: Position, rejected: Sequence[Rejected]) -> None:
    """Put lines of the log at this position into rejected_lines."""
    if not rejected:
        return
    with conn.cursor() as cursor, cursor.copy(COPY_REJECTED) as copy:
        for line in rejected:
            reason, kept = line.reason, line.line[:MOST_KEPT]
            if len(kept) < len(line.line):
                reason += f" (its first {MOST_KEPT} of {len(line.line)} bytes)"
            copy.write_row((position.node_id, position.source, line.offset, reason, kept))


def raise_unless_poison(error: psycopg.Error) -> None:
    """What another try mends is no fault of the rows. Raises PartitionMissing, and the error itself."""
    if isinstance(error, errors.ForeignKeyViolation):
        raise error
    # "no partition of relation" has the SQLSTATE of a CHECK, but no constraint's name
    if isinstance(error, errors.CheckViolation) and error.diag.constraint_name is None:
        raise PartitionMissing from error
