#!/usr/bin/env python3
"""Write one HTML page that shows what the database knows. For cron, or by hand; it only reads."""

from __future__ import annotations

import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parent))  # python -I and -P leave it out
import xraylog.required  # first: it names a package that is missing

# isort: split
import argparse
import signal
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timezone

from loguru import logger

from xraylog import atomic_file, cli, config, file_advice, hints
from xraylog.cli import Exit
from xraylog.config import Config
from xraylog.database import session
from xraylog.printed import complain, flush_at_exit
from xraylog.questions import moments
from xraylog.questions.moments import Span
from xraylog.report import collect, run_history
from xraylog.report.collect import Scope
from xraylog.report.model import Findings
from xraylog.report.page_mask import PageMask
from xraylog.report.window import Window
from xraylog.telemetry import run_log
from xraylog.telemetry.prometheus import Metrics

MAX_DAYS = 366
FIRST_DAY = datetime(1970, 1, 1, tzinfo=timezone.utc)


@dataclass(frozen=True)
class Options:
    """The command line of report_logs.py."""

    config: Path
    output: Path
    mode: str  # of that file, as chmod takes it
    days: int
    since: str | None  # these two as typed: the config has the time zone in which to read them
    until: str | None
    refresh: int  # seconds; 0: the page stays as it is
    node: str | None
    mask: bool
    verbose: bool
    quiet: bool


def main(arguments: Sequence[str] | None = None) -> Exit:
    """Write one page; return the exit status."""
    flush_at_exit()
    options = parse_options(arguments)
    try:
        cfg = config.read(options.config)
        config.refuse_for_output(cfg, options.output)
        config.refuse_nameless_zone(cfg)
    except config.ConfigError as error:
        complain(*error.complaints)
        return Exit.CONFIGURATION
    now = datetime.now(timezone.utc)
    window = window_of(cfg, options, now)
    start_logging(cfg, options)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # otherwise the queries go on in the server
    try:
        return run(cfg, options, window, now)
    except (Exception, KeyboardInterrupt) as error:  # the only place that catches everything
        return explain(error, cfg, options.verbose)


def run(cfg: Config, options: Options, window: Window, now: datetime) -> Exit:
    """Read the database and the files of the runs, and write what they show."""
    try:
        from xraylog.report import page  # here: what it needs is in no other requirements
    except ImportError as error:
        install = xraylog.required.install_command("requirements-report.txt", "xraylog[report]")
        logger.error("expected the package {}, found none; {}", error.name, install)
        return Exit.OPERATOR
    scope = Scope(window, PageMask(options.mask), options.node)
    keywords = {"application_name": "report_logs", **cfg.connection}
    found = collect.read(lambda: session.connect(keywords, to_write=False), scope, log_query, cfg.report_timeout_s)
    metrics = Metrics(cfg.metrics_path, cfg.node, cfg.log_path)
    runs = run_history.read(cfg.stats_path, cfg.stats_format, cfg.buffer_path, scope.window, metrics)
    return write(options, page.render(found, runs, now, options.mask, options.refresh), found)


def write(options: Options, text: str, found: Findings) -> Exit:
    """Replace the page atomically, and log what it covers."""
    output, mode = options.output, int(options.mode, 8)
    try:
        atomic_file.replace(output, text.encode(errors="replace"), mode)
    except OSError as error:
        path = error.filename or output
        what = f"{path}: expected to write the page, found: {error.strerror}"
        advice = file_advice.how_to_fix(Path(path), error, file_advice.Needs.REPLACED)
        logger.error("{}", hints.joined(what, "no page was written", advice))
        return Exit.OPERATOR
    log = logger.info if found.rows else logger.warning  # cron mails it: nothing was stored for days
    log("{}: {} rows of {} to {}", output, found.rows, found.window.first, found.window.last)
    return Exit.DONE


