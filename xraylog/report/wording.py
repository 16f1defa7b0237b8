"""Format numbers for the page. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, tzinfo

from xraylog.report.window import Window


def count(number: float) -> str:
    """Return a whole number with commas."""
    return f"{number:,.0f}"


def size(number: int) -> str:
    """Return a number of bytes."""
    return f"{number / 1_000_000:.1f} MB" if number >= 100_000 else f"{number:,} bytes"


def than(now: int, before: int) -> str:
    """Return how a number compares with the one a week before."""
    if not before:
        return "none a week before"
    part = round(100 * (now - before) / before)
    return (
        f"{abs(part):,} % {'more' if part > 0 else 'less'} than a week before ({count(before)})"
        if part
        else "as a week before"
    )


def reasons(found: Sequence[tuple[str, int]]) -> str:
    """Return names with their counts; the name alone if there is only one."""
    return ", ".join(f"{name} {count(rows)}" for name, rows in found) if len(found) > 1 else "".join(dict(found))


def clock(moment: datetime, zone: tzinfo) -> str:
    """Return the time of day in a zone; in an hour that occurs twice, with its difference from UTC: 02:30+01:00."""
    local = moment.astimezone(zone)
    occurs_twice = local.replace(fold=1 - local.fold).utcoffset() != local.utcoffset()
    return f"{local:%H:%M}{local.isoformat()[len(local.replace(tzinfo=None).isoformat()) :] if occurs_twice else ''}"


def period(window: Window, written: datetime) -> str:
    """Return the first and the last day of the page, with the times at which it begins and ends within them."""
    since, until = (f" {clock(moment, window.zone)}" for moment in (window.since, window.until))
    is_now = window.until >= written and not window.has_partial_first_day  # the page says when it was written
    begin = f"{window.first}{since if window.has_partial_first_day else ''}"
    return f"{begin} to {window.last}{until if window.has_partial_day and not is_now else ''}"


def that_day(window: Window, written: datetime) -> str:
    """Return a name for the last day, and its start if the page begins within it."""
    name = "today" if window.until >= written else f"on {window.last}"
    is_part = window.has_partial_first_day and window.first == window.last
    return f"{name}, from {clock(window.since, window.zone)} on" if is_part else name
