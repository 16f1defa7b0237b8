"""From a plain `logs` to a partitioned one, step by step, and back. Each step is one transaction.

What is done is read from the catalog: a comment on `logs_old` says that a migration is on its way, and a day whose
partition is there has been copied. So the same steps, begun again, go on where they ended.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from enum import Enum
from typing import TypeVar

from psycopg import errors
from psycopg.sql import SQL, Composable, Composed, Identifier, Literal

from xraylog.database import schema, session
from xraylog.database.session import Connection, Unsuitable
from xraylog.migration import blockers, old_table
from xraylog.migration.old_table import PlainTable

# Who waits for ACCESS EXCLUSIVE keeps every new reader waiting. Nobody shall wait for a second: give way, try again.
LOCK_TIMEOUT = "500ms"
# Locks in whose line no reader waits. Longer than deadlock_timeout: only then does an autovacuum give way.
LONG_LOCK_TIMEOUT = "30s"
TRANSACTION_TIMEOUT = 170000  # PostgreSQL 17
PAUSE_S = 1.0
PATIENCE_S = 600.0
SUFFIX = "_old"  # for the names of the old table's indexes and constraints: the new table gets them
FINISHED = "xraylog: finished migration into logs"
DROPPING = "xraylog: undone migration, to be dropped"

Result = TypeVar("Result")


class State(Enum):
    """Where a migration stands."""

    NO_LOGS = "there is no table logs"
    OTHER = "logs is no table"
    PLAIN = "logs is a plain table: nothing has been migrated"
    PARTITIONED = "logs is partitioned, and there is no logs_old of a migration"
    UNFINISHED = "the migration is not finished"
    FINISHED = "the migration is finished; logs_old is still there"
    UNDOING = "the migration was undone; what it had made is not yet dropped"


BEGUN = (State.UNFINISHED, State.FINISHED)


@dataclass(frozen=True, slots=True)
class Found:
    """What the catalog says."""

    state: State
    place: str = ""  # the schema that logs is in
    path: str = ""  # a search_path that begins with it
    zone: str = ""  # in which a migration that has begun reads times without a zone
    sequence_type: str = "bigint"  # what the sequence was before


STATE = """
    SELECT c.relkind::text, n.nspname, obj_description(old.oid, 'pg_class'), obj_description(new.oid, 'pg_class'),
           (SELECT string_agg(quote_ident(name), ', ' ORDER BY name <> n.nspname, nr)
            FROM unnest(current_schemas(false)) WITH ORDINALITY AS path (name, nr))
    FROM pg_class c
    JOIN pg_namespace n ON n.oid = c.relnamespace
    LEFT JOIN pg_class old ON old.relnamespace = c.relnamespace AND old.relname = 'logs_old' AND old.relkind = 'r'
    LEFT JOIN pg_class new ON new.relnamespace = c.relnamespace AND new.relname = 'logs_new' AND new.relkind = 'p'
    WHERE c.relname = 'logs' AND c.relkind NOT IN ('i', 'I', 'S', 't', 'c') AND pg_table_is_visible(c.oid)
