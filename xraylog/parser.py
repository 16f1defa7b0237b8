"""Blocks of the log into batches of records, fast: lines repeat themselves, so what a piece of one means is remembered.

What xray writes for a client's connection has these pieces, and blanks only in the last of them and between them:

    2025/11/17 10:15 :23.123456 from SOURCE : PORT  accepted TO  [TAGS] email: EMAIL

Each is read once by the grammar, which also says whether it means the same in every line. One regular expression cuts
a chunk of lines into columns of pieces. All other lines, and pieces of which that is not so, go to the grammar whole.
Pure: no files, no database, no clock, no logging.
"""

from __future__ import annotations

import itertools
import operator
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import datetime
from typing import TypeVar
from zoneinfo import ZoneInfo

from xraylog import grammar
from xraylog.grammar import Bad, Grammar
from xraylog.records import AccessRecord, BadLine, Batch, Ignored, Records

BATCH_BYTES = 8 << 20  # long lines close a batch early, so that memory stays flat
CHUNK_BYTES = 1 << 17  # cut into pieces at a time: they stay in the processor's cache
REMEMBERED = 1 << 15  # pieces of a kind: an adversary's log must not fill the memory
LONGEST = 255  # characters of a remembered piece: longer ones do not come again
PREFIXED = grammar.PREFIXED
# Of bytes as latin-1, a character each. A line of another form is found too, with nothing in its groups.
LINES = re.compile(
    r"^(\d{4}/\d\d/\d\d \d\d:\d\d)(:[0-5]\d(?:\.\d{1,6})?) (?:from )?(\S+):(0|[1-9]\d{0,4})"
    r" (accepted \S+)(?: (.*))?$|^.*$",
    re.MULTILINE | re.ASCII,
)

Meaning = TypeVar("Meaning")


class Remembered(dict[str, Meaning]):
    """What pieces of one kind mean; has a piece read that it has not met, and forgets all when it has met too many."""

    def __init__(self, read: Callable[[bytes], Meaning]) -> None:
        super().__init__()
        self._read = read

    def __missing__(self, piece: str) -> Meaning:
        meaning = self._read(piece.encode("latin-1"))
        if len(piece) <= LONGEST:
            if len(self) >= REMEMBERED:
                self.clear()
            self[piece] = meaning
        return meaning


class Parser:
    """Parses lines of one zone, seen at one moment; what it has met makes it faster, and changes nothing else."""

    def __init__(self, zone: ZoneInfo, now: datetime) -> None:
        """`zone` is the server's local time, in which xray writes; `now` is an aware datetime."""
        self._grammar = Grammar(zone, now)
        self._minutes = Remembered(self._grammar.minute)
        self._sources = Remembered(grammar.source)
        self._requests = Remembered(grammar.request)
        self._routes = Remembered(grammar.route)

    def batches(self, blocks: Iterable[tuple[int, bytes]], size: int) -> Iterator[Batch]:
        """Gather lines into batches of at most `size` rows and bad lines.

        A block is the offset at which it begins and complete lines. A batch has no gap in it.
        """
        gathered = _Gathering(0)
        for start, text in blocks:
            if gathered.end != start:
                if gathered.length:
                    yield gathered.batch()
                gathered = _Gathering(start)
            at = 0
            while at < len(text):
                at = self._read(text, at, gathered, size)
                if gathered.stored == size or gathered.length >= BATCH_BYTES:
                    yield gathered.batch()
                    gathered = _Gathering(gathered.end)
        if gathered.length:
            yield gathered.batch()

    def _read(self, text: bytes, start: int, into: _Gathering, size: int) -> int:
        """A chunk of complete lines, at most so many that `into` comes to `size`; returns where it ends."""
        chunk = text[start : text.rfind(b"\n", start, start + CHUNK_BYTES) + 1 or text.index(b"\n", start) + 1]
        lines = chunk.split(b"\n")
        lines.pop()  # what is behind the last line end: nothing
        if len(lines) > (most := size - into.stored):
            del lines[most:]
            chunk = b"\n".join([*lines, b""])
        into.text.append(chunk)
        into.lines += len(lines)
        rows = LINES.findall(chunk[:-1].decode("latin-1"))
        done = 0
        for number in [number for number, row in enumerate(rows) if not row[0]]:  # these have another form
            self._read_run(rows[done:number], lines[done:number], into)
            into.add(lines[number], self._grammar.parse_line(lines[number]))
            done = number + 1
        self._read_run(rows[done:], lines[done:], into)
        return start + len(chunk)

    def _read_run(self, rows: Sequence[tuple[str, ...]], lines: Sequence[bytes], into: _Gathering) -> None:
        """Lines of the usual form; by halves, when a piece of one of them does not mean the same in every line."""
        if not rows:
            return
        minutes, clocks, sources, ports, requests, routes = zip(*rows, strict=True)
        try:
            records = Records(
                list(map(operator.add, map(self._minutes.__getitem__, minutes), clocks)),
                list(map(self._sources.__getitem__, sources)),
                _in_range(ports),
                list(map(self._requests.__getitem__, requests)),
                list(map(self._routes.__getitem__, routes)),
            )
        except Bad:
            if len(rows) == 1:
                into.add(lines[0], self._grammar.parse_line(lines[0]))
                return
            middle = len(rows) // 2
            self._read_run(rows[:middle], lines[:middle], into)
            self._read_run(rows[middle:], lines[middle:], into)
            return
        into.extend(lines, records)


def _in_range(ports: Sequence[str]) -> list[str | None]:
    """The ports. Raises Bad for one that is none."""
    if max(map(int, ports)) > grammar.LAST_PORT:
        raise Bad
    return list(ports)


class _Gathering:
    """A batch in the making."""

    def __init__(self, start: int) -> None:
        self.start = self.end = start
        self.text: list[bytes] = []
        self.lines = 0
        self._records = Records()
        self._offsets: list[int] = []
        self._bad_lines: list[tuple[int, BadLine]] = []
        self._ignored: Counter[Ignored] = Counter()

    @property
    def length(self) -> int:
        return self.end - self.start

    @property
    def stored(self) -> int:
        return len(self._offsets) + len(self._bad_lines)

    def extend(self, lines: Sequence[bytes], records: Records) -> None:
        """Lines of which each is a record."""
        ends = map(operator.add, itertools.accumulate(map(len, lines), initial=self.end), itertools.count())
        self._offsets += ends
        self.end = self._offsets.pop()
        self._records.extend(records)

    def add(self, line: bytes, parsed: AccessRecord | BadLine | Ignored) -> None:
        begin = self.end
        self.end += len(line) + 1
        if isinstance(parsed, AccessRecord):
            self._records.append(parsed)
            self._offsets.append(begin)
        elif isinstance(parsed, BadLine):
            self._bad_lines.append((begin, parsed))
        else:
            self._ignored[parsed] += 1

    def batch(self) -> Batch:
        return Batch(
            start=self.start,
            end=self.end,
            records=self._records,
            offsets=self._offsets,
            bad_lines=self._bad_lines,
            ignored=self._ignored,
            lines=self.lines,
            text=b"".join(self.text),
        )
