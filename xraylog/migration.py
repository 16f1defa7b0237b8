"""From a plain `logs` to a partitioned one, step by step, and back. Each step is one transaction.

What is done is read from the catalog: a comment on `logs_old` says that a migration is on its way, and a day whose
partition is there has been copied. So the same steps, begun again, go on where they ended.
"""

from __future__ import annotations

import contextlib
import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import astuple, dataclass
from datetime import date
from enum import Enum
from typing import TypeVar

from psycopg import errors
from psycopg.sql import SQL, Composable, Composed, Identifier, Literal

from xraylog import database, partitions, plain, schema
from xraylog.database import Connection, Unsuitable
from xraylog.plain import BY_DAY, PlainTable, Survey

# Who waits for ACCESS EXCLUSIVE keeps every new reader waiting. Nobody shall wait for a second: give way, try again.
LOCK_TIMEOUT = "500ms"
PAUSE_S = 1.0
PATIENCE_S = 600.0
SUFFIX = "_old"  # for the names of the old table's indexes and constraints: the new table gets them
UNDONE = "_new"  # for the names of the new table's, when it is undone
FINISHED = "xraylog: finished migration into logs"
DROPPING = "xraylog: undone migration, to be dropped"
CORRELATED = 0.9  # from here on the rows of a day lie together, and a BRIN index finds them
GENERATED_COLUMNS = 120000  # PostgreSQL 12, for LIKE INCLUDING

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


def run_all(conn: Connection, statements: Iterator[Composed] | Sequence[Composed]) -> None:
    """Execute them in their order."""
    for statement in statements:
        conn.execute(statement)


# --- steps 1 and 2: the new table takes the old one's place ------------------------------------------------


def begin(conn: Connection, zone: str, largest_id: int | None) -> None:
    """Rename the old table and make the new one, in one transaction. Raises Unsuitable when it cannot be migrated."""
    with step(conn):
        conn.execute(lock(plain.look(conn, "logs", zone)))
        if look(conn).state is not State.PLAIN:  # another session was faster
            return
        old = plain.look(conn, "logs", zone)
        if reasons := plain.obstacles(conn, old, None):
            raise Unsuitable("; ".join(reasons))
        try:
            run_all(conn, beginning(conn, old, largest_id))
        except (errors.ProgrammingError, errors.DataError, errors.NotSupportedError) as error:
            raise Unsuitable(f"the new logs cannot be made: {database.message(error)}; nothing was changed") from error


def lock(old: PlainTable) -> Composed:
    """Nobody reads or writes it while it is renamed."""
    return SQL("LOCK TABLE {} IN ACCESS EXCLUSIVE MODE").format(Identifier(old.place, "logs"))


def beginning(conn: Connection, old: PlainTable, largest_id: int | None) -> Iterator[Composed]:
    """DDL of steps 1 and 2; behind LOCK TABLE."""
    keys_on_parent = conn.info.server_version >= schema.NO_KEYS_ON_PARENT
    yield search_path(old.path)
    yield from tablespace(old)
    for table in schema.look(conn).missing:
        if table != "logs":
            yield from schema.create(table)
    yield SQL("ALTER TABLE logs RENAME TO logs_old").format()
    for name in sorted({index.name for index in old.indexes}):
        yield _rename_index(name, name + SUFFIX)
    for constraint in old.constraints:
        if constraint.name not in {index.name for index in old.indexes}:
            yield _rename_constraint(constraint.name, constraint.name + SUFFIX)
    yield from _sequence(old, largest_id)
    yield _create_logs(old)
    yield SQL("ALTER TABLE logs ALTER COLUMN id SET DEFAULT nextval({})").format(_text(sequence_name(old)))
    if old.sequence is None or old.sequence.owned:
        yield SQL("ALTER SEQUENCE {} OWNED BY logs.id").format(Identifier(sequence_name(old)))
    for constraint in old.constraints:
        if constraint.kind == "c":
            yield plain.add_constraint(constraint, "logs", named=True)
    if keys_on_parent:
        yield from plain.keys_and_indexes(old, "logs", named=True)
    yield from _comments_owner_and_grants(old)
    yield SQL("COMMENT ON TABLE logs_old IS {}").format(Literal(f"{schema.UNFINISHED}, times read in {old.zone}"))


