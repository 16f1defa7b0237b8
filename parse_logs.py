#!/usr/bin/env python3
"""Turn xray's access log into rows of PostgreSQL. One run, for cron or by hand."""

from __future__ import annotations

import argparse
import dataclasses
import functools
import hashlib
import os
import sys
import time
from collections.abc import Iterator, Sequence
from datetime import datetime, timezone
from pathlib import Path

from loguru import logger

from xraylog import (
    __version__,
    buffer,
    check,
    config,
    database,
    loader,
    locks,
    logfile,
    positions,
    replay,
    schema,
    stats,
)
from xraylog.ahead import Ahead
from xraylog.buffer import Buffer, Written
from xraylog.config import Config
from xraylog.grammar import Grammar
from xraylog.loader import Target
from xraylog.logfile import LogFile
from xraylog.parser import PREFIXED, Parser
from xraylog.positions import Move, Position
from xraylog.records import Batch, Fingerprint, LoadResult, Origin

DONE, FAILED, OPERATOR, BUSY, CONFIGURATION = 0, 1, 3, 75, 78  # exit statuses; argparse's own is 2
PROGRESS_S = 10
# Else up to 5 ms pass between each answer of the server and our next word, while another thread parses:
# benchmarks/load.py shows it when main() leaves it out.
SWITCH_S = 0.0001
SUSPICIOUS = 20  # rejected lines, and not one good one
NOTHING = Fingerprint(0, hashlib.sha256().digest())  # of an empty file


def main(arguments: Sequence[str] | None = None) -> int:
    """One run; returns the exit status."""
    options = command_line().parse_args(arguments)
    sys.setswitchinterval(SWITCH_S)
    try:
        cfg = config.read(options.config)
        if options.logfile:
            cfg = config.with_log(cfg, Path(os.path.abspath(options.logfile)))
        start_logging(cfg, options)
    except config.ConfigError as error:
        print(error, file=sys.stderr)
        return CONFIGURATION
    try:
        if options.check:
            return OPERATOR if check.report(cfg) else DONE
        if options.replay_rejected:
            return replay_rejected(cfg)
        with locks.locked(*lock_paths(cfg)):
            return run(cfg, options)
    except locks.Busy as error:
        logger.error("another run is at work: {}; nothing to do", error)
        return BUSY
    except (logfile.Unusable, buffer.Damaged) as error:
        logger.error("{}; nothing was read", error)
        return OPERATOR
    except KeyboardInterrupt:
        logger.error("interrupted; what was committed stays, and the next run goes on behind it")
        return FAILED
    except Exception as error:  # the only place that catches everything
        logger.opt(exception=options.verbose).error("unexpected {}: {}", type(error).__name__, error)
        return FAILED


def run(cfg: Config, options: argparse.Namespace) -> int:
    """One pass. The total is right even when the database goes away halfway."""
    started, clock = datetime.now(), time.monotonic()  # noqa: DTZ005  # local time is what the row promises
    total, mode, status = LoadResult(), "online", FAILED
    try:
        with logfile.opened(cfg.log_path) as log, buffer.opened(cfg.buffer_path) as aside:
            if aside.torn:
                logger.warning("{} ended in a torn batch; it is now in {}", aside.path, aside.torn)
            offset = None  # how far the database is known to have the log
            try:
                for result, offset in store(cfg, options, log, aside):  # noqa: B007  # where the database ends, below
                    total += result
                status = DONE
            except (database.Unavailable, database.Unsuitable, buffer.Damaged) as reason:
                mode, status_of_reason = "offline", explain(reason, cfg)
                for result in put_aside(cfg, options, log, aside, offset):
                    total += result
                status = status_of_reason
    except positions.Moved as error:
        logger.error("{}; it stores these lines", error)
        status = BUSY
    except OSError as error:
        logger.error("{}: {}; what is not stored stays in {}", error.filename or "disk", error.strerror, cfg.log_path)
    finally:
        told = tell(cfg, total, stats.row(started, mode, time.monotonic() - clock, total))
    return status or told


def store(
    cfg: Config, options: argparse.Namespace, log: LogFile | None, aside: Buffer
) -> Iterator[tuple[LoadResult, int | None]]:
    """First what earlier runs put aside, then what is new in the log. Each result with how far the log is stored."""
    if aside.is_empty and has_nothing(log, options):
        if log is None and options.logfile:
            logger.warning("{}: expected a log, found none", cfg.log_path)
        else:
            logger.info("{}: {}", cfg.log_path, "nothing new" if log else "not there")
        return
    with database.connect(cfg.connection) as conn:
        for warning in schema.ensure(conn).warnings:
            logger.warning("{}", warning)
        target = Target(conn, functools.partial(database.connect, cfg.connection))
        if not aside.is_empty:
            for result in import_buffer(target, aside):
                yield result, None
        if log is not None and not has_nothing(log, options):
            yield from load_log(target, cfg, options, log)


