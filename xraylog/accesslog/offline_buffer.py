"""The offline buffer: batches spooled while the database is unavailable, and imported in order.

Each line is a JSON object. The first is a header with a random id; then come batches: records and bad lines, closed
by a commit record, the "mark". Anything after the last mark is a torn write and is cut off, because its lines are still
in the log. The marks form a chain, each with the offset of the one before it: from them the position of a log is known.

    {"buffer": "5f0c…", "node": "vpn1"}
    {"timestamp": "2025-11-17 10:15:23.123456+00", "source_ip": "203.0.113.10", …, "email": "alice", "offset": 0}
    {"line": "ZGFtYWdlZA==", "reason": "expected a timestamp first, found none", "offset": 112}
    {"mark": {"end": 120, "source": "/var/log/xray/access.log", …}}
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import os
import secrets
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from xraylog import safe_open, safe_path
from xraylog.accesslog import buffer_lines, buffer_marks, drain, logfile
from xraylog.accesslog.buffer_lines import LongBadLine, encode
from xraylog.accesslog.buffer_marks import Json
from xraylog.accesslog.known_text import KnownText
from xraylog.accesslog.logfile import Log, LogFile
from xraylog.accesslog.masking import UNMASKED, Mask
from xraylog.records import Batch, Fingerprint, LongLine, Origin

HEADER = b'{"buffer": '


class Damaged(Exception):
    """The buffer contains something we did not write: the operator must look at it before it is changed."""


class Foreign(Damaged):
    """The file has never been our buffer."""


@dataclass(frozen=True, slots=True)
class BufferedBatch:
    """A batch in the buffer."""

    batch: Batch | None  # None: it was imported before, and was not read
    log_end: int  # the offset in the log at which it ends
    origin: Origin
    digest: bytes  # identifies the batch in every copy of the buffer
    end: int  # the offset in the buffer after the batch's mark
    after: int  # offset in the log: when the batch was spooled, all lines before it were stored or spooled
    tail: bytes | None  # digest of the log's text before `log_end`; None: not computed


@dataclass(frozen=True, slots=True)
class EncodedBatch:
    """A batch encoded as lines of the buffer."""

    after: int  # as in `BufferedBatch`: where the batch before it ended
    start: int
    end: int
    parts: list[bytes]
    reject_reasons: list[tuple[str, int]]  # from `buffer_lines.reasons`
    tail: bytes | None


@dataclass(frozen=True, slots=True)
class Mark:
    """What a mark says: the place of a batch in its log."""

    end: int  # offset
    after: int  # as in `BufferedBatch`
    origin: Origin
    tail: bytes


class Buffer:
    """The buffer at one path. Its file is created when the first batch is spooled."""

    def __init__(self, path: Path, files: contextlib.ExitStack, mask: Mask, read_only: bool, drained: int) -> None:
        """Use `opened`."""
        self.path = path
        self._drained = drained
        self._mask = mask
        self._files = files
        self._file: LogFile | None = files.enter_context(logfile.opened_ours(path, read_only))
        self._last_mark: int | None = None  # offset of the last mark
        self.torn: Path | None = None  # where a torn batch was saved
        if self._file is not None:
            self._refuse_foreign(self._file)
        if self._file is not None and read_only:
            self._last_mark = buffer_marks.last(self._file, self._file.size)
        elif self._file is not None:
            self._recover(self._file)

    @property
    def is_empty(self) -> bool:
        """Return whether it contains no batch."""
        return self._last_mark is None

    @property
    def size(self) -> int:
        """Bytes in the file."""
        return self._file.size if self._file else 0

    @property
    def last_batch(self) -> str:
        """The digest of the last batch; empty if there is none."""
        return "" if self._last_mark is None else hashlib.sha256(self.file.line_at(self._last_mark)).hexdigest()[:32]

    @property
    def node(self) -> str:
        """The node that started the buffer, and under which its position is kept. Raises Damaged."""
        return self._first_line()[1]

    @property
    def file(self) -> LogFile:
        """The file itself, which is recognised like a log."""
        if self._file is None:
            raise Damaged(f"{self.path}: expected a buffer, found nothing")
        return self._file

    def spooled_to(self, log: Log) -> int:
        """Return how far this log has been spooled; 0 if it is unknown.

        Of a file, the text before that offset has to be the same: another one may begin alike.
        """
        fingerprints = log.fingerprints()
        marks = (mark for mark in self._marks() if mark.origin.fingerprint(mark.end) in fingerprints)
        if isinstance(log, LogFile):
            marks = (mark for mark in marks if mark.end <= log.size and _is_text_of(log, mark))
        return max((mark.end for mark in marks), default=0)

    def spooled_from(self, fingerprints: list[Fingerprint]) -> int:
        """Return the offset from which on this log is in the buffer; a database had the lines before it."""
        starts = (mark.after for mark in self._marks() if mark.origin.fingerprint(mark.end) in fingerprints)
        return min(starts, default=0)

    def texts(self, source: str) -> list[KnownText]:
        """Return the texts of this source that are spooled, one for each beginning."""
        found: dict[Fingerprint, KnownText] = {}
        for mark in self._marks():
            if mark.origin.source == source and mark.tail and (head := mark.origin.fingerprint(mark.end)):
                found.setdefault(head, KnownText(mark.end, head, mark.tail))
        return [*found.values()]

    def _marks(self) -> Iterator[Mark]:
        """Yield all marks, the latest first. Skips damaged ones, because those before them still count."""
        place = self._last_mark
        while place is not None:
            found = before = None
            with contextlib.suppress(ValueError, KeyError, TypeError):
                mark = buffer_marks.read(self.file.line_at(place))
                before = mark["previous"]
                found = Mark(mark["end"], _after(mark), _origin(mark), bytes.fromhex(mark.get("tail") or ""))
            if found:
                yield found
                if before is None:
                    return
            place = before if before is not None and before < place else buffer_marks.last(self.file, place)

    def put(self, written: EncodedBatch, origin: Origin) -> None:
        """Append a batch durably. Raises OSError, and then leaves the buffer as it was."""
        file = self._made()
        size = file.size
        header = [] if size else [_header(origin.node)]
        mark = buffer_marks.MARK + encode(_mark_of(written, origin, self._last_mark)).encode() + b"}\n"
        try:
            file.append([*header, *written.parts, mark])
        except OSError:
            with contextlib.suppress(OSError):  # if that fails, the next run finds a torn batch and cuts it off
                file.truncate(size)
            raise
        self._last_mark = file.size - len(mark)

    def batches(self, is_known: Callable[[bytes, int], bool], begin: int = 0) -> Iterator[BufferedBatch]:
        """Yield the batches, from the offset `begin` after a mark on, with one in memory at a time. Raises Damaged.

        `is_known`: called with digest and end offset of each batch. If it returns True, the batch is not read.
        """
        parts: list[bytes | LongBadLine] = []  # of the next batch: whole lines, or one long one
        at, (header, _) = begin, self._first_line()
        for start, text in self.file.blocks(begin, buffer_lines.KEPT_BYTES):
            if start != at:
                raise Damaged(f"{self.path}, byte {at}: expected a line, found a hole")
            if isinstance(text, LongLine):
                parts.append(self._long_bad_line(at, text))
                at += text.length + 1
                del text  # before the next one is read: one in memory, not two
                continue
            for part in buffer_marks.split(text):
                at += len(part)
                if part.startswith(buffer_marks.MARK):
                    digest = hashlib.sha256(header + part[:-1]).digest()
                    stored = self._stored(None if is_known(digest, at) else parts, part[:-1], digest, at)
                    parts = []
                    yield stored
                    del stored  # before the next one is read: one in memory, not two
                else:
                    parts.append(_without_headers(part))

    def clear(self, imported: int) -> None:
        """Empty the buffer if it ends at `imported`; raise Damaged otherwise. The next batch gets a new header."""
        if self.file.replaced or self.size != imported:
            raise Damaged(f"{self.path}: expected it to end at byte {imported}, found {self.size}; it was left alone")
        self.file.truncate(0)
        self._last_mark = None

    def _first_line(self) -> tuple[bytes, str]:
        """Return the first line, and the node that it names. Raises Damaged."""
        line = self.file.line_at(0)
        try:
            node: str = json.loads(line)["node"]
        except (ValueError, KeyError, TypeError) as error:
            raise Damaged(f"{self.path}: expected our header in its first line, found another: {error}") from error
        return line, node

    def _made(self) -> LogFile:
        if self._file is None:
            try:
                os.close(safe_open.open_file(self.path, os.O_WRONLY | os.O_CREAT | os.O_NONBLOCK))
            except (PermissionError, safe_path.Unsafe) as error:
                raise logfile.Unusable.because(error, self.path, "to make the buffer") from error
            self._file = self._files.enter_context(logfile.opened_ours(self.path))
            safe_open.sync_folder(self.path)  # otherwise a crash can lose the file when the lines are already drained
        return self.file

    def _refuse_foreign(self, file: LogFile) -> None:
        beginning = file.read(0, len(HEADER))
        if not HEADER.startswith(beginning) and beginning.strip(b"\0"):  # after a crash, the first batch may be zeros
            begins = self._mask.line(beginning)
            raise Foreign(f"{self.path}: expected our buffer, found a file that begins with {begins!r}")

    def _recover(self, file: LogFile) -> None:
        """Cut off what follows the last whole batch, and flush the rest to disk: from now on it counts.

        At most one batch can be torn, because each is on disk before the next one is written. A torn batch is saved
        next to the buffer if it has its mark, or if its lines had left the log: if it was damaged, or cut off, later,
        its lines are nowhere else.
        """
        if not file.writable:
            raise logfile.Unusable.denied(self.path, "a buffer that may be written")
        last = place = buffer_marks.last(file, file.size)
        if place is not None and not buffer_marks.is_whole(file, place):
            place = buffer_marks.last(file, place)
            if place is not None and not buffer_marks.is_whole(file, place):
                raise Damaged(
                    f"{self.path}, byte {place}: expected one of our batches, found a checksum that does not fit"
                )
        if place is not None and not file.read(0, 1).strip(b"\0"):
            raise Damaged(f"{self.path}: expected our header in its first line, found zeros")
        self._last_mark = place
        end = 0 if place is None else place + len(file.line_at(place))
        if last != place or end < min(self._drained, file.size):
            self.torn = self.path.with_name(self.path.name + ".torn")
            ranges = buffer_marks.without_holes(file, end, file.size)
            _keep(self.torn, (piece for start, stop in ranges for piece in file.pieces(start, stop - start)))
        if end < file.size:
            file.truncate(end)
        file.sync()

    def _stored(
        self, parts: list[bytes | LongBadLine] | None, mark_line: bytes, digest: bytes, end: int
    ) -> BufferedBatch:
        try:
            mark = buffer_marks.read(mark_line)
            batch = None
            if parts is not None:
                batch = _batch(
                    parts, buffer_marks.checksum(self.file, end - len(mark_line) - 1, mark), mark, self._mask
                )
            tail = bytes.fromhex(mark["tail"]) if mark.get("tail") else None
            return BufferedBatch(batch, mark["end"], _origin(mark), digest, end, _after(mark), tail)
        except (ValueError, KeyError, TypeError) as error:
            raise Damaged(f"{self.path}, before byte {end}: expected one of our batches, found: {error}") from error

    def _long_bad_line(self, start: int, line: LongLine) -> LongBadLine:
        length = min(line.length, buffer_lines.TAIL_BYTES)
        try:
            return buffer_lines.read_long(line, self.file.read(start + line.length - length, length))
        except (ValueError, KeyError, TypeError):
            return None


def _is_text_of(log: LogFile, mark: Mark) -> bool:
    """Return whether the log has the text of this mark's batch, as far as one can tell: of some of it, nobody can."""
    return mark.tail in (b"", log.tail(mark.end)) or drain.was_cut_short(log, mark.end)


