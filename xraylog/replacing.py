"""A file that is there as a whole: who reads it sees the old one or the new one, never half of one."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path


def replace(path: Path, content: bytes, mode: int) -> None:
    """Put a new file in the old one's place, with this mode whatever the umask is. Raises OSError."""
    beside = path.with_name(f".{path.name}.new")  # one name: the next run takes away what a killed one left
    try:
        beside.unlink(missing_ok=True)
        with os.fdopen(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
            os.fchmod(file.fileno(), mode)
            file.write(content)
        beside.replace(path)
    except OSError:
        with contextlib.suppress(OSError):
            beside.unlink(missing_ok=True)
        raise
