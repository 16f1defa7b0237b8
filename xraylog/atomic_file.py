"""Replace a file atomically: a reader sees the old content or the new content, never a part."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import time
from collections.abc import Iterator
from pathlib import Path

from xraylog import safe_path
from xraylog.safe_path import Place

ABANDONED_S = 3600  # writing never takes as long, so the run that started a file older than this was killed


def replace(path: Path, content: bytes, mode: int) -> None:
    """Replace the file at `path`, with this mode whatever the umask is. Raises OSError.

    The content is written to a new file with an unpredictable name, so that no other user can own it or have it open. A
    link is followed if `safe_open` allows it, and the file that it leads to is replaced.
    """
    with safe_path.located(path) as place:
        with _temporary(place) as (name, descriptor):
            with os.fdopen(descriptor, "wb") as file:
                file.write(content)
                file.flush()
                os.fchmod(descriptor, mode)
            os.replace(name, place.name, src_dir_fd=place.folder, dst_dir_fd=place.folder)
        _remove_abandoned(place)


@contextlib.contextmanager
def _temporary(place: Place) -> Iterator[tuple[str, int]]:
    """Create a temporary file in the same folder; yield its name and descriptor, and remove it on an error."""
    name = f".{place.name}.{secrets.token_hex(8)}.new"
    try:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        yield name, os.open(name, flags, 0o600, dir_fd=place.folder)
    except OSError as error:
        with contextlib.suppress(OSError):
            os.unlink(name, dir_fd=place.folder)
        error.filename, error.filename2 = str(place.path), None  # the caller does not know the temporary file
        raise


def _remove_abandoned(place: Place) -> None:
    """Remove temporary files that killed runs left. Errors are ignored, because these files do no harm."""
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