"""


def look(conn: Connection) -> Found:
    """Where the migration stands."""
    row = conn.execute(STATE).fetchone()
    if row is None:
        return Found(State.NO_LOGS)
    kind, place, old, new, path = row
    if kind == "r":
        return Found(State.UNDOING if new == DROPPING else State.PLAIN, place, path)
    if kind != "p":
        return Found(State.OTHER, place, path)
    for mark, state in ((schema.UNFINISHED, State.UNFINISHED), (FINISHED, State.FINISHED)):
        if old is not None and old.startswith(mark):
            _, zone, sequence_type = old.split(", ")
            return Found(state, place, path, zone.rpartition(" ")[2], sequence_type.rpartition(" ")[2])
    return Found(State.PARTITIONED, place, path)


def mark(finished: bool, zone: str, sequence_type: str) -> Composed:
    """The comment on the old table, by which a migration is known; `look` reads it."""
    words = FINISHED if finished else schema.UNFINISHED
    return SQL("COMMENT ON TABLE logs_old IS {}").format(
        Literal(f"{words}, times read in {zone}, ids from a sequence of {sequence_type}")
    )


class Overtaken(Exception):
    """Another session has finished or undone the migration meanwhile."""


@contextlib.contextmanager
def transaction(conn: Connection) -> Iterator[None]:
    """One transaction that takes its time."""
    with conn.transaction():
        run_all(conn, limits(conn))
        with session.transaction(conn):
            yield


@contextlib.contextmanager
def step(conn: Connection, *expected: State) -> Iterator[Found]:
    """One transaction of a migration that has begun, in the schema of logs; two at once do their steps in turns.

    Raises Overtaken when the migration is not in one of the expected states.
    """
    with conn.transaction():
        run_all(conn, limits(conn))  # first: the role's statement_timeout would count while it waits
        with session.transaction(conn, schema.PARTITIONS_LOCK):
            conn.execute(lock_timeout(LOCK_TIMEOUT))
            found = look(conn)
            if found.state not in (expected or BEGUN):
                raise Overtaken(found.state.value)
            conn.execute(search_path(found.path))
            yield found


def limits(conn: Connection) -> Iterator[Composed]:
    """What each transaction sets. Text of floats must be exact for a checksum; that is the default since 12."""
    yield lock_timeout(LOCK_TIMEOUT)
    yield SQL("SET LOCAL statement_timeout TO 0").format()
    yield SQL("SET LOCAL idle_in_transaction_session_timeout TO 0").format()
    if conn.info.server_version >= TRANSACTION_TIMEOUT:
        yield SQL("SET LOCAL transaction_timeout TO 0").format()
    yield SQL("SET LOCAL extra_float_digits TO 3").format()


def lock_timeout(text: str) -> Composed:
    """How long to stand in line for a lock."""
    return SQL("SET LOCAL lock_timeout TO {}").format(Literal(text))


def search_path(path: str) -> Composed:
    """The schema of logs first: what is made is made there."""
    return SQL("SET LOCAL search_path TO {}").format(SQL(path))


def tablespace(old: PlainTable) -> Iterator[Composed]:
    """What is made goes where the old table is."""
    if old.tablespace is not None:
        yield SQL("SET LOCAL default_tablespace TO {}").format(Identifier(old.tablespace))


def patiently(action: Callable[[], Result], waiting: Callable[[str], None]) -> Result:
    """Do what needs locks that others hold, a little at a time. The action is a transaction or a savepoint."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        try:
            return action()
        except (errors.LockNotAvailable, errors.DeadlockDetected) as error:
            if time.monotonic() > deadline:
                raise
            waiting(session.message(error))
            time.sleep(PAUSE_S)


def run_all(conn: Connection, statements: Iterable[Composed]) -> None:
    """Execute them in their order."""
    for statement in statements:
        conn.execute(statement)


# --- steps 1 and 2: the new table takes the old one's place ------------------------------------------------


def begin(conn: Connection, zone: str, largest_id: int | None) -> None:
    """Rename the old table and make the new one, in one transaction. Raises Unsuitable when it cannot be migrated."""
    try:
        with step(conn, State.PLAIN) as found:
            run_all(conn, lock(found))
            old = old_table.look(conn, "logs", zone)
            if reasons := blockers.obstacles(conn, old, None):
                raise Unsuitable("; ".join(reasons))
            run_all(conn, beginning(conn, old, largest_id))
    except (errors.ProgrammingError, errors.DataError, errors.NotSupportedError) as error:
        raise Unsuitable(f"the new logs cannot be made: {session.message(error)}; nothing was changed") from error


def lock(found: Found) -> Iterator[Composed]:
    """Nobody reads or writes it while it is renamed.

    First against VACUUM and other DDL alone: readers do not wait behind that, so it may wait longer.
    """
    table = Identifier(found.place, "logs")
    yield lock_timeout(LONG_LOCK_TIMEOUT)
    yield SQL("LOCK TABLE {} IN SHARE UPDATE EXCLUSIVE MODE").format(table)
    yield lock_timeout(LOCK_TIMEOUT)
    yield SQL("LOCK TABLE {} IN ACCESS EXCLUSIVE MODE").format(table)


