"""The access log as a file: its identity, its complete lines, and how stored ones leave it.

Knows bytes and offsets; no database and no log syntax, except that a line ends in LF, and that a line which
begins with '#' is our own.

xray opens its log with O_APPEND and writes each line in one write(2) (common/log/logger.go). So bytes before
the end may be changed or removed at any time, and the end itself never, while another process has the file open.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import hashlib
import os
import re
import secrets
import signal
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from xraylog.records import HEAD_BYTES, Fingerprint

BLOCK_BYTES = 1 << 18  # read at a time
# The first line of a drained log: a random id, and the digest of what the file was recognised by before.
MARK = re.compile(rb"# drained [0-9a-f]{16} after ([0-9a-f]{28}) *\n")
MARK_BYTES = 64
PREDECESSOR_BYTES = 14  # of a digest of 32: what fits
MARK_IN_WORDS = b"# The lines that stood here are stored. parse_logs.py skips this line; leave it."
FALLOC_FL_COLLAPSE_RANGE = 0x08  # linux/falloc.h
BEYOND = 1 << 43  # bytes: past the end of any log, and a multiple of any block size
LARGE_BLOCK = 1 << 16  # bytes: what ext4's bigalloc and some RAID set-ups ask for


class Busy(Exception):
    """Another run is at work on it. The message says which run, where that is known."""


class Unusable(Exception):
    """The log cannot be read: it is no regular file, or we may not open it."""


class Replaced(Exception):
    """Another program emptied, cut or replaced the log while this run was reading it."""


@dataclass(frozen=True, slots=True)
class Drained:
    """How far the stored lines reach now, and what the file's head is."""

    offset: int
    fingerprint: Fingerprint
    kept: bool  # the file system cannot take lines out in front of an open log's end: nothing was changed


