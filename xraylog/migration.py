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

from xraylog import database, plain, schema, survey
from xraylog.database import Connection, Unsuitable
from xraylog.plain import PlainTable
from xraylog.survey import Survey

# Who waits for ACCESS EXCLUSIVE keeps every new reader waiting. Nobody shall wait for a second: give way, try again.
LOCK_TIMEOUT = "500ms"
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


@dataclass(frozen=True, slots=True)
class Found:
    """What the catalog says."""

    state: State
    place: str = ""  # the schema that logs is in
    path: str = ""  # a search_path that begins with it
    zone: str = ""  # in which a migration that has begun reads times without a zone


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
            return Found(state, place, path, old.rpartition(" ")[2])
    return Found(State.PARTITIONED, place, path)


@contextlib.contextmanager
def step(conn: Connection, path: str | None = None) -> Iterator[None]:
    """One transaction of a migration; two at once do their steps in turns."""
    with database.transaction(conn, schema.PARTITIONS_LOCK):
        run_all(conn, limits())
        if path is not None:
            conn.execute(search_path(path))
        yield


def limits() -> Iterator[Composed]:
    """What each transaction sets. Text of floats must be exact for a checksum; that is the default since 12."""
    yield SQL("SET LOCAL lock_timeout TO {}").format(Literal(LOCK_TIMEOUT))
    yield SQL("SET LOCAL statement_timeout TO 0").format()
    yield SQL("SET LOCAL extra_float_digits TO 3").format()


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
            waiting(database.message(error))
            time.sleep(PAUSE_S)


def run_all(conn: Connection, statements: Iterable[Composed]) -> None:
    """Execute them in their order."""
    for statement in statements:
        conn.execute(statement)


# --- before the first change ---------------------------------------------------------------------------------


def inspect(conn: Connection, zone: str) -> tuple[PlainTable | None, Survey | None, list[str]]:
    """The plain table, if it still is one, what its rows are like, and all that stands in the way."""
    with database.transaction(conn):
        run_all(conn, limits())
        conn.execute("LOCK TABLE logs IN ACCESS SHARE MODE")  # nobody renames it meanwhile
        found = look(conn)
        if found.state is not State.PLAIN:
            return None, None, []
        conn.execute(search_path(found.path))
        old = plain.look(conn, "logs", zone)
        counted = survey.survey(conn, old)
        return old, counted, survey.obstacles(conn, old, counted)


# --- steps 1 and 2: the new table takes the old one's place ------------------------------------------------


def begin(conn: Connection, zone: str, largest_id: int | None) -> None:
    """Rename the old table and make the new one, in one transaction. Raises Unsuitable when it cannot be migrated."""
    with step(conn):
        found = look(conn)
        if found.state is not State.PLAIN:  # another session was faster
            return
        conn.execute(search_path(found.path))
        conn.execute(lock(found))
        old = plain.look(conn, "logs", zone)
        if reasons := survey.obstacles(conn, old, None):
            raise Unsuitable("; ".join(reasons))
        try:
            run_all(conn, beginning(conn, old, largest_id))
        except (errors.ProgrammingError, errors.DataError, errors.NotSupportedError) as error:
            raise Unsuitable(f"the new logs cannot be made: {database.message(error)}; nothing was changed") from error


def lock(found: Found) -> Composed:
    """Nobody reads or writes it while it is renamed."""
    return SQL("LOCK TABLE {} IN ACCESS EXCLUSIVE MODE").format(Identifier(found.place, "logs"))


def beginning(conn: Connection, old: PlainTable, largest_id: int | None) -> Iterator[Composed]:
    """DDL of steps 1 and 2; behind LOCK TABLE."""
    keys_on_parent = conn.info.server_version >= schema.NO_KEYS_ON_PARENT
    for table in schema.look(conn).missing:
        if table != "logs":
            yield from schema.create(table)
    yield from tablespace(old)
    yield SQL("ALTER TABLE logs RENAME TO logs_old").format()
    for name in sorted({index.name for index in old.indexes}):
        yield rename_index(name, name + SUFFIX)
    for constraint in old.constraints:
        if constraint.name not in {index.name for index in old.indexes}:
            yield rename_constraint(constraint.name, constraint.name + SUFFIX)
    yield from _sequence(old, largest_id)
    yield _create_logs(old)
    yield SQL("ALTER TABLE logs ALTER COLUMN id SET DEFAULT nextval({})").format(text(sequence_name(old)))
    yield SQL("ALTER TABLE logs OWNER TO {}").format(Identifier(old.owner))
    if old.sequence is None or old.sequence.identity:
        yield SQL("ALTER SEQUENCE {} OWNER TO {}").format(Identifier(sequence_name(old)), Identifier(old.owner))
    if old.sequence is None or old.sequence.owned:
        yield own_sequence(sequence_name(old), "logs", "id")
    for sequence, column in old.other_sequences:
        yield own_sequence(sequence, "logs", column)
    for constraint in old.constraints:
        if constraint.kind == "c":
            yield plain.add_constraint(constraint, "logs", named=True)
    if keys_on_parent:
        yield from plain.keys_and_indexes(old, "logs", named=True)
    yield from _comments_and_grants(old)
    yield SQL("COMMENT ON TABLE logs_old IS {}").format(Literal(f"{schema.UNFINISHED}, times read in {old.zone}"))


