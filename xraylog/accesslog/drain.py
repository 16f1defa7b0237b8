"""Take stored lines out of a live log while xray appends to it.

Bytes before the end may be changed or removed at any time; the end itself never, while another process has the file
open (docs/architecture.md#draining).
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import secrets
import signal
from collections.abc import Iterator
from dataclasses import dataclass

from xraylog.accesslog import file_system
from xraylog.accesslog.logfile import BLOCK_BYTES, LARGE_BLOCK, MARK_BYTES, PREDECESSOR_BYTES, Log, LogFile
from xraylog.records import HEAD_BYTES, TAIL_BYTES, Fingerprint

MARK_IN_WORDS = b"# The lines that stood here are stored. parse_logs.py skips this line; leave it."


class Replaced(Exception):
    """Another program emptied, cut or replaced the log while this run was reading it."""


@dataclass(frozen=True, slots=True)
class Drained:
    """Where the stored lines end after draining, and the fingerprint of the file there."""

    offset: int
    fingerprint: Fingerprint
    unsupported: bool = False  # the file system cannot shorten an open log at its front: nothing was changed


def drain(log: LogFile, offset: int, truncate_above: int) -> Drained:
    """Remove the lines before `offset`, which must be stored, from the log. Lines appended meanwhile are kept.

    If the run is killed at any point, the file either keeps its old fingerprint, or begins with a drain mark and holds
    no stored line. Raises Replaced.
    """
    if not log.writable or offset < MARK_BYTES or (log.has_drain_marker and log.is_blank(offset)):
        return Drained(offset, log.fingerprint(offset))
    if not log.is_unchanged(offset):
        raise Replaced
    if file_system.can_collapse(log.descriptor):
        removed = _collapse(log, offset)
    elif is_exclusive(log) or (log.size == offset and log.has_more_data_than(truncate_above)):
        _blank(log, 0, offset)  # all of it: `truncate_if_drained` follows
        removed = 0
    else:
        return Drained(offset, log.fingerprint(offset), unsupported=True)
    log.reread_head()
    return Drained(offset - removed, log.fingerprint(offset - removed))


def truncate_if_drained(log: LogFile, offset: int, truncate_above: int, leave: int = 0) -> bool:
    """Truncate the file if it holds only drained lines and no other process has it open; return whether it was.

    `leave`: 0, or MARK_BYTES as long as the database still knows the file by its old head. On a file system that cannot
    collapse, a live log with more than `truncate_above` bytes is truncated even if it is open, provided that it has not
    grown: a line that xray appends between the check and the truncation is lost.
    """
    if not log.writable or not log.has_drain_marker:
        return False
    with _lease(log) as alone:
        if log.size == offset and (alone or log.has_more_data_than(truncate_above)):
            log.truncate(leave)
            return True
    return False


def is_exclusive(log: LogFile) -> bool:
    """Return whether no other process has the file open right now. Works for its owner and root."""
    with _lease(log) as alone:
        return alone


@contextlib.contextmanager
def _lease(log: LogFile) -> Iterator[bool]:
    """Try to take a write lease. It is granted only while no other process has the file open; others then wait."""
    previous = signal.signal(signal.SIGIO, signal.SIG_IGN)  # sent when another process opens it; kills by default
    try:
        try:
            fcntl.fcntl(log.descriptor, fcntl.F_SETLEASE, fcntl.F_WRLCK)
        except OSError:  # EAGAIN: it is open elsewhere. EACCES: not ours. EINVAL: no leases here
            yield False
            return
        try:
            yield True
        finally:
            fcntl.fcntl(log.descriptor, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    finally:
        signal.signal(signal.SIGIO, previous)


def supports_collapse(log: LogFile) -> bool:
    """Return whether the file system can remove bytes from the front of this file. Changes nothing.

    It asks with an unnamed file in the same folder, because even a refused fallocate changes a file's modification
    time.
    """
    try:
        unnamed = os.open(log.path.resolve().parent, os.O_TMPFILE | os.O_RDWR, 0o600)
    except OSError:
        return file_system.can_collapse(log.descriptor)
    try:
        return file_system.can_collapse(unnamed)
    finally:
        os.close(unnamed)


def was_cut_short(log: Log, offset: int) -> bool:
    """Return whether a drain up to `offset`, or beyond it, has overwritten text before it, and did not finish.

    Until it changes the head of the file, the old fingerprint holds, but the tail is another. What shows such a drain
    is a mark where the rest would begin, or, before the mark is written, a blank line in the text that the tail
    digests. Only files are drained.
    """
    if not isinstance(log, LogFile):
        return False
    cuts = {*_cuts(log, offset), *_cuts(log, offset - 1 + MARK_BYTES)}
    if any(cut and log.read(cut, 1) == MARK_IN_WORDS[:1] for cut in cuts):
        return True
    start = max(0, offset - TAIL_BYTES - 1)  # with the end of the line before
    text = log.read(start, offset - start)
    return b"\n\n" in text


def _cuts(log: LogFile, offset: int) -> list[int]:
    """Return the offsets up to which whole blocks can be removed: of the file system's size, or of a large one."""
    blocks = (max(HEAD_BYTES, os.fstat(log.descriptor).st_blksize), LARGE_BLOCK)
    return [max(0, offset - MARK_BYTES) // block * block for block in blocks]


def _blank(log: LogFile, start: int, end: int) -> None:
    """Overwrite [start, end) with a drain mark and line feeds, the page with the mark last.

    Holes stay holes: a writer without O_APPEND leaves one when the log is truncated, and line feeds in it would fill
    the disk.

    The head changes in one write, inside a page: the old fingerprint holds until everything after it is blank. The
    random id makes every drained head different: heads of line feeds only looked alike, and new lines after them were
    taken for stored ones (docs/architecture.md#draining). With the previous digest, the run after a kill can delete the
    old position: otherwise similar lines, in a log that was emptied meanwhile, would be taken for stored.
    """
    page = min(end, start + HEAD_BYTES)
    for begin, stop in file_system.data_ranges(log.descriptor, page, end):
        for at in range(begin, stop, BLOCK_BYTES):
            log.write_at(b"\n" * min(BLOCK_BYTES, stop - at), at)
    if page < end:
        os.fdatasync(log.descriptor)
    digest = log.fingerprint(end).digest[:PREDECESSOR_BYTES]
    mark = f"# drained {secrets.token_hex(8)} after {digest.hex()}".encode().ljust(MARK_BYTES - 1) + b"\n"
    room = page - start - MARK_BYTES
    words = MARK_IN_WORDS[: room - 1].ljust(room - 1) + b"\n" if room else b""
    log.write_at(log.read(page - 1, 1), page - 1)  # fails if a limit (ulimit -f) would cut the next write short
    log.write_at(mark + words, start)
    os.fdatasync(log.descriptor)


def _collapse(log: LogFile, offset: int) -> int:
    """Remove whole blocks of stored lines from the front, and blank the rest. Return how many bytes were removed.

    The block that holds the end of the file has to stay: collapsing up to the end fails with EINVAL. So does a length
    that is not a multiple of the file system's unit; then try a large one. If nothing can be removed, either the first
    block is blank, or the old fingerprint still holds.
    """
    for cut in _cuts(log, offset):
        _blank(log, cut, offset)
        if cut == 0:
            return 0
        try:
            file_system.collapse(log.descriptor, cut)
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
        else:
            os.fsync(log.descriptor)
            return cut
    return 0