class Log:
    """Text in complete lines that is recognised by its beginning. Once it is at an end, nothing is added to it."""

    def __init__(self, path: Path, head: bytes) -> None:
        """`head`: its first HEAD_BYTES bytes."""
        self.path = path
        self._head = head
        self.damage: str | None = None  # noticed while reading: what was read before that is good
        self.unended = False  # noticed while reading: the last line has no end

    @property
    def most(self) -> int | None:
        """What a position in it is at most, bytes. None: it may be a shorter copy of what a position is in."""
        return None

    @property
    def is_empty(self) -> bool:
        """Whether there is no text in it."""
        return not self._head

    @property
    def is_ours(self) -> bool:
        """The text begins with a drain mark: it was us who removed what stood there before."""
        return MARK.match(self._head) is not None

    @property
    def predecessor(self) -> bytes | None:
        """The beginning of the digest under which this log was known before we drained it."""
        mark = MARK.match(self._head)
        return bytes.fromhex(mark[1].decode()) if mark else None

    def fingerprints(self) -> list[Fingerprint]:
        """Return what a position in this very log can have been stored under: the text's beginnings, at each line
        end up to HEAD_BYTES, and at HEAD_BYTES.
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
        """Return what a position at `offset` is stored under."""
        length = min(offset, HEAD_BYTES)
        return Fingerprint(length, hashlib.sha256(self._head[:length]).digest())

    def blocks(self, start: int) -> Iterator[tuple[int, bytes]]:
        """Yield complete lines from `start` on: offset and bytes of each block, without gaps except for holes."""
        return complete_lines(self._pieces(start))

    def holds_only_our_mark(self) -> bool:
        """Whether there is nothing in it but what `drain` leaves, as far as that is known before it is read."""
        return False

    def sync(self) -> None:
        """Flush the lines to disk before a position in them is committed, if a crash of the machine can take them."""

    def _pieces(self, start: int) -> Iterator[tuple[int, bytes]]:
        """Yield offset and bytes of the text from `start` on, BLOCK_BYTES or fewer at a time."""
        raise NotImplementedError


class LogFile(Log):
    """One open log. Has exactly one descriptor: a second would keep the lease from being granted."""

    def __init__(self, path: Path, descriptor: int, writable: bool) -> None:
        """Use `opened`."""
        super().__init__(path, os.pread(descriptor, HEAD_BYTES, 0))
        self.writable = writable
        self._fd = descriptor
        self.replaced = False  # noticed while reading: what was read before that is good

    @property
    def most(self) -> int:
        """Its size: what is longer is a position in another file."""
        return self.size

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing in it."""
        return self.size == 0

    @property
    def size(self) -> int:
        """Bytes in the file now."""
        return os.fstat(self._fd).st_size

    @property
    def descriptor(self) -> int:
        """Its one descriptor; to be read from, never closed."""
        return self._fd

    @property
    def stat(self) -> os.stat_result:
        """What the file system knows of it."""
        return os.fstat(self._fd)

    @property
    def collapses(self) -> bool:
        """Whether the file system can take bytes out of the front of this file. Changes nothing: it asks with a
        nameless file beside it, for even a refused fallocate sets a file's time of modification.
        """
        try:
            nameless = os.open(self.path.resolve().parent, os.O_TMPFILE | os.O_RDWR, 0o600)
        except OSError:
            return collapses(self._fd)
        try:
            return collapses(nameless)
        finally:
            os.close(nameless)

    def holds_only_our_mark(self) -> bool:
        """Whether there is nothing in the file but what `drain` leaves."""
        if not self.is_ours or self.size > 2 * LARGE_BLOCK:
            return False
        text = os.pread(self._fd, 2 * LARGE_BLOCK, 0)
        return text.endswith(b"\n") and all(line[:1] in (b"", b"#") for line in text.split(b"\n"))

    def _pieces(self, start: int) -> Iterator[tuple[int, bytes]]:
        """Yield the bytes from `start` to the end that the file has now.

        Ends early, with `replaced` set, if another program changes what was read already. Each piece is checked
        after it was read: a line in it is from the file that the position is in.
        """
        end, at = self.size, start
        while at < end:
            read = os.pread(self._fd, min(BLOCK_BYTES, end - at), at)
            if not read or not self._is_unchanged(at + len(read)):
                self.replaced = True
                return
            yield at, read
            at += len(read)

    def read(self, start: int, length: int) -> bytes:
        """Return the bytes there, fewer at the end of the file."""
        return os.pread(self._fd, length, start)

    def line_at(self, start: int) -> bytes:
        """Return the line that begins at `start`, with its line end."""
        line = b""
        while not (read := self.read(start + len(line), LARGE_BLOCK)).count(b"\n") and read:
            line += read
        return line + read[: read.find(b"\n") + 1]

    def append(self, data: bytes) -> None:
        """Write at the end, durably. For a file that is ours alone, under its lock."""
        self._write(data, self.size)
        os.fsync(self._fd)
        self._head = os.pread(self._fd, HEAD_BYTES, 0)

    def cut(self, size: int) -> None:
        """Cut the file to `size` bytes, durably. For a file that is ours alone, under its lock."""
        os.ftruncate(self._fd, size)
        os.fsync(self._fd)
        self._head = self._head[:size]

    def sync(self) -> None:
        """Flush the lines to disk before a position in them is committed: otherwise a crash leaves a position
        past the end of the file, and the next run takes the file for a new one.
        """
        os.fdatasync(self._fd)

    def drain(self, offset: int, truncate_above: int) -> Drained:
        """Take the lines before `offset` out; they must be stored. Appending goes on meanwhile, no line is lost.

        Killed at any point, the file is either recognised by its old fingerprint, or begins with a drain mark
        and holds no stored line. Raises Replaced.
        """
        kept = Drained(offset, self.fingerprint(offset), kept=False)
        if not self.writable or offset < MARK_BYTES:
            return kept
        if not self._is_unchanged(offset):
            raise Replaced
        if collapses(self._fd):
            removed = self._collapse(offset)
        elif self.unshared() or (self.size == offset and offset > truncate_above):
            removed = self._blank(0, offset)  # as a whole: `empty` comes next
        else:
            return Drained(offset, kept.fingerprint, kept=True)
        self._head = os.pread(self._fd, HEAD_BYTES, 0)
        return Drained(offset - removed, self.fingerprint(offset - removed), kept=False)

    def empty(self, offset: int, truncate_above: int, leave: int = 0) -> bool:
        """Truncate the file when nothing but drained lines is in it and nobody else has it open.

        `leave` is 0, or MARK_BYTES as long as the database still knows the file by its old head.

        A live log beyond `truncate_above` bytes on a file system that cannot collapse is truncated all the
        same, when it has not grown: a line that xray appends between the check and the cut is lost.
        """
        if not self.writable or not self.is_ours:
            return False
        with self._lease() as alone:
            if (alone or offset > truncate_above) and self.size == offset:
                os.ftruncate(self._fd, leave)
                os.fsync(self._fd)
                self._head = self._head[:leave]
                return True
        return False

    def unshared(self) -> bool:
        """Whether nobody else has the file open at this moment. Owner and root may ask."""
        with self._lease() as alone:
            return alone

    @contextlib.contextmanager
    def _lease(self) -> Iterator[bool]:
        """Hold a write lease, which is granted only while nobody else has the file open; an open then waits."""
        previous = signal.signal(signal.SIGIO, signal.SIG_IGN)  # sent when another process waits; its default kills
        try:
            try:
                fcntl.fcntl(self._fd, fcntl.F_SETLEASE, fcntl.F_WRLCK)
            except OSError:  # EAGAIN: it is open elsewhere. EACCES: not ours. EINVAL: no leases here
                yield False
                return
            try:
                yield True
            finally:
                fcntl.fcntl(self._fd, fcntl.F_SETLEASE, fcntl.F_UNLCK)
        finally:
            signal.signal(signal.SIGIO, previous)

    def _is_unchanged(self, reached: int) -> bool:
        """Whether the file still is the one we know, at least `reached` bytes of it; learns more of its head."""
        head = os.pread(self._fd, HEAD_BYTES, 0)
        if self.size < reached or not head.startswith(self._head):
            return False
        self._head = head
        return True

    def _blank(self, start: int, end: int) -> int:
        """Put a drain mark and line feeds over [start, end), the page with the mark last; removes 0 bytes.

        The head changes in that one write, inside a page: the old fingerprint holds until everything after it
        is blank. The random id makes each head another: heads of nothing but line feeds looked alike, and new
        lines after them were taken for stored ones (docs/architecture.md#draining). The predecessor's digest lets its
        position be forgotten by a run that comes after a kill: otherwise lines that look like the old ones, in a log
        that was empty meanwhile, would be taken for stored.
        """
        page = min(end, start + HEAD_BYTES)
        for at in range(page, end, BLOCK_BYTES):
            self._write(b"\n" * min(BLOCK_BYTES, end - at), at)
        if page < end:
            os.fdatasync(self._fd)
        digest = self.fingerprint(end).digest[:PREDECESSOR_BYTES]
        mark = f"# drained {secrets.token_hex(8)} after {digest.hex()}".encode().ljust(MARK_BYTES - 1) + b"\n"
        room = page - start - MARK_BYTES
        words = MARK_IN_WORDS[: room - 1].ljust(room - 1) + b"\n" if room else b""
        self._write(mark + words, start)
        os.fdatasync(self._fd)
        return 0

    def _write(self, data: bytes, at: int) -> None:
        """All of it: a full disk can cut a write short even over bytes that were there (copy on write)."""
        while data:
            written = os.pwrite(self._fd, data, at)
            data, at = data[written:], at + written

    def _collapse(self, offset: int) -> int:
        """Remove whole blocks of stored lines from the front, and blank the rest of them. Says how many bytes.

        The block that holds the end of the file has to stay: collapsing up to it is EINVAL. So is a length that
        is no multiple of the file system's unit: then once more with a large one. Nothing removed: what stood
        in the first block is blank, or the old fingerprint still holds.
        """
        for block in (max(HEAD_BYTES, os.fstat(self._fd).st_blksize), LARGE_BLOCK):
            cut = (offset - MARK_BYTES) // block * block
            self._blank(cut, offset)
            if cut == 0:
                return 0
            try:
                _fallocate(self._fd, FALLOC_FL_COLLAPSE_RANGE, 0, cut)
            except OSError as error:
                if error.errno != errno.EINVAL:
                    raise
            else:
                os.fsync(self._fd)
                return cut
        return 0