def load_log(
    target: Target, cfg: Config, options: argparse.Namespace, log: LogFile
) -> Iterator[tuple[LoadResult, int]]:
    """Store what is new in the log, batch by batch; then take it out of the log."""
    position = find_position(target, cfg, log)
    if options.again and position.id is not None:
        with database.transaction(target.conn, loader.node_lock(cfg.node)):
            position = positions.move(target.conn, Move(position, 0, NOTHING))
    yield LoadResult(), position.offset

    def behind(position: Position, offset: int) -> Move:
        log.sync()
        return Move(position, offset, log.fingerprint(offset))

    reading = functools.partial(read, cfg, log)
    for result, position in target.loader(cfg.node).load_all(reading, position, behind):  # noqa: B020  # goes on there
        yield result, position.offset
    if advice := target.keys.advice:
        logger.info("{}", advice)
    if may_drain(options, log, position.offset):
        for offset in drain(target, cfg, log, position):
            yield LoadResult(), offset


def find_position(target: Target, cfg: Config, log: LogFile) -> Position:
    """Where the last run ended; waits for one that died while its transaction is still in the server."""
    node_id = target.node_id(cfg.node)
    origin = buffer.origin(cfg.node, log)
    with database.transaction(target.conn, loader.node_lock(cfg.node)):
        position = positions.find(
            target.conn, node_id, origin.source, origin.fingerprints, origin.predecessor, log.size
        )
        positions.forget_old(target.conn, position)
    if position.lost is not None:
        logger.warning(
            "{} was emptied, replaced or renamed by somebody else: it was stored up to byte {}; "
            "going on from its beginning",
            log.path,
            position.lost,
        )
    return position


def read(cfg: Config, log: LogFile, offset: int) -> Iterator[Batch]:
    """Batches of what stands behind `offset`. Says once when it has a prefix that xray does not write."""
    said = False
    parser = Parser(cfg.zone, datetime.now(timezone.utc))
    for batch in parser.batches(log.blocks(offset), cfg.batch_size):
        yield batch
        for at, bad in batch.bad_lines:
            logger.debug("{}, byte {}: {}", log.path, at, bad.reason)
            if not said and bad.reason.startswith(PREFIXED):
                logger.warning("{}, byte {}: {}; such lines go to rejected_lines", log.path, at, bad.reason)
                said = True
        del batch  # before the next one is read: one in memory, not two


def drain(target: Target, cfg: Config, log: LogFile, position: Position) -> Iterator[int]:
    """Take the stored lines out of the log, while xray appends; the position follows.

    Yields where the stored lines end now, before it tells the database: that may be away by then.
    """
    known = log.fingerprint(position.offset)
    drained = drain_file(cfg, log, position.offset)
    if drained is None:
        return
    yield drained.offset
    if position.found_as != position.source and logfile.is_at(Path(position.found_as), known, but=log):
        position = dataclasses.replace(position, id=None)  # the other file still has its lines, and its position
    with database.transaction(target.conn, loader.node_lock(cfg.node)):
        position = positions.move(target.conn, Move(position, drained.offset, drained.fingerprint))
    if log.empty(drained.offset, cfg.truncate_above):
        yield 0
        with database.transaction(target.conn, loader.node_lock(cfg.node)):
            positions.move(target.conn, Move(position, 0, NOTHING))


def drain_file(cfg: Config, log: LogFile, offset: int) -> logfile.Drained | None:
    """The file's part of draining; None when its lines stay."""
    try:
        drained = log.drain(offset, cfg.truncate_above)
    except logfile.Replaced:
        logger.warning("{} was emptied or replaced during this run, behind byte {}", log.path, offset)
        return None
    if drained.kept:
        logger.info("{}: this file system cannot drain a log that is open elsewhere; its lines stay", log.path)
        return None
    return drained


def may_drain(options: argparse.Namespace, log: LogFile, offset: int) -> bool:
    """Whether the stored lines are to be taken out; says why not."""
    if log.replaced:
        logger.warning("{} was emptied or replaced during this run, behind byte {}", log.path, offset)
    elif not log.writable:
        logger.warning("{} may not be written: its lines are stored, remembered and left there", log.path)
    return not (options.keep or log.replaced or not log.writable)


