"""Open our own files so that no other user of the machine decides what we read or write.

A user who may write in a folder can put anything there under a name that we open. The rules (docs/security.md):

- A path leads where no other user can have turned it (xraylog/safe_path.py).
- In a folder where others may write, a file must have only one name, and belong to this user, to root, or to the one
  user who may write there.
- A missing file is created with O_EXCL, so that we never adopt one which appears meanwhile.

All checks are made on open descriptors, never on names: what a name leads to can change between two system calls.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shlex
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

from xraylog import safe_path
from xraylog.safe_path import OTHERS_MAY_WRITE, ROOT, Place, Unsafe, located, user_name

MAX_TRIES = 40  # to open a file that still has its name afterwards
KINDS = {
    stat.S_ISDIR: "a folder",
    stat.S_ISFIFO: "a pipe",
    stat.S_ISSOCK: "a socket",
    stat.S_ISCHR: "a device",
    stat.S_ISBLK: "a disk",
}


def open_file(path: Path, flags: int, mode: int = 0o600) -> int:
    """Open one of our own files; return its descriptor. With O_CREAT, create it if it is missing. Raises OSError."""
    with located(path) as place:
        while True:
            try:
                return _open_checked(place, lambda: place.open(flags & ~os.O_CREAT), _refuse_foreign_unless_inherited)
            except FileNotFoundError:
                if not flags & os.O_CREAT:
                    raise
            with contextlib.suppress(FileExistsError):  # another program was faster: check its file in the next round
                return place.open(flags | os.O_EXCL, mode)


def open_log(path: Path, flags: int) -> int:
    """Open a log that another program writes. It may be any user's, but not a link or a second name that others made.

    Root opens it with its owner's rights, unless only root can have put it there: so no user can make root open a file
    that they may not open themselves. Raises OSError.
    """

    def open_it() -> int:
        status = place.find()
        owner = status.st_uid if status is not None else ROOT
        with contextlib.nullcontext() if safe_path.is_private(os.fstat(place.folder)) else _acting_as(owner):
            return place.open(flags)

    with located(path) as place:
        return _open_checked(place, open_it, _refuse_second_name)


def real_path(path: Path) -> Path:
    """Return the path with all links resolved. Raises OSError, also for a link that the rules above forbid."""
    with located(path) as place:
        return place.path if place.nofollow else safe_path.without_links(place.path)


def size(path: Path) -> int:
    """Return the size of a file in bytes, without opening it. Links of other users are not followed. Raises OSError."""
    with located(path) as place:
        status = place.find()
    if status is None:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))
    return status.st_size


def sync_folder(path: Path) -> None:
    """Flush the folder of `path` to disk, so that the file's name survives a crash. Raises OSError."""
    with located(path) as place:
        folder = os.open(".", os.O_RDONLY | os.O_DIRECTORY, dir_fd=place.folder)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def why_unsafe(path: Path) -> str | None:
    """Return why `open_file` would refuse the file at `path`, or None if it would not. Does not open the file."""
    try:
        with located(path) as place:
            if (status := place.find()) is not None and place.nofollow:
                _refuse_foreign(place, status, os.fstat(place.folder))
    except Unsafe as error:
        return error.strerror
    except OSError:
        return None
    return None


def kind(mode: int) -> str:
    """Return what kind of file a mode describes, for a message: "a folder"."""
    return next((name for is_it, name in KINDS.items() if is_it(mode)), "a file")


def kind_of(path: Path) -> str:
    """Return what kind of file is at a path; "" if there is none, or it cannot be looked up."""
    try:
        return kind(path.stat().st_mode)
    except OSError:
        return ""


def owner(path: Path) -> int | None:
    """Return the id of the user who owns a file or folder; None if it cannot be looked up."""
    try:
        return path.stat().st_uid
    except OSError:
        return None


def is_private_folder(folder: Path) -> bool:
    """Return whether only this user and root can have put files into a folder."""
    try:
        return safe_path.is_private(folder.stat())
    except OSError:
        return False


def _open_checked(
    place: Place, open_it: Callable[[], int], refuse: Callable[[Place, os.stat_result, os.stat_result], None]
) -> int:
    """Open a file, let `refuse` check it and its folder, and return its descriptor. Raises OSError.

    If the file lost its name meanwhile, try again: its count of names, which `refuse` checks, may have been too low.
    """
    for _ in range(MAX_TRIES):
        descriptor = open_it()
        with _closed_on_error(descriptor):
            folder = os.fstat(place.folder)
            refuse(place, os.fstat(descriptor), folder)
            if not place.nofollow or safe_path.is_private(folder) or safe_path.has_name(descriptor):
                return descriptor
        os.close(descriptor)
    raise Unsafe(place.path, "a file that is removed whenever it is opened, in a folder where others may write")


def _refuse_foreign_unless_inherited(place: Place, file: os.stat_result, folder: os.stat_result) -> None:
    if place.nofollow:
        _refuse_foreign(place, file, folder)


def _refuse_foreign(place: Place, file: os.stat_result, folder: os.stat_result) -> None:
    """Raise Unsafe unless this user, root, or the only user who may write in the folder put the file there."""
    _refuse_second_name(place, file, folder)
    is_of_folder = file.st_uid == folder.st_uid and not folder.st_mode & OTHERS_MAY_WRITE
    if not (safe_path.is_private(folder) or safe_path.is_trusted(file.st_uid) or is_of_folder):
        maker, parent = user_name(file.st_uid), place.path.parent
        found = f"a file of {maker} in a folder where others may write, {parent}"
        remove = f"rm {shlex.quote(str(place.path))}"
        if folder.st_mode & stat.S_ISVTX:  # like /tmp, it is meant for all users
            raise Unsafe(place.path, f"{found}; name another folder in the config, and: {remove}")
        fix = f"chmod go-w {shlex.quote(str(parent))}"
        if not safe_path.is_trusted(folder.st_uid):
            fix = f"chown {maker} {shlex.quote(str(parent))} && {fix}"
        raise Unsafe(place.path, f"{found}; if xray runs as {maker}: {fix}; otherwise: {remove}")


def _refuse_second_name(place: Place, file: os.stat_result, folder: os.stat_result) -> None:
    """Raise Unsafe for a file with another name that another user may have made: a hard link to anybody's file."""
    if not stat.S_ISDIR(file.st_mode) and file.st_nlink > 1 and not safe_path.is_private(folder):
        quoted = shlex.quote(str(place.path))
        raise Unsafe(
            place.path,
            f"a file of {user_name(file.st_uid)} with {file.st_nlink} names (hard links), in a folder where others may "
            f"write; find them: find / -xdev -samefile {quoted}; then remove the name that is not meant, with rm",
        )


@contextlib.contextmanager
def _acting_as(user: int) -> Iterator[None]:
    """Act with the rights of this user inside the block, if this process runs as root."""
    if os.geteuid() != ROOT or user == ROOT:
        yield
        return
    os.seteuid(user)
    try:
        yield
    finally:
        os.seteuid(ROOT)


@contextlib.contextmanager
def _closed_on_error(descriptor: int) -> Iterator[None]:
    try:
        yield
    except BaseException:
        os.close(descriptor)
        raise