def _rename_index(name: str, to: str) -> Composed:
    return SQL("ALTER INDEX {} RENAME TO {}").format(Identifier(name), Identifier(to))


def _rename_constraint(name: str, to: str) -> Composed:
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
        yield SQL("SELECT setval({}, last_value, is_called) FROM {}").format(_text(old.sequence.name), aside)
    elif old.sequence.type != "bigint":
        yield SQL("ALTER SEQUENCE {} AS bigint").format(name)
    if largest_id is not None:
        yield past(sequence_name(old), largest_id)


def past(sequence: str, largest_id: int) -> Composed:
    """Put the sequence past the largest id, if it is not there."""
    return SQL(
        "SELECT setval({text}, {id}) FROM {name} WHERE last_value < {id} OR (last_value = {id} AND NOT is_called)"
    ).format(text=_text(sequence), name=Identifier(sequence), id=Literal(largest_id))


def _text(sequence: str) -> Literal:
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


def _comments_owner_and_grants(old: PlainTable) -> Iterator[Composed]:
    if old.comment is not None:
        yield SQL("COMMENT ON TABLE logs IS {}").format(Literal(old.comment))
    for column in old.columns:
        if column.comment is not None:
            yield SQL("COMMENT ON COLUMN logs.{} IS {}").format(Identifier(column.name), Literal(column.comment))
    yield SQL("ALTER TABLE logs OWNER TO {}").format(Identifier(old.owner))
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


# --- steps 3 to 6: each day ---------------------------------------------------------------------------------


def take_up(conn: Connection) -> tuple[PlainTable, Survey]:
    """Where a migration that has begun goes on: the old table, and what it holds, now that nothing is added to it.

    Raises Unsuitable when rows that cannot be migrated came in the very moment before it was renamed.
    """
    with database.transaction(conn):
        found = look(conn)
    with step(conn, found.path):
        old = plain.look(conn, "logs_old", found.zone)
        _have_index_by_day(conn, old)
        old = plain.look(conn, "logs_old", found.zone)
        counted = plain.survey(conn, old)
        reasons = list(plain.times(conn, old, counted)) if counted else ["logs_old cannot be read any more"]
        if counted is None or reasons:
            raise Unsuitable("; ".join([*reasons, "then go on, or go back with --undo"]))
        return old, counted


def _have_index_by_day(conn: Connection, old: PlainTable) -> None:
    """Without an index that finds the rows of a day, every day would read the whole table."""
    if _finds_days(old):
        return
    conn.execute("ANALYZE logs_old")
    row = conn.execute(CORRELATION, [old.place]).fetchone()
    method = "brin" if row is not None and abs(row[0] or 0) >= CORRELATED else "btree"
    conn.execute(index_by_day(old, method))
    if not old.has_zone:
        conn.execute("ANALYZE logs_old")  # of an expression there are statistics only now


CORRELATION = """
    SELECT correlation FROM pg_stats WHERE schemaname = %s AND tablename = 'logs_old' AND attname = 'timestamp'
"""


def _finds_days(old: PlainTable) -> bool:
    return any(
        index.name == BY_DAY or (index.valid and not index.partial and index.columns[0] == "timestamp" and old.has_zone)
        for index in old.indexes
        if index.definition.startswith(("btree", "brin"))
    )


def index_by_day(old: PlainTable, method: str) -> Composed:
    """DDL for an index that finds the rows of a day."""
    return SQL("CREATE INDEX {} ON logs_old USING {} ({})").format(
        Identifier(BY_DAY), SQL(method), SQL("({})").format(old.moment) if not old.has_zone else old.moment
    )


@dataclass(frozen=True, slots=True)
class Copied:
    """What one day took."""

    rows: int = 0
    copy_s: float = 0.0
    index_s: float = 0.0
    keys_s: float = 0.0  # ATTACH: the server checks the foreign keys and the bounds

    def __add__(self, other: Copied) -> Copied:
        return Copied(*(one + two for one, two in zip(astuple(self), astuple(other), strict=True)))


