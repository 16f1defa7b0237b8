"""Where text that was stored before is found in piped text: a journal is piped whole, and drops its oldest lines.

Each text that was stored is known by its length, its beginning and its end. Pure, except that it reads the text.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from xraylog.accesslog.archive import Piped
from xraylog.records import TAIL_BYTES, Fingerprint, tail_digest

CHECKSUM_BYTES = 4  # of a tail: that of its last line


class KnownText(NamedTuple):
    """A text that is stored."""

    length: int
    head: Fingerprint
    tail: bytes


def find(log: Piped, known: Iterable[KnownText], start: int) -> list[tuple[int, int]]:
    """Return which bytes of the text are known, if it is known up to `start`; in their order.

    A tail counts where it is met first: of a text that repeats itself nothing is left out. If all of a known text is
    there, its beginning has to fit, too; else the text begins within it.
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
    """Yield the end of each line, and the checksum of its last bytes: in memory is one piece of the text."""
    last = b""
    for at, piece in log.pieces(start):
        done = 0
        while (end := piece.find(b"\n", done) + 1) > 0:
            line = last + piece[done:end] if last else piece[done:end]
            yield at + end, zlib.crc32(line[-TAIL_BYTES:]).to_bytes(CHECKSUM_BYTES, "big")
            last, done = b"", end
        last = (last + piece[done:])[-TAIL_BYTES:]


def _ends_at(log: Piped, text: KnownText, end: int) -> bool:
    """Return whether this text ends there."""
    length = min(TAIL_BYTES, text.length)
    if end < length or tail_digest(log.read(end - length, length)) != text.tail:
        return False
    begin = end - text.length
    return begin < 0 or hashlib.sha256(log.read(begin, text.head.length)).digest() == text.head.digest
