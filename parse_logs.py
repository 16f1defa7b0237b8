#!/usr/bin/env python3
"""Turn xray's access log into rows of PostgreSQL. One run, for cron or by hand."""

from __future__ import annotations

import argparse
import dataclasses
import functools
import hashlib
import shlex
import sys
import time
from collections.abc import Iterator, Sequence
from datetime import datetime, timezone
from pathlib import Path

from loguru import logger

from xraylog import __version__, cli, config, hints
from xraylog.accesslog import discovery, lockfile, logfile, offline_buffer
from xraylog.accesslog.logfile import Log, LogFile
from xraylog.accesslog.masking import Mask
from xraylog.accesslog.offline_buffer import Buffer, Written
from xraylog.accesslog.parser import PREFIXED, Parser
from xraylog.cli import Exit
from xraylog.config import Config
from xraylog.database import positions, schema, session
from xraylog.database.positions import Move, Position
from xraylog.loading.loader import Target
from xraylog.prefetch import Ahead
from xraylog.records import Batch, Fingerprint, LoadResult, Origin
from xraylog.telemetry import prometheus, run_log, stats
from xraylog.telemetry.prometheus import Metrics

PROGRESS_S = 10
# Else up to 5 ms pass between each answer of the server and our next word, while another thread parses:
# benchmarks/load.py shows it when main() leaves it out.
SWITCH_S = 0.0001
SUSPICIOUS = 20  # rejected lines, and not one good one
NOTHING = Fingerprint(0, hashlib.sha256().digest())  # of an empty file
MOST_DAYS = 366  # for --make-partitions: each is a table with three indexes


def main(arguments: Sequence[str] | None = None) -> Exit:
    """One run; returns the exit status."""
    options = command_line().parse_args(arguments)
    sys.setswitchinterval(SWITCH_S)
    try:
        cfg = config.read(options.config)
        paths, unmatched = discovery.named(options.logfile, cfg.is_ours) if options.logfile else ([cfg.log_path], [])
        config.refuse_ours(cfg, paths)
        start_logging(cfg, options)
    except config.ConfigError as error:
        print(error, file=sys.stderr)
        return Exit.CONFIGURATION
    for pattern in unmatched:
        logger.warning("{}: expected a log, found none", pattern)
    try:
        if options.check or options.dry_run or options.make_partitions is not None or options.replay_rejected:
            return instead_of_a_run(cfg, options, paths)
        with lockfile.locked(*lock_paths(cfg, paths)):
            return run(cfg, options, paths)
    except logfile.Busy as error:
        logger.error("another run is at work: {}; nothing to do; see: {}", error, hints.command(cfg, "--check"))
        return Exit.BUSY
    except (logfile.Unusable, offline_buffer.Damaged) as error:
        logger.error("{}; nothing was read; {}", error, hints.on(error, cfg))
        return Exit.OPERATOR
    except KeyboardInterrupt:
        logger.error("interrupted; what was committed stays, and the next run goes on behind it")
        return Exit.FAILED
    except Exception as error:  # the only place that catches everything
        said = f"unexpected {type(error).__name__}: {'; '.join(str(error).splitlines())}"
        logger.opt(exception=options.verbose).error(
            "{}; the next run tries again; for a report: {}", said, hints.command(cfg, "-v")
        )
        return Exit.FAILED


def instead_of_a_run(cfg: Config, options: argparse.Namespace, paths: Sequence[Path]) -> Exit:
    """What the options ask for; returns the exit status."""
    from xraylog.commands import (  # here: a run needs none of them, and they take a tenth of its start
        check,
        dry_run,
        maintain,
    )

    cli.escape_what_cannot_be_printed()
    if options.check:
        return Exit.OPERATOR if check.report(cfg, paths) else Exit.DONE
    if options.dry_run:
        return Exit.OPERATOR if dry_run.report(cfg, paths, options.keep, options.again) else Exit.DONE
    if options.replay_rejected:
        return maintain.replay_rejected(cfg)
    return maintain.make_partitions(cfg, options.make_partitions)


