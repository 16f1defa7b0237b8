#!/usr/bin/env python3
"""Turn xray's access log into rows of PostgreSQL. One run, for cron or by hand."""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import os
import sys
import time
from collections.abc import Iterator, Sequence
from datetime import datetime, timezone
from pathlib import Path

from loguru import logger

from xraylog import __version__, check, config, database, loader, logfile, positions, references, schema, stats
from xraylog.config import Config
from xraylog.database import Connection
from xraylog.logfile import LogFile
from xraylog.parser import PREFIXED, Parser
from xraylog.positions import Position
from xraylog.records import Batch, Fingerprint, LoadResult

DONE, FAILED, OPERATOR, BUSY, CONFIGURATION = 0, 1, 3, 75, 78  # exit statuses; argparse's own is 2
NOTHING = Fingerprint(0, hashlib.sha256().digest())  # of an empty file


def main(arguments: Sequence[str] | None = None) -> int:
    """One run; returns the exit status."""
    options = command_line().parse_args(arguments)
    try:
        cfg = config.read(options.config)
        if options.logfile:
            cfg = dataclasses.replace(cfg, log_path=Path(os.path.abspath(options.logfile)))
        start_logging(cfg, options)
    except config.ConfigError as error:
        print(error, file=sys.stderr)
        return CONFIGURATION
    if options.check:
        return OPERATOR if check.report(cfg) else DONE
    try:
        with logfile.locked(*lock_paths(cfg)):
            return run(cfg, options)
    except logfile.Busy as error:
        logger.error("another run is at work: {}; nothing to do", error)
        return BUSY
    except logfile.Unusable as error:
        logger.error("{}; nothing was read", error)
        return OPERATOR
    except KeyboardInterrupt:
        logger.error("interrupted; what was committed stays, and the next run goes on behind it")
        return FAILED
    except Exception as error:  # the only place that catches everything
        logger.opt(exception=options.verbose).error("unexpected {}: {}", type(error).__name__, error)
        return FAILED


def run(cfg: Config, options: argparse.Namespace) -> int:
    """One pass over the log. The total is right even when the database goes away halfway."""
    started, clock = datetime.now(), time.monotonic()  # noqa: DTZ005  # local time is what the row promises
    total, status = LoadResult(), FAILED
    try:
        for result in ingest(cfg, options):
            total += result
        status = DONE
    except database.Unavailable as error:
        logger.error("PostgreSQL is not available: {}; what is not stored stays in {}", error, cfg.log_path)
    except database.Unsuitable as error:
        logger.error("PostgreSQL cannot be used: {}; what is not stored stays in {}", error, cfg.log_path)
        status = OPERATOR
    except positions.Moved as error:
        logger.error("{}; it stores these lines", error)
        status = BUSY
    except OSError as error:
        logger.error("{}: {}; what is not stored stays there", cfg.log_path, error)
    finally:
        told = tell(cfg, total, stats.row(started, "online", time.monotonic() - clock, total))
    return status or told


def ingest(cfg: Config, options: argparse.Namespace) -> Iterator[LoadResult]:
    """Store what is new in the log, batch by batch; then take it out of the log."""
    with logfile.opened(cfg.log_path) as log:
        if log is None or log.size == 0 or (log.holds_only_our_mark() and not options.again):
            logger.info("{}: nothing new", cfg.log_path)
            return
        with database.connect(cfg.connection) as conn:
            for warning in schema.ensure(conn).warnings:
                logger.warning(warning)
            names = references.References(conn)
            position = find_position(conn, cfg, log, references.node_id(names, cfg.node))
            if options.again:
                position = dataclasses.replace(position, offset=0)
            load = loader.Loader(conn, names, schema.Partitions(conn), cfg.node).load
            for batch in read(cfg, log, position.offset):
                log.sync()
                result, position = load(batch, position, log.fingerprint(batch.end))
                yield result
            if log.replaced:
                logger.warning("{} was emptied or replaced during this run, behind byte {}", log.path, position.offset)
            elif not options.keep:
                drain(conn, cfg, log, position)


