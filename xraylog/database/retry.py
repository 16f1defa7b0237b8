"""Retry: while others hold locks, after conflicts with other writers, and without the items that cause an error."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import psycopg
from psycopg import errors

from xraylog.database import session

Item = TypeVar("Item")
Result = TypeVar("Result")
Rejection = TypeVar("Rejection", bound=Exception)


def retry_on_lock_timeout(
    action: Callable[[], Result],
    limit_s: float,
    pause_s: float = 0.0,
    also: tuple[type[psycopg.Error], ...] = (),
    on_wait: Callable[[str], None] = lambda _: None,
) -> Result:
    """Return what `action` returns; repeat it while other sessions hold the locks that it needs.

    `action` is a transaction or a savepoint with a short lock_timeout: a session that waits for ACCESS EXCLUSIVE blocks
    every later reader, so it gives up and tries again. `also`: other errors to retry on. `on_wait` gets the reason
    before each pause. Raises the last error after `limit_s` seconds.
    """
    retried: tuple[type[psycopg.Error], ...] = (errors.LockNotAvailable, errors.DeadlockDetected, *also)
    deadline = time.monotonic() + limit_s
    while True:
        try:
            return action()
        except retried as error:
            if time.monotonic() > deadline:
                raise
            on_wait(session.message(error))
            time.sleep(pause_s)


def retry_on_conflict(action: Callable[[], Result], attempts: int) -> Result:
    """Return what `action` returns; repeat it if the server ended it in favour of another writer's transaction."""
    for _ in range(attempts - 1):
        try:
            return action()
        except (errors.DeadlockDetected, errors.SerializationFailure):
            continue
    return action()


def bisect(
    items: Sequence[Item],
    attempt: Callable[[Sequence[Item]], Result],
    reject: Callable[[Item, Rejection], Result],
    rejections: tuple[type[Rejection], ...],
) -> Iterator[Result]:
    """Yield what `attempt` returns for the largest parts of `items` that it accepts, in order.

    A part for which it raises one of `rejections` is halved; for a single item `reject` is called instead. Each attempt
    must leave nothing if it raises.
    """
    try:
        result = attempt(items)
    except rejections as error:
        if len(items) == 1:
            yield reject(items[0], error)
            return
    else:
        yield result
        return
    middle = len(items) // 2
    yield from bisect(items[:middle], attempt, reject, rejections)
    yield from bisect(items[middle:], attempt, reject, rejections)
