"""Bytes are printed as people read them."""

from __future__ import annotations

import pytest

from xraylog.migration.plan import format_bytes


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 bytes"),
        (9_999, "9,999 bytes"),
        (10_240, "10 KiB"),
        (10_240 << 10, "10 MiB"),
        (10_240 << 20, "10.0 GiB"),
        (12_345 << 30, "12,345.0 GiB"),
    ],
)
def test_a_size_has_the_unit_that_keeps_it_short(count: int, text: str) -> None:
    assert format_bytes(count) == text
