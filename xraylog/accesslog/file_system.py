"""What a file system can do with an open file: remove bytes from its front, distinguish data from holes. Linux only."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import re
from collections.abc import Iterator
from pathlib import Path

from xraylog import safe_path

FALLOC_FL_COLLAPSE_RANGE = 0x08  # linux/falloc.h
FAR = 1 << 43  # bytes: past the end of any log, and a multiple of any block size
MARGIN = 1 << 30  # bytes: more than a log grows between two system calls
NEEDED_BYTES = 20 << 10  # of the largest file that each run replaces, the state file
MOUNTS = Path("/proc/self/mountinfo")
ESCAPED = re.compile(rb"\\([0-7]{3})")  # a blank in a path, and the like


def can_collapse(descriptor: int) -> bool:
    """Return whether the file system can remove bytes from the front of a file. Changes nothing.

    It asks for a range past the end of the file: EINVAL if it could, EOPNOTSUPP if it cannot. Past the largest file
    that the file system allows it is EFBIG, which says neither: then it asks for less. That limit is 4 TiB on ext4 with
    blocks of 1 KiB, and 2 GiB or 4 GiB on FAT.
    """
    length = FAR
    while length > os.fstat(descriptor).st_size + MARGIN:
        try:
            collapse(descriptor, length)
        except OSError as error:
            if error.errno != errno.EFBIG:
                return error.errno == errno.EINVAL
        length //= 2
    return False


def collapse(descriptor: int, length: int) -> None:
    """Remove the first `length` bytes of a file, which must be whole blocks."""
    _fallocate(descriptor, FALLOC_FL_COLLAPSE_RANGE, 0, length)


def next_data(descriptor: int, at: int) -> int:
    """Return the offset of the first data at `at` or after it; the file's end if there is none. Holes read as NULs."""
    try:
        return os.lseek(descriptor, at, os.SEEK_DATA)
    except OSError as error:
        # EINVAL: the file system has no holes
        return max(at, os.fstat(descriptor).st_size) if error.errno == errno.ENXIO else at


def data_ranges(descriptor: int, start: int, end: int) -> Iterator[tuple[int, int]]:
    """Yield begin and end of each range with data between `start` and `end`."""
    while (start := next_data(descriptor, start)) < end:
        stop = end
        with contextlib.suppress(OSError):
            stop = min(end, os.lseek(descriptor, start, os.SEEK_HOLE))
        yield start, stop
        start = stop


def name(path: Path) -> str:
    """Return the type of the file system that holds `path`, as mount(8) names it: "ext4"."""
    found, longest = "this file system", -1
    real = os.path.realpath(os.fsencode(path))
    with contextlib.suppress(OSError):
        for line in MOUNTS.read_bytes().splitlines():
            mounted, _, described = line.partition(b" - ")
            point = ESCAPED.sub(lambda escape: bytes([int(escape[1], 8)]), mounted.split(b" ")[4])
            if len(point) >= longest and (real == point or real.startswith(point.rstrip(b"/") + b"/")):
                found, longest = described.split(b" ")[0].decode("ascii", "backslashreplace"), len(point)
    return found


def _fallocate(descriptor: int, mode: int, offset: int, length: int) -> None:
    """Call fallocate(2): Python's os module does not have its modes."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.fallocate64.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)
    if libc.fallocate64(descriptor, mode, offset, length) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def is_full(path: Path) -> bool:
    """Return whether the file system of a file, or of its place, has no room for more. Not for pipes and devices."""
    if os.path.exists(path) and not os.path.isfile(path):
        return False
    try:
        found = os.statvfs(path.parent)
    except OSError:
        return False
    is_root = os.geteuid() == safe_path.ROOT  # who may use what is reserved
    blocks, files = (found.f_bfree, found.f_ffree) if is_root else (found.f_bavail, found.f_favail)
    has_no_file_left = found.f_files > 0 and files == 0 and not os.path.exists(path)  # btrfs counts none
    return has_no_file_left or (found.f_blocks > 0 and blocks * found.f_frsize < NEEDED_BYTES)
