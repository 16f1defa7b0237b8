"""A file that is there as a whole: who reads it sees the old one or the new one, never half of one."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO


def replace(path: Path, content: bytes, mode: int) -> None:
    """Put a new file in the old one's place, with this mode whatever the umask is. Raises OSError.

    Of two that do so at once, one waits for the other.
    """
    temporary = path.with_name(f".{path.name}.new")  # one name: the next run takes what a killed one left
    with _ours(temporary) as file:
        try:
            file.truncate()
            file.write(content)
            file.flush()
            os.fchmod(file.fileno(), mode)
            temporary.replace(path)
        except OSError:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
            raise


@contextlib.contextmanager
def _ours(temporary: Path) -> Iterator[BinaryIO]:
    """Open the file at this path, locked, and that nothing else leads to."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    while True:
        try:
            descriptor = os.open(temporary, flags, 0o600)
        except OSError as error:
            if error.errno not in (errno.ELOOP, errno.ENXIO):
                raise
            temporary.unlink(missing_ok=True)  # a link, or a pipe
            continue
        with os.fdopen(descriptor, "wb") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            if not _is_at(temporary, descriptor):
                continue  # who held the lock has moved it away
            if os.fstat(descriptor).st_nlink == 1:
                yield file
                return
            temporary.unlink()  # what is written here would be in the other one, too


def _is_at(path: Path, descriptor: int) -> bool:
    with contextlib.suppress(FileNotFoundError):
        return os.path.samestat(os.lstat(path), os.fstat(descriptor))
    return False
