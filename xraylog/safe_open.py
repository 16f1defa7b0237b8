"""How our own files are opened: so that no other user of the machine decides what we read or write.

Any user who may write in a folder can put anything there under the name that we are about to open: a link, a hard link
to another user's file, a file of their own. The rule (docs/security.md):

- A link is followed if this user or root made it, or if no other user may write in its folder.
- Where others may write, a file must have one name only, and belong to this user, to root, or to the one user who may
  write there.
- A file that is not there yet is created, never found.

It is checked on descriptors, never on names: between two looks at a name it can be exchanged.
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

MAX_LINKS = 40  # as the kernel has it
MAX_TRIES = 40  # to open a file that keeps its name meanwhile
REMOVED = " (deleted)"  # what /proc shows after the last name of an open file that was removed
ROOT = 0  # the user
KINDS = {
    stat.S_ISDIR: "a folder",
    stat.S_ISFIFO: "a pipe",
    stat.S_ISSOCK: "a socket",
    stat.S_ISCHR: "a device",
    stat.S_ISBLK: "a disk",
}
OTHERS_MAY_WRITE = stat.S_IWGRP | stat.S_IWOTH  # an access list counts as the group


class Unsafe(OSError):
    """Another user may have put there what we were about to open. `strerror` says what it is, and what mends it."""

    def __init__(self, path: Path | str, found: str) -> None:
        super().__init__(errno.ELOOP, found, str(path))


@dataclass(frozen=True, slots=True)
class Place:
    """A name in a folder that is open: whatever happens to the path that led to it, it stays that folder."""

    folder: int  # descriptor
    name: str
    path: Path  # without links
    nofollow: int  # os.O_NOFOLLOW, or 0 where the name is one of the kernel's own links, as in /proc/self/fd

    def find(self) -> os.stat_result | None:
        """Return what is there, or None."""
        try:
            return os.stat(self.name, dir_fd=self.folder, follow_symlinks=not self.nofollow)
        except FileNotFoundError:
            return None

    def open(self, flags: int, mode: int = 0o600) -> int:
        """Open what is there. Raises OSError."""
        try:
            if (inherited := self._inherited()) is not None:
                return inherited
            return os.open(self.name, flags | self.nofollow | os.O_CLOEXEC, mode, dir_fd=self.folder)
        except OSError as error:
            error.filename = str(self.path)
            raise

    def _inherited(self) -> int | None:
        """Return a copy of a descriptor that we have open, by its name in /proc/self/fd, if it is a stream.

        Linux would open it once more: it cannot open a socket, which is standard output under systemd, or a
        pipe or terminal of another user, as after sudo.
        """
        if self.nofollow or not self.name.isdecimal():
            return None
        with contextlib.suppress(OSError):
            if os.path.samestat(os.fstat(self.folder), os.stat("/proc/self/fd")):
                mode = os.fstat(int(self.name)).st_mode
                return None if stat.S_ISREG(mode) or stat.S_ISDIR(mode) else os.dup(int(self.name))
        return None


def open_file(path: Path, flags: int, mode: int = 0o600) -> int:
    """Open one of our files; return its descriptor. With O_CREAT a missing one is created. Raises OSError."""
    with found(path) as place:
        while True:
            try:
                return _named(place, lambda: place.open(flags & ~os.O_CREAT), _refuse_foreign)
            except FileNotFoundError:
                if not flags & os.O_CREAT:
                    raise
            with contextlib.suppress(FileExistsError):  # another program was faster: see what it is
                return place.open(flags | os.O_EXCL, mode)


def open_log(path: Path, flags: int) -> int:
    """Open a log that another program writes: any user's file, but by no link or second name that others made.

    As root it is opened as its owner, unless only root can have put it there: nobody can name a file that is not
    theirs. Raises OSError.
    """

    def open_it() -> int:
        there = place.find()
        owner = there.st_uid if there is not None else ROOT
        with contextlib.nullcontext() if _is_ours(os.fstat(place.folder)) else _as_user(owner):
            return place.open(flags)

    with found(path) as place:
        return _named(place, open_it, _refuse_second_name)


def real_path(path: Path) -> Path:
    """Return the path without links, each of which must be one that we follow. Raises OSError."""
    with found(path) as place:
        return place.path if place.nofollow else without_links(place.path)


def without_links(path: Path) -> Path:
    """Return the path without links, whoever made them, as far as they can be read: to compare paths, not to open them.

    Unlike os.path.realpath it never raises, as for a link to what another user's process has open: /proc/1/fd/1.
    """
    try:
        return Path(os.path.realpath(path))
    except OSError:
        folder, name = os.path.split(os.path.abspath(path))
        with contextlib.suppress(OSError):
            return Path(os.path.normpath(os.path.join(folder, os.readlink(path))))
        return Path(folder, name)


def size(path: Path) -> int:
    """Return the bytes of a file, without opening it; a link of another user is not followed. Raises OSError."""
    with found(path) as place:
        there = place.find()
    if there is None:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))
    return there.st_size


def sync_folder(path: Path) -> None:
    """Flush to disk that the file at `path` is in its folder. Raises OSError."""
    with found(path) as place:
        folder = os.open(".", os.O_RDONLY | os.O_DIRECTORY, dir_fd=place.folder)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def complaint(path: Path) -> str | None:
    """Return why the file at `path` would be refused by `open_file`; None if it would not. Opens nothing."""
    try:
        with found(path) as place:
            if (there := place.find()) is not None and place.nofollow:
                _refuse_another(place, there, os.fstat(place.folder))
    except Unsafe as error:
        return error.strerror
    except OSError:
        return None
    return None


@contextlib.contextmanager
def found(path: Path) -> Iterator[Place]:
    """Walk along the path, link by link; yield the folder that it ends in, and the name there. Raises OSError."""
    walk = _Walk(path)
    try:
        try:
            while walk.names:
                walk.step()
        except OSError as error:
            error.filename = str(path)  # whatever name of it was looked for
            raise
        yield walk.place
    finally:
        os.close(walk.folder)


class _Walk:
    """Where we are on the way along a path."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.names: list[str] = []  # to come, the next one last
        self.folder = -1
        self.here: list[str] = []  # the names of `folder`, without links
        self.links = 0
        self.place = Place(-1, "", path, os.O_NOFOLLOW)
        self.turn(os.path.abspath(path))

    def turn(self, target: str) -> None:
        """Go on along `target` first."""
        names = [name for name in reversed(target.split("/")) if name not in ("", ".")]
        self.names += names or ([] if self.names else ["."])
        if target.startswith("/"):
            self.enter(os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC), "/")

    def step(self) -> None:
        """Go on by one name."""
        name = self.names.pop()
        try:
            there = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=self.folder)
        except FileNotFoundError:
            if self.names:
                raise
            self.arrive(name)
            return
        kind = os.fstat(there)
        if stat.S_ISLNK(kind.st_mode):
            try:
                self.follow(name, there, kind)
            finally:
                os.close(there)
        elif self.names:
            self.enter(there, name)
        else:
            os.close(there)
            self.arrive(name)

    def follow(self, name: str, link: int, kind: os.stat_result) -> None:
        """Go where the link leads, if it may be followed."""
        self.links += 1
        if self.links > MAX_LINKS:
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(self.path))
        at = os.path.join(*self.here, name)
        is_another = not _is_trusted(kind.st_uid) or kind.st_nlink > 1 or not _has_name(link)
        if is_another and not _is_ours(os.fstat(self.folder)):
            maker, quoted = user_name(kind.st_uid), shlex.quote(at)
            raise Unsafe(
                self.path,
                f"a link that the user {maker} made at {at}; see where it leads: ls -l {quoted}; if it is meant, name "
                f"the file itself in its place in the config; otherwise: rm {quoted}",
            )
        if _is_of_kernel(self.folder):
            if self.names:
                self.enter(os.open(name, os.O_PATH | os.O_CLOEXEC, dir_fd=self.folder), name)
            else:
                self.arrive(name, nofollow=0)
        else:
            self.turn(os.readlink("", dir_fd=link))

    def enter(self, folder: int, name: str) -> None:
        """Continue from this folder."""
        if self.folder >= 0:
            os.close(self.folder)
        self.folder = folder
        if name in ("/", ".."):
            self.here = self.here[:-1] if name == ".." and len(self.here) > 1 else ["/"]
        else:
            self.here.append(name)

    def arrive(self, name: str, nofollow: int = os.O_NOFOLLOW) -> None:
        """Note that this is the last name."""
        self.place = Place(self.folder, name, Path(*self.here, name), nofollow)


