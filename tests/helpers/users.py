"""Act as another user of the machine, which only root can do."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

OTHER = 65534  # nobody
THIRD = 65533

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can act as another user")


def becoming(user: int) -> list[str]:
    """Return the prefix of a command that runs it as this user, with an empty environment, as cron does.

    The environment is how line coverage reaches it, whose files are not this user's. The one right is there because
    this Python may be in a folder of root's.
    """
    right = ["--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"]
    return ["setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups", *right, "env", "-i"]


@contextlib.contextmanager
def acting_as(user: int) -> Iterator[None]:
    """Run the block with the rights of this user."""
    before = os.geteuid()
    os.seteuid(user)
    try:
        yield
    finally:
        os.seteuid(before)


@contextlib.contextmanager
def folder_of(user: int, mode: int = 0o755) -> Iterator[Path]:
    """Yield a folder of this user that everybody may enter, unlike pytest's own folders."""
    folder = Path(os.path.realpath(tempfile.mkdtemp(prefix="xraylog-")))
    try:
        os.chown(folder, user, user)
        folder.chmod(mode)
        yield folder
    finally:
        shutil.rmtree(folder)
