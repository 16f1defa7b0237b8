"""Lock files: one run at a time for each log and each buffer.

They are next to what they guard, because a lock on the log itself would not survive its rotation. The file itself is
locked, too (`logfile.opened`): for hard links, archives, and runs whose lock files are in different folders.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import re
import stat
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

from xraylog import safe_open, safe_path
from xraylog.accesslog.logfile import Busy, Unusable

HOLDER = re.compile(r"process [0-9]{1,10} since [0-9: +-]{10,40}")  # written by `_lock`


def lock_path(path: Path, fallback_folder: Path) -> Path:
    """Return the path of the lock for `path`: next to the real file, so that all its names have the same lock.

    If that folder is not writable: in `fallback_folder`, under a name made from the real path. Raises Unusable.
    """
    try:
        real = safe_open.real_path(path)
    except safe_path.Unsafe as error:
        raise Unusable.because(error, path, "a path that we may follow") from error
    except OSError:  # there is no such folder: reported when the lock is created
        real = safe_path.without_links(path)
    lock = real.with_name(real.name + ".lock")
    is_of_kernel = real.parts[1:2] in (("dev",), ("proc",))  # a link there: reported when it is opened
    if not is_of_kernel and (os.path.exists(lock) or os.access(real.parent, os.W_OK | os.X_OK)):
        return lock
    return fallback_folder / f".{hashlib.sha256(os.fsencode(real)).hexdigest()[:16]}.lock"


@contextlib.contextmanager
def locked(*paths: Path) -> Iterator[None]:
    """Hold the locks at these paths. They are never removed: a lock that can vanish locks nothing.

    Raises Busy if another run holds one of them, and Unusable if one cannot be created.
    """
    with contextlib.ExitStack() as held:
        for path in sorted(set(paths)):
            held.enter_context(_lock(path))
        yield


@contextlib.contextmanager
def _lock(path: Path) -> Iterator[None]:
    try:
        descriptor = safe_open.open_file(path, os.O_RDWR | os.O_CREAT | os.O_NONBLOCK)
    except safe_path.Unsafe as error:
        raise Unusable.because(error, path, "our lock file") from error
    except OSError as error:
        if not os.path.lexists(path.parent):  # that of a log may be missing: then its lock is next to the buffer
            said = f"{path.parent}: expected the folder of the offline buffer and its locks, found none"
            raise Unusable(said, path) from error
        try:  # another user created it: it works as a lock all the same
            descriptor = safe_open.open_file(path, os.O_RDONLY | os.O_NONBLOCK)
        except OSError:
            raise Unusable.because(error, path, _what(path)) from error
    try:
        _refuse_other_kinds(path, descriptor)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Busy(f"{path} is held by {_holder(descriptor)}") from None
        with contextlib.suppress(OSError):  # a full disk: the lock holds without its holder's name
            os.ftruncate(descriptor, 0)
            os.pwrite(
                descriptor,
                f"process {os.getpid()} since {datetime.now().astimezone():%Y-%m-%d %H:%M:%S%z}\n".encode(),
                0,
            )
        yield
    finally:
        os.close(descriptor)


def lock_holder(path: Path) -> str | None:
    """Return who holds the lock at `path`, or None. Creates and changes nothing.

    Raises Unusable if we may not open it, because a run could not, either.
    """
    try:
        descriptor = safe_open.open_file(path, os.O_RDONLY | os.O_NONBLOCK)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise Unusable.because(error, path, _what(path)) from error
    try:
        _refuse_other_kinds(path, descriptor)
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return _holder(descriptor)
    else:
        return None
    finally:
        os.close(descriptor)


def _holder(descriptor: int) -> str:
    """Return the holder that the lock file names. Other users may write anything there, so it is checked."""
    text = os.pread(descriptor, 200, 0).decode(errors="replace").strip()
    return text if HOLDER.fullmatch(text) else "an unknown process"


def _refuse_other_kinds(path: Path, descriptor: int) -> None:
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        raise Unusable(f"{path}: expected our lock file, found {safe_open.kind(os.fstat(descriptor).st_mode)}", path)


def _what(path: Path) -> str:
    """Return what a run needs: the existing lock file, or permission to create one."""
    return "a lock file that can be opened" if os.path.lexists(path) else "to make a lock file"