def complete_lines(pieces: Iterable[tuple[int, bytes]]) -> Iterator[tuple[int, bytes]]:
    """Offset and bytes of blocks of complete lines, from pieces that follow one another."""
    pending: list[bytes] = []  # the beginning of a line that is longer than a piece
    for at, read in pieces:
        if not pending and not read.strip(b"\0\n"):
            continue  # a hole that a truncation left without O_APPEND, or our own blanks: larger than memory
        complete = read.rfind(b"\n") + 1
        if complete == 0:
            pending.append(read)
            continue
        block = b"".join([*pending, read[:complete]])
        yield at + complete - len(block), block
        rest = read[complete:]
        pending = [rest] if rest.strip(b"\0") else []


@contextlib.contextmanager
def opened(path: Path, read_only: bool = False) -> Iterator[LogFile | None]:
    """Open the log at `path`, for reading and, if we may, for draining; yield None if there is none.

    `read_only`: only to look, but `writable` says whether we might. Raises Unusable.
    """
    descriptor, writable = -1, True
    try:
        try:
            descriptor = os.open(path, (os.O_RDONLY if read_only else os.O_RDWR) | os.O_NONBLOCK)
            writable = not read_only or os.access(path, os.W_OK)
        except (PermissionError, OSError) as error:
            if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ETXTBSY):
                raise
            descriptor, writable = os.open(path, os.O_RDONLY | os.O_NONBLOCK), False
    except FileNotFoundError:
        yield None
        return
    except OSError as error:
        raise Unusable(f"{path}: expected a log that can be read, found: {error.strerror}") from error
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise Unusable(f"{path}: expected a regular file, found another kind")
        if not read_only:
            _hold(path, descriptor)
        yield LogFile(path, descriptor, writable)
    finally:
        os.close(descriptor)


def _hold(path: Path, descriptor: int) -> None:
    """Keep other runs off as long as the file is open, by whatever name they know it. Raises Busy."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise Busy(f"{path} is held by another process") from None
    except OSError:  # a file system without such locks: the lock file beside it has to do
        pass


def path_text(path: Path) -> str:
    """Return a path for people and for the database: bytes that are not UTF-8 are written as escapes."""
    return os.fsencode(path).decode(errors="backslashreplace")


def collapses(descriptor: int) -> bool:
    """Whether the file system can take bytes out of the front of a file. Asks for a range beyond the file's end:
    EINVAL where it could, EOPNOTSUPP where it cannot; nothing is changed.
    """
    try:
        _fallocate(descriptor, FALLOC_FL_COLLAPSE_RANGE, 0, BEYOND)
    except OSError as error:
        return error.errno == errno.EINVAL
    return False


def _fallocate(descriptor: int, mode: int, offset: int, length: int) -> None:
    """fallocate(2), which Python's os module has without its modes."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.fallocate64.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)
    if libc.fallocate64(descriptor, mode, offset, length) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