def damaged_path(path: Path) -> Path:
    """Return the path to which the operator moves a damaged buffer."""
    return path.with_name(f"{path.name}.damaged")


@contextlib.contextmanager
def opened(path: Path, mask: Mask = UNMASKED, read_only: bool = False, drained: int = 0) -> Iterator[Buffer]:
    """Open the buffer at `path`, and cut off a torn batch; the caller holds its lock. Raises Damaged and Unusable.

    `mask`: applied to lines that were spooled before it was configured. `read_only`: change nothing.
    `drained`: the bytes of it whose lines have left their log.
    """
    with contextlib.ExitStack() as files:
        yield Buffer(path, files, mask, read_only, drained)


def origin(node: str, log: Log, again: bool = False) -> Origin:
    """Return what a batch read from this log now will be recognised by."""
    return Origin(node, logfile.path_text(log.path), log.fingerprints(), log.previous_digest, again)


def encode_batch(batch: Batch, after: int, tail: bytes | None) -> EncodedBatch:
    """Encode a batch for the buffer. All lines before the offset `after` are stored or spooled.

    `tail`: digest of the log's text before the end of the batch.
    """
    return EncodedBatch(
        after, batch.start, batch.end, [*buffer_lines.encoded_parts(batch)], buffer_lines.reasons(batch), tail
    )


