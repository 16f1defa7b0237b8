"""What a run reports about a log besides its lines.

The log never appears; its times cannot be right; another program took bytes out of it, or out of the buffer.
"""

from __future__ import annotations

import time
from datetime import datetime, timezone
from pathlib import Path

from loguru import logger

from xraylog import hints
from xraylog.accesslog import installation, log_clock, offline_buffer
from xraylog.accesslog.log_clock import Doubt
from xraylog.accesslog.logfile import LogFile, path_text
from xraylog.accesslog.offline_buffer import Buffer
from xraylog.config import Config
from xraylog.ingest import reminders

FIND_OPEN_LOGS = (
    "which logs are open in the programs of this machine: sudo find /proc/[0-9]*/fd -lname '*.log' -printf '%l\\n'"
)


def report_absent(cfg: Config, path: Path) -> None:
    """Warn once a day that the configured log does not exist; after a day if it existed before: logs are rotated."""
    text = path_text(path)
    was_there = any(log.source == text for log in installation.read(cfg.buffer_path, warn=False).logs)
    since = reminders.note(cfg, _absent(text), time.time(), reminders.DAY_S if was_there else 0)
    if since.is_due:
        found = datetime.fromtimestamp(since.first, cfg.zone).strftime("%Y-%m-%d %H:%M")
        change = f'change [parser] logfile in {cfg.path}, or "access" in xray\'s config'
        logger.warning("{}: expected xray's log, found none since {}; {}; {}", path, found, change, FIND_OPEN_LOGS)
    else:
        logger.info("{}: expected a log, found none", path)


def report_present(cfg: Config, path: Path) -> None:
    """Forget that the log did not exist."""
    reminders.end(cfg, _absent(path_text(path)))


def _absent(path: str) -> str:
    return f"absent {path}"


def report_times(cfg: Config, log: LogFile) -> bool:
    """Warn once a day if the times in a log are implausible; return whether they are."""
    doubt = log_clock.look(log, cfg, datetime.now(timezone.utc))
    if doubt is not None:
        _report_doubt(cfg, _times(cfg, log.path) + doubt.kind, doubt)
    else:
        reminders.end(cfg, _times(cfg, log.path))
    return doubt is not None


def known_doubts(cfg: Config, path: Path) -> dict[str, float]:
    """Return what runs found wrong with the times of this log in the configured zone, and when first."""
    return reminders.noticed(cfg, _times(cfg, path))


def _times(cfg: Config, path: Path) -> str:
    return f"times of {path_text(path)} in {cfg.zone.key}: "


def report_newest(cfg: Config, what: str, newest: str) -> None:
    """Warn once a day of rows dated in the future. `newest`: UTC minute, "2025-11-17 10:15"; "" for none."""
    now = datetime.now(timezone.utc)
    if newest and (moment := datetime.fromisoformat(f"{newest}+00:00")) > now + log_clock.AHEAD:
        _report_doubt(cfg, "newest", log_clock.ahead(what, moment, cfg, now))


def _report_doubt(cfg: Config, key: str, doubt: Doubt) -> None:
    is_due = reminders.note(cfg, key, time.time()).is_due
    logger.log("WARNING" if is_due else "INFO", "{}; {}", doubt.found, doubt.to_do)


def describe_misdated(cfg: Config) -> str:
    """Return the message about lines that are unparsed because of their dates, with advice."""
    shown = f"{datetime.now(timezone.utc):%Y-%m-%d %H:%M} UTC"
    return (
        "are dated before 2015 or more than two days ahead of this machine's clock, and are in rejected_lines; if it "
        f"is slow ({shown}, as date -u shows): sudo timedatectl set-ntp true; then: "
        + hints.command(cfg, "--replay-rejected")
    )


# --- bytes that others took out ------------------------------------------------------------------------------------


def remember_unread(cfg: Config, log: LogFile, stored_to: int) -> None:
    """Remember how many bytes of the log were seen but not stored: the next run may find the log emptied."""
    unread, path = max(0, log.size - stored_to), path_text(log.path)
    known = installation.read(cfg.buffer_path, warn=False).unread
    others = installation.without(known, path)
    latest = installation.with_latest(known, path, unread, installation.MAX_LOGS)
    installation.update(cfg.buffer_path, unread=latest if unread else others)


def unread_bytes(cfg: Config, path: Path) -> int:
    """Return how many bytes of the log the last run saw but did not store."""
    return installation.read(cfg.buffer_path, warn=False).unread.get(path_text(path), 0)


def remember_buffered(cfg: Config, size: int, last_batch: str) -> OSError | None:
    """Remember size and last batch of the buffer, whose lines have left their log; return the error if that failed."""
    return installation.update(cfg.buffer_path, buffered=size, last_batch=last_batch)


def missing_buffer_bytes(cfg: Config, buffer: Buffer) -> int:
    """Return how many bytes the buffer lacks at its end, whose lines are in no log any more."""
    known = installation.read(cfg.buffer_path, warn=False)
    missing = max(0, known.buffered - buffer.size)
    if not missing or _was_moved_away(cfg):
        return 0
    return 0 if buffer.last_batch == known.last_batch else missing  # damage before the end shows at the import


def _was_moved_away(cfg: Config) -> bool:
    """Return whether a damaged buffer was moved away, as our message says, since a run wrote the state file.

    rename(2) changes the ctime of the file.
    """
    try:
        moved = offline_buffer.damaged_path(cfg.buffer_path).stat()
        return moved.st_ctime_ns >= installation.state_path(cfg.buffer_path).stat().st_mtime_ns
    except OSError:
        return False


def describe_missing_buffer_bytes(cfg: Config, size: int, missing: int) -> tuple[str, str]:
    """Return what the buffer lacks, and what to do."""
    found = (
        f"{cfg.buffer_path}: expected the {size + missing} bytes that a run left there, found {size} in whole batches"
    )
    to_do = (
        "if there is a copy: let a run import this file first, then put the copy in its place; no line is stored twice"
    )
    return f"{found}; the lines in the missing bytes had left the log, and are lost", to_do


def describe_lost_bytes(cfg: Config, log: LogFile, stored_to: int) -> str:
    """Return the message that another program changed the log during this run. `stored_to`: how far it is stored."""
    missing = max(0, log.largest - stored_to)
    if not missing:
        return (
            f"{log.path} was emptied or replaced during this run, after byte {stored_to}: all that was seen is stored"
        )
    copy = hints.command(cfg, "--keep", "--logfile", f"{log.path}.1")
    return (
        f"{log.path} was emptied or replaced during this run, after byte {stored_to} of at least {log.largest}: "
        f"{missing} bytes were not read, and are missing; if the other program kept a copy, this loads the rest: {copy}"
    )