def days_left(conn: Connection, old: PlainTable, span: Sequence[date]) -> list[date]:
    """Days of the old table that have not been copied, the newest first: people ask for these."""
    with step(conn, old.path):
        return days_without_partition(conn, span)


def days_without_partition(conn: Connection, span: Sequence[date]) -> list[date]:
    """In a transaction of `database`."""
    bounds = partitions.read_bounds(conn)
    return [day for day in reversed(span) if partitions.gaps(str(day), bounds)]


def copy_day(conn: Connection, old: PlainTable, day: date, waiting: Callable[[str], None]) -> Copied:
    """Copy a day's rows into a partition of their own, in one transaction; nothing if another session did."""
    with step(conn, old.path):
        if not partitions.gaps(str(day), partitions.read_bounds(conn)):
            return Copied()
        run_all(conn, tablespace(old))
        clock = [time.monotonic()]
        try:
            create, insert, *others, attach = copying(conn, old, day)
            conn.execute(create)
            rows = conn.execute(insert).rowcount
            clock.append(time.monotonic())
            run_all(conn, others)
            clock.append(time.monotonic())

            def attach_it() -> None:
                with conn.transaction():
                    conn.execute(attach)

            patiently(attach_it, waiting)
        except (errors.ProgrammingError, errors.DataError, errors.IntegrityError) as error:
            raise Unsuitable(
                f"{day}: its rows cannot be copied: {database.message(error)}; "
                f"mend them in logs_old and go on, or go back with --undo"
            ) from error
        clock.append(time.monotonic())
    return Copied(rows, *(end - start for start, end in itertools.pairwise(clock)))


def a_day(conn: Connection, old: PlainTable, day: date) -> list[Composed]:
    """The whole transaction of a day."""
    return [*limits(), search_path(old.path), *tablespace(old), *copying(conn, old, day)]


def copying(conn: Connection, old: PlainTable, day: date) -> Iterator[Composed]:
    """SQL of one day: the table, its rows, what it needs before it is attached, ATTACH."""
    low, high = partitions.day_bounds(str(day))
    name = partitions.partition_name(str(day), low, high)
    version = conn.info.server_version
    yield partitions.create_standalone(name, generated=version >= GENERATED_COLUMNS)
    columns = [column for column in old.columns if not column.generated]
    yield SQL("INSERT INTO {} ({})\nSELECT {}\nFROM logs_old\nWHERE {}").format(
        Identifier(name),
        SQL(", ").join(Identifier(column.name) for column in columns),
        SQL(", ").join(_converted(old, column) for column in columns),
        within(old.moment, day),
    )
    if version < schema.NO_KEYS_ON_PARENT:
        yield from plain.keys(old, name, named=False)
    yield from plain.indexes(old, name, named=False)
    yield partitions.attach(name, low, high)


def _converted(old: PlainTable, column: plain.Column) -> Composable:
    if column.name == "timestamp":
        return old.moment
    if column.new_type == column.type:
        return Identifier(column.name)
    return SQL("{}::{}").format(Identifier(column.name), SQL(column.new_type))


def within(moment: Composable, day: date) -> Composed:
    """A condition: the moment is in this UTC day."""
    low, high = partitions.day_bounds(str(day))
    return SQL("{moment} >= {low} AND {moment} < {high}").format(
        moment=moment, low=partitions.moment(low), high=partitions.moment(high)
    )


# --- step 7, and the proof ----------------------------------------------------------------------------------


def pass_largest_id(conn: Connection, old: PlainTable, largest_id: int | None) -> tuple[str, int] | None:
    """Have the sequence of logs.id past the largest id of the old table; its name and the last id it gave.

    Raises Unsuitable when it is not.
    """
    with step(conn, old.path):
        now = plain.look(conn, "logs", old.zone).sequence
        if now is None or largest_id is None:
            return None
        conn.execute(past(now.name, largest_id))
        ((last,),) = conn.execute(SQL("SELECT last_value FROM {}").format(Identifier(now.name)))
        if last < largest_id:
            raise Unsuitable(
                f"sequence {now.name}: expected it past {largest_id}, found {last}; is its MAXVALUE lower?"
            )
        return now.name, last


