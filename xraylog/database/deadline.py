"""A connection on which no wait is endless: it waits for the server while bytes move, and then for a limited time.

TCP timers detect a machine that is gone, but neither a process that is frozen while its kernel still answers, nor a
COMMIT that waits for a standby.
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
SILENCE_S = 60  # after the time limit of a query, wait this long before taking the server for dead


class NoAnswer(psycopg.OperationalError):
    """Nothing moved on the connection for too long. Whether the server executed the last statement is unknown."""


class Connection(psycopg.Connection[tuple[Any, ...]]):
    """A connection that we close if the server does not answer.

    What is waited for afterwards, as at the end of a pipeline, raises the same NoAnswer.
    """

    answer_timeout_s: float | None = None  # without a byte in either direction; None: no limit
    node: str | None = None  # whose run this session is of: its transactions are marked with it
    _no_answer: NoAnswer | None = None

    def wait(self, gen: PQGen[Result], *arguments: Any, **keywords: Any) -> Result:
        """Wait as psycopg does. Everything sent and received passes here, except while a session is opened."""
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
        """Cancel the statement if the server still listens, and close the connection in any case."""
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
    """Let the server be silent for at least this long inside the block, for example while it reads a large table."""
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
    """Run `gen`, and raise _Expired if the socket was not ready in time.

    While nothing moves, psycopg's wait sends "not ready" ten times a second.
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
