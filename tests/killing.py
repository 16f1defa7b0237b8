"""Kills a run at a step of its own: after the k-th call that changes a file or speaks to the server."""

from __future__ import annotations

import contextlib
import inspect
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import psycopg
from psycopg import Copy, Cursor, Transaction

ROOT = Path(__file__).resolve().parent.parent
OURS = (str(ROOT / "xraylog"), str(ROOT / "parse_logs.py"))
# What changes a file or a lock. A kill between two of them leaves the same as one after the first.
CALLS_OF_THE_SYSTEM = frozenset(("pwrite", "write", "flush", "fdatasync", "fsync", "ftruncate", "fcntl", "flock"))


def _code(function: Any) -> CodeType:
    code: CodeType = inspect.unwrap(function).__code__
    return code


CALLS_OF_PSYCOPG = {
    _code(function): name
    for name, function in {
        "connect": psycopg.Connection.connect.__func__,  # type: ignore[attr-defined]
        "execute": psycopg.Connection.execute,
        "begin": Transaction.__enter__,
        "commit": Transaction.__exit__,
        "copy": Cursor.copy,
        "copy write": Copy.write,
        "copy row": Copy.write_row,
        "copy end": Copy.__exit__,
    }.items()
}


@contextlib.contextmanager
def at_step(kill_at: int | None, steps: Path) -> Iterator[None]:
    """Inside, the process dies at step `kill_at`, counted from 1; `steps` gets the name of that step."""
    if kill_at is None:
        yield
        return
    count = 0

    def step(name: str) -> None:
        nonlocal count
        count += 1
        if count == kill_at:
            sys.setprofile(None)
            with steps.open("a") as file:
                file.write(f"{count} {name}\n")
            os.kill(os.getpid(), signal.SIGKILL)

    def watch(frame: FrameType, event: str, argument: Any) -> None:
        if event == "return":
            if (name := CALLS_OF_PSYCOPG.get(frame.f_code)) is not None:
                step(name)
        elif (
            event == "c_return"
            and frame.f_code.co_filename.startswith(OURS)
            and argument.__name__ in CALLS_OF_THE_SYSTEM
        ):
            step(f"{argument.__name__} in {frame.f_code.co_name}")

    sys.setprofile(watch)
    try:
        yield
    finally:
        sys.setprofile(None)
