"""Parse blocks of the log into batches of records, fast: lines are repetitive, so what their pieces mean is cached.

A line that xray writes for a client's connection has these pieces, with blanks only between them and in the last one:

    2025/11/17 10:15 :23.123456 from SOURCE : PORT  accepted TO  [TAGS] email: EMAIL

The grammar reads each distinct piece once, and raises ParseError if it may mean different things in different lines.
One regular expression splits a chunk of lines into columns of pieces. The grammar parses all other lines as a whole.
Pure: no files, no database, no clock, no logging.
"""

from __future__ import annotations

import dataclasses
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from datetime import datetime
from typing import TypeVar
from zoneinfo import ZoneInfo

from xraylog.accesslog import client, grammar
from xraylog.accesslog.grammar import Grammar
from xraylog.accesslog.lines import Block
from xraylog.accesslog.masking import UNMASKED, Mask
from xraylog.accesslog.values import ParseError
from xraylog.records import DAY, MAX_LINE_BYTES, AccessRecord, BadLine, Batch, Ignored, LongLine, Records, cut

BATCH_BYTES = 8 << 20  # long lines close a batch early, so that memory stays flat
CHUNK_BYTES = 1 << 16  # split into pieces at a time: they stay in the processor's cache
CACHE_SIZE = 1 << 13  # pieces of a kind: an adversary's log must not fill the memory
MINUTES = 1 << 8  # that are cached: they come in order
MAX_NEW_PIECES = 12_000  # pieces that were not cached end a batch early, too: each of them may be a new name
MAX_DAYS = 100  # end a batch, too: the transaction that stores it locks the partition of each
MAX_PIECE_CHARACTERS = 255  # of a cached piece: longer ones do not repeat
PREFIXED = grammar.PREFIXED
# For bytes decoded as latin-1, one character each. The grammar checks what the other groups contain.
SECONDS = r":[0-5]\d\.\d{6}|:[0-5]\d"  # xray writes six digits of a fraction since 2025, and none before
PORT = r"[1-5]\d{4}|[1-9]\d{0,3}|0|6[0-4]\d{3}|65[0-4]\d\d|655[0-2]\d|6553[0-5]"
CLIENT_LINE = re.compile(
    rf"^(.{{16}})({SECONDS}) ((?:from )?\S+):({PORT}) (accepted \S+)(.*)$", re.MULTILINE | re.ASCII
)
FIELDS_PER_LINE = CLIENT_LINE.groups + 1  # items of `split` for each line: what is before it, and the groups

Value = TypeVar("Value")


class Memo(dict[str, Value]):
    """A cache of what pieces of one kind mean: it reads a piece that is missing, and is cleared when it is full."""

    def __init__(self, read: Callable[[bytes], Value], max_size: int = CACHE_SIZE) -> None:
        super().__init__()
        self._read = read
        self._max_size = max_size
        self.misses = 0  # pieces that were not cached

    def __missing__(self, piece: str) -> Value:
        meaning = self._read(piece.encode("latin-1"))
        self.misses += 1
        if len(piece) <= MAX_PIECE_CHARACTERS:
            if len(self) >= self._max_size:
                self.clear()
            self[piece] = meaning
        return meaning