def own_sequence(sequence: str, table: str, column: str) -> Composed:
    """DDL: the sequence goes when that column goes."""
    return SQL("ALTER SEQUENCE {} OWNED BY {}.{}").format(Identifier(sequence), Identifier(table), Identifier(column))


def rename_index(name: str, to: str) -> Composed:
    """DDL."""
    return SQL("ALTER INDEX {} RENAME TO {}").format(Identifier(name), Identifier(to))


def rename_constraint(name: str, to: str) -> Composed:
    """DDL, of the old table."""
    return SQL("ALTER TABLE logs_old RENAME CONSTRAINT {} TO {}").format(Identifier(name), Identifier(to))


def sequence_name(old: PlainTable) -> str:
    """Of the sequence that the new table takes its ids from."""
    return old.sequence.name if old.sequence else "logs_id_seq"


def _sequence(old: PlainTable, largest_id: int | None) -> Iterator[Composed]:
    """The old sequence goes over to the new table. That of an identity column cannot: another one goes on from it."""
    name = Identifier(sequence_name(old))
    if old.sequence is None:
        yield SQL("CREATE SEQUENCE {}").format(name)
    elif old.sequence.identity:
        aside = Identifier(old.sequence.name + SUFFIX)
        yield SQL("ALTER SEQUENCE {} RENAME TO {}").format(name, aside)
        yield SQL("CREATE SEQUENCE {}").format(name)
        yield SQL("SELECT setval({}, last_value, is_called) FROM {}").format(text(old.sequence.name), aside)
    elif old.sequence.type != "bigint":
        yield SQL("ALTER SEQUENCE {} AS bigint").format(name)
    if largest_id is not None:
        yield past(sequence_name(old), largest_id)


def past(sequence: str, largest_id: int) -> Composed:
    """Put the sequence past the largest id, if it is not there."""
    return SQL(
        "SELECT setval({text}, {id}) FROM {name} WHERE last_value < {id} OR (last_value = {id} AND NOT is_called)"
    ).format(text=text(sequence), name=Identifier(sequence), id=Literal(largest_id))


def text(sequence: str) -> Literal:
    """A sequence as nextval and setval take it: its quoted name, as text."""
    return Literal(Identifier(sequence).as_string(None))


def _create_logs(old: PlainTable) -> Composed:
    """The old columns in the old order, ours as Schema.md has them; then ours that it had not."""
    lines: list[Composable] = []
    for column in old.columns:
        parts = [Identifier(column.name), SQL(column.new_type)]
        if column.collation and column.new_type == column.type:
            parts.append(SQL("COLLATE {}").format(SQL(column.collation)))
        if column.generated:
            parts.append(SQL("GENERATED ALWAYS AS ({}) STORED").format(SQL(column.default or "")))
        elif column.default is not None and column.name != "id":
            parts.append(SQL("DEFAULT {}").format(SQL(column.default)))
        if column.name in ("id", "timestamp") or (column.not_null and column.name not in schema.MAY_BE_NULL):
            parts.append(SQL("NOT NULL"))
        lines.append(SQL(" ").join(parts))
    lines += [SQL("{} {}").format(Identifier(name), SQL(plain.OUR_TYPES[name])) for name in old.missing_columns]
    return SQL('CREATE TABLE logs (\n    {}\n) PARTITION BY RANGE ("timestamp")').format(SQL(",\n    ").join(lines))


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
    if old.sequence is None or old.sequence.identity:  # an identity asks for no right; a default asks for this one
        for role in sorted(inserts, key=str):
            who = SQL("PUBLIC") if role is None else Identifier(role)
            yield SQL("GRANT USAGE ON SEQUENCE {} TO {}").format(Identifier(sequence_name(old)), who)
