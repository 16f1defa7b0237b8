"""Store the new lines of a log in the database while it is available, then take them out of the log."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import time
from collections.abc import Iterator

from loguru import logger

from xraylog import hints
from xraylog.accesslog.logfile import LogFile
from xraylog.config import Config
from xraylog.database import dead_sessions, positions, reject_reason, rejection, schema, session, table_faults
from xraylog.database.positions import Position, PositionUpdate
from xraylog.database.rejection import Rejection
from xraylog.database.session import Connection
from xraylog.ingest import confirmation, continuation, dns, log_checks, reminders
from xraylog.ingest.confirmation import RunTarget
from xraylog.ingest.source import EMPTY, Source, position_update, tail_unless_overwritten
from xraylog.load_result import LoadResult

CONFIRM_S = 10  # if the database goes away, lines stored since the last confirmation go to the buffer, too


@contextlib.contextmanager
def connected(cfg: Config) -> Iterator[RunTarget]:
    """Connect to the database, create missing tables, and yield it; afterwards log what would make loading faster.

    Raises Unavailable and Unsuitable, also from inside the `with` block.
    """
    connect = functools.partial(session.connect, cfg.connection, answer_timeout_s=cfg.answer_timeout_s, node=cfg.node)
    with connect() as conn:
        found = schema.ensure(conn)
        for warning in found.warnings:
            logger.warning("{}", warning)
        missing = reject_reason.add(conn, found)
        if missing and reminders.note(cfg, "logs.reject_reason", time.time()).is_due:
            logger.warning("{}", missing)
        for ended in dead_sessions.end(conn, cfg.node, cfg.answer_timeout_s):
            logger.warning("{}", ended)
        target = RunTarget(conn, connect, has_reject_reason=missing is None)
        yield target
        if target.days.shortage:
            replay = hints.command(cfg, "--replay-rejected")
            logger.warning("{}; their lines are in rejected_lines; then: {}", target.days.shortage, replay)
        if target.refusals.first:
            warn_of_refusal(cfg, target.conn, target.refusals.first)
        if target.dropped_by:
            logger.warning("{}", table_faults.rows_were_dropped(target.dropped_by))
        if target.keys.hint:
            logger.info("{}", target.keys.hint)


def warn_of_refusal(cfg: Config, conn: Connection, refusal: Rejection) -> None:
    """Warn that a constraint, or a column, that the operator added refused rows: they are in rejected_lines only."""
    with session.transaction(conn):
        statements = "; ".join(rejection.statements_to_allow(conn, refusal))
    change = f"to accept such rows: {statements}; then" if statements else "once they are accepted"
    replay = hints.command(cfg, "--replay-rejected")
    logger.warning("rows were refused, and are in rejected_lines: {}; {}: {}", refusal.reason, change, replay)


def load(target: RunTarget, source: Source) -> Iterator[LoadResult]:
    """Store the new lines, batch by batch, then drain the log. Yields after each commit.

    An outage can end this anywhere, so `source.progress` records after each commit how far the log is stored.
    """
    position = find_position(target, source)
    if source.again and (position.id is not None or position.later):
        position = start_again(target, source, position)
    begin, progress = position.offset, source.progress
    progress.begin(position)
    if confirmation.is_recorded(source.cfg, source.stored_log(begin)):
        progress.confirm(begin)
    confirmed_at = time.monotonic()
    for result, position in target.loader(source.node).load_all(source, position):  # noqa: B020  # resumes there
        progress.store(position.offset)
        yield result
        if source.is_drainable and time.monotonic() - confirmed_at > CONFIRM_S:
            confirm(target, source, position.offset)
            confirmed_at = time.monotonic()
    if position.later and source.log.is_whole:
        position = move_past_ranges(target, source, position)
        progress.store(position.offset)
    if position.offset != begin or may_be_unconfirmed(source, position.offset):
        confirm(target, source, position.offset)
    drain(target, source, position)
    source.remember(progress.stored_to)
    source.is_stored = True
    dns.store(target, source)


def confirm(target: RunTarget, source: Source, offset: int) -> None:
    """Let the database and the state file count that the lines before `offset` are stored."""
    confirmation.confirm(source.cfg, target, source.stored_log(offset))
    source.progress.confirm(offset)


def may_be_unconfirmed(source: Source, offset: int) -> bool:
    """Return whether an earlier run may have stored the lines before `offset` and died before it confirmed them.

    They are about to leave the log, so they need a confirmation. Confirming lines twice would do harm: a backup taken
    in between would look older than it is.
    """
    stored = source.stored_log(offset)
    if stored is None:  # the state file keeps nothing about archives
        return not (source.options.keep or source.log.is_blank(offset))
    return not (confirmation.is_recorded(source.cfg, stored) or source.log.is_blank(offset))


def start_again(target: RunTarget, source: Source, position: Position) -> Position:
    """Move the position back to 0, for --again; from here on the database counts from there."""
    with session.transaction(target.conn, positions.node_lock(source.node)):
        positions.forget_ranges(target.conn, position)
        position = dataclasses.replace(position, later=())
        return position if position.id is None else positions.move(target.conn, PositionUpdate(position, 0, EMPTY))


def move_past_ranges(target: RunTarget, source: Source, position: Position) -> Position:
    """Move the position past the stored ranges after it, and delete these: nothing is missing before them any more."""
    end = max(position.offset, position.later[-1].end)
    with session.transaction(target.conn, positions.node_lock(source.node)):
        positions.forget_ranges(target.conn, position)
        moved = positions.move(target.conn, position_update(source.log, position, end))
    return dataclasses.replace(moved, later=())


def find_position(target: RunTarget, source: Source) -> Position:
    """Return where the last run ended. If that run died, wait until its transaction has ended in the server."""
    log, node_id = source.log, target.node_id(source.node)
    with session.transaction(target.conn, positions.node_lock(source.node)):
        confirmation.raise_if_copied(source.cfg, target)
        position = positions.find(
            target.conn,
            node_id,
            source.origin,
            size=log.max_offset,
            owner=target.owner,
            tail_at=tail_unless_overwritten(log),
            on_delete=functools.partial(confirmation.leave_receipt, source.cfg, target),
        )
        positions.forget_old(target.conn, position)
        if not source.again:
            known, position = position, continuation.find(target.conn, source.cfg, log, position)
            if position.offset > known.offset:
                position = positions.move(target.conn, position_update(log, position, position.offset))
    is_log_file = isinstance(log, LogFile)  # archives have other names and bytes at every rotation
    if position.lost_offset is not None and is_log_file:
        seen = log_checks.unread_bytes(source.cfg, log.path)
        logger.warning(
            "{} was emptied, replaced or renamed by another program: it was stored up to byte {}{}; "
            "reading it from its beginning; if it was renamed: {}",
            log.path,
            position.lost_offset,
            f"; {seen} more bytes were seen, and are missing unless it was renamed" if seen else "",
            hints.command(source.cfg, "--logfile", f"{log.path}.1"),
        )
    return position


def drain(target: RunTarget, source: Source, position: Position) -> None:
    """Take the stored lines out of the log while xray appends to it, then move the position to match.

    `source.progress` is updated before the position moves, because the database may go away in between.
    """
    head = source.log.fingerprint(position.offset)
    drained = source.drain(position.offset)
    if drained is None:
        return
    source.progress.drain(drained.offset)
    if source.is_copy(position, head):
        position = dataclasses.replace(position, id=None)  # the other file keeps its lines and its position
    if position.id is None and not drained.offset:
        return  # no line of it was ever stored: there is no position to move
    with session.transaction(target.conn, positions.node_lock(source.node)):
        confirmation.leave_receipt(source.cfg, target)
        position = positions.move(target.conn, PositionUpdate(position, drained.offset, drained.fingerprint))
    if source.truncate(drained.offset):
        source.progress.drain(0)
        move(target, source, PositionUpdate(position, 0, EMPTY))


def move(target: RunTarget, source: Source, update: PositionUpdate) -> Position:
    """Move the position in a transaction of its own; return the new position."""
    with session.transaction(target.conn, positions.node_lock(source.node)):
        return positions.move(target.conn, update)