class Parser:
    """Parses the lines of one time zone. Caches make it faster, and change nothing else."""

    def __init__(
        self, zone: ZoneInfo, now: datetime, mask: Mask = UNMASKED, api_tags: Collection[str] = grammar.API_TAGS
    ) -> None:
        """`zone` is the server's local time, in which xray writes; `now` is an aware datetime.

        `api_tags`: the outbound tags of xray's own API and metrics.
        """
        self._grammar = Grammar(zone, now, mask, api_tags)
        self.clock = self._grammar.clock
        self._mask = mask
        self._minutes = Memo(self._grammar.minute, MINUTES)
        self._sources = Memo(lambda address: mask.source(client.without_port(address)))
        self._requests = Memo(grammar.request)
        self._routes = Memo(self._grammar.route)
        self._grammar_lines = 0  # lines that the grammar parsed as a whole

    def batches(self, blocks: Iterable[Block], size: int) -> Iterator[Batch]:
        """Collect lines into batches of at most `size` rows and bad lines. A long line is a batch of its own.

        A block is an offset and the complete lines that begin there. No batch spans a gap.
        """
        gathered, misses = _BatchBuilder(0, self._mask), 0
        for start, text in blocks:
            if gathered.end != start or isinstance(text, LongLine):
                if gathered.length:
                    yield gathered.take()
                gathered = _BatchBuilder(start, self._mask)
            if isinstance(text, LongLine):
                batch = self._alone(start, text)
                del text
                yield batch
                del batch  # before the next line is read: one in memory, not two
                continue
            at = 0
            while at < len(text):
                at = self._read(text, at, gathered, size)
                if (
                    gathered.stored == size
                    or gathered.length >= BATCH_BYTES
                    or len(gathered.days) >= MAX_DAYS
                    or self._misses() - misses >= MAX_NEW_PIECES
                ):
                    misses = self._misses()
                    yield gathered.take()
        if gathered.length:
            yield gathered.take()

    def _alone(self, start: int, line: LongLine) -> Batch:
        """Return a batch of one long line.

        If the line is cut, nobody knows what the rest means: it is a bad line, unless it is a comment.
        """
        parsed = self._by_grammar(line.beginning)
        if line.is_cut and parsed is not Ignored.COMMENT:
            if not isinstance(parsed, BadLine):
                reason = f"expected at most {MAX_LINE_BYTES} bytes in a line"
                parsed = self._mask.bad_line(BadLine(line.beginning, reason))
            parsed = cut(parsed, line.length)
        alone = _BatchBuilder(start, self._mask)
        alone.begin_chunk(line.beginning + b"\n" if isinstance(parsed, AccessRecord) else b"\n")
        alone.add(parsed)
        return dataclasses.replace(alone.take(), end=start + line.length + 1, log_offsets=[start])

    def _misses(self) -> int:
        """Return how many pieces and lines were not cached, each of which can contain a new name."""
        return self._sources.misses + self._requests.misses + self._routes.misses + self._grammar_lines

    def _read(self, text: bytes, start: int, into: _BatchBuilder, size: int) -> int:
        """Read a chunk of complete lines, until `into` has at most `size` of them; return the offset after it."""
        chunk = text[start : text.rfind(b"\n", start, start + CHUNK_BYTES) + 1 or text.index(b"\n", start) + 1]
        room = size - into.stored
        pieces = _split(chunk)
        if len(pieces) // FIELDS_PER_LINE >= room or _count_lines(pieces) > room:
            chunk = b"\n".join([*chunk.split(b"\n", room)[:room], b""])
            pieces = _split(chunk)
        into.begin_chunk(chunk)
        done = 0
        for number, between in _other_lines(pieces):
            self._read_run(pieces[done * FIELDS_PER_LINE : number * FIELDS_PER_LINE], into)
            for line in between.encode("latin-1").split(b"\n")[1:-1]:
                into.add(self._by_grammar(line))
            done = number
        self._read_run(pieces[done * FIELDS_PER_LINE : -1], into)
        return start + len(chunk)

    def _read_run(self, pieces: list[str], into: _BatchBuilder) -> None:
        """Read lines of the usual form. Halve them to find a line with a piece that only the whole line explains."""
        if not pieces:
            return
        before = self.clock.last
        try:
            into.extend(
                Records(
                    self._read_minutes(pieces[1::FIELDS_PER_LINE]),
                    pieces[2::FIELDS_PER_LINE],
                    list(map(self._sources.__getitem__, pieces[3::FIELDS_PER_LINE])),
                    [*pieces[4::FIELDS_PER_LINE]],
                    list(map(self._requests.__getitem__, pieces[5::FIELDS_PER_LINE])),
                    list(map(self._routes.__getitem__, pieces[6::FIELDS_PER_LINE])),
                )
            )
        except ParseError:
            self.clock.last = before  # the same lines are read again
            if len(pieces) == FIELDS_PER_LINE:
                into.add(self._by_grammar(_joined(pieces)))
                return
            middle = len(pieces) // FIELDS_PER_LINE // 2 * FIELDS_PER_LINE
            self._read_run(pieces[:middle], into)
            self._read_run(pieces[middle:], into)

    def _read_minutes(self, pieces: list[str]) -> list[str]:
        minutes = list(map(self._minutes.__getitem__, pieces))
        repeated = self.clock.repeated
        if repeated and not repeated.keys().isdisjoint(minutes):
            return list(map(self.clock.resolve, minutes))
        self.clock.last = minutes[-1]
        return minutes

    def _by_grammar(self, line: bytes) -> AccessRecord | BadLine | Ignored:
        self._grammar_lines += 1
        return self._grammar.parse_line(line)


