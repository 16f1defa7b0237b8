#!/usr/bin/env python3
"""Turn a plain `logs` table into one that is partitioned by day. Once, by hand; it can be stopped anywhere."""

from __future__ import annotations

import argparse
import io
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

from xraylog import __version__, cli, config
from xraylog.cli import Exit
from xraylog.config import Config
from xraylog.database import session
from xraylog.database.session import Connection
from xraylog.migration import backfill, plan, revert, state, swap, trial, verify
from xraylog.migration.backfill import Copied
from xraylog.migration.day_counts import DayCounts
from xraylog.migration.old_table import OldTable
from xraylog.migration.revert import RowsAtRisk
from xraylog.migration.state import Found, State
from xraylog.migration.verify import DayChecksums

SAY_EVERY_S = 1.0  # progress
Result = TypeVar("Result")
GOES_ON = "what is committed stays; the same command goes on"


def main(arguments: Sequence[str] | None = None) -> Exit:
    """One migration, or a part of it; returns the exit status."""
    options = command_line(arguments)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(line_buffering=True)  # a file under nohup shows how far it is, too
    try:
        cfg = config.read(options.config)
    except config.ConfigError as error:
        print(error, file=sys.stderr)
        return Exit.CONFIGURATION
    try:
        with session.connect({"application_name": "migrate_logs", **cfg.connection}) as conn:
            if options.status:
                return status(conn, cfg)
            if options.undo:
                return until_nobody_is_faster(lambda: undo(conn, options))
            return until_nobody_is_faster(lambda: migrate(conn, cfg, options))
    except session.Unavailable as error:
        return fail(Exit.FAILED, f"PostgreSQL is not available: {error}; {GOES_ON}")
    except (session.Unsuitable, verify.ChecksumMismatch) as error:
        return fail(Exit.OPERATOR, str(error))
    except KeyboardInterrupt:
        return fail(Exit.FAILED, f"interrupted; {GOES_ON}; until then parse_logs.py stays offline (see --status)")
    except Exception as error:  # the only place that catches everything
        return fail(Exit.FAILED, f"unexpected {type(error).__name__}: {error}; {GOES_ON}")


def until_nobody_is_faster(action: Callable[[], Exit]) -> Exit:
    """Begin again from what is there now, whenever another session has changed it."""
    while True:
        try:
            return action()
        except state.StateChanged as error:
            print(f"another session was faster: {error}")


# --- there ---------------------------------------------------------------------------------------------------


def migrate(conn: Connection, cfg: Config, options: argparse.Namespace) -> Exit:
    """All steps that are left, from whichever state the database is in."""
    found = look(conn)
    drop = options.drop_old or cfg.drop_old
    if found.state in NOT_TO_MIGRATE:
        return fail(Exit.OPERATOR, NOT_TO_MIGRATE[found.state])
    if found.state is State.PARTITIONED or (found.state is State.FINISHED and not drop):
        print(f"nothing to do: {found.state.value}")
        return Exit.DONE
    if found.state is State.PLAIN:
        note = "-- " if options.dry_run else ""  # what it prints can be pasted into psql
        print(f"{note}reading logs once, to count its rows")
        old, counts, reasons = patiently(lambda: trial.inspect(conn, cfg.zone.key))
        if counts is None or reasons:
            return fail(Exit.OPERATOR, "logs cannot be migrated yet; nothing was changed:", *reasons)
        say(note + text for text in plan.describe_size(old, counts))
        if options.dry_run:
            say(plan.full_plan(conn, old, counts, drop))
            return Exit.DONE
        print("logs becomes logs_old, and a partitioned logs takes its place")
        patiently(lambda: swap.swap(conn, cfg.zone.key, counts.largest_id))
    elif options.dry_run:
        say(plan.remaining_plan(conn, found, drop))
        return Exit.DONE
    go_on(conn, drop)
    return Exit.DONE