def beginning(conn: Connection, old: PlainTable, largest_id: int | None) -> Iterator[Composed]:
    """DDL of steps 1 and 2; behind LOCK TABLE."""
    yield from missing_tables(conn, old)
    yield from tablespace(old)
    yield SQL("ALTER TABLE logs RENAME TO logs_old").format()
    for name in sorted({index.name for index in old.indexes}):
        yield rename_index(name, name + SUFFIX)
    for constraint in old.constraints:
        if constraint.name not in {index.name for index in old.indexes}:
            yield rename_constraint(constraint.name, constraint.name + SUFFIX)
    yield from _sequence(old, largest_id)
    yield from making(conn, old, "logs", named=True)
    yield from owner(old, "logs")
    yield from _own_sequences(old)
    yield from _comments_and_grants(old)
    yield mark(finished=False, zone=old.zone, sequence_type=old.sequence.type if old.sequence else "bigint")


def missing_tables(conn: Connection, old: PlainTable) -> Iterator[Composed]:
    """DDL of the tables that stand beside logs, where they are not there yet."""
    for table in schema.look(conn).missing:
        if table != "logs":
            yield from schema.create(table)
            yield from owner(old, table)


def making(conn: Connection, old: PlainTable, name: str, named: bool) -> Iterator[Composed]:
    """DDL of the new table, with constraints, keys and indexes, under their old names or under others."""
    yield _create_logs(old, name)
    for constraint in old.constraints:
        if constraint.kind == "c":
            yield old_table.add_constraint(constraint, name, named)
    if conn.info.server_version >= schema.NO_KEYS_ON_PARENT:
        yield from old_table.keys_and_indexes(old, name, named)


def owner(old: PlainTable, table: str) -> Iterator[Composed]:
    """The old table's owner gets it, and nobody to whom the old one did not grant anything."""
    for role in old.granted_by_default:
        who = SQL("PUBLIC") if role is None else Identifier(role)
        yield SQL("REVOKE ALL ON {} FROM {}").format(Identifier(table), who)
    if old.owner != old.role:
        yield SQL("ALTER TABLE {} OWNER TO {}").format(Identifier(table), Identifier(old.owner))


def own_sequence(sequence: str, table: str, column: str) -> Composed:
    """DDL: the sequence, quoted, goes when that column goes."""
    return SQL("ALTER SEQUENCE {} OWNED BY {}.{}").format(SQL(sequence), Identifier(table), Identifier(column))


def rename_index(name: str, to: str) -> Composed:
    """DDL."""
    return SQL("ALTER INDEX {} RENAME TO {}").format(Identifier(name), Identifier(to))


def rename_constraint(name: str, to: str) -> Composed:
    """DDL, of the old table."""
    return SQL("ALTER TABLE logs_old RENAME CONSTRAINT {} TO {}").format(Identifier(name), Identifier(to))


CREATE_SEQUENCE = "CREATE SEQUENCE logs_id_seq"


def sequence_name(old: PlainTable) -> str | None:
    """Of the sequence that the new table takes its ids from, quoted; None where they come from something else."""
    if old.sequence is None:
        return "logs_id_seq" if old.needs_sequence else None
    return old.sequence.name


def _sequence(old: PlainTable, largest_id: int | None) -> Iterator[Composed]:
    """The old sequence goes over to the new table. That of an identity column cannot: another one goes on from it."""
    name = sequence_name(old)
    if name is None:
        return
    if old.sequence is None:
        yield SQL(CREATE_SEQUENCE).format()
    elif old.sequence.identity:
        aside = Identifier(old.sequence.bare_name + SUFFIX)
        yield SQL("ALTER SEQUENCE {} RENAME TO {}").format(SQL(name), aside)
        yield SQL("CREATE SEQUENCE {} {}").format(SQL(name), SQL(old.sequence.options))
        yield SQL("SELECT setval({}, last_value, is_called) FROM {}").format(Literal(name), aside)
    elif old.sequence.type != "bigint":
        yield SQL("ALTER SEQUENCE {} AS bigint").format(SQL(name))
    if largest_id is not None:
        yield past(name, largest_id)


