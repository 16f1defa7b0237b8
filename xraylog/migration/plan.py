"""Describe what a migration would do (--dry-run) and how far it is (--status), as lines of text. Changes nothing."""

from __future__ import annotations

import contextlib
import dataclasses
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from datetime import date

from psycopg.sql import Composed

from xraylog import hints
from xraylog.config import Config
from xraylog.database import session
from xraylog.database.lock_table import shortage_of_logs
from xraylog.database.session import Connection
from xraylog.migration import backfill, blockers, day_counts, old_table, revert, state, swap, verify
from xraylog.migration.day_counts import DayCounts
from xraylog.migration.old_table import OldTable
from xraylog.migration.revert import RowsAtRisk
from xraylog.migration.state import Migration, State

INDEX_BYTES = 92  # per row, for the three indexes of Schema.md, where this was measured


def describe_size(old: OldTable, counts: DayCounts) -> Iterator[str]:
    """Yield how many rows there are, how much disk space is needed, and what will not be carried over."""
    span = f"{len(counts.dates)} days, {counts.dates[0]} to {counts.dates[-1]}" if counts.days else "no day"
    yield f"logs: {counts.rows:,} rows of {span}; {format_bytes(old.total_bytes)} with its indexes"
    needed = format_bytes(old.total_bytes + INDEX_BYTES * counts.rows)
    place = f", in the tablespace {old.tablespace}" if old.tablespace else ""
    yield (
        f"free disk space needed on the server{place}: up to {needed}, until logs_old is dropped; "
        f"about as much is written to the WAL"
    )
    for what in old.not_carried_over:
        yield f"not carried over: {what}"


def full_plan(conn: Connection, old: OldTable, counts: DayCounts, drop: bool) -> Iterator[str]:
    """Yield all steps of a migration that is not started yet, with their SQL."""
    with state.transaction(conn):
        migration = state.read_state(conn)
        set_search_path = state.set_search_path(migration.search_path)
        conn.execute(set_search_path)
        first_transaction = [
            *state.session_settings(conn),
            set_search_path,
            *swap.lock_statements(migration),
            *swap.swap_statements(conn, old, counts.largest_id),
        ]
        yield from _sql(conn, "1, 2. logs becomes logs_old, and a partitioned logs takes its place", first_transaction)
        if backfill.has_day_index(old):
            yield "\n-- 3. the rows of logs_old are counted by day"
        else:
            title = "3. an index that finds a day (btree if rows are not in order); then rows are counted by day"
            yield from _sql(conn, title, [backfill.create_day_index(old, "brin")])
        if counts.days:
            day = counts.dates[-1]
            title = f"each of {len(counts.dates)} days, the newest first; here {day}, {counts.days[day]:,} rows"
            yield from _sql(conn, f"4, 5, 6. {title}", backfill.day_script(conn, old, day))
        sequence = swap.sequence_name(old)
        if sequence is not None and counts.largest_id is not None:
            yield from _sql(conn, "7. the sequence", [swap.advance_sequence(sequence, counts.largest_id)])
        sequence_type = old.sequence.type if old.sequence else "bigint"
        started = dataclasses.replace(migration, zone=old.zone, sequence_type=sequence_type)
        yield from _verification(conn, old, counts, "8. ")
        yield _last_step(conn, old, started, drop)


def remaining_plan(conn: Connection, migration: Migration, drop: bool) -> Iterator[str]:
    """Yield the remaining steps of a started migration, with their SQL."""
    with _started(conn, migration) as (old, counts, left):
        if left:
            title = f"{len(left)} days are left, {counts.rows_of(left):,} rows, the newest first; here {left[0]}"
            yield from _sql(conn, title, backfill.day_script(conn, old, left[0]))
        yield from _verification(conn, old, counts, "")
        yield _last_step(conn, old, migration, drop)


def revert_plan(conn: Connection, old: OldTable) -> Iterator[str]:
    """Yield the steps of --undo, with their SQL."""
    with state.step(conn) as migration:
        yield from _sql(conn, "the undo", list(revert.revert_statements(conn, old, migration.sequence_type)))
    yield f"\n{revert.DROP_NEW_TABLES}"


