"""What the layers hand each other: records, batches, fingerprints. Knows no file and no database."""

from __future__ import annotations

import enum
import functools
import hashlib
import itertools
import operator
import re
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple, TypeAlias

DAY, MINUTE = 10, 16  # length of a timestamp up to its day, and up to its minute
UTC = "+00"  # what our timestamps end with, for PostgreSQL and for people


class AccessRecord(NamedTuple):
    """One line of the access log, every value valid for the column of its name."""

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
    reject_reason: str = ""  # why xray rejected the connection; empty if unknown


Ids: TypeAlias = Mapping[str, Mapping[str, int]]  # ids by name, by reference table


@dataclass(frozen=True, slots=True, eq=False)  # compared by identity: a column repeats few of them many times
class Request:
    """What a client asked for, and how xray responded."""

    action: str
    protocol: str | None
    destination: str | None
    destination_port: int | None
    reject_reason: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class Route:
    """The tags that a request passed, and the user who made it."""

    inbound_tag: str | None
    outbound_tag: str | None
    email: str | None


# For records that are appended one by one: equal values mostly get the same object.
intern_request = functools.lru_cache(maxsize=1 << 12)(Request)
intern_route = functools.lru_cache(maxsize=1 << 12)(Route)


@dataclass(frozen=True, slots=True)
class Records:
    """Lines that become rows, stored as columns: there are millions, and the values after the port repeat.

    An item of it is an AccessRecord.
    """

    minutes: list[str] = field(default_factory=list)  # UTC, "2025-11-17 10:15"
    seconds: list[str] = field(default_factory=list)  # ":23.123456" or ":23"
    source_ips: list[str | None] = field(default_factory=list)
    source_ports: list[str | None] = field(default_factory=list)
    requests: list[Request] = field(default_factory=list)
    routes: list[Route] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.minutes)

    def __getitem__(self, index: int) -> AccessRecord:
        port, request, route = self.source_ports[index], self.requests[index], self.routes[index]
        return AccessRecord(
            self.minutes[index] + self.seconds[index] + UTC,
            self.source_ips[index],
            None if port is None else int(port),
            request.action,
            request.protocol,
            request.destination,
            request.destination_port,
            route.inbound_tag,
            route.outbound_tag,
            route.email,
            request.reject_reason,
        )

    def __iter__(self) -> Iterator[AccessRecord]:
        return map(self.__getitem__, range(len(self)))

    def append(self, record: AccessRecord) -> None:
        """Append one record, given as a row."""
        minute, seconds = record.timestamp[:MINUTE], record.timestamp[MINUTE:].removesuffix(UTC)
        self.minutes.append(minute)
        self.seconds.append(seconds)
        self.source_ips.append(record.source_ip)
        self.source_ports.append(None if record.source_port is None else str(record.source_port))
        self.requests.append(
            intern_request(
                record.action,
                record.protocol,
                record.destination,
                record.destination_port,
                record.reject_reason,
            )
        )
        self.routes.append(intern_route(record.inbound_tag, record.outbound_tag, record.email))

    def extend(self, others: Records) -> None:
        """Append all of `others`."""
        self.minutes.extend(others.minutes)
        self.seconds.extend(others.seconds)
        self.source_ips.extend(others.source_ips)
        self.source_ports.extend(others.source_ports)
        self.requests.extend(others.requests)
        self.routes.extend(others.routes)

    def names(self) -> dict[str, set[str]]:
        """Return the distinct names, by reference table."""
        requests, routes = set(self.requests), set(self.routes)
        names = {
            "users": {route.email for route in routes},
            "protocols": {request.protocol for request in requests},
            "endpoints": {request.destination for request in requests},
            "tags": {route.inbound_tag for route in routes} | {route.outbound_tag for route in routes},
        }
        return {table: {name for name in found if name is not None} for table, found in names.items()}

    def by_day(self) -> dict[str, Records]:
        """Return the records of each UTC day, by day, "2025-11-17"."""
        day_of = {minute: minute[:DAY] for minute in dict.fromkeys(self.minutes)}
        days = dict.fromkeys(day_of.values())
        if len(days) == 1:  # as a rule
            return dict.fromkeys(days, self)
        indices: dict[str, list[int]] = {day: [] for day in days}
        for index, minute in enumerate(self.minutes):
            indices[day_of[minute]].append(index)
        return {day: self.select(found) for day, found in indices.items()}

    def slices(self, length: int) -> Iterator[Records]:
        """Yield all records, at most `length` at a time."""
        for first in range(0, len(self), length):
            at = slice(first, first + length)
            yield Records(
                self.minutes[at],
                self.seconds[at],
                self.source_ips[at],
                self.source_ports[at],
                self.requests[at],
                self.routes[at],
            )

    def select(self, indices: Sequence[int]) -> Records:
        """Return the records at these indices, which are distinct."""
        return self if len(indices) == len(self) else self._take(indices)

    def by_route(self) -> Records:
        """Return the records grouped by route, otherwise in their order: those of a user are next to each other."""
        routes = dict.fromkeys(self.routes)
        if len(routes) == len(self):
            return self
        indices: dict[Route, list[int]] = {route: [] for route in routes}
        for index, route in enumerate(self.routes):
            indices[route].append(index)
        return self._take(list(itertools.chain.from_iterable(indices.values())))

    def _take(self, indices: Sequence[int]) -> Records:
        return Records(
            list(map(self.minutes.__getitem__, indices)),
            list(map(self.seconds.__getitem__, indices)),
            list(map(self.source_ips.__getitem__, indices)),
            list(map(self.source_ports.__getitem__, indices)),
            list(map(self.requests.__getitem__, indices)),
            list(map(self.routes.__getitem__, indices)),
        )


