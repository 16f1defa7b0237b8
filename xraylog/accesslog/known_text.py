"""Find the parts of piped text that are stored already. A journal is piped as a whole, and drops its oldest lines.

Each stored text is known by its length, its beginning and its end. Pure, except that it reads the text.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from xraylog.accesslog.archive import Piped
from xraylog.records import TAIL_BYTES, Fingerprint, tail_digest

CHECKSUM_BYTES = 4  # of a tail digest: the checksum of the last line


class KnownText(NamedTuple):
    """A text that is stored."""

    length: int
    head: Fingerprint
    tail: bytes


def find(log: Piped, known: Iterable[KnownText], start: int) -> list[tuple[int, int]]:
    """Return the ranges of the text that are known, in order, if it is known up to `start`.

    A tail counts only where it occurs first, so nothing is skipped in a text that repeats itself. If a known text fits
    in as a whole, its beginning has to match, too; otherwise the text begins within it.
    """
    waiting: dict[bytes, list[KnownText]] = {}
    for text in known:
        waiting.setdefault(text.tail[:CHECKSUM_BYTES], []).append(text)
    found = []
    for end, checksum in _line_ends(log, max(0, start - TAIL_BYTES)) if waiting else ():
        for text in tuple(waiting.get(checksum, ())):
            if _ends_at(log, text, end):
                found.append((max(0, end - text.length), end))
                waiting[checksum].remove(text)
    return sorted(found)


def _line_ends(log: Piped, start: int) -> Iterator[tuple[int, bytes]]:
    """Yield the end of each line, and a checksum of its last bytes. One piece of the text is in memory at a time."""
    last = b""
    for at, piece in log.pieces(start):
        done = 0
        while (end := piece.find(b"\n", done) + 1) > 0:
            line = last + piece[done:end] if last else piece[done:end]
            yield at + end, zlib.crc32(line[-TAIL_BYTES:]).to_bytes(CHECKSUM_BYTES, "big")
            last, done = b"", end
        last = (last + piece[done:])[-TAIL_BYTES:]


def _ends_at(log: Piped, text: KnownText, end: int) -> bool:
    """Return whether this known text ends at `end`."""
    length = min(TAIL_BYTES, text.length)
    if end < length or tail_digest(log.read(end - length, length)) != text.tail:
        return False
    begin = end - text.length
    return begin < 0 or hashlib.sha256(log.read(begin, text.head.length)).digest() == text.head.digest
