"""Another user of the machine, for real: only root can act as one."""

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
    """The beginning of a command that this user runs, as cron would: with an empty environment.

    The environment is how line coverage reaches it, whose files are not this user's. The one right is there because
    this Python may be in a folder of root's.
    """
    right = ["--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"]
    return ["setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups", *right, "env", "-i"]


@contextlib.contextmanager
def acting_as(user: int) -> Iterator[None]:
    """Do what is inside as this user."""
    before = os.geteuid()
    os.seteuid(user)
    try:
        yield
    finally:
        os.seteuid(before)


@contextlib.contextmanager
def folder_of(user: int, mode: int = 0o755) -> Iterator[Path]:
    """Yield a folder of this user that everybody may enter: pytest's own ones are closed to others."""
    folder = Path(os.path.realpath(tempfile.mkdtemp(prefix="xraylog-")))
    try:
        os.chown(folder, user, user)
        folder.chmod(mode)
        yield folder
    finally:
        shutil.rmtree(folder)