CHUNK_ROWS = 1_000  # encoded at a time: their text stays in the processor's cache


def interleave(*columns: Iterable[str], count: int) -> bytes:
    """Return the text of `count` rows, given as columns of pieces: a quarter faster than formatting row by row."""
    pieces = [""] * (len(columns) * count)
    for number, column in enumerate(columns):
        pieces[number :: len(columns)] = column
    return "".join(pieces).encode()


class BadLine(NamedTuple):
    """A line that is not an access record, as it was written or masked, and the reason."""

    line: bytes
    reason: str


DATED = "expected a date from 2015 to two days ahead, found "  # this reason means: a line of xray, except for its date
MAX_LINE_BYTES = 16 << 20  # kept of a line: a field of PostgreSQL ends at 1 GiB, and bytea travels as hex
CUT_REASON = r" \(its first [0-9]+ of [0-9]+ bytes\)$"  # the end of the reason if a line is not kept whole


class LongLine(NamedTuple):
    """A line that is read by itself because it is long."""

    beginning: bytes  # the part that is kept, without the line end
    length: int  # bytes of the whole line, without the line end

    @property
    def is_cut(self) -> bool:
        """Return whether the line is not kept whole."""
        return len(self.beginning) < self.length


def cut(bad: BadLine, length: int) -> BadLine:
    """Keep at most MAX_LINE_BYTES of a line whose full length is `length`, and say so in its reason, once."""
    line, reason = bad.line[:MAX_LINE_BYTES], bad.reason
    if length > MAX_LINE_BYTES and not re.search(CUT_REASON, reason):
        reason += f" (its first {MAX_LINE_BYTES} of {length} bytes)"
    return BadLine(line, reason)


class Ignored(enum.Enum):
    """Kinds of lines that are recognised and left out on purpose."""

    BLANK = "blank"
    COMMENT = "comment"
    DNS = "xray's own DNS client"
    DNS_ANSWER = "DNS answer"
    CONSOLE = "console or error log"


HEAD_BYTES = 4096  # a fingerprint covers no more, so that it stays the same while a log grows
TAIL_BYTES = 1024  # before a position: about eight lines


class Fingerprint(NamedTuple):
    """The SHA-256 of the first `length` bytes of a log, at most HEAD_BYTES, by which the log is recognised."""

    length: int
    digest: bytes


def tail_digest(text: bytes) -> bytes:
    """Return the digest by which the text before a position is known: 32 bytes.

    The first four are a checksum of the last line, which is quick to search for; the rest is from the SHA-256 of all of
    `text`, the TAIL_BYTES before the position, or fewer if the log begins there.
    """
    last_line = zlib.crc32(text[text.rfind(b"\n", 0, max(0, len(text) - 1)) + 1 :])
    return last_line.to_bytes(4, "big") + hashlib.sha256(text).digest()[:28]


