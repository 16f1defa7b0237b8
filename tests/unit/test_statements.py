"""How answers.sql is read."""

from __future__ import annotations

import pytest

from xraylog.answers import statements


def test_the_arguments_of_a_call_are_taken_apart_at_their_own_commas() -> None:
    assert statements._arguments("f(a, g(b, c)) d", 2) == (["a", "g(b, c)"], 12)
    with pytest.raises(ValueError, match="expected a closing bracket after 'f\\('"):
        statements._arguments("f(a, g(b)", 2)
