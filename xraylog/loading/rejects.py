"""Find the rows whose values the database always rejects, and store their lines in rejected_lines."""

from __future__ import annotations

import collections
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import psycopg
from psycopg import errors
from psycopg.errors import DataError, IntegrityError
from psycopg.sql import Identifier

from xraylog.database import citus, interference, partitions, retry, session, table_faults
from xraylog.database.partitions import PartitionMissing
from xraylog.database.positions import Position
from xraylog.database.rejection import Refusals, Rejection
from xraylog.database.session import Connection, Unsuitable
from xraylog.records import DAY, AccessRecord, BadLine, Batch, Records, cut

COPY_REJECTED = "COPY rejected_lines (node_id, source, line_offset, reason, line) FROM STDIN"

MIN_SCHEMA_FAULT = 100  # rejected rows: with fewer, or up to 1 % of the batch, the rows are at fault, not the schema
NO_ROOM = "expected room for a partition of "
WRITE_BYTES = 1 << 16  # of COPY text at a time: psycopg and libpq each copy what they get
# PostgreSQL's page on COPY, section "Text Format"
ESCAPED = str.maketrans({"\\": "\\\\", "\b": "\\b", "\f": "\\f", "\n": "\\n", "\r": "\\r", "\t": "\\t", "\v": "\\v"})


@dataclass(frozen=True, slots=True)
class Rejected:
    """A line for rejected_lines."""

    offset: int
    reason: str
    line: bytes


class Store(NamedTuple):
    """Two functions that store records in `logs`; each returns how many rows it stored."""

    copy: Callable[[Records], int]
    insert: Callable[[Records], int]  # stores a single record, if the error of COPY does not say why it was refused


class RejectedRows:
    """Collects the records of one batch that the database rejects, as lines for rejected_lines."""

    def __init__(self, batch: Batch, refusals: Refusals) -> None:
        """`refusals`: of the run; each rejection is noted there."""
        self.found: list[Rejected] = []
        self._batch = batch
        self._refusals = refusals
        self._reasons: collections.Counter[str] = collections.Counter()

    @property
    def records(self) -> Records:
        """The records of the batch."""
        return self._batch.records

    def rejected(self) -> list[Rejected]:
        """Return the bad lines and the rejected rows, in the order of the log."""
        bad_lines = [Rejected(offset, bad.reason, bad.line) for offset, bad in self._batch.bad_lines]
        return sorted(bad_lines + self.found, key=lambda line: line.offset)

    def without_names(self, rejected: Mapping[tuple[str, str], Rejection]) -> Sequence[int]:
        """Return the indices of records that use none of these rejected names; reject the others."""
        if not rejected:
            return range(len(self.records))
        usable = []
        for index, record in enumerate(self.records):
            found = [rejected[name] for name in _names(record) if name in rejected]
            if found:
                self.add(index, found[0])
            else:
                usable.append(index)
        return usable

    def without_days(self, rejected: Mapping[str, str], usable: Sequence[int]) -> Sequence[int]:
        """Return those indices whose records are not of a rejected day; reject the others, however many there are."""
        if not rejected:
            return usable
        of_day = {index: self.records.minutes[index][:DAY] for index in usable}
        for index, day in of_day.items():
            if day in rejected:
                offset, line = self._batch.line(index)
                reason = f"{NO_ROOM}{day}, found none: {rejected[day]}"
                self.found.append(Rejected(offset, reason, line))
        return [index for index, day in of_day.items() if day not in rejected]

    def add(self, index: int, rejection: Rejection, lift: str = "") -> None:
        """Reject a record. Raises Unsuitable if many are rejected for one reason: then the schema is at fault.

        `lift`: the statements that remove what refuses it, if it is not a constraint.
        """
        self._reasons[rejection.constraint or rejection.reason] += 1
        if max(self._reasons.values()) >= max(MIN_SCHEMA_FAULT, len(self.records) / 100):
            seen = "SELECT conname, pg_get_constraintdef(oid) FROM pg_constraint WHERE conrelid = 'logs'::regclass"
            fix = f"as their owner, or a superuser of PostgreSQL: {lift}" if lift else f"what refuses them: {seen}"
            raise Unsuitable(
                f"the tables do not fit: {rejection.reason}, for more than 1 % of the rows of a batch; {fix}"
            )
        self._refusals.note(rejection)
        offset, line = self._batch.line(index)
        self.found.append(Rejected(offset, rejection.reason, line))


def _names(record: AccessRecord) -> list[tuple[str, str]]:
    """Return table and name of every name that a record uses."""
    used = (
        ("users", record.email),
        ("protocols", record.protocol),
        ("endpoints", record.destination),
        ("tags", record.inbound_tag),
        ("tags", record.outbound_tag),
    )
    return [(table, name) for table, name in used if name is not None]


def copy_or_reject(
    conn: Connection, rows: RejectedRows, usable: Sequence[int], position: Position, store: Store
) -> tuple[int, int]:
    """Store the usable records of a batch; write those that the database rejects, and bad lines, to rejected_lines.

    Runs in a transaction. Return the numbers of rows and of unparsed lines.
    """
    stored = _copy_by_halves(conn, usable, store, rows)
    rejected = rows.rejected()
    write_rejects(conn, position, rejected)
    return stored, len(rejected)