def run(cfg: Config, options: argparse.Namespace, paths: Sequence[Path]) -> Exit:
    """One pass over all logs. The total is right even when the database goes away halfway."""
    started, clock = datetime.now(), time.monotonic()  # noqa: DTZ005  # local time is what the row promises
    stored, put, mode, status = LoadResult(), LoadResult(), "online", Exit.FAILED
    published = Metrics(cfg.metrics_path, cfg.node, cfg.log_path, list(paths) == [cfg.log_path])
    began, is_at_work = time.time(), True
    try:
        with (
            discovery.opened(paths, cfg.buffer_path.parent) as found,
            offline_buffer.opened(cfg.buffer_path, Mask(*cfg.mask_source)) as aside,
        ):
            published.begin(began)
            if aside.torn:
                logger.warning("{} ended in a torn batch; it is now in {}", aside.path, aside.torn)
            logs = with_lines(options, paths, found)
            number, offset = 0, None  # the log at work, and how far the database is known to have it
            try:
                for result, number, offset in store(cfg, options, logs, aside):  # noqa: B007  # used below
                    stored += result
                status = Exit.DONE
            except (session.Unavailable, session.Unsuitable, offline_buffer.Damaged) as reason:
                mode, status_of_reason = "offline", explain(reason, cfg)
                for result in put_all_aside(cfg, options, logs[number:], aside, offset):
                    put += result
                status = status_of_reason
            if any(log.damage for log in logs):
                status = Exit.OPERATOR
    except (logfile.Unusable, offline_buffer.Damaged):
        status = Exit.OPERATOR
        raise
    except logfile.Busy:
        is_at_work = False  # another run is, and tells of itself
        raise
    except positions.Moved as error:
        logger.error("{}; it stores these lines", error)
        status = Exit.BUSY
    except OSError as error:
        what, stays = f"{error.filename or 'disk'}: {error.strerror}", f"what is not stored stays in {names_of(paths)}"
        logger.error("{}; {}; the next run tries again; {}", what, stays, hints.on(error, cfg))
    finally:
        if is_at_work:
            seconds = time.monotonic() - clock
            status = tell(cfg, paths, stored + put, stats.row(started, mode, seconds, stored + put), status)
            has_all = status == Exit.DONE and mode == "online"
            if has_all and cfg.keep_days:
                from xraylog.commands import maintain  # here: as above

                status = maintain.drop_old(cfg)
            lines = prometheus.outcomes(stored, put)
            status = publish(cfg, published, prometheus.Ended(began, seconds, status, has_all, lines))
    return status


def with_lines(options: argparse.Namespace, paths: Sequence[Path], found: Sequence[Log]) -> list[Log]:
    """The logs that have lines to read, as far as the files alone can tell; says which do not."""
    there = {log.path for log in found}
    for path in paths:
        if path not in there:
            logger.log("WARNING" if options.logfile else "INFO", "{}: expected a log, found none", path)
    logs = [log for log in found if not has_nothing(log, options)]
    for log in found:
        if log not in logs:
            logger.info("{}: nothing new", log.path)
    return logs


def store(
    cfg: Config, options: argparse.Namespace, logs: Sequence[Log], aside: Buffer
) -> Iterator[tuple[LoadResult, int, int | None]]:
    """First what earlier runs put aside, then what is new in the logs.

    Each result with the number of the log at work, and how far that one is stored.
    """
    if aside.is_empty and not logs:
        return
    with session.connect(cfg.connection) as conn:
        for warning in schema.ensure(conn).warnings:
            logger.warning("{}", warning)
        target = Target(conn, functools.partial(session.connect, cfg.connection))
        if not aside.is_empty:
            for result in import_buffer(target, aside):
                yield result, 0, None
        for number, log in enumerate(logs):
            yield LoadResult(), number, None
            for result, offset in load_log(target, cfg, options, log):
                yield result, number, offset
        if target.keys.advice:
            logger.info("{}", target.keys.advice)


def load_log(target: Target, cfg: Config, options: argparse.Namespace, log: Log) -> Iterator[tuple[LoadResult, int]]:
    """Store what is new in the log, batch by batch; then take it out of the log."""
    position = find_position(target, cfg, log)
    if options.again and position.id is not None:
        with session.transaction(target.conn, positions.node_lock(cfg.node)):
            position = positions.move(target.conn, Move(position, 0, NOTHING))
    yield LoadResult(), position.offset

    def behind(position: Position, offset: int) -> Move:
        log.sync()
        return Move(position, offset, log.fingerprint(offset))

    reading = functools.partial(read, cfg, log)
    for result, position in target.loader(cfg.node).load_all(reading, position, behind):  # noqa: B020  # goes on there
        yield result, position.offset
    if file := to_drain(options, log, position.offset):
        for offset in drain(target, cfg, file, position):
            yield LoadResult(), offset


def find_position(target: Target, cfg: Config, log: Log) -> Position:
    """Where the last run ended; waits for one that died while its transaction is still in the server."""
    node_id = target.node_id(cfg.node)
    origin = offline_buffer.origin(cfg.node, log)
    with session.transaction(target.conn, positions.node_lock(cfg.node)):
        position = positions.find(
            target.conn, node_id, origin.source, origin.fingerprints, origin.predecessor, log.most
        )
        positions.forget_old(target.conn, position)
    if position.lost is not None and isinstance(log, LogFile):  # others have other names and bytes at every rotation
        logger.warning(
            "{} was emptied, replaced or renamed by somebody else: it was stored up to byte {}; "
            "going on from its beginning; if it was renamed: {}",
            log.path,
            position.lost,
            hints.command(cfg, "--logfile", f"{log.path}.1"),
        )
    return position


