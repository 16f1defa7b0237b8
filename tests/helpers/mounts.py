"""Create file systems for a test, if it may mount them."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest


@contextlib.contextmanager
def image(folder: Path, kind: str, block_bytes: int) -> Iterator[Path]:
    """Yield a new ext2, ext3 or ext4 with blocks of this size, mounted from a file in `folder`. Skips the test, with
    the reason, where that is not possible.
    """
    file, point = folder / f"{kind}.image", folder / kind
    point.mkdir()
    with file.open("wb") as made:
        made.truncate(32 << 20)
    _run("mke2fs", "-q", "-t", kind, "-b", str(block_bytes), str(file))
    _run("mount", "-t", kind, "-o", "loop", str(file), str(point))
    try:
        yield point
    finally:
        _run("umount", str(point))


@contextlib.contextmanager
def full(point: Path) -> Iterator[Path]:
    """Yield a folder on a file system of its own without a free byte. Skips the test as `image` does."""
    point.mkdir()
    _run("mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(point))
    try:
        with contextlib.suppress(OSError), (point / "filler").open("wb", buffering=0) as filler:
            while True:
                filler.write(bytes(4096))
        yield point
    finally:
        _run("umount", str(point))


def _run(*command: str) -> None:
    try:
        subprocess.run(command, check=True, capture_output=True, text=True)
    except FileNotFoundError:
        pytest.skip(f"no {command[0]} on this machine")
    except subprocess.CalledProcessError as error:
        pytest.skip(f"{command[0]} is not possible here: {error.stderr.strip()}")