def kind(mode: int) -> str:
    """Return what a file is, by its mode: "a folder"."""
    return next((name for is_it, name in KINDS.items() if is_it(mode)), "a file")


def kind_of(path: Path) -> str:
    """Return what is at a path; "" if nothing is, or nothing tells."""
    try:
        return kind(path.stat().st_mode)
    except OSError:
        return ""


def owner(path: Path) -> int | None:
    """Return the user whose file or folder it is; None if nothing tells."""
    try:
        return path.stat().st_uid
    except OSError:
        return None


def user_name(user: int) -> str:
    """Return a user's name, or the number of one that has none."""
    try:
        return pwd.getpwuid(user).pw_name
    except KeyError:
        return str(user)


def is_private(folder: Path) -> bool:
    """Return whether only this user and root can have put there what is in a folder."""
    try:
        return _is_ours(folder.stat())
    except OSError:
        return False


def _is_trusted(user: int) -> bool:
    return user in (ROOT, os.geteuid())


def _is_ours(folder: os.stat_result) -> bool:
    """Return whether only this user and root can have put there what is in it."""
    return _is_trusted(folder.st_uid) and not folder.st_mode & OTHERS_MAY_WRITE


def _is_of_kernel(folder: int) -> bool:
    """Return whether it is in /proc, whose links lead to what is open already, and not to the names that they show."""
    with contextlib.suppress(OSError):
        return os.fstat(folder).st_dev == os.stat("/proc/self/fd").st_dev
    return False


