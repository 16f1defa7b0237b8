"""Recognise a file under each of its names: by its path without links, and a hard link by device and inode."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

from xraylog import safe_path


def names(path: Path) -> frozenset[object]:
    """Return values of which two paths have one in common if they lead to one file."""
    real = safe_path.without_links(path)
    with contextlib.suppress(OSError):
        found = os.stat(real)
        if stat.S_ISREG(found.st_mode):
            return frozenset({real, (found.st_dev, found.st_ino)})
    return frozenset({real})


def linked(path: Path, folder: Path, is_meant: Callable[[Path], bool]) -> bool:
    """Return whether `path` is a hard link of a file in this folder that is meant."""
    with contextlib.suppress(OSError):
        found = os.stat(path)
        if stat.S_ISREG(found.st_mode) and found.st_nlink > 1:
            return any(os.path.samestat(found, other.stat()) and is_meant(folder / other.name) for other in _in(folder))
    return False


def _in(folder: Path) -> Iterator[os.DirEntry[str]]:
    with os.scandir(folder) as entries:
        yield from (entry for entry in entries if entry.is_file())
