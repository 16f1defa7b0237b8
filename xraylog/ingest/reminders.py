"""What is worth one warning a day, and no more: the state file beside the buffer remembers it from run to run."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import NamedTuple

from xraylog.accesslog import installation
from xraylog.config import Config

DAY_S = 86_400
MAX_REMINDERS = 20  # of things: another program's paths must not fill the state
KEPT_S = 30 * DAY_S


class Since(NamedTuple):
    """When something was noticed first, in seconds since 1970, and whether to warn of it now."""

    first: float
    is_due: bool


def note(cfg: Config, what: str, now: float, patience_s: float = 0) -> Since:
    """Remember that something is so, and return since when, and whether to warn: once a day, after `patience_s`."""
    known = installation.read(cfg.buffer_path, warn=False)
    first, last = _times(known.reminders.get(what), now)
    is_due = now - first >= patience_s and not 0 <= now - last < DAY_S
    if is_due or what not in known.reminders:
        others = {key: value for key, value in known.reminders.items() if key != what and _is_recent(value, now)}
        latest = dict([*others.items()][-MAX_REMINDERS:])
        installation.write(
            cfg.buffer_path, replace(known, reminders={**latest, what: [first, now if is_due else last]})
        )
    return Since(first, is_due)


def end(cfg: Config, what: str) -> None:
    """Forget what begins so: it is no longer so."""
    known = installation.read(cfg.buffer_path, warn=False)
    others = {key: value for key, value in known.reminders.items() if not key.startswith(what)}
    if others != known.reminders:
        installation.write(cfg.buffer_path, replace(known, reminders=others))


def noticed(cfg: Config, what: str) -> dict[str, float]:
    """Return what begins so, without its beginning, and when it was noticed first. Raises OSError."""
    known, now = installation.read(cfg.buffer_path, warn=False), time.time()
    found = {key.removeprefix(what): value for key, value in known.reminders.items() if key.startswith(what)}
    return {key: _times(value, now)[0] for key, value in found.items() if _is_recent(value, now)}


def _times(value: object, now: float) -> tuple[float, float]:
    """Return when it was noticed first, and when there was a warning last; 0 for never."""
    match value:
        case [float(first) | int(first), float(last) | int(last)] if first <= now:
            return first, last
    return now, 0.0


def _is_recent(value: object, now: float) -> bool:
    return now - max(_times(value, now)) < KEPT_S
