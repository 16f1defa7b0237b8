"""Strike a run at one of its steps, which are the calls that change a file or communicate with the server.

The caller chooses the strike: SIGKILL, the end of the session, or an error of the disk.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import functools
import itertools
import os
import re
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import Copy, Transaction
from psycopg.sql import Composable

ROOT = Path(__file__).resolve().parents[2]
OURS = (str(ROOT / "xraylog"), str(ROOT / "parse_logs.py"), str(ROOT / "migrate_logs_to_partitioned.py"))
# What changes a file or a lock. A strike between two of them leaves the same as one after the first.
CALLS_OF_THE_SYSTEM = {
    os: ("pwrite", "write", "fdatasync", "fsync", "ftruncate"),
    fcntl: ("fcntl", "flock"),
}
CALLS_OF_PSYCOPG = (
    (psycopg.Connection, "execute", "execute"),
    (Transaction, "__enter__", "begin"),
    (Transaction, "__exit__", "commit"),
    (Copy, "write", "copy write"),
    (Copy, "write_row", "copy row"),
    (Copy, "__enter__", "copy"),
    (Copy, "__exit__", "copy end"),
)


# A statement with none of these words leaves the database as it is, whatever function it calls.
CHANGES = re.compile(
    "INSERT|UPDATE|DELETE|CREATE|ALTER|DROP|LOCK|TRUNCATE|COMMENT|GRANT|ATTACH|ANALYZE|COPY|VACUUM|advisory|setval|nextval"
)


@dataclass(frozen=True)
class Steps:
    """The steps at which a test strikes: all of them, or only one in `every`."""

    first: int = 1
    every: int = 1

    def __iter__(self) -> Iterator[int]:
        return itertools.count(self.first, self.every)

    def expect(self, names: Iterable[str], struck: Iterable[str], steps: Path) -> None:
        """Assert that steps with these names were struck.

        If only a part of the steps was struck, it is enough that runs reached steps with these names.
        """
        found = struck if self.every == 1 else passed(steps).read_text().splitlines()
        missing = set(names) - set(found)
        assert not missing, missing


def passed(steps: Path) -> Path:
    """Return the file for the names of all steps that runs reached, next to the file of the steps that were struck."""
    return steps.with_suffix(".passed")


def _remember(steps: Path, name: str, known: set[str]) -> None:
    if name not in known:
        known.add(name)
        with passed(steps).open("a") as file:
            file.write(f"{name}\n")


def kill() -> None:
    """End the process at once."""
    os.kill(os.getpid(), signal.SIGKILL)


def _changes_nothing(name: str, arguments: tuple[Any, ...]) -> bool:
    """Return whether a kill after this call leaves the same state as a kill before it."""
    if name != "execute":
        return name == "begin"
    query = arguments[1]
    text = query.as_string(None) if isinstance(query, Composable) else str(query)
    return not CHANGES.search(text)


@contextlib.contextmanager
def after_step(at: int | str | None, steps: Path, strike: Callable[[], None] = kill) -> Iterator[None]:
    """Call `strike` after one step of the block, and write the name of that step to `steps`.

    `at`: the number of the step, counted from 1, or a name: the first step that has it.

    If `strike` is a kill, steps that change nothing do not count. Any other strike hits the session: then calls that do
    not communicate with the server do not count, but all statements do, because each fails in its own way.
    """
    if at is None:
        yield
        return
    count, one_at_a_time, kills, known = 0, threading.Lock(), strike is kill, set[str]()

    def step(name: str) -> None:
        nonlocal count
        with one_at_a_time:
            count += 1
            is_it = count == at if isinstance(at, int) else name == at and name not in known
            _remember(steps, name, known)
        if is_it:
            with steps.open("a") as file:
                file.write(f"{count} {name}\n")
            strike()

    with pytest.MonkeyPatch.context() as patch:
        for owner, function, name in CALLS_OF_PSYCOPG:
            patch.setattr(owner, function, _then(step, name, getattr(owner, function), kills))
        patch.setattr(psycopg.Connection, "connect", classmethod(_connect(step)))
        if kills:
            for module, functions in CALLS_OF_THE_SYSTEM.items():
                for function in functions:
                    patch.setattr(module, function, _if_ours(step, getattr(module, function)))
            patch.setattr(os, "fdopen", _flushing(step, os.fdopen))
        yield


def _then(step: Callable[[str], None], name: str, real: Callable[..., Any], kills: bool) -> Callable[..., Any]:
    """Return the method with a step after each call, even if it raised."""

    @functools.wraps(real)
    def call(*arguments: Any, **keywords: Any) -> Any:
        try:
            return real(*arguments, **keywords)
        finally:
            if not (kills and _changes_nothing(name, arguments)):
                step(name)

    return call


def _connect(step: Callable[[str], None]) -> Callable[..., Any]:
    real = psycopg.Connection.connect.__func__  # type: ignore[attr-defined]

    def connect(cls: type[psycopg.Connection[Any]], *arguments: Any, **keywords: Any) -> Any:
        try:
            return real(cls, *arguments, **keywords)
        finally:
            step("connect")

    return connect


def _if_ours(step: Callable[[str], None], real: Callable[..., Any]) -> Callable[..., Any]:
    """Return the function with a step after each call from our own code."""

    @functools.wraps(real)
    def call(*arguments: Any, **keywords: Any) -> Any:
        result = real(*arguments, **keywords)
        caller = sys._getframe(1).f_code
        if caller.co_filename.startswith(OURS):
            step(f"{real.__name__} in {caller.co_name}")
        return result

    return call


def _flushing(step: Callable[[str], None], real: Callable[..., Any]) -> Callable[..., Any]:
    """Return an fdopen for files whose `flush` is a step, because before it nothing of them is on the disk."""

    @functools.wraps(real)
    def fdopen(*arguments: Any, **keywords: Any) -> Any:
        file = real(*arguments, **keywords)
        if file.writable():
            file.flush = _if_ours(step, file.flush)
        return file

    return fdopen


@contextlib.contextmanager
def disk_error(number: int, error: int, steps: Path) -> Iterator[None]:
    """Let the call `number` that changes a file fail, and every later one in the block: the disk stays full.

    A failing write stores half of its bytes.
    """
    count, known = 0, set[str]()
    real = {name: getattr(os, name) for name in ("pwrite", "fdatasync", "fsync", "ftruncate")}

    def failing(name: str) -> Callable[..., Any]:
        def call(descriptor: int, *arguments: Any) -> Any:
            nonlocal count
            count += 1
            _remember(steps, f"{name} {errno.errorcode[error]}", known)
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
