"""Of all rejections of a run, the first that the operator can change is worth a warning."""

from __future__ import annotations

from xraylog.database.rejection import Refusals, Rejection

BY_CHECK, BY_LENGTH = Rejection("a check", "23514", "c"), Rejection("too long", "22001")
BY_VALUE, WITHOUT_STATE = Rejection("out of range", "22003"), Rejection("no room")


def test_the_first_rejection_by_a_choice_of_the_operators_is_kept() -> None:
    refusals = Refusals()
    refusals.note(BY_VALUE)
    refusals.note(WITHOUT_STATE)
    assert refusals.first is None
    refusals.note(BY_LENGTH)
    refusals.note(BY_CHECK)
    assert refusals.first == BY_LENGTH
