"""The nouns that modules hand each other. No behaviour beyond what a noun can say of itself."""

from __future__ import annotations

import enum
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple


class AccessRecord(NamedTuple):
    """One line of the access log, every value valid for the column of its name.

    A tuple, not a dataclass: building a frozen dataclass of ten fields takes four times as long
    (python -m timeit), and there is one for every line.
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


class Fingerprint(NamedTuple):
    """What a log file is recognised by: SHA-256 of its first `length` bytes, length <= 4096."""

    length: int
    digest: bytes


@dataclass(frozen=True, slots=True)
class Batch:
    """Complete lines that follow one another in one file, and what they say: bytes [start, end)."""

    start: int
    end: int
    text: bytes
    records: list[AccessRecord]
    record_ends: list[int]  # offset behind each record's line
    bad_lines: list[tuple[int, BadLine]]  # with the offset at which each begins
    ignored: Mapping[Ignored, int]

    @property
    def lines(self) -> int:
        """How many lines were read, counted on the bytes: a check on what the parser counted."""
        return self.text.count(b"\n")

    def line(self, index: int) -> tuple[int, bytes]:
        """The line that record `index` came from: the offset at which it begins, and its bytes."""
        end = self.record_ends[index] - self.start
        begin = self.text.rfind(b"\n", 0, end - 1) + 1
        return self.start + begin, self.text[begin : end - 1]


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