def describe_losses(risk: RowsAtRisk) -> Iterator[str]:
    """Yield what an undo would lose, and how to keep it."""
    changes = "every UPDATE and DELETE that was made in logs since"
    if risk.rows == 0:
        yield f"no row was stored in logs since the migration started; --undo would only lose {changes}"
        return
    yield f"{risk.rows:,} rows were stored in logs since the migration started. They would be LOST, and {changes}."
    if risk.lost_columns:
        yield f"The old table has no {', '.join(risk.lost_columns)}: these values are lost in any case."
    yield "To keep the rows, run the first line in psql before you continue, and the second one afterwards:"
    yield f"  \\copy (SELECT {risk.values} FROM {revert.from_rows_at_risk(risk)}) TO 'since.csv' CSV HEADER"  # noqa: S608  # printed
    yield f"  \\copy logs ({risk.columns}) FROM 'since.csv' CSV HEADER"


def status(conn: Connection, cfg: Config) -> Iterator[str]:
    """Yield the state of the migration, how many days are copied, and how to finish it."""
    migration = state.inspect(conn)
    yield migration.state.value
    if migration.state in (State.LOST, State.UNKNOWN):
        yield state.CANNOT_MIGRATE[migration.state]
    if migration.state in state.STARTED:
        with _started(conn, migration) as (old, counts, pending):
            copied = counts.rows - counts.rows_of(pending)
            yield f"{len(counts.dates) - len(pending)} of {len(counts.dates)} days of logs_old are copied to logs"
            yield f"they have {copied:,} of its {counts.rows:,} rows; logs_old takes {format_bytes(old.total_bytes)}"
            yield from lock_shortage(conn)
    if migration.state is State.UNFINISHED:
        yield f"parse_logs.py stays offline until it is finished: {hints.command(cfg, script=hints.MIGRATION)}"


def lock_shortage(conn: Connection) -> Iterator[str]:
    """Yield what to do if the server has no room for the locks of a query of all of logs. Call it in a transaction."""
    if (shortage := shortage_of_logs(conn)) is not None:
        yield f"{shortage}; until then, a query of fewer days works"


@contextlib.contextmanager
def _started(conn: Connection, migration: Migration) -> Iterator[tuple[OldTable, DayCounts, Sequence[date]]]:
    """Yield the old table, its rows per day, and the remaining days, the newest first, in an open transaction."""
    with state.transaction(conn):
        conn.execute(state.set_search_path(migration.search_path))
        old = old_table.describe(conn, "logs_old", migration.zone)
        blockers.raise_if_unreadable(conn, old)
        counts = day_counts.count(conn, old)
        if counts is None:
            raise session.Unsuitable("; ".join(day_counts.unreadable(conn, old)))
        yield old, counts, backfill.days_without_partition(conn, counts.dates)


def _verification(conn: Connection, old: OldTable, counts: DayCounts, number: str) -> Iterator[str]:
    if counts.days:
        day = counts.dates[-1]
        title = f"{number}the verification: every day has the same rows and checksum in both tables; here {day}"
        yield from _sql(conn, title, verify.checksum_queries(conn, old, day, counts.largest_id))


def _last_step(conn: Connection, old: OldTable, migration: Migration, drop: bool) -> str:
    """Return the last statements as a comment, so that pasting all of the SQL does not drop an unverified table."""
    text = "; ".join(statement.as_string(conn) for statement in verify.finish_statements(old, migration, drop))
    return f"\n-- and only if every day is the same: {text};"


def _sql(conn: Connection, title: str, statements: Iterable[Composed]) -> Iterator[str]:
    """Yield the lines of one transaction, which can be pasted into psql."""
    yield f"\n-- {title}\nBEGIN;"
    for statement in statements:
        yield textwrap.dedent(statement.as_string(conn)).strip() + ";"
    yield "COMMIT;"


def format_bytes(count: float) -> str:
    """Return a number of bytes with a readable unit."""
    for unit in ("bytes", "KiB", "MiB"):
        if count < 10_000:
            return f"{count:,.0f} {unit}"
        count /= 1024
    return f"{count:,.1f} GiB"