def _own_sequences(old: PlainTable) -> Iterator[Composed]:
    name = sequence_name(old)
    if name is not None and (old.sequence is None or old.sequence.identity):
        if old.owner != old.role:
            yield SQL("ALTER SEQUENCE {} OWNER TO {}").format(SQL(name), Identifier(old.owner))
        yield own_sequence(name, "logs", "id")
    elif name is not None and old.sequence is not None and old.sequence.owned:
        yield own_sequence(name, "logs", "id")
    for sequence, column in old.other_sequences:
        yield own_sequence(sequence, "logs", column)


def past(sequence: str, largest_id: int) -> Composed:
    """Put the sequence past the largest id, if it is not there."""
    return SQL(
        "SELECT setval({text}, {id}) FROM {name} WHERE last_value < {id} OR (last_value = {id} AND NOT is_called)"
    ).format(text=Literal(sequence), name=SQL(sequence), id=Literal(largest_id))


def _create_logs(old: PlainTable, name: str) -> Composed:
    """The old columns in the old order, ours as Schema.md has them; then ours that it had not."""
    lines: list[Composable] = []
    for column in old.columns:
        parts = [Identifier(column.name), SQL(column.new_type)]
        if column.collation and column.new_type == column.type:
            parts.append(SQL("COLLATE {}").format(SQL(column.collation)))
        if column.generated:
            parts.append(SQL("GENERATED ALWAYS AS ({}) {}").format(SQL(column.default or ""), SQL(column.generated)))
        elif column.default is not None:
            value = SQL(column.default)
            if column.new_type != column.type and column.name != "id":
                value = old.converted(SQL("({})").format(value), column)  # type: ignore[assignment]
            parts.append(SQL("DEFAULT {}").format(value))
        elif column.name == "id" and (sequence := sequence_name(old)):
            parts.append(SQL("DEFAULT nextval({})").format(Literal(sequence)))
        if column.name in ("id", "timestamp") or (column.not_null and column.name not in schema.MAY_BE_NULL):
            parts.append(SQL("NOT NULL"))
        lines.append(SQL(" ").join(parts))
    lines += [SQL("{} {}").format(Identifier(name), SQL(old_table.OUR_TYPES[name])) for name in old.missing_columns]
    return SQL('CREATE TABLE {} (\n    {}\n) PARTITION BY RANGE ("timestamp")').format(
        Identifier(name), SQL(",\n    ").join(lines)
    )


def _comments_and_grants(old: PlainTable) -> Iterator[Composed]:
    if old.comment is not None:
        yield SQL("COMMENT ON TABLE logs IS {}").format(Literal(old.comment))
    for column in old.columns:
        if column.comment is not None:
            yield SQL("COMMENT ON COLUMN logs.{} IS {}").format(Identifier(column.name), Literal(column.comment))
    inserts = set()
    for role, column_name, right, may_grant in old.grants:
        who = SQL("PUBLIC") if role is None else Identifier(role)
        if right == "INSERT":
            inserts.add(role)
        yield SQL("GRANT {}{} ON logs TO {}{}").format(
            SQL(right),
            SQL(" ({})").format(Identifier(column_name)) if column_name else SQL(""),
            who,
            SQL(" WITH GRANT OPTION" if may_grant else ""),
        )
    sequence = sequence_name(old)
    # An identity asks inserters for no right on its sequence; a default does.
    if sequence and (old.sequence is None or old.sequence.identity):
        for role in sorted(inserts, key=str):
            who = SQL("PUBLIC") if role is None else Identifier(role)
            yield SQL("GRANT USAGE ON SEQUENCE {} TO {}").format(SQL(sequence), who)
