#!/usr/bin/env python3
"""Answer a question from the database. Run by hand; it only reads, so a role with SELECT is enough.

One command writes, `networks load`: it fills the optional table `networks`.
"""

from __future__ import annotations

import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parent))  # python -I and -P leave it out
import xraylog.required  # noqa: F401  # first: it names a package that is missing

# isort: split
import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from loguru import logger

from xraylog import cli, config, hints
from xraylog.cli import Exit
from xraylog.config import Config
from xraylog.database import deadline, networks, session
from xraylog.networks import files
from xraylog.printed import complain, flush_at_exit, say
from xraylog.questions import asking, moments, names, output, parameters
from xraylog.questions.catalog import QUESTIONS, Question
from xraylog.questions.fetching import PIECE
from xraylog.telemetry import run_log

DEFAULT_LIMIT = 50  # rows of a table that a person reads
MAX_LIMIT = 999_999_999


@dataclass(frozen=True)
class Options:
    """The command line."""

    config: Path
    verbose: bool
    parser: argparse.ArgumentParser  # of the subcommand: it reports wrong usage
    given: Mapping[str, Any]  # all arguments, including those that only this question has
    question: Question | None = None  # None: the command is `networks load`
    files: Sequence[Path] = ()  # to load
    limit: int | None = None
    csv: bool = False
    json: bool = False


def main(arguments: Sequence[str] | None = None) -> Exit:
    """Answer one question, or load networks; return the exit status."""
    flush_at_exit()
    options = parse_options(arguments)
    try:
        cfg = config.read(options.config)
        config.refuse_nameless_zone(cfg)
    except config.ConfigError as error:
        complain(*error.complaints)
        return Exit.CONFIGURATION
    run_log.to_stderr("WARNING")
    try:
        return answer(cfg, options.question, options) if options.question else load_networks(cfg, options.files)
    except (Exception, KeyboardInterrupt) as error:  # the only place that catches everything
        return explain(error, cfg, options.verbose)


def answer(cfg: Config, question: Question, options: Options) -> Exit:
    """Ask the database the question, and print the answer."""
    try:
        values = parameters.values(question, options.given, cfg.zone)
    except (parameters.WrongUsage, moments.Unreadable) as error:
        options.parser.error(str(error))
    with session.connect({"application_name": "ask_logs", **cfg.connection}, to_write=False) as conn:
        if cfg.report_timeout_s:
            deadline.limit(conn, cfg.report_timeout_s + deadline.SILENCE_S)
        conn.execute("SELECT set_config('statement_timeout', %s, false)", [f"{cfg.report_timeout_s}s"])
        with asking.ask(conn, question, values, cfg.zone, limit_of(options), piece_of(options)) as found:
            if not found.is_whole:
                output.print_while_fetched(found, form_of(options), bool(options.limit))
                return Exit.DONE
    output.print_answer(found, form_of(options), bool(options.limit))
    return Exit.DONE


def load_networks(cfg: Config, paths: Sequence[Path]) -> Exit:
    """Replace rows of the table `networks` by those of the files, which are read before the database is opened."""
    found = files.read_all(paths)
    parts = [networks.Part(file.rows(), file.has_country, file.has_provider, file.versions) for file in found]
    keywords = {"application_name": "ask_logs", **cfg.connection}
    silence_s = max(cfg.answer_timeout_s, cfg.report_timeout_s + deadline.SILENCE_S)  # while rows are deleted, say
    with session.connect(keywords, answer_timeout_s=silence_s) as conn:
        counts = networks.replace(conn, parts)
    say(*(f"{file.path}: {file.lines:,} lines" for file in found))
    say(
        f"networks: {counts.networks:,} rows, {counts.with_country:,} with a country, "
        f"{counts.with_provider:,} with a provider"
    )
    return Exit.DONE


