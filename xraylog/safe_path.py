"""Follow a path to an open folder and a name in it, so that no other user of the machine decides where it leads.

A link is followed only if this user or root made it, or if no other user may write in its folder (docs/security.md).
"""

from __future__ import annotations

import contextlib
import errno
import os
import pwd
import shlex
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

MAX_LINKS = 40  # the kernel's own limit
REMOVED = " (deleted)"  # what /proc appends to the name of an open file that was removed
ROOT = 0  # user id
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
        is_another = not is_trusted(status.st_uid) or status.st_nlink > 1 or not has_name(link)
        if is_another and not is_private(os.fstat(self.folder)):
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


def user_name(user: int) -> str:
    """Return the name of a user, or the number if there is no name."""
    try:
        return pwd.getpwuid(user).pw_name
    except KeyError:
        return str(user)


def is_trusted(user: int) -> bool:
    """Return whether a user is this one, or root."""
    return user in (ROOT, os.geteuid())


def is_private(folder: os.stat_result) -> bool:
    """Return whether only this user and root can have put files into a folder with this status."""
    return is_trusted(folder.st_uid) and not folder.st_mode & OTHERS_MAY_WRITE


def _is_in_proc(folder: int) -> bool:
    """Return whether a folder is in /proc, whose links lead to open files, and not to the names that they show."""
    with contextlib.suppress(OSError):
        return os.fstat(folder).st_dev == os.stat("/proc/self/fd").st_dev
    return False


def has_name(descriptor: int) -> bool:
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
