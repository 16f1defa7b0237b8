"""Open two sessions that see the same snapshot of the database. They only read, and never wait long for a lock.

A query keeps only one core of the server busy, so two sessions run queries in parallel: the seconds of the queries that
benchmarks/report.py prints add up to nearly twice those of the page. Both transactions are REPEATABLE READ and READ
ONLY, with one snapshot. If Citus distributes `logs`, its servers have no common snapshot: later queries see rows that
were stored meanwhile.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, Protocol, TypeAlias, TypeVar

import psycopg
from psycopg.sql import SQL, Composed, Literal

from xraylog.database import citus, deadline, session
from xraylog.database.session import Connection, Unavailable, Unsuitable
from xraylog.printed import escaped

if TYPE_CHECKING:
    from typing_extensions import LiteralString  # typing has it from Python 3.11 on

Row: TypeAlias = tuple[Any, ...]
Sessions: TypeAlias = Callable[[], AbstractContextManager[Connection]]
Arguments = ParamSpec("Arguments")
Answer = TypeVar("Answer")
Progress: TypeAlias = Callable[[str, float], None]  # called with the name of a query and its seconds

WORK_MEM = "64MB"  # for each sort and hash table: with the default of 4 MB the server writes temporary files


@dataclass(frozen=True, slots=True)
class Session:
    """A session in the snapshot, with the parameters that all its queries share."""

    conn: Connection
    progress: Progress
    values: Mapping[str, Any]
    is_distributed: bool = False  # whether Citus distributes `logs`

    def query(self, what: str, query: LiteralString | Composed, **values: Any) -> list[Row]:
        """Run a query, and return all its rows, with names as they can be shown. `what`: its name, for `progress`."""
        begun = time.monotonic()
        rows = self.conn.execute(query, {**self.values, **values}).fetchall()
        self.progress(what, time.monotonic() - begun)
        return [tuple(_visible(value) for value in row) for row in rows]

    def set(self, name: str, value: str) -> None:
        """Change a setting of the server for the queries that follow."""
        self.conn.execute("SELECT set_config(%s, %s, true)", [name, value])

    def cancel(self) -> None:
        """Cancel the running query, if any, without waiting long for the server. Call it from another thread."""
        with contextlib.suppress(psycopg.Error):
            self.conn.cancel_safe(timeout=deadline.CANCEL_TIMEOUT_S)


@contextlib.contextmanager
def open_pair(sessions: Sessions, timeout_s: int, progress: Progress) -> Iterator[tuple[Session, Session]]:
    """Yield two sessions in one snapshot, or the same one twice if a second cannot be opened.

    `timeout_s`: the time limit of each query. Raises Unavailable and Unsuitable, as `sessions` does.
    """
    with contextlib.ExitStack() as stack:
        conn = _begin(stack, sessions, timeout_s)
        first = Session(conn, progress, {}, citus.has_logs(conn))
        (exported,) = first.conn.execute("SELECT pg_export_snapshot()").fetchone() or ("",)
        second = first
        # The server may have no session left, or a pooler may lead to another server.
        with contextlib.ExitStack() as trial, contextlib.suppress(Unavailable, Unsuitable, psycopg.Error):
            second = replace(first, conn=_begin(trial, sessions, timeout_s, exported))
            stack.push(trial.pop_all())
        yield first, second


# JIT takes longer to compile than it saves (docs/questions.md#plans-and-jit); PostgreSQL 10 has no such setting. Two
# sessions already use two cores, so parallel workers would not help.
SETTINGS = """
    SELECT set_config(name, value, true)
    FROM pg_settings
    JOIN (VALUES ('statement_timeout', %s), ('lock_timeout', '10s'), ('work_mem', %s), ('jit', 'off'),
                 ('max_parallel_workers_per_gather', '0')) wanted (name, value)
        USING (name)
"""


def _begin(stack: contextlib.ExitStack, sessions: Sessions, timeout_s: int, exported: str = "") -> Connection:
    """Open a read-only transaction in the snapshot `exported`, or in a new one; it ends with the stack."""
    conn = stack.enter_context(sessions())
    if timeout_s:
        deadline.limit(conn, timeout_s + deadline.SILENCE_S)
    conn.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
    conn.read_only = True
    stack.enter_context(conn.transaction())
    if exported:
        conn.execute(SQL("SET TRANSACTION SNAPSHOT {}").format(Literal(exported)))
    conn.execute(session.READ_SETTINGS)
    conn.execute(SETTINGS, [f"{timeout_s}s", WORK_MEM])
    return conn


class Ask(Protocol):
    """Runs a function in the next free session, in a thread."""

    def __call__(
        self,
        question: Callable[Concatenate[Session, Arguments], Answer],
        *arguments: Arguments.args,
        **keywords: Arguments.kwargs,
    ) -> Future[Answer]:
        """Call `question(session, *arguments, **keywords)`; return a future of its result."""


@contextlib.contextmanager
def side_by_side(first: Session, second: Session) -> Iterator[Ask]:
    """Yield an `Ask` that distributes questions over both sessions."""
    free, failed = SimpleQueue[Session](), list[BaseException]()
    free.put(first)
    if second.conn is not first.conn:
        free.put(second)
    with ThreadPoolExecutor(free.qsize()) as executor:

        def ask(question: Callable[..., Answer], *arguments: Any, **keywords: Any) -> Future[Answer]:
            return executor.submit(_answer, free, failed, lambda session: question(session, *arguments, **keywords))

        try:
            yield ask
        except BaseException:  # also after Ctrl-C, do not wait for running queries
            executor.shutdown(wait=False, cancel_futures=True)
            first.cancel()
            second.cancel()
            raise


def _answer(free: SimpleQueue[Session], failed: list[BaseException], question: Callable[[Session], Answer]) -> Answer:
    """Return the answer of the next free session. After an error, raise the first one: later ones result from it."""
    session = free.get()
    try:
        return question(session)
    except BaseException as error:
        failed.append(error)
        raise failed[0] from None
    finally:
        free.put(session)


def _visible(value: Any) -> Any:
    """Return a value with control characters as escapes, as ask_logs.py prints them.

    Clients choose host names: in a browser, an override of the writing direction would show one as another.
    """
    if isinstance(value, str):
        return value if value.isprintable() else escaped(value)
    return [_visible(each) for each in value] if isinstance(value, list) else value
