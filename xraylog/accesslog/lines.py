"""Join pieces of a log into complete lines. However long a line is, only its beginning is kept in memory.

Pure: no files, no database, no clock, no logging.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TypeAlias

from xraylog.records import MAX_LINE_BYTES, LongLine

ALONE_BYTES = 1 << 20  # a longer line is a block of its own, a LongLine

Block: TypeAlias = "tuple[int, bytes | LongLine]"  # offset and text


def complete(pieces: Iterable[tuple[int, bytes]], keep: int = MAX_LINE_BYTES) -> Iterator[Block]:
    """Yield blocks of complete lines from consecutive pieces, with nothing between them but holes.

    A line of more than ALONE_BYTES is a block of its own, and only its first `keep` bytes are kept. A last line without
    a line end is left out. So are pieces of only NULs and line feeds, because a hole can be larger than memory.
    """
    unfinished = _Unfinished(keep)
    for at, read in pieces:
        if not unfinished and not read.strip(b"\0\n"):
            continue  # a hole that a truncation left without O_APPEND, or our own blanks
        unfinished.reach(at)
        first, end = read.find(b"\n") + 1, read.rfind(b"\n") + 1
        if not end:
            unfinished.add(at, read)
            continue
        if unfinished.length + first <= ALONE_BYTES:
            block, first = unfinished.take(read[:end]), end
            yield at + end - len(block), block
            del block  # before the next one is read: one in memory, not two
        else:
            unfinished.add(at, read[: first - 1])
            yield unfinished.take_long()
        if first < end:
            yield at + first, read[first:end]
        if (rest := read[end:]).strip(b"\0"):
            unfinished.add(at + end, rest)


def before(blocks: Iterable[Block], end: int | None) -> Iterator[Block]:
    """Yield the blocks up to `end`, which is the end of a line; None: all."""
    for at, block in blocks:
        reached = at + (block.length + 1 if isinstance(block, LongLine) else len(block))
        if end is not None and reached >= end:
            if at < end:
                yield at, block if isinstance(block, LongLine) else block[: end - at]
            return
        yield at, block
        del block  # before the next one is read: one in memory, not two


class _Unfinished:
    """The beginning of a line whose end has not been read. False if there is none."""

    def __init__(self, keep: int) -> None:
        self._keep = keep
        self._begin()

    def _begin(self) -> None:
        self._start = 0
        self._pieces: list[bytes] = []
        self._kept = 0
        self.length = 0  # bytes read of it

    def __bool__(self) -> bool:
        return self.length > 0

    def reach(self, at: int) -> None:
        """Count a hole within the line: its next piece begins at `at`."""
        if self and at > (end := self._start + self.length):
            self._add(b"\0" * min(at - end, self._keep - self._kept), at - end)

    def add(self, at: int, piece: bytes) -> None:
        """Add a piece that begins at `at` and has no line end."""
        if not self:
            self._start = at
        self._add(piece[: self._keep - self._kept], len(piece))

    def take(self, rest: bytes) -> bytes:
        """Return the whole line followed by `rest`, and reset."""
        block = b"".join([*self._pieces, rest])
        self._begin()
        return block

    def take_long(self) -> Block:
        """Return the line as a LongLine, with its offset, and reset."""
        start, length, beginning = self._start, self.length, b"".join(self._pieces)
        self._begin()
        return start, LongLine(beginning, length)

    def _add(self, kept: bytes, length: int) -> None:
        if kept:
            self._pieces.append(kept)
        self._kept += len(kept)
        self.length += length