def _mark_of(written: EncodedBatch, origin: Origin, previous: int | None) -> Json:
    return {
        "end": written.end,
        "start": written.start,
        "after": written.after,
        "tail": written.tail.hex() if written.tail else None,
        "reject_reasons": written.reject_reasons,
        "node": origin.node,
        "source": origin.source,
        "again": origin.again,
        "predecessor": origin.previous_digest.hex() if origin.previous_digest else None,
        "heads": [[length, digest.hex()] for length, digest in origin.fingerprints],
        "bytes": sum(map(len, written.parts)),
        "crc32": functools.reduce(lambda sum_so_far, part: zlib.crc32(part, sum_so_far), written.parts, 0),
        "previous": previous,
    }


def _after(mark: Json) -> int:
    after: int = mark["after"] if "after" in mark else mark["start"]  # in a buffer of an older version
    return after


def _origin(mark: Json) -> Origin:
    fingerprints = [Fingerprint(length, bytes.fromhex(digest)) for length, digest in mark["heads"]]
    previous_digest = bytes.fromhex(mark["predecessor"]) if mark["predecessor"] else None
    return Origin(mark["node"], mark["source"], fingerprints, previous_digest, mark["again"])


def _batch(parts: list[bytes | LongBadLine], crc32: int, mark: Json, mask: Mask) -> Batch:
    if crc32 != mark["crc32"]:  # first: no message below can quote what we did not write
        raise ValueError("a checksum that does not fit")
    long, count = dict[int, LongBadLine](), 0  # long lines by their number
    for part in parts:
        if not isinstance(part, bytes):
            long[count] = part
        count += part.count(b"\n") if isinstance(part, bytes) else 1
    text = b"".join(part if isinstance(part, bytes) else b"\n" for part in parts)
    records, bad_lines, offsets = buffer_lines.read(text, long, mask)
    buffer_lines.set_reasons(records, mark.get("reject_reasons", ()))
    others = [number for number, _ in bad_lines]
    return Batch(mark["start"], mark["end"], text, count, records, bad_lines, others, {}, offsets, mask.line)


def _without_headers(lines: bytes) -> bytes:
    """Return the lines without headers of a buffer."""
    if not lines.startswith(HEADER) and b"\n" + HEADER not in lines:
        return lines
    return b"".join(line + b"\n" for line in lines.split(b"\n")[:-1] if not line.startswith(HEADER))


def _keep(path: Path, torn: Iterable[bytes]) -> None:
    """Append to a file that only people read, durably. Raises Unusable."""
    try:
        descriptor = safe_open.open_file(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NONBLOCK)
    except safe_path.Unsafe as error:
        raise logfile.Unusable.because(error, path, "to keep a torn batch there") from error
    with os.fdopen(descriptor, "ab") as file:
        os.fchmod(file.fileno(), 0o600)
        file.writelines(torn)
        file.flush()
        os.fsync(file.fileno())


def _header(node: str) -> bytes:
    return HEADER + encode(secrets.token_hex(16)).encode() + b', "node": ' + encode(node).encode() + b"}\n"
