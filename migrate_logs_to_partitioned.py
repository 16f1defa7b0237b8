#!/usr/bin/env python3
"""Turn a plain `logs` table into one that is partitioned by day. Run once, by hand; safe to stop at any point."""

from __future__ import annotations

import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parent))  # python -I and -P leave it out
import xraylog.required  # noqa: F401  # first: it names a package that is missing

# isort: split
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from xraylog import cli, config, hints
from xraylog.cli import Exit
from xraylog.config import Config
from xraylog.database import session
from xraylog.database.session import Connection, Unsuitable
from xraylog.migration import backfill, plan, revert, state, swap, trial, verify
from xraylog.migration.progress import PrintedProgress
from xraylog.migration.state import State, retry
from xraylog.printed import complain, flush_at_exit, say

RESUMES = "committed steps are kept; the same command resumes"


@dataclass(frozen=True, slots=True)
class Options:
    """The command line."""

    config: Path
    drop_old: bool
    dry_run: bool
    status: bool
    undo: bool
    yes: bool


def main(arguments: Sequence[str] | None = None) -> Exit:
    """Do what the command line asks for; return the exit status."""
    flush_at_exit()
    options = parse_options(arguments)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(line_buffering=True)  # so that nohup.out shows the progress at once
    try:
        cfg = config.read(options.config)
    except config.ConfigError as error:
        return fail(Exit.CONFIGURATION, *error.complaints)
    try:
        keywords = {"application_name": "migrate_logs", **cfg.connection}
        with session.connect(keywords, to_write=not options.status) as conn:
            run(conn, cfg, options)
    except (session.ReadOnly, verify.ChecksumMismatch) as error:
        return fail(Exit.OPERATOR, error)
    except session.Unavailable as error:
        return fail(Exit.FAILED, hints.joined(f"PostgreSQL is not available: {error}", RESUMES, hints.on(error, cfg)))
    except trial.Blocked as error:
        return fail(Exit.OPERATOR, "logs cannot be migrated yet; nothing was changed:", *error.reasons)
    except Unsuitable as error:
        return fail(Exit.OPERATOR, hints.joined(error, hints.on(error, cfg)))
    except KeyboardInterrupt:
        return fail(Exit.FAILED, f"interrupted; {RESUMES}; until then parse_logs.py stays offline (see --status)")
    except Exception as error:  # the only place that catches everything
        return fail(Exit.FAILED, f"{cli.unexpected(error)}; {RESUMES}")
    return Exit.DONE


def run(conn: Connection, cfg: Config, options: Options) -> None:
    """Show the status, undo, or migrate. Start over whenever another session changes the state meanwhile."""
    while True:
        try:
            if options.status:
                return show(plan.status(conn, cfg))
            if options.undo:
                return undo(conn, options, PrintedProgress())
            return migrate(conn, cfg, options, PrintedProgress())
        except state.StateChanged as error:
            say(f"another session changed the state of the migration: {error}")


def migrate(conn: Connection, cfg: Config, options: Options, progress: PrintedProgress) -> None:
    """Run every step that is still pending, or print its SQL with --dry-run."""
    migration = state.inspect(conn)
    drop = options.drop_old or cfg.drop_old
    if migration.state in state.CANNOT_MIGRATE:
        raise Unsuitable(state.CANNOT_MIGRATE[migration.state])
    if migration.state is State.PARTITIONED or (migration.state is State.FINISHED and not drop):
        return show([f"nothing to do: {migration.state.value}"])
    if migration.state is State.PLAIN:
        comment = "-- " if options.dry_run else ""  # so that the output of a dry run can be pasted into psql
        say(f"{comment}reading logs once, to count its rows")
        old, counts = retry(progress, trial.prepare, conn, cfg.zone.key)
        show(comment + line for line in plan.describe_size(old, counts))
        if options.dry_run:
            return show(plan.full_plan(conn, old, counts, drop))
        say("renaming logs to logs_old, and creating a partitioned logs in its place")
        retry(progress, swap.swap, conn, cfg.zone.key, counts.largest_id)
    elif options.dry_run:
        return show(plan.remaining_plan(conn, migration, drop))
    return finish(conn, drop, progress)


