"""Names as people type them, and as clients write them."""

from __future__ import annotations

import pytest

from xraylog.questions import targets


@pytest.mark.parametrize(
    ("typed", "also"),
    [
        ("xn--bcher-kva.example", ["bücher.example", "bücher.example."]),
        ("*.XN--bcher-kva.example.", ["*.bücher.example", "*.bücher.example.", "bücher.example", "bücher.example."]),
        ("www.example.com", []),
        ("xn--99999999", []),  # no letters: punycode that ends too early
        ("xn--é", []),
        (None, []),
    ],
)
def test_a_name_of_the_dns_may_be_stored_in_letters(typed: str | None, also: list[str]) -> None:
    assert targets.spelled(typed) == also
