"""What is tried again, how often, and what is left when it is given up."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from psycopg import errors

from xraylog.database import retry

PASSING = (errors.LockNotAvailable, errors.DeadlockDetected)


def failing(times: int, error: type[Exception]) -> Callable[[], int]:
    """Return an action that raises this often, then returns how often it was called."""
    calls = 0

    def action() -> int:
        nonlocal calls
        calls += 1
        if calls <= times:
            raise error
        return calls

    return action


@pytest.mark.parametrize("error", PASSING)
def test_a_lock_that_others_hold_is_asked_for_until_it_is_granted(error: type[Exception]) -> None:
    reasons: list[str] = []
    assert retry.retry_on_lock_timeout(failing(3, error), 60, on_wait=reasons.append) == 4
    assert [reason.partition(" ")[0] for reason in reasons] == [error.__name__] * 3


@pytest.mark.parametrize("error", PASSING)
def test_it_is_given_up_at_its_limit_with_the_last_error(error: type[Exception]) -> None:
    with pytest.raises(error):
        retry.retry_on_lock_timeout(failing(2, error), limit_s=-1)


def test_other_errors_are_not_tried_again_unless_they_are_named() -> None:
    with pytest.raises(errors.UndefinedTable):
        retry.retry_on_lock_timeout(failing(1, errors.UndefinedTable), 60)
    assert retry.retry_on_lock_timeout(failing(1, errors.UndefinedTable), 60, also=(errors.UndefinedTable,)) == 2


@pytest.mark.parametrize("error", [errors.DeadlockDetected, errors.SerializationFailure])
def test_a_conflict_with_another_writer_has_a_bounded_number_of_attempts(error: type[Exception]) -> None:
    assert retry.retry_on_conflict(failing(2, error), attempts=3) == 3
    with pytest.raises(error):
        retry.retry_on_conflict(failing(3, error), attempts=3)


class BadError(Exception):
    """What is raised for a bad item."""


@given(st.lists(st.booleans(), min_size=1, max_size=40))
def test_every_bad_item_is_found_and_the_others_are_accepted_in_order(is_bad: list[bool]) -> None:
    accepted: list[int] = []
    rejected: list[int] = []

    def accept(part: Sequence[int]) -> int:
        if any(is_bad[item] for item in part):
            raise BadError
        accepted.extend(part)
        return len(part)

    def reject(item: int, error: BadError) -> int:
        assert isinstance(error, BadError)
        rejected.append(item)
        return 0

    counts = list(retry.bisect(range(len(is_bad)), accept, reject, (BadError,)))
    assert accepted == [item for item, bad in enumerate(is_bad) if not bad]
    assert rejected == [item for item, bad in enumerate(is_bad) if bad]
    assert sum(counts) == len(accepted)


def test_one_bad_item_of_a_thousand_costs_few_attempts() -> None:
    attempts = 0

    def accept(part: Sequence[int]) -> None:
        nonlocal attempts
        attempts += 1
        if 617 in part:
            raise BadError

    list(retry.bisect(range(1000), accept, lambda *_: None, (BadError,)))
    assert attempts <= 2 * 10 + 1  # both halves of each of the ten levels


def test_another_error_is_not_a_rejection() -> None:
    def accept(_: Sequence[int]) -> None:
        raise KeyError

    with pytest.raises(KeyError):
        list(retry.bisect([1, 2], accept, lambda *_: None, (BadError,)))