def import_buffer(target: Target, aside: Buffer) -> Iterator[LoadResult]:
    """Store what was put aside, in order, but for what the database has already; then forget it.

    Each batch moves the position of its log and that of the buffer with its rows.
    """
    total, skipped, said = LoadResult(), 0, time.monotonic()
    here = find_buffer(target, aside)
    for stored in aside.batches(here.offset):
        batch, there = stored.batch, find_origin(target, stored.origin)
        moves = [Move(here, stored.end, aside.file.fingerprint(stored.end))]
        end_of_log = stored.origin.fingerprint(batch.end)
        if not stored.origin.again:
            batch = batch.behind(there.offset)
        if end_of_log and (batch.end > there.offset or stored.origin.again):
            moves.insert(0, Move(there, batch.end, end_of_log))
        result, (*_, here) = target.loader(stored.origin.node).load(batch, *moves)
        total, skipped = total + result, skipped + stored.batch.lines - batch.stored
        if time.monotonic() - said > PROGRESS_S:
            said = time.monotonic()
            logger.info("{}: {} of {} bytes imported", aside.path, stored.end, aside.size)
        del batch, stored
        yield LoadResult(new_names=result.new_names)
    aside.clear(here.offset)  # its position stays: a copy of the buffer that somebody puts back is known
    logger.info(
        "{} imported: {} rows + {} rejected + {} stored before", aside.path, total.rows, total.rejected, skipped
    )


def find_buffer(target: Target, aside: Buffer) -> Position:
    """How far an earlier run imported the buffer."""
    node_id, source = target.node_id(aside.node), logfile.path_text(aside.path)
    with database.transaction(target.conn, loader.node_lock(aside.node)):
        return positions.find(target.conn, node_id, source, aside.file.fingerprints(), size=aside.size)


def find_origin(target: Target, origin: Origin) -> Position:
    """How far the log of a buffered batch is stored. A copy of a log that is still there gets a row of its own."""
    node_id = target.node_id(origin.node)
    with database.transaction(target.conn, loader.node_lock(origin.node)):
        position = positions.find(target.conn, node_id, origin.source, origin.fingerprints, origin.predecessor)
    known = origin.fingerprint(position.offset)
    if position.found_as != position.source and known and logfile.is_at(Path(position.found_as), known):
        return dataclasses.replace(position, id=None)
    return position


def put_aside(
    cfg: Config, options: argparse.Namespace, log: LogFile | None, aside: Buffer, offset: int | None
) -> Iterator[LoadResult]:
    """Put what is new in the log into the buffer; then take it out of the log.

    `offset` is where the database ended, if it said so before it went away.
    """
    if log is None or has_nothing(log, options):
        return
    again = options.again and offset is None  # else the database has been told, and counts from 0
    at = 0 if again else max(offset or 0, aside.reached(log.fingerprints(), log.size))
    names = stats.Names()

    def written() -> Iterator[tuple[Written, LoadResult]]:
        for batch in read(cfg, log, at):
            new_names = names.new_in(batch.records.names())
            result = LoadResult(batch.lines, len(batch.records), len(batch.bad_lines), batch.ignored, new_names)
            yield buffer.write(batch), result

    with Ahead(written()) as coming:
        for batch, result in coming:
            log.sync()
            aside.put(batch, buffer.origin(cfg.node, log, again))
            at = batch.end
            del batch
            yield result
    if may_drain(options, log, at) and (drained := drain_file(cfg, log, at)):
        log.empty(drained.offset, cfg.truncate_above, leave=logfile.MARK_BYTES)


def replay_rejected(cfg: Config) -> int:
    """Parse this node's rejected lines again: what is a record by now moves into `logs`."""
    total, status = LoadResult(), DONE
    try:
        with database.connect(cfg.connection) as conn:
            found = replay.look(conn, schema.ensure(conn), cfg.node)
            if found.others:
                logger.info(
                    "{} rejected lines of other nodes are left alone; replay them with their own configs", found.others
                )
            target = Target(conn, functools.partial(database.connect, cfg.connection))
            parse = Grammar(cfg.zone, datetime.now(timezone.utc)).parse_line
            for result, stays in replay.replay(target, cfg.node, found, parse, cfg.batch_size):
                total += result
                for row_id, reason in stays:
                    logger.debug("rejected line {}: {}", row_id, reason)
    except (database.Unavailable, database.Unsuitable) as reason:
        logger.error("{}; what was not moved stays in rejected_lines", reason)
        status = FAILED if isinstance(reason, database.Unavailable) else OPERATOR
    logger.info(
        "{} rejected lines read = {} rows + {} ignored + {} still rejected",
        total.lines,
        total.rows,
        sum(total.ignored.values()),
        total.rejected,
    )
    return status or unless_wrong(total)


