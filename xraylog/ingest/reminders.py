"""Conditions that are worth one warning a day, not one a run: the state file next to the buffer remembers the last."""

from __future__ import annotations

import time
from typing import NamedTuple

from xraylog.accesslog import installation
from xraylog.config import Config

DAY_S = 86_400
MAX_REMINDERS = 20  # kept: paths that others choose must not fill the state file
KEPT_S = 30 * DAY_S


class Since(NamedTuple):
    """When something was noticed first, in seconds since 1970, and whether to warn of it now."""

    first: float
    is_due: bool


def note(cfg: Config, what: str, now: float, patience_s: float = 0) -> Since:
    """Remember that a condition holds; return since when, and whether to warn: once a day, first after `patience_s`."""
    known = installation.read(cfg.buffer_path, warn=False).reminders
    first, last = _times(known.get(what), now)
    is_due = now - first >= patience_s and not 0 <= now - last < DAY_S
    if is_due or what not in known:
        recent = {key: value for key, value in known.items() if _is_recent(value, now)}
        latest = installation.with_latest(recent, what, [first, now if is_due else last], MAX_REMINDERS)
        installation.update(cfg.buffer_path, reminders=latest)
    return Since(first, is_due)


def end(cfg: Config, what: str) -> None:
    """Forget the conditions whose names begin with `what`: they no longer hold."""
    known = installation.read(cfg.buffer_path, warn=False).reminders
    others = {key: value for key, value in known.items() if not key.startswith(what)}
    installation.update(cfg.buffer_path, reminders=others)


def noticed(cfg: Config, what: str) -> dict[str, float]:
    """Return when each condition whose name begins with `what` was noticed first, by the rest of its name.

    Raises OSError.
    """
    known, now = installation.read(cfg.buffer_path, warn=False).reminders, time.time()
    found = {key.removeprefix(what): value for key, value in known.items() if key.startswith(what)}
    return {key: _times(value, now)[0] for key, value in found.items() if _is_recent(value, now)}


def _times(value: object, now: float) -> tuple[float, float]:
    """Return when a condition was noticed first, and when it was warned of last; 0 for never."""
    match value:
        case [float(first) | int(first), float(last) | int(last)] if first <= now:
            return first, last
    return now, 0.0


def _is_recent(value: object, now: float) -> bool:
    return now - max(_times(value, now)) < KEPT_S