@dataclass(frozen=True, slots=True)
class DayProof:
    """One day of the old table beside the new one."""

    day: date
    old_rows: int
    new_rows: int
    old_sum: int
    new_sum: int

    @property
    def equal(self) -> bool:
        """Nothing is lost, doubled or changed."""
        return (self.old_rows, self.old_sum) == (self.new_rows, self.new_sum)


class Difference(Exception):
    """A day differs between the old table and the new one."""


def conclude(
    conn: Connection,
    old: PlainTable,
    found: Survey,
    drop: bool,
    tell: Callable[[DayProof], None],
    waiting: Callable[[str], None],
) -> None:
    """Prove that every day is the same in both tables, and only then finish: drop the old table, or mark it.

    One transaction, in which nobody can change the old table. Raises Difference when a day differs.
    """
    with step(conn, old.path):
        patiently(lambda: _in_savepoint(conn, SQL("LOCK TABLE logs_old IN SHARE MODE").format()), waiting)
        different = []
        for day in found.span:
            proof = _prove(conn, old, day, found.largest_id)
            tell(proof)
            if not proof.equal:
                different.append(str(day))
        if different:
            raise Difference(
                f"logs and logs_old differ on {', '.join(different)}; nothing was dropped. "
                f"To copy such a day once more, detach its partition from logs, rename it, and run the same command; "
                f"--undo goes back"
            )
        patiently(lambda: _in_savepoint(conn, end(old, drop)), waiting)


def end(old: PlainTable, drop: bool) -> Composed:
    """The last step: the old table goes, or stays as one whose migration is finished."""
    if drop:
        return SQL("DROP TABLE logs_old").format()
    return SQL("COMMENT ON TABLE logs_old IS {}").format(Literal(f"{FINISHED}, times read in {old.zone}"))


def _in_savepoint(conn: Connection, statement: Composed) -> None:
    with conn.transaction():
        conn.execute(statement)


def _prove(conn: Connection, old: PlainTable, day: date, largest_id: int | None) -> DayProof:
    before = [SQL("NULL::{}").format(SQL(plain.OUR_TYPES[name])) for name in old.missing_columns]
    of_old = [*(_converted(old, column) for column in old.columns), *before]
    of_new = [Identifier(name) for name in (*(column.name for column in old.columns), *old.missing_columns)]
    known = SQL("{} AND id <= {}").format(within(Identifier("timestamp"), day), Literal(largest_id))
    ((old_rows, old_sum),) = conn.execute(checksum(conn, "logs_old", of_old, within(old.moment, day)))
    ((new_rows, new_sum),) = conn.execute(checksum(conn, "logs", of_new, known))
    return DayProof(day, old_rows, new_rows, int(old_sum or 0), int(new_sum or 0))


def checksum(conn: Connection, table: str, columns: Sequence[Composable], condition: Composable) -> Composed:
    """A query: rows, and the sum of a 64-bit hash of each row's text. The order of rows does not matter.

    Rows that were stored since the migration began have larger ids, and are not the condition's.
    """
    row = SQL("ROW({})::text").format(SQL(", ").join(columns))
    hashed = (
        SQL("hashtextextended({}, 0)")
        if conn.info.server_version >= 110000
        else SQL("('x' || substr(md5({}), 1, 16))::bit(64)::bigint")
    ).format(row)
    return SQL("SELECT count(*), sum({})\nFROM {}\nWHERE {}").format(hashed, Identifier(table), condition)


# --- the way back --------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Loss:
    """What an undo would lose."""

    rows: int  # of logs, that the old table does not have
    largest_id: int  # of the old table
    last_id: int | None  # that the sequence gave


def look_back(conn: Connection) -> tuple[PlainTable, Loss]:
    """The old table, and what would be lost if it took its place again."""
    with step(conn):
        found = look(conn)
        conn.execute(search_path(found.path))
        old = plain.look(conn, "logs_old", found.zone)
        ((largest,),) = conn.execute("SELECT coalesce(max(id), 0) FROM logs_old")
        ((rows,),) = conn.execute("SELECT count(*) FROM logs WHERE id > %s", [largest])
        return old, Loss(rows, largest, _last_id(conn))