def _copy_by_halves(conn: Connection, usable: Sequence[int], store: Store, rows: RejectedRows) -> int:
    """Find the rows that the database rejects by bisection, and load the others; return how many were loaded.

    The CONTEXT of an error names the row only for some errors, and in the server's language.
    """

    def copy_part(part: Sequence[int]) -> int:
        records = rows.records.select(part)
        try:
            return attempt(store.copy, records)
        except errors.InternalError_ as error:
            if not citus.lost_the_reason(conn, error):
                raise
            if len(part) > 1:
                raise _ValuesRejected(Rejection.of(error)) from error
        return attempt(store.insert, records)

    def attempt(action: Callable[[Records], int], records: Records) -> int:
        try:
            with conn.transaction():
                return action(records)
        except (DataError, IntegrityError) as error:
            raise_unless_row_is_at_fault(conn, error, records)
            lift = "; ".join(interference.culprits(conn, error))
            raise _ValuesRejected(Rejection.of(error), lift) from error

    def reject(index: int, rejected: _ValuesRejected) -> int:
        rows.add(index, rejected.rejection, rejected.lift)
        return 0

    return sum(retry.bisect(usable, copy_part, reject, (_ValuesRejected,)))


class _ValuesRejected(Exception):
    """The database rejects the values of a row, however often it is tried."""

    def __init__(self, rejection: Rejection, lift: str = "") -> None:
        super().__init__(rejection.reason)
        self.rejection, self.lift = rejection, lift


def write_rejects(conn: Connection, position: Position, rejected: Sequence[Rejected]) -> None:
    """Write lines of the log at this position to rejected_lines. Raises Unsuitable if some did not arrive there."""
    if not rejected:
        return
    with conn.cursor() as cursor:
        with cursor.copy(COPY_REJECTED) as copy:
            text = bytearray()
            for part in _copy_text(position, rejected):
                text += part
                if len(text) >= WRITE_BYTES:
                    copy.write(bytes(text))
                    text.clear()
            copy.write(bytes(text))
        stored = cursor.rowcount
    if 0 <= stored < len(rejected) and (statements := interference.removals(conn, "rejected_lines")):
        raise Unsuitable(
            "rejected_lines does not take unparsed lines; as its owner, or a superuser of PostgreSQL: "
            + "; ".join(statements)
        )


def _copy_text(position: Position, rejected: Sequence[Rejected]) -> Iterator[bytes]:
    """Yield the lines in COPY's text format, in small parts: a line can have 16 MiB, its text twice as many."""
    source = position.source.translate(ESCAPED)
    for line in rejected:
        bad = cut(BadLine(line.line, line.reason), len(line.line))
        yield f"{position.node_id}\t{source}\t{line.offset}\t{bad.reason.translate(ESCAPED)}\t\\\\x".encode()
        for start in range(0, len(bad.line), WRITE_BYTES):
            yield bad.line[start : start + WRITE_BYTES].hex().encode()
        yield b"\n"


# The partitions of logs that are partitioned themselves, at any depth.
PARTITIONED = """
    WITH RECURSIVE part (oid) AS (
        SELECT inhrelid FROM pg_inherits WHERE inhparent = 'logs'::regclass
        UNION ALL
        SELECT inhrelid FROM pg_inherits JOIN part ON part.oid = inhparent
    )
    SELECT n.nspname, c.relname
    FROM part
    JOIN pg_class c ON c.oid = part.oid
    JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relkind = 'p'
"""


def _raise_if_day_is_partitioned(conn: Connection, error: psycopg.Error) -> None:
    """Raise Unsuitable for a day that the operator has partitioned, and that has no partition for a row.

    Before PostgreSQL 13 the error has the name of the table in its message alone.
    """
    message = session.message(error)
    for schema, name in conn.execute(PARTITIONED):
        if name in message and name == (error.diag.table_name or name):
            day, rest = (Identifier(schema, one).as_string(conn) for one in (name, f"{name}_rest"))
            create = f"CREATE TABLE {rest} PARTITION OF {day} DEFAULT"
            raise Unsuitable(
                f"{message}: it is partitioned itself; as its owner, from PostgreSQL 11 on: {create}"
            ) from error


def raise_unless_row_is_at_fault(conn: Connection, error: psycopg.Error, records: Records) -> None:
    """Raise if an error is not about the values of a row: a partition or a name vanished, or the tables refuse any row.

    Raises the error itself, PartitionMissing or Unsuitable.
    """
    if interference.culprits(conn, error):  # a trigger may give its errors any SQLSTATE
        return
    if isinstance(error, errors.ForeignKeyViolation):
        raise error
    # "no partition of relation" has the SQLSTATE of a CHECK, but no constraint's name; Citus never gives that name
    is_nameless = isinstance(error, errors.CheckViolation) and error.diag.constraint_name is None
    days = {minute[:DAY] for minute in records.minutes}
    is_routing = error.diag.source_function == "ExecFindPartition"
    if is_nameless and is_routing:
        _raise_if_day_is_partitioned(conn, error)
    if is_nameless and not (citus.has_logs(conn) and partitions.are_there(conn, days)):
        raise PartitionMissing from error
    table_faults.raise_if_at_fault(conn, error, "logs")