def read(cfg: Config, log: Log, offset: int) -> Iterator[Batch]:
    """Batches of what stands behind `offset`. Says once when it has a prefix that xray does not write."""
    said = False
    parser = Parser(cfg.zone, datetime.now(timezone.utc), Mask(*cfg.mask_source))
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
    if position.found_as != position.source and discovery.is_at(Path(position.found_as), known, but=log):
        position = dataclasses.replace(position, id=None)  # the other file still has its lines, and its position
    if position.id is None and not drained.offset:
        return  # no line of it was ever stored: there is no position to move
    with session.transaction(target.conn, positions.node_lock(cfg.node)):
        position = positions.move(target.conn, Move(position, drained.offset, drained.fingerprint))
    if log.empty(drained.offset, cfg.truncate_above):
        yield 0
        with session.transaction(target.conn, positions.node_lock(cfg.node)):
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


def to_drain(options: argparse.Namespace, log: Log, offset: int) -> LogFile | None:
    """The log, if the stored lines are to be taken out of it. Says why not, and where it could not be read on."""
    if log.damage:
        logger.error("{}: {}; its lines up to byte {} are stored", log.path, log.damage, offset)
    elif log.unended and not isinstance(log, LogFile):
        logger.warning("{}: its last line has no end, and is left out", log.path)
    if not isinstance(log, LogFile):
        return None
    if log.replaced:
        logger.warning("{} was emptied or replaced during this run, behind byte {}", log.path, offset)
    elif not log.writable and not options.keep:
        logger.warning(
            "{} may not be written: its lines are stored, remembered and left there; run as its owner, or with --keep; "
            "who owns it: {}",
            log.path,
            shlex.join(["ls", "-l", str(log.path)]),
        )
    return None if options.keep or log.replaced or not log.writable else log


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
        yield LoadResult(new_names=result.new_names, imported=result.rows, imported_rejected=result.rejected)
    aside.clear(here.offset)  # its position stays: a copy of the buffer that somebody puts back is known
    logger.info(
        "{} imported: {} rows + {} rejected + {} stored before", aside.path, total.rows, total.rejected, skipped
    )


def find_buffer(target: Target, aside: Buffer) -> Position:
    """How far an earlier run imported the buffer."""
    node_id, source = target.node_id(aside.node), logfile.path_text(aside.path)
    with session.transaction(target.conn, positions.node_lock(aside.node)):
        return positions.find(target.conn, node_id, source, aside.file.fingerprints(), size=aside.size)


def find_origin(target: Target, origin: Origin) -> Position:
    """How far the log of a buffered batch is stored. A copy of a log that is still there gets a row of its own."""
    node_id = target.node_id(origin.node)
    with session.transaction(target.conn, positions.node_lock(origin.node)):
        position = positions.find(target.conn, node_id, origin.source, origin.fingerprints, origin.predecessor)
    known = origin.fingerprint(position.offset)
    if position.found_as != position.source and known and discovery.is_at(Path(position.found_as), known):
        return dataclasses.replace(position, id=None)
    return position


def put_all_aside(
    cfg: Config, options: argparse.Namespace, logs: Sequence[Log], aside: Buffer, offset: int | None
) -> Iterator[LoadResult]:
    """Put what is new in the logs into the buffer. `offset` is where the database ended in the first of them, if it
    said so before it went away.
    """
    names = stats.Names()
    for log in logs:
        yield from put_aside(cfg, options, log, aside, names, offset)
        offset = None


def put_aside(
    cfg: Config, options: argparse.Namespace, log: Log, aside: Buffer, names: stats.Names, offset: int | None
) -> Iterator[LoadResult]:
    """Put what is new in a log into the buffer; then take it out of the log."""
    again = options.again and offset is None  # else the database has been told, and counts from 0
    at = 0 if again else max(offset or 0, aside.reached(log.fingerprints(), log.most))

    def written() -> Iterator[tuple[Written, LoadResult]]:
        for batch in read(cfg, log, at):
            new_names = names.new_in(batch.records.names())
            result = LoadResult(batch.lines, len(batch.records), len(batch.bad_lines), batch.ignored, new_names)
            yield offline_buffer.write(batch), result

    with Ahead(written()) as coming:
        for batch, result in coming:
            log.sync()
            aside.put(batch, offline_buffer.origin(cfg.node, log, again))
            at = batch.end
            del batch
            yield result
    if (file := to_drain(options, log, at)) and (drained := drain_file(cfg, file, at)):
        file.empty(drained.offset, cfg.truncate_above, leave=logfile.MARK_BYTES)


