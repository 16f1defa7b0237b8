"""Find the marks in the offline buffer, `{"mark": …}`, and check the batches that they commit.

A mark is the commit record after the lines of a batch. Another user who may write the buffer could make it larger than
the disk, as a sparse file; so in a very large file, holes are skipped.
"""

from __future__ import annotations

import bisect
import functools
import json
import zlib
from collections.abc import Iterable, Iterator
from typing import Any, TypeAlias

from xraylog.accesslog.logfile import LogFile

Json: TypeAlias = dict[str, Any]

MARK = b'{"mark": '
WINDOW_BYTES = 1 << 20  # read at a time when looking for the last mark
MAX_READ_BYTES = 1 << 30  # read including its holes, which takes a second


def read(line: bytes) -> Json:
    """Return the content of a mark, given its line. Raises ValueError and KeyError."""
    mark: Json = json.loads(line)["mark"]
    return mark


def split(text: bytes) -> Iterator[bytes]:
    """Yield whole lines: each mark by itself, and all lines between two marks as one piece."""
    at = 0
    while at < len(text):
        end = text.find(b"\n" + MARK, at) + 1 or len(text)
        if text.startswith(MARK, at):
            end = text.index(b"\n", at) + 1
        yield text[at:end]
        at = end


def last(file: LogFile, end: int) -> int | None:
    """Return the offset of the last mark that begins and ends before `end`; None if there is none."""
    after = b""  # the first bytes after the window, because a mark may begin in the window and end after it
    ended = False  # whether there is a line end after the window
    ranges: list[tuple[int, int]] | None = None
    while end > 0:
        start = max(0, end - WINDOW_BYTES)
        window = file.read(start, end - start) + after
        limit = len(window) if ended else window.rfind(b"\n")
        place = window.rfind(b"\n" + MARK, 0, max(limit, 0))
        if place >= 0:
            return start + place + 1
        ended = ended or limit >= 0
        after = window[: len(MARK)]
        end = start
        if not window.strip(b"\0"):  # it may be in a hole: skip that
            ranges = list(without_holes(file, 0, end)) if ranges is None else ranges
            before = bisect.bisect_left(ranges, (end, 0))
            end = min(end, ranges[before - 1][1]) if before else 0
    return None


def is_whole(file: LogFile, place: int) -> bool:
    """Return whether the batch of the mark at `place` is intact: a crash can lose any of its blocks."""
    try:
        mark = read(file.line_at(place))
        return checksum(file, place, mark) == int(mark["crc32"])
    except (ValueError, KeyError, TypeError, OSError):
        return False


def without_holes(file: LogFile, start: int, end: int) -> Iterable[tuple[int, int]]:
    """Return the ranges to read between two offsets: everything, or only the data if it is very large.

    For smaller files the file system is not asked for holes, because some reported wrong ones in files that had just
    been written (OpenZFS issue 15526).
    """
    return file.data(start, end) if end - start > MAX_READ_BYTES else [(start, end)]


def checksum(file: LogFile, place: int, mark: Json) -> int:
    """Return the checksum of the batch of the mark at `place`. Raises ValueError if a part of it is a hole."""
    start = max(0, place - mark["bytes"])
    if next(iter(without_holes(file, start, place)), None) != (start, place):
        raise ValueError("a hole")
    pieces = file.pieces(start, mark["bytes"])
    return functools.reduce(lambda sum_so_far, piece: zlib.crc32(piece, sum_so_far), pieces, 0)