def _split(chunk: bytes) -> list[str]:
    """Return, for each line of the usual form, what is before it and its six pieces; at the end what follows the last.

    Before a line is a line end and, before that, any lines of another form.
    """
    return CLIENT_LINE.split("\n" + chunk.decode("latin-1"))


def _other_lines(pieces: list[str]) -> list[tuple[int, str]]:
    """Return the lines of another form, each piece with the number of the usual line that follows."""
    between = pieces[::FIELDS_PER_LINE]
    if between.count("\n") == len(between):
        return []
    return [(number, lines) for number, lines in enumerate(between) if lines != "\n"]


def _count_lines(pieces: list[str]) -> int:
    """Return the number of lines."""
    return len(pieces) // FIELDS_PER_LINE + sum(lines.count("\n") - 1 for _, lines in _other_lines(pieces))


def _joined(pieces: Sequence[str]) -> bytes:
    """Return a line of the usual form as it was."""
    _, minute, seconds, source, port, request, rest = pieces
    return f"{minute}{seconds} {source}:{port} {request}{rest}".encode("latin-1")


class _BatchBuilder:
    """Collects the lines of a batch."""

    def __init__(self, start: int, mask: Mask) -> None:
        self._mask = mask
        self._begin(start)

    def _begin(self, start: int) -> None:
        self.start = start
        self.end = start
        self.stored = 0
        self._text: list[bytes] = []
        self._counted = 0
        self._records = Records()
        self.days: set[str] = set()
        self._lines = 0
        self._others: list[int] = []
        self._bad_lines: list[tuple[int, BadLine]] = []
        self._ignored: Counter[Ignored] = Counter()

    @property
    def length(self) -> int:
        return self.end - self.start

    def begin_chunk(self, chunk: bytes) -> None:
        """Add the text of the next lines, and count its line ends while it is in the processor's cache."""
        self._text.append(chunk)
        self.end += len(chunk)
        self._counted += chunk.count(b"\n")

    def extend(self, records: Records) -> None:
        """Add lines that are all records."""
        self._lines += len(records)
        self.stored += len(records)
        self._records.extend(records)
        self.days.update([minute[:DAY] for minute in {*records.minutes}])

    def add(self, parsed: AccessRecord | BadLine | Ignored) -> None:
        """Add one parsed line."""
        if isinstance(parsed, AccessRecord):
            self._records.append(parsed)
            self.days.add(parsed.timestamp[:DAY])
        else:
            self._others.append(self._lines)
        if isinstance(parsed, BadLine):
            self._bad_lines.append((self._lines, parsed))
        if isinstance(parsed, Ignored):
            self._ignored[parsed] += 1
        else:
            self.stored += 1
        self._lines += 1

    def take(self) -> Batch:
        """Return the batch, and keep nothing of it: one batch in memory, not two."""
        batch = Batch(
            self.start,
            self.end,
            b"".join(self._text),
            lines=self._counted,
            records=self._records,
            numbered_bad_lines=self._bad_lines,
            non_record_lines=self._others,
            ignored=self._ignored,
            masked=self._mask.line,
        )
        self._begin(batch.end)
        return batch
