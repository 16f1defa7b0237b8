"""Servers of other programs that a test starts: nginx, pgbouncer."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path


def found(program: str) -> str | None:
    """Return where a program of the system is: not always in a user's PATH."""
    return shutil.which(program, path=f"{os.environ['PATH']}:/usr/sbin:/sbin")


def free_port() -> int:
    """Return a port of this machine that nothing listens on now."""
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        return int(reserved.getsockname()[1])


@contextlib.contextmanager
def listening(command: Sequence[str], port: int, log: Path) -> Iterator[None]:
    """Run a server from when it listens on its port; its output goes to `log`."""
    with log.open("wb") as output, subprocess.Popen(command, stdout=output, stderr=output) as process:
        try:
            while not _is_open(port):
                assert process.poll() is None, log.read_text()
            yield
        finally:
            process.terminate()


def _is_open(port: int) -> bool:
    with socket.socket() as tried:
        return tried.connect_ex(("127.0.0.1", port)) == 0
