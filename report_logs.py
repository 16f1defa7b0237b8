#!/usr/bin/env python3
"""Write one HTML page that shows what the database knows. For cron, or by hand; it only reads."""

from __future__ import annotations

import argparse
import os
import re
import shlex
import signal
import sys
from collections.abc import Sequence
from datetime import date, datetime, timezone
from pathlib import Path

import psycopg
from loguru import logger
from psycopg.sql import Identifier

from xraylog import __version__, atomic_file, cli, config, hints
from xraylog.cli import Exit
from xraylog.config import Config
from xraylog.database import schema, session
from xraylog.report import collect, run_history
from xraylog.report.masking import Mask
from xraylog.report.model import Window
from xraylog.telemetry import run_log
from xraylog.telemetry.prometheus import Metrics

MOST_DAYS = 366
FIRST_DAY = date(1970, 1, 1)
REQUIREMENTS = Path(__file__).resolve().parent / "requirements-report.txt"


def main(arguments: Sequence[str] | None = None) -> Exit:
    """One page; returns the exit status."""
    options = command_line().parse_args(arguments)
    try:
        cfg = config.read(options.config)
        config.refuse_for_output(cfg, options.output)
        config.refuse_nameless_zone(cfg)
    except config.ConfigError as error:
        print(error, file=sys.stderr)
        return Exit.CONFIGURATION
    refuse_other_days(options.until, today=datetime.now(cfg.zone).date())
    start_logging(cfg, options)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # else the queries go on in the server
    try:
        return report(cfg, options)
    except session.Unavailable as error:
        logger.error("PostgreSQL is not available: {}; no page was written; {}", error, mends(error, cfg))
        return Exit.FAILED
    except session.Unsuitable as error:
        logger.error("{}; no page was written; {}", error, mends(error, cfg))
        return Exit.OPERATOR
    except collect.UnknownNode as error:
        logger.error("--node: {}; no page was written", error)
        return Exit.OPERATOR
    except KeyboardInterrupt:
        logger.error("interrupted; no page was written")
        return Exit.FAILED
    except Exception as error:  # the only place that catches everything
        said = f"unexpected {type(error).__name__}: {'; '.join(str(error).splitlines())}"
        logger.opt(exception=options.verbose).error("{}; no page was written; for a report: -v", said)
        return Exit.FAILED


def refuse_other_days(until: date | None, today: date) -> None:
    """Exit as argparse does: which days there can be, the config's zone tells."""
    if until and not FIRST_DAY <= until <= today:
        command_line().error(f"argument --until: expected a day from {FIRST_DAY} to {today}, found {until}")


def report(cfg: Config, options: argparse.Namespace) -> Exit:
    """Ask, draw, write."""
    try:
        from xraylog.report import page  # here: what it needs is in no other requirements
    except ImportError as error:
        wanted = ["-r", str(REQUIREMENTS)] if REQUIREMENTS.exists() else ["xraylog[report]"]  # a checkout, or installed
        mend = shlex.join([sys.executable, "-m", "pip", "install", *wanted])
        logger.error("expected the package {}, found none; {}", error.name, mend)
        return Exit.OPERATOR
    now = datetime.now(timezone.utc)
    window, mask = Window.of(cfg.zone, options.days, options.until, now), Mask(options.mask)
    keywords = {"application_name": "report_logs", **cfg.connection}
    found = collect.read(lambda: session.connect(keywords), window, mask, said, options.node, cfg.report_timeout_s)
    metrics = Metrics(cfg.metrics_path, cfg.node, cfg.log_path)
    done = run_history.read(cfg.stats_path, cfg.stats_format, cfg.buffer_path, window, metrics)
    text = page.render(found, done, now, options.mask)
    try:
        place = Path(os.path.realpath(options.output))  # what a link leads to is replaced, not the link
        atomic_file.replace(place, text.encode(errors="replace"), mode=0o600)  # it holds personal data
    except OSError as error:
        where = error.filename or options.output
        logger.error("{}: expected to write the page, found: {}; no page was written", where, error.strerror)
        return Exit.OPERATOR
    say = logger.info if found.rows else logger.warning  # cron mails it: nothing was stored for days
    say("{}: {} rows of {} to {}", options.output, found.rows, window.first, window.last)
    return Exit.DONE


def mends(error: session.Unavailable | session.Unsuitable, cfg: Config) -> str:
    """Return what to do about it."""
    if isinstance(error.__cause__, psycopg.errors.QueryCanceled):
        return f"ask for fewer --days, or raise [report] statement_timeout in {cfg.path}"
    if isinstance(error.__cause__, psycopg.errors.InsufficientPrivilege):
        user = cfg.connection.get("user")
        role = Identifier(user).as_string(None) if user else "the role that libpq takes"
        return f"what to do, as their owner: GRANT SELECT ON {', '.join(schema.TABLES)} TO {role}"
    return hints.on(error, cfg)


def said(what: str, seconds: float) -> None:
    """Progress."""
    logger.info("asked for {}: {:.1f} s", what, seconds)


def start_logging(cfg: Config, options: argparse.Namespace) -> None:
    """To stderr only. A good page under cron says nothing."""
    run_log.to_stderr(cli.log_level(options, default="INFO" if cli.on_a_terminal() else "WARNING"))
    for warning in cfg.warnings:
        logger.warning("{}", warning)


def _day(text: str) -> date:
    try:
        if re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", text):
            return date.fromisoformat(text)
    except ValueError:
        pass
    raise argparse.ArgumentTypeError(f"expected a day as in 2025-11-17, found {text!r}")


def _page(text: str) -> Path:
    if text == "-":
        raise argparse.ArgumentTypeError("expected the path of a file, found - (standard output is none)")
    return cli.path(text)


def command_line() -> argparse.ArgumentParser:
    """Return the parser of the options, as --help shows them."""
    parser = argparse.ArgumentParser(
        usage="%(prog)s [options]", description="Write one HTML page that shows what the database knows."
    )
    cli.add_config(parser)
    parser.add_argument(
        "--output",
        type=_page,
        metavar="FILE",
        default=Path("report.html"),
        help="the page (default: report.html)",
    )
    parser.add_argument(
        "--days",
        type=cli.number(1, MOST_DAYS),
        metavar="N",
        default=7,
        help="how many days it shows (default: 7)",
    )
    parser.add_argument(
        "--until", type=_day, metavar="DAY", help="the last one of them, as in 2025-11-17 (default: today)"
    )
    parser.add_argument("--node", metavar="NAME", help="one node only")
    parser.add_argument(
        "--mask", action="store_true", help="addresses as /24 and /48, users and nodes by number: for a page to pass on"
    )
    cli.add_verbosity(parser)
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    return parser


if __name__ == "__main__":
    sys.exit(main())