def explain(error: BaseException, cfg: Config, verbose: bool) -> Exit:
    """Print why there is no answer, with the command that fixes it; return the exit status."""
    if isinstance(error, (names.Unknown, files.Unreadable)):
        complain(error)
        return Exit.OPERATOR
    if isinstance(error, (session.Unavailable, session.Unsuitable)):
        complain(hints.joined(error, hints.on_reading(error, cfg, "ask for less with --since")))
        return Exit.FAILED if isinstance(error, session.Unavailable) else Exit.OPERATOR
    if isinstance(error, KeyboardInterrupt):
        complain("interrupted")
        return Exit.FAILED
    if isinstance(error, OSError):
        complain(hints.not_printed(error))
        return Exit.OPERATOR
    message = f"{cli.unexpected(error)}; for the traceback: -v before the question"
    logger.opt(exception=error if verbose else None).error("{}", message)
    return Exit.FAILED


def limit_of(options: Options) -> int | None:
    """Return the maximum number of rows of a table. CSV and JSON have no limit unless --limit sets one."""
    if options.limit is None:
        return None if options.csv or options.json else DEFAULT_LIMIT
    return options.limit or None


def form_of(options: Options) -> str:
    """Return the form in which the answer is printed."""
    return "json" if options.json else "csv" if options.csv else "table"


def piece_of(options: Options) -> int | None:
    """Return how many rows are fetched at once. A table is fetched as a whole, to align its columns."""
    is_short = options.limit is not None and 0 < options.limit < PIECE
    return PIECE if (options.csv or options.json) and not is_short else None


# --- the command line ----------------------------------------------------------------------------------------


def parse_options(arguments: Sequence[str] | None) -> Options:
    """Parse the command line; exit with status 2 if it is wrong."""
    given = vars(parser().parse_args(arguments))
    return Options(given=given, **{field.name: given[field.name] for field in fields(Options) if field.name in given})


def parser() -> argparse.ArgumentParser:
    """Return the parser of all questions and their options."""
    parser = cli.ArgumentParser(description="Answer a question about what the database knows.")
    cli.add_config(parser)
    parser.add_argument("-v", "--verbose", action="store_true", help="print the traceback of an unexpected error")
    cli.add_version(parser)
    questions = parser.add_subparsers(title="questions", metavar="QUESTION", required=True)
    for question in QUESTIONS:
        one = questions.add_parser(question.name, help=question.help, description=f"Answer: {question.help}.")
        question.options(one)
        one.set_defaults(question=question, parser=one, until=None)
        one.add_argument("--since", metavar="TIME", help="30m, 12h or 7d (ago), yesterday, a day, or a moment")
        if question.has_end:
            one.add_argument("--until", metavar="TIME", help="the same; a day is included (default: now)")
        one.add_argument("--node", metavar="NAME", help="one node only")
        limit = cli.number(0, MAX_LIMIT)
        one.add_argument("--limit", type=limit, metavar="N",
                         help=f"rows of a table; 0: all (default: {DEFAULT_LIMIT}, or all as CSV or JSON)")  # fmt: skip
        if len(question.choices) > 1:
            one.add_argument("--only", choices=question.choices, help="this table of the answer; needed with --csv")
        form = one.add_mutually_exclusive_group()
        form.add_argument("--csv", action="store_true", help="print comma-separated values")
        form.add_argument("--json", action="store_true", help="print JSON")
    add_networks(questions)
    return parser


def add_networks(commands: Any) -> None:
    """Add the subcommand `networks load`, the only one that writes."""
    about = "load files that say which country and provider a network has; this alone writes into the database"
    actions = commands.add_parser("networks", help=about, description=f"{about}.").add_subparsers(
        title="commands", metavar="COMMAND", required=True
    )
    about = "replace countries or providers, of IPv4 or IPv6, by what the files have"
    load = actions.add_parser("load", help=about, description=f"{about}.")
    about = "CSV or TSV, also with gzip: start,end or a network; then country, asn, provider"
    load.add_argument("files", metavar="FILE", nargs="+", type=cli.path, help=about)
    load.set_defaults(parser=load)


if __name__ == "__main__":
    sys.exit(main())