NOT_TO_MIGRATE = {
    State.NO_LOGS: "expected a table logs, found none in the search_path; parse_logs.py makes a partitioned one",
    State.OTHER: "logs: expected a table, found another kind; nothing was changed",
    State.UNDOING: f"{State.UNDOING.value}: --undo goes on with that; then migrate again",
}


def go_on(conn: Connection, drop: bool) -> None:
    """Steps 3 to 8: the days that are left, the sequence, the proof, and then the end of the old table."""
    old, counts = patiently(lambda: backfill.resume(conn))
    copy_days(conn, old, counts)
    sequence = patiently(lambda: verify.advance_sequence(conn, old, counts.largest_id))
    if sequence is not None:
        print(f"sequence {sequence[0]}: at {sequence[1]}; the largest id of logs_old is {counts.largest_id}")
    print_proof_header()
    begun = time.monotonic()
    patiently(lambda: verify.verify_and_finish(conn, old, counts, drop, print_proof, say_waiting))
    print(f"proof {time.monotonic() - begun:.1f} s")
    print(f"{counts.rows:,} rows of {len(counts.span)} days: every day is the same in logs and in logs_old")
    print("logs_old is dropped" if drop else "logs_old is kept: --drop-old drops it, --undo goes back")


def copy_days(conn: Connection, old: OldTable, counts: DayCounts) -> None:
    """The days that are not in logs yet, the newest first; says how it goes."""
    left = patiently(lambda: backfill.pending_days(conn, counts.span))
    if done := len(counts.span) - len(left):
        print(f"{done} of {len(counts.span)} days are left out: they have been copied already, or dropped since")
    rows_left = counts.rows_of(left)
    begun, said, copied = time.monotonic(), 0.0, Copied()
    for number, day in enumerate(left, 1):
        copied += patiently(lambda day=day: backfill.copy_day(conn, old, day, say_waiting))  # type: ignore[misc]
        if number == len(left) or time.monotonic() - said > SAY_EVERY_S:
            said = time.monotonic()
            rate = copied.rows / max(said - begun, 0.001)
            seconds = (rows_left - copied.rows) / rate if rate else 0.0
            print(
                f"{day}: {number} of {len(left)} days, {copied.rows:,} of {rows_left:,} rows, {rate:,.0f} rows/s, "
                f"{seconds:,.0f} s left"
            )
    print(f"rows {copied.copy_s:.1f} s, indexes {copied.index_s:.1f} s, keys {copied.keys_s:.1f} s")


# --- and back ------------------------------------------------------------------------------------------------


def undo(conn: Connection, options: argparse.Namespace) -> Exit:
    """Give logs_old its name back, and drop what the migration had made; says first what is lost by that."""
    found = look(conn)
    if found.state in (State.UNFINISHED, State.FINISHED):
        while True:
            old, risk = patiently(lambda: revert.rows_at_risk(conn))
            say(("-- " if options.dry_run else "") + text for text in losses(risk))
            if options.dry_run:
                say(plan.revert_plan(conn, old))
                return Exit.DONE
            if not (options.yes or confirmed()):
                return fail(Exit.OPERATOR, "not undone; nothing was changed")
            if patiently(lambda: revert.revert(conn, None if options.yes else risk)):  # noqa: B023  # called at once
                break
            print("rows were stored meanwhile; so once more:")
    elif found.state is not State.UNDOING:
        return fail(Exit.OPERATOR, f"nothing to undo: {found.state.value}")
    elif options.dry_run:
        print("-- DROP TABLE logs_new and its partitions, 30 at once")
        return Exit.DONE
    while patiently(lambda: revert.drop_new_tables(conn)):
        pass
    print("logs is the old table again; parse_logs.py puts its lines into the buffer until it is migrated")
    return Exit.DONE


