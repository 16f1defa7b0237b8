"""The command that fixes an error of the file system. It looks at the path, which shows more than the error does.

An error says "Permission denied"; the operator needs to know for which folder or file, and what to type. Changes
nothing.
"""

from __future__ import annotations

import array
import contextlib
import enum
import errno
import fcntl
import os
import shlex
from pathlib import Path

from xraylog import safe_open

# chattr(1) and linux/fs.h: by these attributes even root may not change a file.
GET_ATTRIBUTES = 2 << 30 | array.array("l").itemsize << 16 | 0x6601  # FS_IOC_GETFLAGS
ATTRIBUTES = {"i": 0x10, "a": 0x20}
BUFFER = "buffer.jsonl"  # as in config.ini.example
SHARED_DEPTH = 3  # names of a folder like /var/log, which is not to be given to one user


class Needs(enum.Enum):
    """Where a run must be able to write, for one of its files."""

    FILE = "the file alone: it is appended to"
    FOLDER = "its folder: our other files are beside it"
    REPLACED = "its folder, which may be another program's: the file is replaced as a whole"


def mend(path: Path, error: OSError, needs: Needs = Needs.FILE) -> str:
    """Return what to do about this error of a file that a run writes. The command comes last, to be pasted."""
    # Not by Path's own methods: in a folder that this user may not enter they raise.
    if error.errno == errno.ENOENT and os.path.islink(path) and not os.path.exists(path):
        return f"it is a link to {os.readlink(path)}, where nothing can be created; {do(command('rm', path))}"
    path = safe_open.without_links(path)
    number = error.errno
    if number in (errno.EACCES, errno.EPERM):
        return attribute(path) or do(_give(path, needs))
    if number == errno.ENOENT and not os.path.isdir(path.parent):
        return do(make_folder(path.parent))
    if number == errno.ENOTDIR:
        file = next((parent for parent in reversed(path.parents) if not os.path.isdir(parent)), path)
        return f"{file} is a file, and no folder: {shlex.join(['ls', '-ld', str(file)])}"
    if number == errno.EISDIR:
        return f"name a file in it, which has: {shlex.join(['ls', '-la', str(path)])}"
    if number in (errno.ENOSPC, errno.EDQUOT):
        return f"make room: {shlex.join(['df', '-h', str(path.parent)])}"
    if number == errno.EROFS:
        seen = shlex.join(["findmnt", "-T", str(path)])
        return f"it is mounted read-only (a container: mount it without :ro); which one: {seen}"
    if number == errno.EFBIG:
        return "it is larger than the process may write, see: ulimit -f"
    if number == errno.EIO:
        return "the disk may be broken, see: sudo dmesg"
    if number in (errno.EMFILE, errno.ENFILE):
        return f"too many files are open; {do('ulimit -n 1024')}"
    return f"see: {shlex.join(['namei', '-l', str(path)])}"


def do(what: str) -> str:
    """Return the end of a message: a command, or an instruction."""
    return f"what to do: {what}"


def attribute(path: Path) -> str:
    """Return the command that removes a chattr attribute which forbids changing the file or folder; "" if none does."""
    for place in (path, path.parent):
        if found := "".join(letter for letter, flag in ATTRIBUTES.items() if _attributes(place) & flag):
            seen = shlex.join(["lsattr", "-d", str(place)])
            return f"chattr +{found} forbids to change {place}, as {seen} shows; " + do(
                command("chattr", f"-{found}", place)
            )
    return ""


def is_read_only(path: Path) -> bool:
    """Return whether the file system of a file or its folder is mounted read-only."""
    with contextlib.suppress(OSError):
        return bool(os.statvfs(path if os.path.exists(path) else path.parent).f_flag & os.ST_RDONLY)
    return False


def make_folder(folder: Path) -> str:
    """Return the command that creates a folder for this user."""
    if safe_open.is_private(next(parent for parent in folder.parents if os.path.isdir(parent))):
        return command("install", "-d", "-o", user(), "-m", "700", folder)
    made = command("mkdir", "-m", "700", folder)  # install would take a link there that others made for the folder
    return f"{made} && {command('chown', '-h', user(), folder)}" if os.geteuid() else made


def command(*words: str | Path) -> str:
    """Return a command that root has to run, as this user would type it."""
    return shlex.join([*(["sudo"] if os.geteuid() else []), *map(str, words)])


def user() -> str:
    """Return the name of this user; the number if there is none, as in many containers."""
    return safe_open.user_name(os.geteuid())


def barred(path: Path) -> Path | None:
    """Return the first folder on the path to a file that this user may not enter."""
    return next((folder for folder in reversed(path.parents) if _bars(folder)), None)


def _bars(folder: Path) -> bool:
    return os.path.isdir(folder) and not os.access(folder, os.X_OK)


def _give(path: Path, needs: Needs) -> str:
    """Return the command that lets this user read and write a file, or create it."""
    if (folder := barred(path)) is not None:
        return command("setfacl", "-m", f"u:{user()}:x", folder)
    if needs is Needs.REPLACED:
        return command("setfacl", "-m", f"u:{user()}:rwx", path.parent)
    if os.path.lexists(path):
        return command("chown", "-h", user(), path)  # not where a link leads that others put there meanwhile
    if len(path.parent.parts) > SHARED_DEPTH:
        return command("chown", "-h", user(), path.parent)
    if needs is Needs.FILE:
        return command("install", "-o", user(), "-m", "600", "/dev/null", path)
    own = Path("/var/lib/xraylog")
    name = path.name.removesuffix(".lock").removesuffix(".state")  # of a folder's lock, nobody gave the name
    return f"in the config: offline_file = {own / (BUFFER if name[0] == '.' else name)}, after: {make_folder(own)}"


def _attributes(path: Path) -> int:
    """Return the attributes of a file or folder, as lsattr(1) shows them; 0 if unknown."""
    with contextlib.suppress(OSError):
        descriptor = safe_open.open_log(path, os.O_RDONLY | os.O_NONBLOCK)
        try:
            found = array.array("l", [0])
            fcntl.ioctl(descriptor, GET_ATTRIBUTES, found)
            return found[0]
        finally:
            os.close(descriptor)
    return 0