def _last_id(conn: Connection) -> int | None:
    sequence = plain.look(conn, "logs", "").sequence
    if sequence is None:
        return None
    row = conn.execute(SQL("SELECT last_value FROM {} WHERE is_called").format(Identifier(sequence.name))).fetchone()
    return int(row[0]) if row else None


def undo(conn: Connection, loss: Loss) -> bool:
    """Give the old table its name back; False, and nothing changed, when rows came since the loss was told."""
    with step(conn):
        found = look(conn)
        if found.state not in (State.UNFINISHED, State.FINISHED):  # another session was faster
            return True
        conn.execute(search_path(found.path))
        conn.execute("LOCK TABLE logs, logs_old IN ACCESS EXCLUSIVE MODE")
        if _last_id(conn) != loss.last_id:
            return False
        run_all(conn, undoing(conn, plain.look(conn, "logs_old", found.zone)))
        return True


def undoing(conn: Connection, old: PlainTable) -> Iterator[Composed]:
    """DDL of the way back; behind LOCK TABLE. The sequence, the names and the comment go back to the old table."""
    new = plain.look(conn, "logs", old.zone)
    for index in new.indexes:
        yield _rename_index(index.name, index.name + UNDONE)
    if old.sequence is not None and old.sequence.identity and new.sequence is not None:
        theirs, ours = old.sequence.name, new.sequence.name
        yield SQL("SELECT setval({}, last_value, is_called) FROM {}").format(_text(theirs), Identifier(ours))
        yield SQL("ALTER SEQUENCE {} RENAME TO {}").format(Identifier(ours), Identifier(ours + UNDONE))
        yield SQL("ALTER SEQUENCE {} RENAME TO {}").format(Identifier(theirs), Identifier(ours))
    elif old.sequence is not None and new.sequence is not None:
        if new.sequence.owned:
            yield SQL("ALTER SEQUENCE {} OWNED BY logs_old.id").format(Identifier(old.sequence.name))
        id_ = old.column("id")
        if id_ is not None and id_.plain_type != "bigint":
            yield SQL("ALTER SEQUENCE {} AS {}").format(Identifier(old.sequence.name), SQL(id_.plain_type))
    if any(index.name == BY_DAY for index in old.indexes):
        yield SQL("DROP INDEX {}").format(Identifier(BY_DAY))
    of_indexes = {index.name for index in old.indexes}
    for name in sorted(of_indexes):
        if name.endswith(SUFFIX):
            yield _rename_index(name, name[: -len(SUFFIX)])
    for constraint in old.constraints:
        if constraint.name.endswith(SUFFIX) and constraint.name not in of_indexes:
            yield _rename_constraint(constraint.name, constraint.name[: -len(SUFFIX)])
    yield SQL("COMMENT ON TABLE logs_old IS {}").format(Literal(new.comment))
    yield SQL("COMMENT ON TABLE logs IS {}").format(Literal(DROPPING))
    yield SQL("ALTER TABLE logs RENAME TO logs_new").format()
    yield SQL("ALTER TABLE logs_old RENAME TO logs").format()


PARTS = """
    SELECT quote_ident(c.relname)
    FROM pg_inherits i
    JOIN pg_class c ON c.oid = i.inhrelid
    WHERE i.inhparent = 'logs_new'::regclass
    ORDER BY c.relname
    LIMIT %s
"""


def drop_undone(conn: Connection) -> bool:
    """Drop what the undone migration made, a month of days at once; whether something is left."""
    with step(conn):
        found = look(conn)
        if found.state is not State.UNDOING:
            return False
        conn.execute(search_path(found.path))
        names = [name for (name,) in conn.execute(PARTS, [partitions.DAYS_AT_ONCE])]
        conn.execute(SQL("DROP TABLE {}").format(SQL(", ").join(map(SQL, names)) if names else SQL("logs_new")))
        return bool(names)
