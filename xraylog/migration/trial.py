"""Check everything before the first change, and run a trial migration that is rolled back."""

from __future__ import annotations

from collections.abc import Sequence

import psycopg
from psycopg import errors
from psycopg.sql import Composed

from xraylog.database import interference, session
from xraylog.database.session import Connection, Unsuitable
from xraylog.migration import backfill, blockers, day_counts, old_table, state, swap
from xraylog.migration.day_counts import DayCounts
from xraylog.migration.old_table import OldTable
from xraylog.migration.state import State

SAMPLE_ROWS = 1000  # of the newest day
TRIAL_TABLE = "logs_new"


class Blocked(Unsuitable):
    """The table cannot be migrated yet, and nothing was changed. Each reason says what to do."""

    def __init__(self, reasons: Sequence[str]) -> None:
        super().__init__("; ".join(reasons))
        self.reasons = reasons


def prepare(conn: Connection, zone: str) -> tuple[OldTable, DayCounts]:
    """Return the old table and its rows per day, if nothing prevents its migration.

    Raises Blocked with every reason, and StateChanged if logs is not plain any more.
    """
    with state.transaction(conn):
        conn.execute("LOCK TABLE logs IN ACCESS SHARE MODE")  # keeps another session from renaming it meanwhile
        migration = state.read_state(conn)
        if migration.state is not State.PLAIN:
            raise state.StateChanged(migration.state.value)
        reasons = blockers.ambiguous_tables(conn, migration.schema)
        conn.execute(state.set_search_path(migration.search_path))
        old = old_table.describe(conn, "logs", zone)
        counts = day_counts.count(conn, old)
        reasons += blockers.all_blockers(conn, old, counts)
        if counts is not None and not reasons:
            reasons = run(conn, old, counts)
        if counts is None or reasons:
            raise Blocked(reasons)
        return old, counts


def run(conn: Connection, old: OldTable, counts: DayCounts) -> list[str]:
    """Create the new table under another name, with some rows of a day, and roll it back; return what was refused.

    Only the server knows which default, index, constraint or right does not fit the new types and the partitions.
    """
    reasons = []
    with conn.transaction(force_rollback=True):
        if old.needs_sequence:
            conn.execute(swap.CREATE_SEQUENCE)
        statements = [
            *swap.create_missing_tables(conn, old),
            *swap.create_statements(conn, old, TRIAL_TABLE, named=False),
        ]
        statements += swap.set_owner(old, TRIAL_TABLE)
        if counts.days:
            statements += backfill.copy_statements(
                conn, old, counts.dates[-1], source="logs", parent=TRIAL_TABLE, limit=SAMPLE_ROWS
            )
        for statement in statements:
            if (reason := _rejection(conn, statement)) is not None:
                text = " ".join(statement.as_string(conn).split())
                reasons.append(f"{reason}, at: {text}")
                if text.startswith("CREATE TABLE"):  # without it, all other statements would fail
                    break
    return reasons


def _rejection(conn: Connection, statement: Composed) -> str | None:
    try:
        with conn.transaction():
            conn.execute(statement)
    except (errors.LockNotAvailable, errors.DeadlockDetected, psycopg.OperationalError):
        raise
    except psycopg.Error as error:
        if isinstance(error, errors.InsufficientPrivilege):
            return f"grant this role what it needs: {session.message(error)}"
        if statements := interference.culprits(conn, error):
            return f"{session.message(error)}; as its owner, or a superuser of PostgreSQL: {'; '.join(statements)}"
        return f"logs has something that the new table cannot have, drop or change it first: {session.message(error)}"
    return None
