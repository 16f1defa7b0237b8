"""Open our own files so that no other user of the machine decides what we read or write.

A user who may write in a folder can put anything there under a name that we open. The rules (docs/security.md):

- A link is followed only if this user or root made it, or if no other user may write in its folder.
- In a folder where others may write, a file must have only one name, and belong to this user, to root, or to the one
  user who may write there.
- A missing file is created with O_EXCL, so that we never adopt one which appears meanwhile.

All checks are made on open descriptors, never on names: what a name leads to can change between two system calls.
"""

from __future__ import annotations

import contextlib
import errno
import os
import pwd
import shlex
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

MAX_LINKS = 40  # the kernel's own limit
MAX_TRIES = 40  # to open a file that still has its name afterwards
REMOVED = " (deleted)"  # what /proc appends to the name of an open file that was removed
ROOT = 0  # user id
KINDS = {
    stat.S_ISDIR: "a folder",
    stat.S_ISFIFO: "a pipe",
    stat.S_ISSOCK: "a socket",
    stat.S_ISCHR: "a device",
    stat.S_ISBLK: "a disk",
}
OTHERS_MAY_WRITE = stat.S_IWGRP | stat.S_IWOTH  # the group's bit also shows that an access control list lets others in


class Unsafe(OSError):
    """Another user may have planted what we were about to open. `strerror` says what it is, and how to fix it."""

    def __init__(self, path: Path | str, found: str) -> None:
        super().__init__(errno.ELOOP, found, str(path))


@dataclass(frozen=True, slots=True)
class Place:
    """A name in an open folder. It stays in that folder, whatever happens to the path that led there."""

    folder: int  # descriptor
    name: str
    path: Path  # without links
    nofollow: int  # os.O_NOFOLLOW, or 0 where the name is one of the kernel's own links, as in /proc/self/fd

    def find(self) -> os.stat_result | None:
        """Return the status of what has this name, or None if nothing has."""
        try:
            return os.stat(self.name, dir_fd=self.folder, follow_symlinks=not self.nofollow)
        except FileNotFoundError:
            return None

    def open(self, flags: int, mode: int = 0o600) -> int:
        """Open what has this name; return the descriptor. Raises OSError."""
        try:
            if (inherited := self._inherited()) is not None:
                return inherited
            return os.open(self.name, flags | self.nofollow | os.O_CLOEXEC, mode, dir_fd=self.folder)
        except OSError as error:
            error.filename = str(self.path)
            raise

    def _inherited(self) -> int | None:
        """Return a duplicate of the descriptor that this name in /proc/self/fd stands for, if that is a stream.

        Opening the name would make Linux open the stream again, which fails for a socket, as standard output is under
        systemd, and for a pipe or terminal of another user, as after sudo.
        """
        if self.nofollow or not self.name.isdecimal():
            return None
        with contextlib.suppress(OSError):
            if os.path.samestat(os.fstat(self.folder), os.stat("/proc/self/fd")):
                mode = os.fstat(int(self.name)).st_mode
                return None if stat.S_ISREG(mode) or stat.S_ISDIR(mode) else os.dup(int(self.name))
        return None


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
        with contextlib.nullcontext() if _is_private(os.fstat(place.folder)) else _acting_as(owner):
            return place.open(flags)

    with located(path) as place:
        return _open_checked(place, open_it, _refuse_second_name)


def real_path(path: Path) -> Path:
    """Return the path with all links resolved. Raises OSError, also for a link that the rules above forbid."""
    with located(path) as place:
        return place.path if place.nofollow else without_links(place.path)


def without_links(path: Path) -> Path:
    """Return the path with all links resolved, whoever made them, as far as they can be read.

    Use it to compare paths, not to open them. Unlike os.path.realpath it never raises, for example for /proc/1/fd/1, a
    link to what another user's process has open.
    """
    try:
        return Path(os.path.realpath(path))
    except OSError:
        folder, name = os.path.split(os.path.abspath(path))
        with contextlib.suppress(OSError):
            return Path(os.path.normpath(os.path.join(folder, os.readlink(path))))
        return Path(folder, name)


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


@contextlib.contextmanager
def located(path: Path) -> Iterator[Place]:
    """Follow the path, link by link; yield the open folder where it ends, and the name there. Raises OSError."""
    walk = _Walk(path)
    try:
        try:
            while walk.names:
                walk.step()
        except OSError as error:
            error.filename = str(path)  # the whole path, not the part of it at which the walk failed
            raise
        yield walk.place
    finally:
        os.close(walk.folder)


