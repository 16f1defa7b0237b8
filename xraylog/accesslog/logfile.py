"""The access log as a file: its identity and its complete lines. `drain` takes stored lines out of it.

Knows bytes and offsets, but no database and no log syntax, except that a line ends in LF and that we write a line that
begins with '#'.

xray opens its log with O_APPEND and writes each line in one write(2) (common/log/logger.go). So bytes before the end
may be changed or removed at any time, but never the end itself while another process has the file open.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import re
import stat
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from xraylog import safe_open, safe_path
from xraylog.accesslog import file_system, lines
from xraylog.accesslog.lines import Block
from xraylog.records import HEAD_BYTES, MAX_LINE_BYTES, TAIL_BYTES, Fingerprint, tail_digest

BLOCK_BYTES = 1 << 18  # read at a time
WRITE_BYTES = 1 << 20  # written at a time
BEFORE_BYTES = 1 << 14  # of the lines before the new ones: about a hundred lines
# The first line of a drained log: a random id, and the beginning of the digest by which it was recognised before.
MARK = re.compile(rb"# drained [0-9a-f]{16} after ([0-9a-f]{28}) *\n")
MARK_BYTES = 64
PREDECESSOR_BYTES = 14  # of the 32 bytes of a digest: as many as fit
OUR_OUTPUT = ("/dev/stdout", "/dev/stderr")
LARGE_BLOCK = 1 << 16  # bytes: the unit of ext4 with bigalloc, and of some RAID set-ups


class Busy(Exception):
    """Another run has the file locked. The message says which run, if known."""


class Unusable(Exception):
    """A log or another file cannot be read: it is not a regular file, or we may not open it.

    For the hint: `path` is the file, and `printer` a command that prints a log which we cannot read.
    """

    def __init__(self, message: str, path: Path | None = None, printer: str = "") -> None:
        super().__init__(message)
        self.path = path
        self.printer = printer

    @classmethod
    def because(cls, error: OSError, path: Path, expected: str) -> Unusable:
        """Return the exception for an error of the file system."""
        found = cls(f"{path}: expected {expected}, found: {error.strerror}", path)
        found.__cause__ = error
        return found

    @classmethod
    def denied(cls, path: Path, expected: str) -> Unusable:
        """Return the exception for a file that we may read but not write."""
        return cls.because(PermissionError(errno.EACCES, os.strerror(errno.EACCES)), path, expected)


class Log:
    """Text in complete lines, recognised by its beginning. This base class is for text to which nothing is appended."""

    def __init__(self, path: Path, head: bytes) -> None:
        """`head`: its first HEAD_BYTES bytes."""
        self.path = path
        self._head = head
        self.corruption: str | None = None  # set while reading; what was read before is good
        self.has_partial_last_line = False  # set while reading: the last line has no line end

    @property
    def max_offset(self) -> int | None:
        """The largest valid position, in bytes. None: any, because this may be a shorter copy of a stored log."""
        return None

    @property
    def is_whole(self) -> bool:
        """Return whether reading was not cut short by damage, or by a change of the file."""
        return self.corruption is None

    @property
    def is_empty(self) -> bool:
        """Return whether it has no text."""
        return not self._head

    def begins_with(self, text: bytes) -> bool:
        """Return whether its text begins with this one."""
        return self._head.startswith(text)

    @property
    def has_drain_marker(self) -> bool:
        """Whether the text begins with a drain mark: we have removed what was there before."""
        return MARK.match(self._head) is not None

    @property
    def previous_digest(self) -> bytes | None:
        """The beginning of the digest by which this log was known before it was drained."""
        mark = MARK.match(self._head)
        return bytes.fromhex(mark[1].decode()) if mark else None

    def fingerprints(self) -> list[Fingerprint]:
        """Return every fingerprint that a position in this log can be stored with.

        They are digests of its beginning, up to each line end within HEAD_BYTES, and up to HEAD_BYTES.
        """
        found, digest, done = [], hashlib.sha256(), 0
        while (end := self._head.find(b"\n", done) + 1) > 0:
            digest.update(self._head[done:end])
            found.append(Fingerprint(end, digest.digest()))
            done = end
        if len(self._head) == HEAD_BYTES != done:
            digest.update(self._head[done:])
            found.append(Fingerprint(HEAD_BYTES, digest.digest()))
        return found

    def fingerprint(self, offset: int) -> Fingerprint:
        """Return the fingerprint that a position at `offset` is stored with."""
        length = min(offset, HEAD_BYTES)
        return Fingerprint(length, hashlib.sha256(self._head[:length]).digest())

    def tail(self, offset: int) -> bytes:
        """Return the digest of the text before `offset`."""
        start, text = max(0, offset - TAIL_BYTES), b""
        for _, piece in self._pieces(start):
            text += piece
            if len(text) >= offset - start:
                break
        return tail_digest(text[: offset - start])

    def blocks(self, start: int, keep: int = MAX_LINE_BYTES) -> Iterator[Block]:
        """Yield blocks of complete lines from `start` on, without gaps except holes; at most `keep` bytes of a line."""
        return lines.complete(self._pieces(start), keep)

    def is_drained(self) -> bool:
        """Return whether it holds nothing but what `drain` leaves, as far as one can tell without reading it all."""
        return False

    def is_blank(self, end: int) -> bool:
        """Return whether there is no line before `end` to be stored, as far as one can tell without reading it all."""
        return end == 0

    def sync(self) -> None:
        """Flush the lines to disk before a position in them is committed, if a crash of the machine could lose them."""

    def _pieces(self, start: int) -> Iterator[tuple[int, bytes]]:
        """Yield offset and bytes of the text from `start` on, BLOCK_BYTES or fewer at a time."""
        raise NotImplementedError


class LogFile(Log):
    """An open log file. It has exactly one descriptor: a second would keep the lease from being granted."""

    def __init__(self, path: Path, descriptor: int, writable: bool) -> None:
        """Use `opened`."""
        super().__init__(path, os.pread(descriptor, HEAD_BYTES, 0))
        self.writable = writable
        self._fd = descriptor
        self.replaced = False  # set while reading; what was read before is good
        self.largest = 0  # the largest size seen

    @property
    def max_offset(self) -> int:
        """The size of the file: a larger position is one in another file."""
        return self.size

    @property
    def is_whole(self) -> bool:
        """Return whether no other program changed what was read."""
        return not self.replaced

    @property
    def is_empty(self) -> bool:
        """Return whether there is nothing in it."""
        return self.size == 0

    @property
    def size(self) -> int:
        """Bytes in the file now."""
        size = os.fstat(self._fd).st_size
        self.largest = max(self.largest, size)
        return size

    def has_more_data_than(self, limit: int) -> bool:
        """Return whether more than `limit` bytes of the file take room on the disk: holes do not."""
        return self.size > limit and sum(end - start for start, end in self.data(0, self.size)) > limit

    def data(self, start: int, end: int) -> Iterator[tuple[int, int]]:
        """Yield begin and end of each range with data: a hole can be larger than the disk."""
        return file_system.data_ranges(self._fd, start, end)

    @property
    def descriptor(self) -> int:
        """The one descriptor; read from it, but never close it."""
        return self._fd

    @property
    def stat(self) -> os.stat_result:
        """What the file system knows of it."""
        return os.fstat(self._fd)

    @property
    def has_left_its_path(self) -> bool:
        """Return whether another program has renamed or removed it: its path leads to another file, or nowhere."""
        try:
            return not os.path.samestat(os.stat(self.path), self.stat)
        except FileNotFoundError:
            return True
        except OSError:  # root may open it, but not look it up: NFS with root_squash
            return False

    def lines_before(self, end: int) -> Iterator[Block]:
        """Yield a block of the last lines before `end`. Drained lines are blank."""
        start = max(0, end - BEFORE_BYTES)
        return lines.complete([(start, self.read(start, end - start))])

    def is_drained(self) -> bool:
        """Return whether the file holds nothing but what `drain` leaves."""
        return self.has_drain_marker and self.is_blank(self.size)

    def is_blank(self, end: int) -> bool:
        """Return whether only what `drain` leaves is before `end`. False if that is more than a few blocks."""
        if end > 2 * LARGE_BLOCK:
            return False
        text = os.pread(self._fd, end, 0)
        return text[-1:] in (b"", b"\n") and all(line[:1] in (b"", b"#") for line in text.split(b"\n"))

    def _pieces(self, start: int) -> Iterator[tuple[int, bytes]]:
        """Yield the bytes from `start` to the current end of the file.

        Ends early, with `replaced` set, if another program changes what was read. Each piece is checked after it was
        read, so every line is from the file that the position belongs to.
        """
        end, at = self.size, start
        while at < end:
            read = os.pread(self._fd, min(BLOCK_BYTES, end - at), at)
            if not read or not self.is_unchanged(at + len(read)):
                self.replaced = True
                return
            yield at, read
            at += len(read)
            if not read.strip(b"\0"):  # a hole can be larger than the disk
                at = file_system.next_data(self._fd, at)

    def tail(self, offset: int) -> bytes:
        """Return the digest of the text before `offset`."""
        start = max(0, offset - TAIL_BYTES)
        return tail_digest(self.read(start, offset - start))

    def read(self, start: int, length: int) -> bytes:
        """Return `length` bytes from `start` on, fewer at the end of the file."""
        return os.pread(self._fd, length, start)

    def pieces(self, start: int, length: int) -> Iterator[bytes]:
        """Yield `length` bytes from `start` on, at most BLOCK_BYTES at a time; fewer at the end of the file."""
        end = start + length
        while start < end and (read := self.read(start, min(BLOCK_BYTES, end - start))):
            yield read
            start += len(read)

    def line_at(self, start: int) -> bytes:
        """Return the line that begins at `start`, with its line end.

        Stop before a NUL: our own lines contain none, and a hole consists of them.
        """
        line = b""
        while (read := self.read(start + len(line), LARGE_BLOCK)) and not (read.count(b"\n") or read.count(b"\0")):
            line += read
        return line + read[: read.find(b"\n") + 1]

    def append(self, parts: Iterable[bytes]) -> None:
        """Append durably, about WRITE_BYTES at a time. Only for our own file, under its lock."""
        at, waiting = self.size, bytearray()
        for part in parts:
            waiting += part
            if len(waiting) >= WRITE_BYTES:
                self.write_at(bytes(waiting), at)
                at += len(waiting)
                waiting.clear()
        self.write_at(bytes(waiting), at)
        os.fsync(self._fd)
        self.reread_head()

    def truncate(self, size: int) -> None:
        """Truncate the file to `size` bytes, durably."""
        os.ftruncate(self._fd, size)
        os.fsync(self._fd)
        self._head = self._head[:size]

    def sync(self) -> None:
        """Flush the lines to disk before a position in them is committed.

        Otherwise a crash could leave a position past the end of the file, and the next run would take it for a new
        file.
        """
        os.fdatasync(self._fd)

    def reread_head(self) -> None:
        """Recognise the file by its current beginning from now on."""
        self._head = os.pread(self._fd, HEAD_BYTES, 0)

    def is_unchanged(self, reached: int) -> bool:
        """Return whether this is still the file we know, with at least `reached` bytes; remember more of its head."""
        head = os.pread(self._fd, HEAD_BYTES, 0)
        if self.size < reached or not head.startswith(self._head):
            return False
        self._head = head
        return True

    def write_at(self, data: bytes, at: int) -> None:
        """Write all of `data`: a full disk can cut a write short even over existing bytes (copy on write)."""
        while data:
            written = os.pwrite(self._fd, data, at)
            data, at = data[written:], at + written


@contextlib.contextmanager
def opened(
    path: Path,
    read_only: bool = False,
    open_it: Callable[[Path, int], int] = safe_open.open_log,
    what: str = "a log",
) -> Iterator[LogFile | None]:
    """Open the log at `path` for reading and, if we may, for draining; yield None if it does not exist.

    `read_only`: do not write, but set `writable` if we could. `open_it`: one of the rules of `safe_open`. `what`: the
    kind of file, for messages. Raises Unusable and Busy.
    """
    descriptor, writable = -1, True
    try:
        try:
            descriptor = open_it(path, (os.O_RDONLY if read_only else os.O_RDWR) | os.O_NONBLOCK)
            writable = not read_only or os.access(path, os.W_OK)
        except OSError as error:
            if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ETXTBSY):
                raise
            descriptor, writable = open_it(path, os.O_RDONLY | os.O_NONBLOCK), False
    except FileNotFoundError:
        yield None
        return
    except IsADirectoryError:
        raise Unusable(f"{path}: expected {what} in a file, found a folder", path) from None
    except OSError as error:
        raise Unusable.because(error, path, f"{what} that can be read") from error
    try:
        _refuse_other_kinds(path, descriptor, what)
        if not read_only:
            _hold(path, descriptor)
        yield LogFile(path, descriptor, writable)
    finally:
        os.close(descriptor)


def opened_ours(path: Path, read_only: bool = False) -> contextlib.AbstractContextManager[LogFile | None]:
    """Open the buffer at `path`, under the rules for our own files. Raises Unusable."""
    return opened(path, read_only, safe_open.open_file, "our buffer")


def leads_to_output(path: Path) -> bool:
    """Return whether `path` is a link to the standard output or error of a process: ours, or a container's."""
    if not os.path.islink(path):
        return False
    real = safe_path.without_links(path)
    ours = any(os.path.exists(own) and safe_path.without_links(Path(own)) == real for own in OUR_OUTPUT)
    return ours or re.fullmatch(r"/proc/[^/]+/fd/[12]", str(real)) is not None


def _refuse_other_kinds(path: Path, descriptor: int, what: str) -> None:
    """Raise Unusable for anything but a regular file, and for our own output, which would be emptied."""
    mode = os.fstat(descriptor).st_mode
    if leads_to_output(path):
        leads = f"a link to {os.readlink(path)}"
        raise Unusable(f"{path}: expected {what}, found {leads}, which is where a process prints", path)
    if not stat.S_ISREG(mode):
        raise Unusable(f"{path}: expected {what} in a file, found {safe_open.kind(mode)}", path)


def _hold(path: Path, descriptor: int) -> None:
    """Lock the file while it is open, so that no other run uses it under another name. Raises Busy."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise Busy(f"{path} is held by another process") from None
    except OSError:  # a file system without such locks: the lock file has to suffice
        pass


def path_text(path: Path) -> str:
    """Return a path for messages and for the database: bytes that are not UTF-8 become escapes."""
    return os.fsencode(path).decode(errors="backslashreplace")
