"""Freeze processes of the server while its kernel still answers, so that a run waits for them and gives up."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import psycopg
import pytest

from xraylog.database import dead_sessions, deadline, positions, session

A_MOMENT_S = 0.1


class Moment(float):
    """A_MOMENT_S, formatted in milliseconds if a unit follows, because PostgreSQL before 12 accepts no fractions."""

    def __format__(self, spec: str) -> str:
        return f"{self * 1000:.0f}m"


class Freezer:
    """Freezes and thaws a session that stores lines. The run is another process, so the pids are kept in a file."""

    def __init__(self, file: Path) -> None:
        self._file = file

    @property
    def has_frozen(self) -> bool:
        """Return whether a process is frozen."""
        return self._file.exists()

    def freeze(self, conn: psycopg.Connection[Any]) -> None:
        """Freeze the server's process of this session; the run waits only a moment for it, whatever its settings."""
        with self._file.open("a") as file:
            file.write(f"{conn.pgconn.backend_pid}\n")
        os.kill(conn.pgconn.backend_pid, signal.SIGSTOP)
        deadline.limit(conn, A_MOMENT_S)

    def thaw(self) -> None:
        """Let all frozen processes continue."""
        if not self.has_frozen:
            return
        for pid in self._file.read_text().split():
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGCONT)
        self._file.unlink()

    def in_copy(self, number: int) -> AbstractContextManager[None]:
        """Freeze the session just before the block writes text to a COPY for the `number`-th time."""
        return self._at_call(number, psycopg.Copy, "write", lambda copy, *_: copy.connection, before=True)

    def at_commit(self, number: int) -> AbstractContextManager[None]:
        """Freeze the session just after the block updated a position for the `number`-th time, before the COMMIT."""
        return self._at_call(number, positions, "move", lambda conn, *_: conn, before=False)

    @contextlib.contextmanager
    def _at_call(
        self, number: int, owner: Any, name: str, session_of: Callable[..., Any], before: bool
    ) -> Iterator[None]:
        real, calls = getattr(owner, name), 0

        def call(*arguments: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls == number and before:
                self.freeze(session_of(*arguments))
            result = real(*arguments)
            if calls == number and not before:
                self.freeze(session_of(*arguments))
            return result

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(owner, name, call)
            yield

    @contextlib.contextmanager
    def waited_for_a_moment(self, ended: bool) -> Iterator[None]:
        """Let runs in the block wait only a moment for frozen sessions; if `ended`, let them also try to end these."""
        if not self.has_frozen:
            yield
            return
        find = dead_sessions.find
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(session, "LOCK_TIMEOUT_S", Moment(A_MOMENT_S))
            patch.setattr(dead_sessions, "END_S", A_MOMENT_S)
            patch.setattr(dead_sessions, "COPY_PAUSE_S", A_MOMENT_S)
            if ended:
                patch.setattr(dead_sessions, "find", lambda conn, node, _: find(conn, node, 0))
            yield
