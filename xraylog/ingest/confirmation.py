"""Notices a database that is older than what it confirmed: restored, failed over, or another one.

Stored lines leave the log, so nothing but the state file beside the buffer remembers that there were any. Each run
has the database count a confirmation, after its rows and before the log is drained; a later run that finds a smaller
count, or none, has another database in front of it.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timezone

from loguru import logger

from xraylog import hints
from xraylog.accesslog import installation, logfile
from xraylog.accesslog.installation import Installation
from xraylog.config import Config
from xraylog.database import positions, session
from xraylog.loading.loader import Target
from xraylog.records import LoadResult


def compare(cfg: Config, target: Target) -> Iterator[LoadResult]:
    """Log once that the database lacks what it confirmed, and yield a result that says so. Raises OSError."""
    known = installation.read(cfg.buffer_path)
    if not known.confirmed:
        return
    with session.transaction(target.conn):
        there = positions.last_confirmation(target.conn, known.digest, cfg.node)
    if there.number >= known.confirmed:
        return
    logger.error(
        "{}; what the log, rotated ones beside it or the buffer still have is loaded now; archives of that time add "
        "what they have: {}",
        describe(cfg, known, there.at),
        hints.command(cfg, "--keep", "--logfile", "ARCHIVE"),
    )
    older = Installation(older_at=time.time(), older_from=there.at, older_to=known.confirmed_at)
    installation.write(cfg.buffer_path, older)
    yield LoadResult(older=1)


def confirm(cfg: Config, target: Target) -> None:
    """Have the database count what is stored by now; remember that it did. Raises OSError."""
    known = installation.read(cfg.buffer_path)
    source = logfile.path_text(installation.state_path(cfg.buffer_path))
    node_id = target.node_id(cfg.node)
    with session.transaction(target.conn, positions.node_lock(cfg.node)):
        there = positions.confirm(target.conn, node_id, source, known.digest)
    installation.write(cfg.buffer_path, replace(known, confirmed=there.number, confirmed_at=there.at))


def describe(cfg: Config, known: Installation, last_known_at: float) -> str:
    """Return which database lacks what."""
    since = f"knows of nothing after {moment(last_known_at)}" if last_known_at else "knows of nothing"
    return (
        f"node {cfg.node}, {cfg.log_path}: the database is older than the log, or another one: it confirmed lines "
        f"until {moment(known.confirmed_at)}, and {since}; lines stored between these times are missing in it"
    )


def moment(seconds: float) -> str:
    """Return a time for people."""
    return datetime.fromtimestamp(seconds, timezone.utc).strftime("%Y-%m-%d %H:%M:%S UTC")