def explain(error: BaseException, cfg: Config, verbose: bool) -> Exit:
    """Log why there is no page, with the command that fixes it; return the exit status."""
    if isinstance(error, (session.Unavailable, session.Unsuitable)):
        is_away = isinstance(error, session.Unavailable)
        what = f"PostgreSQL is not available: {error}" if is_away else error
        hint = hints.on_reading(error, cfg, "ask for fewer --days")
        logger.error("{}", hints.joined(what, "no page was written", hint))
        return Exit.FAILED if is_away else Exit.OPERATOR
    if isinstance(error, collect.UnknownNode):
        logger.error("--node: {}; no page was written", error)
        return Exit.OPERATOR
    if isinstance(error, KeyboardInterrupt):
        logger.error("interrupted; no page was written")
        return Exit.FAILED
    message = f"{cli.unexpected(error)}; no page was written; for the traceback: -v"
    logger.opt(exception=error if verbose else None).error("{}", message)
    return Exit.FAILED


def log_query(name: str, seconds: float) -> None:
    """Log the time that a query took."""
    logger.info("asked for {}: {:.1f} s", name, seconds)


def start_logging(cfg: Config, options: Options) -> None:
    """Log to stderr only; a good page under cron logs nothing."""
    run_log.to_stderr(
        cli.log_level(options.verbose, options.quiet, default="INFO" if cli.on_a_terminal() else "WARNING")
    )
    for warning in cfg.warnings:
        logger.warning("{}", warning)


# --- the command line ----------------------------------------------------------------------------------------


def _page(text: str) -> Path:
    if text == "-":
        raise argparse.ArgumentTypeError("expected the path of a file, found - (standard output is not a file)")
    return cli.path(text)


def parser() -> argparse.ArgumentParser:
    """Return the parser of the options."""
    parser = cli.ArgumentParser(
        usage="%(prog)s [options]", description="Write one HTML page that shows what the database knows."
    )
    add = parser.add_argument
    cli.add_config(parser)
    add("--output", type=_page, metavar="FILE", default="report.html", help="the page (default: report.html)")
    add("--mode", choices=("600", "640"), default="600", help="640: its group may read it, too (default: 600)")
    add("--days", type=cli.number(1, MAX_DAYS), metavar="N", default=7, help="how many days it shows (default: 7)")
    add("--since", metavar="TIME", help="from then on, in place of --days: 12h ago, a day, or a moment")
    add("--until", metavar="TIME", help="the last day, as in 2025-11-17, or a moment (default: now)")
    again = "how often the page loads itself anew"
    add("--refresh", type=cli.number(10, 86_400), metavar="SECONDS", default=0, help=again)
    add("--node", metavar="NAME", help="one node only")
    mask = "addresses as /24 and /48, users and nodes by number: for a page to pass on"
    add("--mask", action="store_true", help=mask)
    cli.add_verbosity(parser)
    cli.add_version(parser)
    return parser


def parse_options(arguments: Sequence[str] | None) -> Options:
    """Parse the command line; exit with status 2 if it is wrong."""
    return Options(**vars(parser().parse_args(arguments)))


def window_of(cfg: Config, options: Options, now: datetime) -> Window:
    """Return the period that the page shows. Exits with status 2 if the options do not give a valid one."""
    try:
        since = moments.read(options.since, now, cfg.zone).begin if options.since else None
        until = moments.read(options.until, now, cfg.zone) if options.until else Span(now, now)
    except moments.Unreadable as error:
        parser().error(f"argument --since or --until: {error}")
    if not FIRST_DAY <= until.begin <= now:
        parser().error(
            f"argument --until: expected a day or moment from {FIRST_DAY:%Y-%m-%d} to now, found {options.until}"
        )
    window = Window.ending(cfg.zone, min(until.end, now), options.days)
    if since is not None:
        window = replace(window, since=since)
        if not FIRST_DAY <= since < window.until or len(window.days) > MAX_DAYS:
            parser().error(f"argument --since: expected up to {MAX_DAYS} days before --until, found {options.since}")
    return window


if __name__ == "__main__":
    sys.exit(main())