def _named(
    place: Place, open_it: Callable[[], int], refuse: Callable[[Place, os.stat_result, os.stat_result], None]
) -> int:
    """Open what is there, unless `refuse` raises for the file and the folder; return its descriptor. Raises OSError.

    Once more if the file lost its name meanwhile: then what `refuse` has seen need not be all of its names.
    """
    for _ in range(MAX_TRIES):
        descriptor = open_it()
        with _closed_on_error(descriptor):
            folder = os.fstat(place.folder)
            refuse(place, os.fstat(descriptor), folder)
            if not place.nofollow or _is_ours(folder) or _has_name(descriptor):
                return descriptor
        os.close(descriptor)
    raise Unsafe(place.path, "a file that is removed whenever it is opened, in a folder where others may write")


def _has_name(descriptor: int) -> bool:
    """Return whether an open file, or link, has the name that it was opened by, or was renamed to.

    Once it has lost it, it never has it again. So a count of names that was taken before includes this one: without
    this look, a hard link that is removed between opening and counting passes for a file with one name.
    """
    try:
        return not os.readlink(f"/proc/self/fd/{descriptor}").endswith(REMOVED)
    except FileNotFoundError:  # no /proc here
        return True
    except OSError:  # a name that is longer than a path can be: it was moved there, perhaps to hide that it is removed
        return False


def _refuse_foreign(place: Place, file: os.stat_result, folder: os.stat_result) -> None:
    if place.nofollow:
        _refuse_another(place, file, folder)


def _refuse_another(place: Place, file: os.stat_result, folder: os.stat_result) -> None:
    """Raise Unsafe unless the file is one that only its owner, this user or root can have put there."""
    _refuse_second_name(place, file, folder)
    is_of_folder = file.st_uid == folder.st_uid and not folder.st_mode & OTHERS_MAY_WRITE
    if not (_is_ours(folder) or _is_trusted(file.st_uid) or is_of_folder):
        maker, parent = user_name(file.st_uid), place.path.parent
        found = f"a file of {maker} in a folder where others may write, {parent}"
        remove = f"rm {shlex.quote(str(place.path))}"
        if folder.st_mode & stat.S_ISVTX:  # as /tmp: it is for everybody
            raise Unsafe(place.path, f"{found}; name another folder in the config, and: {remove}")
        mend = f"chmod go-w {shlex.quote(str(parent))}"
        if not _is_trusted(folder.st_uid):
            mend = f"chown {maker} {shlex.quote(str(parent))} && {mend}"
        raise Unsafe(place.path, f"{found}; if xray runs as {maker}: {mend}; otherwise: {remove}")


def _refuse_second_name(place: Place, file: os.stat_result, folder: os.stat_result) -> None:
    """Raise Unsafe for a file with a hard link elsewhere, if another user may have made it: it may be anybody's."""
    if not stat.S_ISDIR(file.st_mode) and file.st_nlink > 1 and not _is_ours(folder):
        quoted = shlex.quote(str(place.path))
        raise Unsafe(
            place.path,
            f"a file of {user_name(file.st_uid)} with {file.st_nlink} names (hard links), in a folder where others may "
            f"write; find them: find / -xdev -samefile {quoted}; then remove the name that is not meant, with rm",
        )


@contextlib.contextmanager
def _as_user(user: int) -> Iterator[None]:
    """Act as this user, if root runs this."""
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