@dataclass(frozen=True)
class Batch:
    """Consecutive complete lines of one log, bytes [start, end), as records, bad lines and ignored lines.

    Only a few lines need their offset, so offsets are computed on demand.
    """

    start: int
    end: int
    text: bytes  # the text that the records were read from: of the log, or of the buffer
    lines: int  # counted in the bytes, to check the parser's own count
    records: Records
    numbered_bad_lines: list[tuple[int, BadLine]]  # each with the number of its line in the text
    non_record_lines: list[int]  # numbers of the lines that are not records
    ignored: Mapping[Ignored, int]
    log_offsets: list[int] | None = None  # of each line of the text; None: the text is the log's own
    masked: Callable[[bytes], bytes] = bytes  # masks a line of the text that is kept; `bytes`: keep it as it is

    @property
    def stored(self) -> int:
        """The number of lines that become rows or unparsed lines."""
        return len(self.records) + len(self.numbered_bad_lines)

    @property
    def bad_lines(self) -> list[tuple[int, BadLine]]:
        """The bad lines, each with its offset in the log."""
        return [(self._line_offsets[number], bad) for number, bad in self.numbered_bad_lines]

    @property
    def offsets(self) -> list[int]:
        """The offset in the log of each record's line."""
        if not self.non_record_lines:
            return self._line_offsets
        return [self._line_offsets[number] for number in self._numbers]

    def line(self, index: int) -> tuple[int, bytes]:
        """Return offset in the log, and masked bytes, of the line of record `index`."""
        number = self._numbers[index]
        place = self._line_offsets[number] - self.start if self.log_offsets is None else self._line_starts(0)[number]
        return self._line_offsets[number], self.masked(self.text[place : self.text.find(b"\n", place)])

    def days(self) -> Counter[str]:
        """Return the number of records of each UTC day, "2025-11-17"."""
        return self._days

    def reject(self, reasons: Mapping[int, str]) -> Batch:
        """Return the batch with these records turned into bad lines: reasons by index."""
        numbers = {self._numbers[index]: (index, reason) for index, reason in reasons.items()}
        bad_lines = [(number, BadLine(self.line(index)[1], reason)) for number, (index, reason) in numbers.items()]
        return replace(
            self,
            records=self.records.select([index for index in range(len(self.records)) if index not in reasons]),
            numbered_bad_lines=sorted([*self.numbered_bad_lines, *bad_lines]),
            non_record_lines=sorted([*self.non_record_lines, *numbers]),
        )

    def after(self, offset: int) -> Batch:
        """Return the batch without the lines that begin before `offset`."""
        return self.outside([(0, offset)])

    def outside(self, stored: Sequence[tuple[int, int]]) -> Batch:
        """Return the batch without the lines that begin in one of these ranges of the log, pairs of offsets."""
        inside = {
            number
            for number, place in enumerate(self._line_offsets)
            if any(start <= place < end for start, end in stored)
        }
        if not inside:
            return self
        numbers = enumerate(self._numbers)
        return replace(
            self,
            records=self.records.select([index for index, number in numbers if number not in inside]),
            numbered_bad_lines=[(number, bad) for number, bad in self.numbered_bad_lines if number not in inside],
            non_record_lines=sorted({*self.non_record_lines, *inside}),
        )

    @property
    def newest(self) -> str:
        """The UTC minute of the newest record; empty without records."""
        return max(self._minutes, default="")

    @functools.cached_property
    def _minutes(self) -> Counter[str]:
        return Counter(self.records.minutes)

    @functools.cached_property
    def _days(self) -> Counter[str]:
        days: Counter[str] = Counter()
        for minute, count in self._minutes.items():
            days[minute[:DAY]] += count
        return days

    @functools.cached_property
    def _numbers(self) -> Sequence[int]:
        """Return the numbers of the lines that are records."""
        if not self.non_record_lines:
            return range(self.lines)
        others = set(self.non_record_lines)
        return [number for number in range(self.lines) if number not in others]

    @functools.cached_property
    def _line_offsets(self) -> list[int]:
        return self._line_starts(self.start) if self.log_offsets is None else self.log_offsets

    def _line_starts(self, start: int) -> list[int]:
        """Return where each line of the text begins if the text begins at `start`."""
        lengths = map(len, self.text.split(b"\n"))
        return list(map(operator.add, itertools.accumulate(lengths, initial=start), range(self.lines)))


@dataclass(frozen=True, slots=True)
class Origin:
    """The log that lines came from, as it was when they were read."""

    node: str
    source: str  # its path, for people
    fingerprints: list[Fingerprint]  # one for each length that a stored position in this log can have
    previous_digest: bytes | None  # beginning of the digest that the log had before it was drained
    again: bool = False  # --again: store the lines even if they are stored already

    def fingerprint(self, offset: int) -> Fingerprint | None:
        """Return the fingerprint that belongs to a position at `offset`; None if this log has none for it."""
        length = min(offset, HEAD_BYTES)
        return next((known for known in self.fingerprints if known.length == length), None)
