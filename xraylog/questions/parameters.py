"""Turn the typed options of a question into the values of its parameters."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timezone
from typing import Any
from zoneinfo import ZoneInfo

from xraylog.questions import moments
from xraylog.questions.catalog import WITHIN, Question


class WrongUsage(ValueError):
    """The options do not make a question. The message says what was expected."""


def values(question: Question, given: Mapping[str, Any], zone: ZoneInfo) -> dict[str, Any]:
    """Return the typed values, and the window. Raises WrongUsage, or moments.Unreadable."""
    now = datetime.now(timezone.utc)
    for value in given.values():
        if isinstance(value, str) and not is_text(value):
            raise WrongUsage(f"expected UTF-8, found {value!r}")
    since, until = _ends(given, zone, now)
    parts = question.parts_for(given)
    if not parts:
        expected, only = " or ".join(question.parts_for({**given, "only": None})), given["only"]
        requirement = question.requirement_of(only)
        raise WrongUsage(f"argument --only: expected {expected}, found {only}, which goes {requirement}")
    if given["csv"] and len(parts) > 1:
        raise WrongUsage(f"argument --csv: expected --only {' or --only '.join(parts)}, found neither")
    if question.needs and all(given[name] is None for name in question.needs):
        raise WrongUsage(f"expected {' or '.join(question.needs.values())}, found neither")
    end = until or now
    since = since or end - question.length_for(given)
    if since >= end:
        found = " and ".join(each.astimezone(zone).isoformat(" ", "seconds") for each in (since, end))
        raise WrongUsage(f"expected --since before --until{'' if until else ' (default: now)'}, found {found}")
    return {**given, "since": since, "until": end, "is_now": until is None}


def is_text(value: str) -> bool:
    """Return whether PostgreSQL can store the text: Python turns bytes that are not UTF-8 into surrogates."""
    return not any("\ud800" <= sign <= "\udfff" for sign in value)


def _ends(given: Mapping[str, Any], zone: ZoneInfo, now: datetime) -> tuple[datetime | None, datetime | None]:
    """Return the ends of the window that were typed."""
    since, until = given["since"], given["until"]
    within = given.get("within")
    if given.get("at") is None and within is not None:
        raise WrongUsage("expected --at with --within, found none")
    if given.get("at") is not None:
        if since is not None or until is not None:
            raise WrongUsage("expected --at, or --since and --until, found both")
        span = moments.around(given["at"], WITHIN if within is None else within, now, zone)
        return span.begin, span.end
    return (
        moments.read(since, now, zone).begin if since is not None else None,
        moments.read(until, now, zone).end if until is not None else None,
    )
