"""Strikes a run at a step of its own: at the k-th call that changes a file or speaks to the server.

What strikes is the caller's: SIGKILL, the end of the server's session, an error of the disk.
"""

from __future__ import annotations

import contextlib
import errno
import inspect
import itertools
import os
import re
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import psycopg
from psycopg import Copy, Cursor, Transaction
from psycopg.sql import Composable

ROOT = Path(__file__).resolve().parents[2]
OURS = (str(ROOT / "xraylog"), str(ROOT / "parse_logs.py"), str(ROOT / "migrate_logs_to_partitioned.py"))
# What changes a file or a lock. A strike between two of them leaves the same as one after the first.
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


# A statement with none of these words leaves the database as it is, whatever function it calls.
CHANGES = re.compile(
    "INSERT|UPDATE|DELETE|CREATE|ALTER|DROP|LOCK|TRUNCATE|COMMENT|GRANT|ATTACH|ANALYZE|COPY|VACUUM|advisory|setval|nextval"
)


@dataclass(frozen=True)
class Steps:
    """The steps at which a test strikes: all of them, or one of `every`."""

    first: int = 1
    every: int = 1

    def __iter__(self) -> Iterator[int]:
        return itertools.count(self.first, self.every)

    def expect(self, names: Iterable[str], struck: Iterable[str]) -> None:
        """Assert that steps of these names were among all that were struck; a part of the steps may miss any."""
        missing = set(names) - set(struck)
        assert not missing or self.every > 1, missing


def kill() -> None:
    """The process ends here."""
    os.kill(os.getpid(), signal.SIGKILL)


def _changes_nothing(name: str, frame: FrameType) -> bool:
    """Return whether a kill after this call finds what one after the call before it finds."""
    if name != "execute":
        return name == "begin"
    query = frame.f_locals["query"]
    text = query.as_string(None) if isinstance(query, Composable) else str(query)
    return not CHANGES.search(text)


@contextlib.contextmanager
def after_step(number: int | None, steps: Path, strike: Callable[[], None] = kill) -> Iterator[None]:
    """Inside, `strike` is called after step `number`, counted from 1; `steps` gets the name of that step.

    A kill leaves out the steps that change nothing. Any other strike is one against the session: it leaves out what
    does not speak to the server, and no statement, since each fails in its own way.
    """
    if number is None:
        yield
        return
    count, one_at_a_time, kills = 0, threading.Lock(), strike is kill

    def step(name: str) -> None:
        nonlocal count
        with one_at_a_time:
            count += 1
            is_it = count == number
        if is_it:
            sys.setprofile(None)
            with steps.open("a") as file:
                file.write(f"{count} {name}\n")
            strike()

    def watch(frame: FrameType, event: str, argument: Any) -> None:
        if event == "return":
            name = CALLS_OF_PSYCOPG.get(frame.f_code)
            if name is not None and not (kills and _changes_nothing(name, frame)):
                step(name)
        elif (
            kills
            and event == "c_return"
            and frame.f_code.co_filename.startswith(OURS)
            and argument.__name__ in CALLS_OF_THE_SYSTEM
        ):
            step(f"{argument.__name__} in {frame.f_code.co_name}")

    sys.setprofile(watch)
    threading.setprofile(watch)  # type: ignore[arg-type]  # of the threads that begin inside
    try:
        yield
    finally:
        sys.setprofile(None)
        threading.setprofile(None)  # type: ignore[arg-type]


@contextlib.contextmanager
def disk_error(number: int, error: int, steps: Path) -> Iterator[None]:
    """Inside, the call `number` that changes a file fails, and every later one: the disk stays full.

    A write puts half of its bytes on the disk before it fails.
    """
    count = 0
    real = {name: getattr(os, name) for name in ("pwrite", "fdatasync", "fsync", "ftruncate")}

    def failing(name: str) -> Callable[..., Any]:
        def call(descriptor: int, *arguments: Any) -> Any:
            nonlocal count
            count += 1
            if count < number:
                return real[name](descriptor, *arguments)
            if count == number:
                with steps.open("a") as file:
                    file.write(f"{count} {name} {errno.errorcode[error]}\n")
                if name == "pwrite" and len(arguments[0]) > 1:
                    return real[name](descriptor, arguments[0][: len(arguments[0]) // 2], *arguments[1:])
            if name == "ftruncate" and error == errno.ENOSPC:
                return real[name](descriptor, *arguments)  # a full disk lets files become shorter
            raise OSError(error, os.strerror(error))

        return call

    try:
        for name in real:
            setattr(os, name, failing(name))
        yield
    finally:
        for name, function in real.items():
            setattr(os, name, function)
