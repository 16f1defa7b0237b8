"""The nouns that modules hand each other. No behaviour beyond what a noun can say of itself."""

from __future__ import annotations

import bisect
import enum
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import NamedTuple


class AccessRecord(NamedTuple):
    """One line of the access log, every value valid for the column of its name.

    A tuple, not a frozen dataclass, which sets its fields one by one: there is a record for every line.
    """

    timestamp: str  # UTC, "2025-11-17 10:15:23.123456+00": its first ten characters are the day
    source_ip: str | None  # as inet reads it; a masked source is a network, "203.0.0.0/16"
    source_port: int | None
    action: str  # accepted, rejected, api
    protocol: str | None = None
    destination: str | None = None
    destination_port: int | None = None
    inbound_tag: str | None = None
    outbound_tag: str | None = None
    email: str | None = None


class BadLine(NamedTuple):
    """A line that is no access record, as it was written, and why."""

    line: bytes
    reason: str


class Ignored(enum.Enum):
    """A line that is recognised and left out by design."""

    BLANK = "blank"
    COMMENT = "comment"
    DNS = "xray's own DNS client"
    DNS_ANSWER = "DNS answer"
    CONSOLE = "console or error log"


HEAD_BYTES = 4096  # a fingerprint covers at most so much, so that it stays the same while a log grows


class Fingerprint(NamedTuple):
    """What a log file is recognised by: SHA-256 of its first `length` bytes, length <= HEAD_BYTES."""

    length: int
    digest: bytes


@dataclass(frozen=True, slots=True)
class Batch:
    """Complete lines that follow one another in one log, bytes [start, end) of it, and what they say."""

    start: int
    end: int
    records: list[AccessRecord]
    offsets: list[int]  # in the log, where each record's line begins
    bad_lines: list[tuple[int, BadLine]]  # likewise
    ignored: Mapping[Ignored, int]
    lines: int  # how many were read, counted on the bytes: a check on what the parser counted
    text: bytes  # what the records were read from: the log itself, or lines of the buffer
    places: list[int]  # in `text`, where each record's line begins

    @property
    def stored(self) -> int:
        """How many lines will be rows or rejected lines."""
        return len(self.records) + len(self.bad_lines)

    def line(self, index: int) -> tuple[int, bytes]:
        """What record `index` was read from: its line's offset in the log, and the bytes."""
        place = self.places[index]
        return self.offsets[index], self.text[place : self.text.find(b"\n", place)]

    def names(self) -> dict[str, set[str]]:
        """The distinct names in the records, by reference table."""
        records = self.records
        names = {
            "users": {record.email for record in records},
            "protocols": {record.protocol for record in records},
            "endpoints": {record.destination for record in records},
            "tags": {record.inbound_tag for record in records} | {record.outbound_tag for record in records},
        }
        return {table: {name for name in found if name is not None} for table, found in names.items()}

    def behind(self, offset: int) -> Batch:
        """The part of the batch that begins at `offset` or behind it."""
        first = bisect.bisect_left(self.offsets, offset)
        bad_lines = [(at, bad) for at, bad in self.bad_lines if at >= offset]
        return replace(
            self,
            records=self.records[first:],
            offsets=self.offsets[first:],
            places=self.places[first:],
            bad_lines=bad_lines,
        )


@dataclass(frozen=True, slots=True)
class Origin:
    """The log that lines came from, as it was when they were read."""

    node: str
    source: str  # its path, for people
    fingerprints: list[Fingerprint]  # one for every position that lines of this log can have been stored under
    predecessor: bytes | None  # the digest under which it was known before it was drained; its beginning
    again: bool = False  # to be stored whatever was stored before

    def fingerprint(self, offset: int) -> Fingerprint | None:
        """What a position at `offset` is stored under; None when this log never had one there."""
        length = min(offset, HEAD_BYTES)
        return next((known for known in self.fingerprints if known.length == length), None)


@dataclass(frozen=True, slots=True)
class LoadResult:
    """What storing some lines came to. Add results up to tell of a run."""

    lines: int = 0
    rows: int = 0  # lines that are now in `logs`
    rejected: int = 0  # lines that are now in `rejected_lines`
    ignored: Mapping[Ignored, int] = field(default_factory=dict)
    new_names: Mapping[str, int] = field(default_factory=dict)  # by reference table

    def __add__(self, other: LoadResult) -> LoadResult:
        return LoadResult(
            self.lines + other.lines,
            self.rows + other.rows,
            self.rejected + other.rejected,
            Counter(self.ignored) + Counter(other.ignored),
            Counter(self.new_names) + Counter(other.new_names),
        )

    @property
    def adds_up(self) -> bool:
        """Every line that was read is a row, rejected, or ignored by design."""
        return self.lines == self.rows + self.rejected + sum(self.ignored.values())