def has_nothing(log: Log, options: argparse.Namespace) -> bool:
    """Whether there is no line to read, as far as the file alone can tell."""
    return log.is_empty or (log.holds_only_our_mark() and not options.again)


def explain(reason: Exception, cfg: Config) -> Exit:
    """Say why this run goes on without the database; returns the exit status that it will have."""
    what_next = f"new lines go to {cfg.buffer_path}; {hints.on(reason, cfg)}"
    if isinstance(reason, schema.Migrating):
        logger.warning("{}; {}", reason, what_next)
        return Exit.DONE
    if isinstance(reason, session.Unavailable):
        logger.warning("PostgreSQL is not available: {}; {}", reason, what_next)
        return Exit.DONE
    logger.error("{}; {}", reason, what_next)
    return Exit.OPERATOR


def tell(cfg: Config, paths: Sequence[Path], total: LoadResult, row: stats.Row, status: Exit) -> Exit:
    """The statistics row, and one line that adds up; returns the run's exit status, which they may change."""
    logger.info(
        "{} lines read = {} rows + {} rejected + {} ignored",
        total.lines,
        total.rows,
        total.rejected,
        sum(total.ignored.values()),
    )
    if total.rejected >= SUSPICIOUS and not total.rows:
        question = f"is {names_of(paths)} its access log? Else change [parser] logfile in {cfg.path}"
        logger.warning("not one of {} lines is xray's; {}", total.lines, question)
    if cfg.stats_format:
        try:
            stats.write(row, cfg.stats_format, cfg.stats_path)
        except stats.NotWritten as error:
            logger.error("{}; what was committed stays; {}", error, hints.on(error, cfg))
            return status or Exit.OPERATOR
    if not total.adds_up:
        logger.error("the counts do not add up: {} lines were read; please report this", total.lines)
        return status or Exit.FAILED
    return status


def publish(cfg: Config, published: Metrics, run: prometheus.Ended) -> Exit:
    """The metrics; returns the run's exit status, which they may change."""
    try:
        published.end(run, cfg.buffer_path)
    except prometheus.NotWritten as error:
        logger.error("{}; what was committed stays; {}", error, hints.on(error, cfg))
        return Exit(run.status or Exit.OPERATOR)
    return Exit(run.status)


def names_of(paths: Sequence[Path]) -> str:
    """The logs, for a message."""
    names = ["what was piped in" if path == discovery.STDIN else str(path) for path in paths]
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def lock_paths(cfg: Config, paths: Sequence[Path]) -> list[Path]:
    """The locks of the logs that a run changes, and the buffer's."""
    guarded = [path for path in paths if discovery.is_drained(path)]
    return [lockfile.lock_path(path, cfg.buffer_path.parent) for path in (*guarded, cfg.buffer_path)]


def start_logging(cfg: Config, options: argparse.Namespace) -> None:
    """To stderr, and to a file if the config names one. A good run under cron says nothing."""
    level = cfg.log_level or ("INFO" if cli.on_a_terminal() else "WARNING")
    level = cli.level(options, otherwise=level)
    run_log.to_stderr(level)
    if cfg.own_log_path and not (options.check or options.dry_run):
        try:
            run_log.to_file(cfg.own_log_path, level)
        except OSError as error:
            raise config.ConfigError(
                [f"{cfg.path}: [logging] file: expected a file that can be written, found: {error.strerror}"]
            ) from error
    for warning in cfg.warnings:
        logger.warning("{}", warning)


def command_line() -> argparse.ArgumentParser:
    """The options, as --help shows them."""
    parser = argparse.ArgumentParser(
        usage="%(prog)s [options]", description="Load what is new in xray's access log into PostgreSQL."
    )
    cli.add_config(parser)
    parser.add_argument(
        "--logfile",
        type=cli.name,
        action="append",
        metavar="FILE",
        help="read this log instead of the configured one, and empty it unless it is compressed; "
        "a quoted pattern or - for standard input, too; may be repeated",
    )
    parser.add_argument("--keep", action="store_true", help="load, but leave the lines in the log")
    parser.add_argument("--again", action="store_true", help="load from the start, whatever was stored before")
    instead = parser.add_mutually_exclusive_group()
    instead.add_argument("--check", action="store_true", help="say what is ready and what is not; change nothing")
    instead.add_argument("--dry-run", action="store_true", help="say what a run would do, with counts; change nothing")
    instead.add_argument(
        "--make-partitions",
        type=cli.number(0, MOST_DAYS),
        metavar="N",
        help="make the partitions of today and the next N days (UTC), and do nothing else",
    )
    instead.add_argument(
        "--replay-rejected",
        action="store_true",
        help="parse rejected_lines again; what is a record by now moves into logs",
    )
    cli.add_loudness(parser)
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    return parser


if __name__ == "__main__":
    sys.exit(main())
