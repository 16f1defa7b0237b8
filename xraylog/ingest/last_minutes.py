"""What a run lets the next one know in a repeated hour: the time of a log's last line, in the state file.

The second pass of an hour shows in the clock that jumps back. When stored lines have left the log, nothing else knows
what came before the jump. In zones without such hours, and outside of them, nothing is read or written.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

from xraylog.accesslog import clock, installation, logfile
from xraylog.accesslog.logfile import Log, LogFile
from xraylog.config import Config

KEPT = timedelta(days=1)  # of other logs, too


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
