"""What the state file keeps of the last line of a log, because stored lines leave the log: its minute and its day.

The minute matters only where clocks are set back and an hour occurs twice: the second pass begins where the time jumps
back. In other zones, and at other times, it is neither read nor written. The day is compared with the dates of the next
lines: a date far from it may be forged.
"""

from __future__ import annotations

from datetime import date, datetime, timedelta

from xraylog.accesslog import clock, installation, logfile
from xraylog.accesslog.logfile import Log, LogFile
from xraylog.config import Config

KEPT = timedelta(days=1)  # how long a minute is kept


def before(cfg: Config, log: Log, start: int) -> str:
    """Return the UTC minute of the last line before `start`; "" if unknown."""
    if clock.is_fixed(cfg.zone) or not isinstance(log, LogFile):
        return ""
    known = installation.read(cfg.buffer_path).last_minutes.get(logfile.path_text(log.path))
    match known:
        case [str(minute), bool(is_blank), str(place)] if _is_minute(minute):
            return minute if (is_blank and log.is_blank(start)) or place == _place(log, start) else ""
    return ""


def remember(cfg: Config, log: Log, end: int, minute: str) -> None:
    """Remember the UTC minute of the last line before `end`, if its hour is a repeated one."""
    moment = clock.moment(minute)
    has_no_use = clock.is_fixed(cfg.zone) or not isinstance(log, LogFile)
    if has_no_use or not clock.is_repeated(moment.astimezone(cfg.zone)):
        return
    known = installation.read(cfg.buffer_path).last_minutes
    others = {path: value for path, value in known.items() if _is_recent(value, moment)}
    this = {logfile.path_text(log.path): [minute, log.is_blank(end), _place(log, end)]}
    installation.update(cfg.buffer_path, last_minutes={**others, **this})


def day_before(cfg: Config, log: Log) -> date | None:
    """Return the latest day of the lines that have left this log; None if unknown."""
    if not isinstance(log, LogFile):
        return None
    try:
        return date.fromisoformat(installation.read(cfg.buffer_path).last_days[logfile.path_text(log.path)])
    except (KeyError, ValueError, TypeError):
        return None


def remember_day(cfg: Config, log: Log, day: date) -> None:
    """Remember the day of the last line, unless a later day is known: a date that goes back is no new reference."""
    known_day = day_before(cfg, log)
    if not isinstance(log, LogFile) or (known_day is not None and day <= known_day):
        return
    known, path = installation.read(cfg.buffer_path).last_days, logfile.path_text(log.path)
    latest = installation.with_latest(known, path, day.isoformat(), installation.MAX_LOGS)
    installation.update(cfg.buffer_path, last_days=latest)


def _place(log: Log, offset: int) -> str:
    return f"{offset} {log.fingerprint(offset).digest.hex()}"


def _is_minute(minute: str) -> bool:
    try:
        return clock.minute_of(clock.moment(minute)) == minute
    except ValueError:
        return False


def _is_recent(value: object, now: datetime) -> bool:
    match value:
        case [str(minute), *_] if _is_minute(minute):
            return clock.moment(minute) > now - KEPT
    return False
