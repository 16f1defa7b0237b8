"""A wait ends when nothing moves for too long; as long as something does, it may last."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import pytest

from xraylog.database import deadline


def statement(answers: list[int], wait: str = "R") -> Generator[str, int, str]:
    """What psycopg's generators do: ask for the socket until it was ready often enough."""
    for _ in answers:
        while not (yield wait):
            pass
    return "done"


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time in seconds, as a list of one."""
    now = [0.0]
    monkeypatch.setattr(deadline.time, "monotonic", lambda: now[0])  # type: ignore[attr-defined]
    return now


def wait(bounded: Any, clock: list[float], ready: list[int]) -> Any:
    """Drive a generator as psycopg's wait does, half a second for each answer of the socket."""
    try:
        assert next(bounded) == "R"
        for state in ready:
            clock[0] += 0.5
            bounded.send(state)
    except StopIteration as end:
        return end.value
    return None


def test_what_needs_no_wait_is_done_at_once() -> None:
    with pytest.raises(StopIteration) as end:
        next(deadline._bounded(statement([]), 1))  # type: ignore[arg-type]
    assert end.value.value == "done"


def test_silence_ends_a_wait(clock: list[float]) -> None:
    with pytest.raises(deadline._Expired):
        wait(deadline._bounded(statement([1]), 2), clock, [0] * 5)  # type: ignore[arg-type]
    assert clock[0] == 2.5


def test_a_wait_in_which_something_moves_may_last(clock: list[float]) -> None:
    moves = [0, 0, 0, 1] * 50
    assert wait(deadline._bounded(statement([1] * 50), 2), clock, moves) == "done"  # type: ignore[arg-type]
    assert clock[0] == 100


def test_an_error_of_the_statement_is_raised(clock: list[float]) -> None:
    def failing() -> Generator[str, int, str]:
        yield "R"
        raise ValueError("refused")

    with pytest.raises(ValueError, match="refused"):
        wait(deadline._bounded(failing(), 2), clock, [1])  # type: ignore[arg-type]
