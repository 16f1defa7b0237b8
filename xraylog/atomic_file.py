"""A file that is there as a whole: who reads it sees the old one or the new one, never half of one."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import time
from collections.abc import Iterator
from pathlib import Path

from xraylog import safe_open
from xraylog.safe_open import Place

ABANDONED_S = 3600  # nobody takes as long to write one: the run that began it was killed


def replace(path: Path, content: bytes, mode: int) -> None:
    """Put a new file in the old one's place, with this mode whatever the umask is. Raises OSError.

    It is new, under a name that nobody can foresee: nobody has it open, or owns it. A link is followed where
    `safe_open` follows it, and the file that it leads to is replaced.
    """
    with safe_open.found(path) as place:
        with _temporary(place) as (name, descriptor):
            with os.fdopen(descriptor, "wb") as file:
                file.write(content)
                file.flush()
                os.fchmod(descriptor, mode)
            os.replace(name, place.name, src_dir_fd=place.folder, dst_dir_fd=place.folder)
        _remove_abandoned(place)


@contextlib.contextmanager
def _temporary(place: Place) -> Iterator[tuple[str, int]]:
    """Create a file beside the other one; remove it if that one is not replaced."""
    name = f".{place.name}.{secrets.token_hex(8)}.new"
    try:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        yield name, os.open(name, flags, 0o600, dir_fd=place.folder)
    except OSError as error:
        with contextlib.suppress(OSError):
            os.unlink(name, dir_fd=place.folder)
        error.filename, error.filename2 = str(place.path), None  # nobody asked for the temporary one
        raise


def _remove_abandoned(place: Place) -> None:
    """Remove what killed runs left. Never fails: it is in nobody's way."""
    ours = re.compile(rf"\.{re.escape(place.name)}\.[0-9a-f]{{16}}\.new")
    with contextlib.suppress(OSError):
        folder = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=place.folder)
        try:
            for name in filter(ours.fullmatch, os.listdir(folder)):
                found = os.stat(name, dir_fd=folder, follow_symlinks=False)
                if found.st_uid == os.geteuid() and time.time() - found.st_mtime > ABANDONED_S:
                    os.unlink(name, dir_fd=folder)
        finally:
            os.close(folder)