def finish(conn: Connection, drop: bool, progress: PrintedProgress) -> None:
    """Copy the pending days, advance the sequence and verify every day; only then drop or mark the old table."""
    old, counts = retry(progress, backfill.resume, conn)
    pending = retry(progress, backfill.pending_days, conn, counts.dates)
    progress.copying(counts, pending)
    for day in pending:
        progress.copied(day, retry(progress, backfill.copy_day, conn, old, day, progress))
    sequence = retry(progress, verify.advance_sequence, conn, old, counts.largest_id)
    if sequence is not None:
        say(f"sequence {sequence[0]}: at {sequence[1]}; the largest id of logs_old is {counts.largest_id}")
    progress.verifying()
    retry(progress, verify.verify_and_finish, conn, old, counts, drop, progress)
    progress.finished(counts, drop)
    with session.transaction(conn):
        show(plan.lock_shortage(conn))


def undo(conn: Connection, options: Options, progress: PrintedProgress) -> None:
    """Rename logs_old back to logs, and drop what the migration created; first show which rows this would lose."""
    migration = state.inspect(conn)
    comment = "-- " if options.dry_run else ""
    is_reverted = migration.state is State.UNDOING
    if not is_reverted and migration.state not in state.STARTED:
        raise Unsuitable(state.CANNOT_MIGRATE.get(migration.state) or f"nothing to undo: {migration.state.value}")
    while not is_reverted:
        old, risk = retry(progress, revert.rows_at_risk, conn)
        show(comment + line for line in plan.describe_losses(risk))
        if options.dry_run:
            return show(plan.revert_plan(conn, old))
        if not (options.yes or confirmed()):
            raise Unsuitable("not undone; nothing was changed")
        is_reverted = retry(progress, revert.revert, conn, None if options.yes else risk)
        if not is_reverted:
            say("rows were stored in the meantime, so look again:")
    if options.dry_run:
        return show([revert.DROP_NEW_TABLES])
    while retry(progress, revert.drop_new_tables, conn):
        pass
    return show(["logs is the old table again; parse_logs.py buffers its lines until it is migrated"])


def confirmed() -> bool:
    """Return whether the person at the terminal agrees; False without a terminal."""
    if not sys.stdin.isatty():
        complain("expected --yes, because there is no terminal to ask at")
        return False
    return input("Undo the migration? Type yes: ").strip().lower() == "yes"


def show(lines: Iterable[str]) -> None:
    """Print lines as they come."""
    for line in lines:
        say(line, keep="\n")  # SQL has several lines


def fail(status: Exit, *complaints: object) -> Exit:
    """Print what is wrong; return the exit status."""
    complain(*complaints)
    return status


# --- the command line ----------------------------------------------------------------------------------------


def parse_options(arguments: Sequence[str] | None) -> Options:
    """Parse the command line; exit with status 2 if it is wrong."""
    parser = cli.ArgumentParser(
        description="Turn a plain logs table into one that is partitioned by day. It can be stopped anywhere: the same "
        "command resumes. Meanwhile parse_logs.py buffers its lines by itself. Start with --dry-run.",
        epilog="Exit status: 0 done, 1 stopped, and the same command resumes, 2 usage, 3 the operator must act, "
        "78 wrong configuration.",
    )
    cli.add_config(parser)
    for option, text in {
        "--drop-old": "drop logs_old once every day is verified to be the same",
        "--dry-run": "print what would be done, with the SQL, also by --undo; reads all of logs, changes nothing",
        "--status": "print the state of the migration; no other option goes with it",
        "--undo": "go back: logs_old becomes logs again; asks first, at a terminal",
        "--yes": "with --undo: do not ask",
    }.items():
        parser.add_argument(option, action="store_true", help=text)
    cli.add_version(parser)
    options = Options(**vars(parser.parse_args(arguments)))
    if options.undo and options.drop_old:
        parser.error("expected --undo or --drop-old, found both: one needs the table that the other drops")
    if options.status and (options.undo or options.drop_old or options.dry_run):
        parser.error("expected --status alone: it changes nothing")
    if options.yes and not options.undo:
        parser.error("expected --yes with --undo: nothing else asks")
    return options


if __name__ == "__main__":
    sys.exit(main())
