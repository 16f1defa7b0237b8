"""What a run lets the next one know in the state file, when stored lines have left the log: the time of its last line.

The second pass of an hour that exists twice shows in the clock that jumps back. In zones without such hours, and
outside of them, no minute is read or written. A line that a client forged shows in a date far from the day before it.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import date, datetime, timedelta

from xraylog.accesslog import clock, installation, logfile
from xraylog.accesslog.logfile import Log, LogFile
from xraylog.config import Config

KEPT = timedelta(days=1)  # of other logs, too
MAX_DAYS = 50  # logs


def before(cfg: Config, log: Log, start: int) -> str:
    """Return the minute of the last line before `start`, in UTC; "" where it is not known."""
    if clock.is_fixed(cfg.zone) or not isinstance(log, LogFile):
        return ""
    known = installation.read(cfg.buffer_path).last_minutes.get(logfile.path_text(log.path))
    match known:
        case [str(minute), bool(is_blank), str(place)] if _is_minute(minute):
            return minute if (is_blank and log.is_blank(start)) or place == _place(log, start) else ""
    return ""


def remember(cfg: Config, log: Log, end: int, minute: str) -> None:
    """Remember the minute of the last line before `end`, in UTC, if the hour is repeated."""
    moment = clock.moment(minute)
    is_told = clock.is_fixed(cfg.zone) or not isinstance(log, LogFile)
    if is_told or not clock.is_repeated(moment.astimezone(cfg.zone)):
        return
    known = installation.read(cfg.buffer_path)
    others = {path: value for path, value in known.last_minutes.items() if _is_recent(value, moment)}
    this = {logfile.path_text(log.path): [minute, log.is_blank(end), _place(log, end)]}
    installation.write(cfg.buffer_path, replace(known, last_minutes={**others, **this}))


def day_before(cfg: Config, log: Log) -> date | None:
    """Return the latest day of the lines that this log had; None where it is not known."""
    if not isinstance(log, LogFile):
        return None
    try:
        return date.fromisoformat(installation.read(cfg.buffer_path).last_days[logfile.path_text(log.path)])
    except (KeyError, ValueError, TypeError):
        return None


def remember_day(cfg: Config, log: Log, day: date) -> None:
    """Remember the day of a line, unless a later one is known: others are not to follow one that goes back."""
    known_day = day_before(cfg, log)
    if not isinstance(log, LogFile) or (known_day is not None and day <= known_day):
        return
    known, path = installation.read(cfg.buffer_path), logfile.path_text(log.path)
    others = {other: text for other, text in known.last_days.items() if other != path}
    days = {**others, path: day.isoformat()}
    installation.write(cfg.buffer_path, replace(known, last_days=dict(list(days.items())[-MAX_DAYS:])))


def _place(log: Log, offset: int) -> str:
    return f"{offset} {log.fingerprint(offset).digest.hex()}"


def _is_minute(minute: str) -> bool:
    try:
        return clock.text(clock.moment(minute)) == minute
    except ValueError:
        return False


def _is_recent(value: object, now: datetime) -> bool:
    match value:
        case [str(minute), *_] if _is_minute(minute):
            return clock.moment(minute) > now - KEPT
    return False
