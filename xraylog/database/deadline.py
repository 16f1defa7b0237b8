"""A connection on which every wait ends: it waits for the server as long as bytes move, and a little longer.

The timers of TCP notice that a machine is gone. They notice neither a process that is frozen while its kernel still
answers, nor a COMMIT that waits for a standby.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from typing import Any, TypeVar

import psycopg
from psycopg.abc import PQGen

Result = TypeVar("Result")

CANCEL_TIMEOUT_S = 5.0


class NoAnswer(psycopg.OperationalError):
    """Nothing moved on the connection for too long. What the server made of the last statement is not known."""


class Connection(psycopg.Connection[tuple[Any, ...]]):
    """Closed from our side when the server does not answer; every later use raises the same NoAnswer."""

    answer_timeout_s: float | None = None  # without a byte in either direction; None: no limit
    node: str | None = None  # whose run this session is of: its transactions are marked with it
    _no_answer: NoAnswer | None = None

    def wait(self, gen: PQGen[Result], *arguments: Any, **keywords: Any) -> Result:
        """Wait as psycopg does. All that it sends and receives passes here, except for the start of a session."""
        if self._no_answer is not None:
            raise self._no_answer
        if self.answer_timeout_s is None:
            return super().wait(gen, *arguments, **keywords)
        try:
            return super().wait(_bounded(gen, self.answer_timeout_s), *arguments, **keywords)
        except _Expired:
            self._no_answer = NoAnswer(
                f"no answer for {self.answer_timeout_s:g} s from the server's process {self.pgconn.backend_pid}"
            )
            self._give_up()
            raise self._no_answer from None

    def _give_up(self) -> None:
        """End the statement if the server still listens, and the connection in any case."""
        if psycopg.capabilities.has_cancel_safe():  # otherwise libpq would wait for the server without end
            with contextlib.suppress(psycopg.Error):
                self.cancel_safe(timeout=CANCEL_TIMEOUT_S)
        self.pgconn.finish()


def limit(conn: psycopg.Connection[Any], seconds: float) -> None:
    """Set how long the server may be silent in this session."""
    if isinstance(conn, Connection):
        conn.answer_timeout_s = seconds


@contextlib.contextmanager
def allow(conn: psycopg.Connection[Any], seconds: float) -> Iterator[None]:
    """Inside, the server may be silent for at least so long: it reads a large table."""
    if not isinstance(conn, Connection) or conn.answer_timeout_s is None:
        yield
        return
    usual = conn.answer_timeout_s
    conn.answer_timeout_s = max(usual, seconds)
    try:
        yield
    finally:
        conn.answer_timeout_s = usual


class _Expired(Exception):
    """The deadline has passed."""


def _bounded(gen: PQGen[Result], timeout_s: float) -> PQGen[Result]:
    """Do as `gen` does; raise _Expired when the socket was not ready for so long.

    Ten times a second psycopg's wait sends "not ready" while nothing moves.
    """
    try:
        wanted = next(gen)
        moved_at = time.monotonic()
        while True:
            ready = yield wanted
            if ready:
                moved_at = time.monotonic()
            elif time.monotonic() - moved_at > timeout_s:
                raise _Expired
            wanted = gen.send(ready)
    except StopIteration as end:
        result: Result = end.value
        return result