def has_nothing(log: LogFile | None, options: argparse.Namespace) -> bool:
    """Whether there is no line to read, as far as the file alone can tell."""
    return log is None or log.size == 0 or (log.holds_only_our_mark() and not options.again)


def explain(reason: Exception, cfg: Config) -> int:
    """Say why this run goes on without the database; returns the exit status that it will have."""
    if isinstance(reason, schema.Migrating):
        logger.warning("{}; new lines go to {}", reason, cfg.buffer_path)
        return DONE
    if isinstance(reason, database.Unavailable):
        logger.warning("PostgreSQL is not available: {}; new lines go to {}", reason, cfg.buffer_path)
        return DONE
    logger.error("{}; new lines go to {}; --check says more", reason, cfg.buffer_path)
    return OPERATOR


def tell(cfg: Config, total: LoadResult, row: stats.Row) -> int:
    """The statistics row, and one line that adds up."""
    logger.info(
        "{} lines read = {} rows + {} rejected + {} ignored",
        total.lines,
        total.rows,
        total.rejected,
        sum(total.ignored.values()),
    )
    if total.rejected >= SUSPICIOUS and not total.rows:
        logger.warning("not one of {} lines is xray's; is {} its access log?", total.lines, cfg.log_path)
    if cfg.stats_format:
        try:
            stats.write(row, cfg.stats_format, cfg.stats_path)
        except stats.NotWritten as error:
            logger.error("{}; what was committed stays", error)
            return OPERATOR
    return unless_wrong(total)


def unless_wrong(total: LoadResult) -> int:
    """A check of ourselves: every line was counted as what it became."""
    if not total.adds_up:
        logger.error("the counts do not add up: {} lines were read; please report this", total.lines)
        return FAILED
    return DONE


def lock_paths(cfg: Config) -> tuple[Path, Path]:
    """The log's lock and the buffer's."""
    folder = cfg.buffer_path.parent
    return locks.lock_path(cfg.log_path, folder), locks.lock_path(cfg.buffer_path, folder)


def start_logging(cfg: Config, options: argparse.Namespace) -> None:
    """To stderr, and to a file if the config names one. A good run under cron says nothing."""
    level = cfg.log_level or ("INFO" if stats.on_a_terminal() else "WARNING")
    level = "DEBUG" if options.verbose else "ERROR" if options.quiet else level
    form = "{time:YYYY-MM-DD HH:mm:ss} {level: <7} {message}"
    logger.remove()
    if sys.stderr is not None:  # closed by the caller: 2>&-
        logger.add(sys.stderr, level=level, format=form, diagnose=False, backtrace=False)
    if cfg.own_log_path and not options.check:
        try:
            logger.add(cfg.own_log_path, level=level, format=form, diagnose=False, backtrace=False)
        except OSError as error:
            raise config.ConfigError(
                [f"{cfg.path}: [logging] file: expected a file that can be written, found: {error.strerror}"]
            ) from error
    for warning in cfg.warnings:
        logger.warning("{}", warning)


def _path(text: str) -> Path:
    if not text or "\0" in text:
        raise argparse.ArgumentTypeError("expected the path of a file, found none")
    return Path(text)


def command_line() -> argparse.ArgumentParser:
    """The options, as --help shows them."""
    parser = argparse.ArgumentParser(description="Load what is new in xray's access log into PostgreSQL.")
    parser.add_argument(
        "--config", type=_path, metavar="FILE", default=Path("config.ini"), help="settings (default: config.ini)"
    )
    parser.add_argument(
        "--logfile", type=_path, metavar="FILE", help="read and empty this log instead of the configured one"
    )
    parser.add_argument("--keep", action="store_true", help="load, but leave the lines in the log")
    parser.add_argument("--again", action="store_true", help="load from the start, whatever was stored before")
    instead = parser.add_mutually_exclusive_group()
    instead.add_argument("--check", action="store_true", help="say what is ready and what is not; change nothing")
    instead.add_argument(
        "--replay-rejected",
        action="store_true",
        help="parse rejected_lines again; what is a record by now moves into logs",
    )
    loudness = parser.add_mutually_exclusive_group()
    loudness.add_argument("-v", "--verbose", action="store_true", help="say more")
    loudness.add_argument("-q", "--quiet", action="store_true", help="say only errors")
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    return parser


if __name__ == "__main__":
    sys.exit(main())