def find_position(conn: Connection, cfg: Config, log: LogFile, node_id: int) -> Position:
    """Where the last run ended; waits for one that died while its transaction is still in the server."""
    source = os.fsencode(log.path).decode(errors="backslashreplace")
    with database.transaction(conn, loader.node_lock(cfg.node)):
        position = positions.find(conn, node_id, source, log.size, log.fingerprints(), log.predecessor)
        positions.forget_old(conn, node_id)
    if position.lost is not None:
        logger.warning(
            "{} was emptied, replaced or renamed by somebody else: it was stored up to byte {}; "
            "going on from its beginning",
            log.path,
            position.lost,
        )
    return position


def read(cfg: Config, log: LogFile, offset: int) -> Iterator[Batch]:
    """Batches of what stands behind `offset`. Says once when all of it has a prefix that xray does not write."""
    said = False
    parser = Parser(cfg.zone, datetime.now(timezone.utc))
    for batch in parser.batches(log.blocks(offset), cfg.batch_size):
        yield batch
        for at, bad in batch.bad_lines:
            logger.debug("{}, byte {}: {}", log.path, at, bad.reason)
            if not said and bad.reason.startswith(PREFIXED):
                logger.warning("{}, byte {}: {}; such lines go to rejected_lines", log.path, at, bad.reason)
                said = True


def drain(conn: Connection, cfg: Config, log: LogFile, position: Position) -> None:
    """Take the stored lines out of the log, while xray appends; the position follows."""
    if not log.writable:
        logger.warning("{} may not be written: its lines are stored, remembered and left there", log.path)
        return
    try:
        drained = log.drain(position.offset, cfg.truncate_above)
    except logfile.Replaced:
        logger.warning(
            "{} was emptied or replaced during this run; it was stored up to byte {}", log.path, position.offset
        )
        return
    if drained.kept:
        logger.info("{}: this file system cannot drain a log that is open elsewhere; its lines stay", log.path)
        return
    with database.transaction(conn, loader.node_lock(cfg.node)):
        position = positions.move(conn, position, drained.offset, drained.fingerprint)
    if log.empty(drained.offset, cfg.truncate_above):
        with database.transaction(conn, loader.node_lock(cfg.node)):
            positions.move(conn, position, 0, NOTHING)


def tell(cfg: Config, total: LoadResult, row: stats.Row) -> int:
    """The statistics row, and one line that adds up."""
    logger.info(
        "{} lines read = {} rows + {} rejected + {} ignored",
        total.lines,
        total.rows,
        total.rejected,
        sum(total.ignored.values()),
    )
    if cfg.stats_format:
        try:
            stats.write(row, cfg.stats_format, cfg.stats_path)
        except stats.NotWritten as error:
            logger.error("{}; what was committed stays", error)
            return OPERATOR
    if not total.adds_up:
        logger.error("the counts do not add up: {} lines were read; please report this", total.lines)
        return FAILED
    return DONE


def lock_paths(cfg: Config) -> tuple[Path, Path]:
    """The log's lock and the buffer's."""
    folder = cfg.buffer_path.parent
    return logfile.lock_path(cfg.log_path, folder), logfile.lock_path(cfg.buffer_path, folder)


def start_logging(cfg: Config, options: argparse.Namespace) -> None:
    """To stderr, and to a file if the config names one. A good run under cron says nothing."""
    level = cfg.log_level or ("INFO" if stats.on_a_terminal() else "WARNING")
    level = "DEBUG" if options.verbose else "ERROR" if options.quiet else level
    form = "{time:YYYY-MM-DD HH:mm:ss} {level: <7} {message}"
    logger.remove()
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


def command_line() -> argparse.ArgumentParser:
    """The options, as --help shows them."""
    parser = argparse.ArgumentParser(description="Load what is new in xray's access log into PostgreSQL.")
    parser.add_argument("--config", type=Path, default=Path("config.ini"), help="settings (default: config.ini)")
    parser.add_argument("--logfile", help="read this log instead of the configured one")
    parser.add_argument("--keep", action="store_true", help="load, but leave the lines in the log")
    parser.add_argument("--again", action="store_true", help="load from the start, whatever was stored before")
    parser.add_argument("--check", action="store_true", help="say what is ready and what is not; change nothing")
    loudness = parser.add_mutually_exclusive_group()
    loudness.add_argument("-v", "--verbose", action="store_true", help="say more")
    loudness.add_argument("-q", "--quiet", action="store_true", help="say only errors")
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    return parser


if __name__ == "__main__":
    sys.exit(main())
