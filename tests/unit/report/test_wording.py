"""Numbers as the page writes them."""

from __future__ import annotations

import pytest

from xraylog.report import wording


@pytest.mark.parametrize(
    ("now", "before", "said"),
    [
        (5, 0, "none a week before"),
        (1000, 1000, "as a week before"),
        (1004, 1000, "as a week before"),
        (1500, 1000, "50 % more than a week before (1,000)"),
        (0, 1000, "100 % less than a week before (1,000)"),
        (21_000, 100, "20,900 % more than a week before (100)"),
    ],
)
def test_a_number_is_compared_with_that_of_a_week_before(now: int, before: int, said: str) -> None:
    assert wording.than(now, before) == said


def test_sizes_and_lists_are_for_people() -> None:
    assert wording.size(99_999) == "99,999 bytes"
    assert wording.size(1_057_743) == "1.1 MB"
    assert wording.reasons([("invalid user", 3), ("timeout", 1)]) == "invalid user 3, timeout 1"
    assert wording.reasons([("invalid user", 3)]) == "invalid user"
    assert wording.reasons([]) == ""
