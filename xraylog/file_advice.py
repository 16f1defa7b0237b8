"""Find the command that fixes an error of the file system.

An error says only "Permission denied"; the operator needs to know which folder or file denies it, and what to type. So
this module inspects the path. It changes nothing.
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

from xraylog import safe_open, safe_path

# chattr(1) and linux/fs.h: with one of these attributes, not even root can change a file.
GET_ATTRIBUTES = 2 << 30 | array.array("l").itemsize << 16 | 0x6601  # FS_IOC_GETFLAGS
ATTRIBUTES = {"i": 0x10, "a": 0x20}
BUFFER = "buffer.jsonl"  # as in config.ini.example
SHARED_DEPTH = 3  # parts of a path like /var/log: a folder so high up is shared, and must not be given to one user


class Needs(enum.Enum):
    """What a run must be able to write to, for one of its files."""

    FILE = "the file alone: it is appended to"
    FOLDER = "its folder: our other files are beside it"
    REPLACED = "its folder, which may be another program's: the file is replaced as a whole"


def how_to_fix(path: Path, error: OSError, needs: Needs = Needs.FILE) -> str:
    """Return how to fix this error of a file that a run writes. The command comes last, so that it can be pasted."""
    # With os.path, because Path's own methods raise in a folder that this user may not enter.
    if error.errno == errno.ENOENT and os.path.islink(path) and not os.path.exists(path):
        return f"it is a link to {os.readlink(path)}, where nothing can be created; {what_to_do(command('rm', path))}"
    path = safe_path.without_links(path)
    number = error.errno
    if number in (errno.EACCES, errno.EPERM):
        return attribute(path) or what_to_do(_grant(path, needs))
    if number == errno.ENOENT and not os.path.isdir(path.parent):
        return what_to_do(make_folder(path.parent))
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
        return f"it is larger than this process may write; {what_to_do('ulimit -f unlimited')}"
    if number == errno.EIO:
        return "the disk may be broken, see: sudo dmesg"
    if number in (errno.EMFILE, errno.ENFILE):
        return f"too many files are open; {what_to_do('ulimit -n 1024')}"
    return f"see: {shlex.join(['namei', '-l', str(path)])}"


def what_to_do(what: str) -> str:
    """Return the end of a message that gives a command or an instruction."""
    return f"what to do: {what}"


def attribute(path: Path) -> str:
    """Return the command that removes a chattr attribute which forbids changing the file or folder; "" if none does."""
    for place in (path, path.parent):
        if found := "".join(letter for letter, flag in ATTRIBUTES.items() if _attributes(place) & flag):
            seen = shlex.join(["lsattr", "-d", str(place)])
            return f"chattr +{found} forbids to change {place}, as {seen} shows; " + what_to_do(
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
    if safe_open.is_private_folder(next(parent for parent in folder.parents if os.path.isdir(parent))):
        return command("install", "-d", "-o", user(), "-m", "700", folder)
    made = command("mkdir", "-m", "700", folder)  # `install -d` would accept a link that others made under this name
    return f"{made} && {command('chown', '-h', user(), folder)}" if os.geteuid() else made


def command(*words: str | Path) -> str:
    """Return a command that needs root's rights, with sudo unless this user is root."""
    return shlex.join([*(["sudo"] if os.geteuid() else []), *map(str, words)])


def user() -> str:
    """Return the name of this user, or the number if there is no name, as in many containers."""
    return safe_path.user_name(os.geteuid())


def barred_folder(path: Path) -> Path | None:
    """Return the first folder on the path to a file that this user may not enter."""
    return next((folder for folder in reversed(path.parents) if _is_closed(folder)), None)


def _is_closed(folder: Path) -> bool:
    return os.path.isdir(folder) and not os.access(folder, os.X_OK)


def _grant(path: Path, needs: Needs) -> str:
    """Return the command that lets this user read and write a file, or create it."""
    if (folder := barred_folder(path)) is not None:
        return command("setfacl", "-m", f"u:{user()}:x", folder)
    if needs is Needs.REPLACED:
        return command("setfacl", "-m", f"u:{user()}:rwx", path.parent)
    if os.path.lexists(path):
        return command("chown", "-h", user(), path)  # -h: if others replace it by a link, only the link changes owner
    if len(path.parent.parts) > SHARED_DEPTH:
        return command("chown", "-h", user(), path.parent)
    if needs is Needs.FILE:
        return command("install", "-o", user(), "-m", "600", "/dev/null", path)
    own = Path("/var/lib/xraylog")
    name = path.name.removesuffix(".lock").removesuffix(".state")  # a leading dot: generated, for the lock of a folder
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