def losses(risk: RowsAtRisk) -> Iterator[str]:
    """What an undo loses, and how to keep it."""
    changes = "every UPDATE and DELETE that was made in logs since"
    if risk.rows == 0:
        yield f"no row was stored in logs since the migration began; lost would be {changes}"
        return
    yield f"{risk.rows:,} rows were stored in logs since the migration began. They would be LOST, and {changes}."
    yield "To keep them, in psql, before you go on; the second line loads them again afterwards:"
    yield f"  \\copy (SELECT {risk.columns} FROM {revert.ROWS_SINCE}) TO 'since.csv' CSV HEADER"  # noqa: S608  # printed
    yield f"  \\copy logs ({risk.columns}) FROM 'since.csv' CSV HEADER"


def confirmed() -> bool:
    """Whether somebody at a terminal agrees; without a terminal nobody does."""
    if not sys.stdin.isatty():
        print("expected --yes, for there is no terminal to ask at", file=sys.stderr)
        return False
    return input("Undo the migration? Type yes: ").strip().lower() == "yes"


# --- what there is -------------------------------------------------------------------


def look(conn: Connection) -> Found:
    """Where the migration stands."""
    with session.transaction(conn):
        return state.read_state(conn)


def status(conn: Connection, cfg: Config) -> Exit:
    """Where the migration stands."""
    found = look(conn)
    say(plan.status(conn, found))
    if found.state is State.UNFINISHED:
        print(f"parse_logs.py stays offline until it is finished: {Path(sys.argv[0]).name} --config {cfg.path}")
    return Exit.DONE


def print_proof_header() -> None:
    """The table of the proof."""
    print(f"{'day':10} {'rows':>11} {'in logs':>11} {'checksum':>22} {'in logs':>22}")


def print_proof(day: DayChecksums) -> None:
    """One line of it."""
    print(
        f"{day.day} {day.old_rows:>11} {day.new_rows:>11} {day.old_sum:>22} {day.new_sum:>22}"
        + ("" if day.equal else "  DIFFERENT")
    )


# --- the terminal --------------------------------------------------------------------------------------------


def patiently(action: Callable[[], Result]) -> Result:
    """Do it, and again while others hold the locks that it needs."""
    return state.patiently(action, say_waiting)


def say_waiting(reason: str) -> None:
    """Somebody else holds a lock."""
    print(f"waiting: {reason}")


def fail(exit_status: Exit, *complaints: str) -> Exit:
    """Say what is wrong, a line each."""
    for complaint in complaints:
        print(complaint, file=sys.stderr)
    return exit_status


def say(lines: Iterable[str]) -> None:
    """Print them as they come."""
    for line in lines:
        print(line)


def command_line(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The options, checked against each other."""
    parser = argparse.ArgumentParser(
        description="Turn a plain logs table into one that is partitioned by day. It can be stopped anywhere: "
        "the same command goes on. Meanwhile parse_logs.py puts lines aside by itself. Begin with --dry-run.",
        epilog="Exit status: 0 done, 1 stopped, and the same command goes on, 2 usage, 3 somebody must act, "
        "78 wrong configuration.",
    )
    add = parser.add_argument
    cli.add_config(parser)
    add("--drop-old", action="store_true", help="drop logs_old, when every day is proved to be the same")
    add("--dry-run", action="store_true", help="print what would be done, also by --drop-old or --undo, with its SQL; "
        "reads all of logs, changes nothing")  # fmt: skip
    add(
        "--status",
        action="store_true",
        help="say where the migration stands; goes with no other option",
    )
    add("--undo", action="store_true", help="go back: logs_old becomes logs again; asks first, at a terminal")
    add("--yes", action="store_true", help="with --undo: do not ask")
    add("--version", action="version", version=__version__)
    options = parser.parse_args(arguments)
    if options.undo and options.drop_old:
        parser.error("expected --undo or --drop-old, found both: one needs the table that the other drops")
    if options.status and (options.undo or options.drop_old or options.dry_run):
        parser.error("expected --status alone: it changes nothing")
    if options.yes and not options.undo:
        parser.error("expected --yes with --undo: nothing else asks")
    return options


if __name__ == "__main__":
    sys.exit(main())