class _Walk:
    """The state of following a path: the folder reached so far, and the names still to come."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.names: list[str] = []  # still to come, in reverse order
        self.folder = -1
        self.parents: list[str] = []  # the path of `folder` in parts, without links
        self.links = 0
        self.place = Place(-1, "", path, os.O_NOFOLLOW)
        self.prepend(os.path.abspath(path))

    def prepend(self, target: str) -> None:
        """Follow `target`, a path or what a link contains, before the names that are still to come."""
        names = [name for name in reversed(target.split("/")) if name not in ("", ".")]
        self.names += names or ([] if self.names else ["."])
        if target.startswith("/"):
            self.enter(os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC), "/")

    def step(self) -> None:
        """Process the next name: enter a folder, follow a link, or arrive."""
        name = self.names.pop()
        try:
            descriptor = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=self.folder)
        except FileNotFoundError:
            if self.names:
                raise
            self.arrive(name)
            return
        status = os.fstat(descriptor)
        if stat.S_ISLNK(status.st_mode):
            try:
                self.follow(name, descriptor, status)
            finally:
                os.close(descriptor)
        elif self.names:
            self.enter(descriptor, name)
        else:
            os.close(descriptor)
            self.arrive(name)

    def follow(self, name: str, link: int, status: os.stat_result) -> None:
        """Follow the open link. Raises Unsafe if the rules forbid it."""
        self.links += 1
        if self.links > MAX_LINKS:
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(self.path))
        at = os.path.join(*self.parents, name)
        is_another = not _is_trusted(status.st_uid) or status.st_nlink > 1 or not _has_name(link)
        if is_another and not _is_private(os.fstat(self.folder)):
            maker, quoted = user_name(status.st_uid), shlex.quote(at)
            raise Unsafe(
                self.path,
                f"a link that the user {maker} made at {at}; see where it leads: ls -l {quoted}; if it is meant, name "
                f"the file itself in its place in the config; otherwise: rm {quoted}",
            )
        if _is_in_proc(self.folder):
            if self.names:
                self.enter(os.open(name, os.O_PATH | os.O_CLOEXEC, dir_fd=self.folder), name)
            else:
                self.arrive(name, nofollow=0)
        else:
            self.prepend(os.readlink("", dir_fd=link))

    def enter(self, folder: int, name: str) -> None:
        """Continue from this open folder, and close the one before."""
        if self.folder >= 0:
            os.close(self.folder)
        self.folder = folder
        if name in ("/", ".."):
            self.parents = self.parents[:-1] if name == ".." and len(self.parents) > 1 else ["/"]
        else:
            self.parents.append(name)

    def arrive(self, name: str, nofollow: int = os.O_NOFOLLOW) -> None:
        """Record the last name of the path, in the folder reached."""
        self.place = Place(self.folder, name, Path(*self.parents, name), nofollow)


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


def user_name(user: int) -> str:
    """Return the name of a user, or the number if there is no name."""
    try:
        return pwd.getpwuid(user).pw_name
    except KeyError:
        return str(user)


def is_private(folder: Path) -> bool:
    """Return whether only this user and root can have put files into a folder."""
    try:
        return _is_private(folder.stat())
    except OSError:
        return False


def _is_trusted(user: int) -> bool:
    return user in (ROOT, os.geteuid())


def _is_private(folder: os.stat_result) -> bool:
    """Return whether only this user and root can have put files into a folder with this status."""
    return _is_trusted(folder.st_uid) and not folder.st_mode & OTHERS_MAY_WRITE


def _is_in_proc(folder: int) -> bool:
    """Return whether a folder is in /proc, whose links lead to open files, and not to the names that they show."""
    with contextlib.suppress(OSError):
        return os.fstat(folder).st_dev == os.stat("/proc/self/fd").st_dev
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
            if not place.nofollow or _is_private(folder) or _has_name(descriptor):
                return descriptor
        os.close(descriptor)
    raise Unsafe(place.path, "a file that is removed whenever it is opened, in a folder where others may write")


def _has_name(descriptor: int) -> bool:
    """Return whether an open file or link still has the name by which it was opened, or to which it was renamed.

    A lost name does not come back. So if it still has the name now, a count of names taken before includes this one.
    Without this check, a hard link that is removed between opening and counting would pass for a file with one name.
    """
    try:
        return not os.readlink(f"/proc/self/fd/{descriptor}").endswith(REMOVED)
    except FileNotFoundError:  # no /proc here
        return True
    except OSError:  # its path is too long to be read: it was moved there, perhaps to hide that it was removed
        return False


def _refuse_foreign_unless_inherited(place: Place, file: os.stat_result, folder: os.stat_result) -> None:
    if place.nofollow:
        _refuse_foreign(place, file, folder)


def _refuse_foreign(place: Place, file: os.stat_result, folder: os.stat_result) -> None:
    """Raise Unsafe unless this user, root, or the only user who may write in the folder put the file there."""
    _refuse_second_name(place, file, folder)
    is_of_folder = file.st_uid == folder.st_uid and not folder.st_mode & OTHERS_MAY_WRITE
    if not (_is_private(folder) or _is_trusted(file.st_uid) or is_of_folder):
        maker, parent = user_name(file.st_uid), place.path.parent
        found = f"a file of {maker} in a folder where others may write, {parent}"
        remove = f"rm {shlex.quote(str(place.path))}"
        if folder.st_mode & stat.S_ISVTX:  # like /tmp, it is meant for all users
            raise Unsafe(place.path, f"{found}; name another folder in the config, and: {remove}")
        fix = f"chmod go-w {shlex.quote(str(parent))}"
        if not _is_trusted(folder.st_uid):
            fix = f"chown {maker} {shlex.quote(str(parent))} && {fix}"
        raise Unsafe(place.path, f"{found}; if xray runs as {maker}: {fix}; otherwise: {remove}")


def _refuse_second_name(place: Place, file: os.stat_result, folder: os.stat_result) -> None:
    """Raise Unsafe for a file with another name that another user may have made: a hard link to anybody's file."""
    if not stat.S_ISDIR(file.st_mode) and file.st_nlink > 1 and not _is_private(folder):
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
