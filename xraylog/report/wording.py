"""Numbers as the page writes them. Pure."""

from __future__ import annotations


def count(number: float) -> str:
    """Return a whole number with commas."""
    return f"{number:,.0f}"


def size(number: int) -> str:
    """Return a number of bytes."""
    return f"{number / 1_000_000:.1f} MB" if number >= 100_000 else f"{number:,} bytes"
