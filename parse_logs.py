#!/usr/bin/env python3
"""Load what is new in xray's access log into PostgreSQL. One run, from cron or by hand."""

from __future__ import annotations

import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parent))  # python -I and -P leave it out
import xraylog.required  # noqa: F401  # first: it names a package that is missing

# isort: split
from collections.abc import Sequence

from loguru import logger

from xraylog import cli, commands, config
from xraylog.accesslog import discovery, installation, lockfile, offline_buffer
from xraylog.cli import Exit, Options
from xraylog.config import Config
from xraylog.database.session import Unavailable, Unsuitable
from xraylog.ingest import buffer_import, confirmation, offline, online, outcome, source
from xraylog.ingest.outcome import Recorder
from xraylog.printed import complain, flush_at_exit
from xraylog.telemetry import run_log

# By default (5 ms) the parser's thread delays each reply to the server by that much (benchmarks/load.py).
SWITCH_INTERVAL_S = 0.0001
MAX_PARTITIONS = 366  # for --make-partitions: each is a table with three indexes


def main(arguments: Sequence[str] | None = None) -> Exit:
    """Do what the command line asks for; return the exit status."""
    flush_at_exit()
    options = parse_options(arguments)
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    try:
        cfg = config.read(options.config)
        paths, unmatched = discovery.resolve(options.logfiles, cfg)
        run_log.start(cfg, options)
    except config.ConfigError as error:
        complain(*error.complaints)
        return Exit.CONFIGURATION
    for pattern in unmatched:
        logger.warning("{}: expected a log, found none", pattern)
    try:
        cfg = installation.with_known_node(cfg)
        if options.is_command:  # --check, --dry-run, --make-partitions, --replay-rejected
            return commands.run(options, cfg, paths)
        with lockfile.locked(*discovery.lock_paths(paths, cfg)):
            return run(options, cfg, paths)
    except (Exception, KeyboardInterrupt) as error:  # the only place that catches everything
        return outcome.explain(error, cfg, options.verbose)


def run(options: Options, cfg: Config, paths: Sequence[Path]) -> Exit:
    """Store the new lines of every log, record the outcome, and drop expired days."""
    with outcome.recorded(cfg, paths) as recorder:
        with recorder.counting():
            ingest(options, cfg, paths, recorder)
        if recorder.caught_up and cfg.keep_days:
            recorder.status = commands.drop_expired(cfg)
    return recorder.status


def ingest(options: Options, cfg: Config, paths: Sequence[Path], recorder: Recorder) -> None:
    """Store every new line in PostgreSQL, or in the offline buffer while PostgreSQL is unavailable."""
    with discovery.opened(paths, cfg.buffer_path.parent) as logs, offline.opened(cfg) as buffer:
        recorder.begin()
        recorder.add(offline.report_missing_lines(cfg, buffer))
        sources = source.with_new_lines(cfg, options, paths, logs)
        try:
            if sources or not buffer.is_empty:
                with online.connected(cfg) as target:
                    recorder.add(confirmation.check_database(cfg, target, sources, buffer))
                    recorder.add(buffer_import.load(cfg, target, buffer, sources))
                    for log in sources:
                        recorder.add(online.load(target, log))
        except (Unavailable, Unsuitable, offline_buffer.Damaged) as reason:
            recorder.go_offline(reason)
            recorder.add(offline.spool_all(buffer, [log for log in sources if not log.is_stored]))
        recorder.finish(sources)


# --- the command line ----------------------------------------------------------------------------------------


def parse_options(arguments: Sequence[str] | None) -> Options:
    """Parse the command line; exit with status 2 if it is wrong."""
    parser = cli.ArgumentParser(
        usage="%(prog)s [options]", description="Load what is new in xray's access log into PostgreSQL."
    )
    cli.add_config(parser)
    parser.add_argument(
        "--logfile",
        type=cli.name,
        action="append",
        default=[],
        metavar="FILE",
        dest="logfiles",
        help="read this log instead of the configured one, and empty it unless it is compressed; "
        "a quoted pattern or - for standard input, too; may be repeated",
    )
    parser.add_argument("--keep", action="store_true", help="load, but leave the lines in the log")
    parser.add_argument("--again", action="store_true", help="load from the start, whatever was stored before")
    instead = parser.add_mutually_exclusive_group()
    instead.add_argument("--check", action="store_true", help="print what is ready and what is not; change nothing")
    instead.add_argument("--dry-run", action="store_true", help="count what a run would do; change nothing")
    instead.add_argument(
        "--make-partitions",
        type=cli.number(0, MAX_PARTITIONS),
        metavar="N",
        help="create the partitions of today and the next N days (UTC), and do nothing else",
    )
    instead.add_argument(
        "--replay-rejected",
        action="store_true",
        help="parse rejected_lines again; lines that are records now move into logs",
    )
    cli.add_verbosity(parser)
    cli.add_version(parser)
    found = vars(parser.parse_args(arguments))
    return Options(**{**found, "logfiles": tuple(found["logfiles"])})


if __name__ == "__main__":
    sys.exit(main())
