"""Compare our tables with what exists, and create what is missing.

The daily partitions of `logs` are in `partitions`. Tables that were made by hand are used as they are: missing columns
are added, NOT NULL on the source is dropped, and nothing else. Mismatches are reported.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from psycopg.sql import SQL, Identifier

from xraylog.database import (
    child_tables,
    citus,
    column_types,
    ddl,
    lost_columns,
    lost_names,
    markers,
    migration_record,
    namesakes,
    refusals,
    session,
)
from xraylog.database.capabilities import Capabilities
from xraylog.database.session import Connection, Unavailable, Unsuitable

PARTITIONS_LOCK = "partitions"  # every transaction that creates or attaches one takes it first, to prevent deadlocks
MAY_BE_NULL = ("source_ip", "source_port")  # if a hand-made table has NOT NULL on these, it is dropped
NEVER_NULL = ("id", "timestamp", "action")
MIGRATING = "logs is being migrated, and not all of its days are in it"


class Plain(Unsuitable):
    """logs is not partitioned yet: the operator has to run the migration."""


class Migrating(Unavailable):
    """A migration of logs is not finished: storing rows now could conflict with it."""


# --- what exists -------------------------------------------------------------------------------------------

CATALOG = f"""
    SELECT c.relname, c.relkind::text, a.attname, hidden.confrelid, format_type(a.atttypid, NULL),
           (SELECT typcategory FROM pg_type WHERE oid = a.atttypid)::text, a.attnotnull,
           EXISTS (SELECT FROM pg_index i
                   WHERE i.indrelid = c.oid AND i.indisunique AND i.indisvalid AND i.indimmediate AND i.indpred IS NULL
                     AND i.indkey::text = a.attnum::text),
           CASE c.relkind WHEN 'p' THEN pg_get_partkeydef(c.oid) END,
           obj_description(old.oid, 'pg_class'), old.oid IS NOT NULL, record.oid::regclass::text, c.relhassubclass
    FROM pg_class c
    JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
    LEFT JOIN pg_class old ON c.relname = 'logs' AND old.relnamespace = c.relnamespace AND old.relname = 'logs_old'
    LEFT JOIN pg_class record
           ON c.relname = 'logs' AND record.relnamespace = c.relnamespace AND {migration_record.IS_OURS}
    {namesakes.HIDDEN}
    WHERE c.relname = ANY(%s) AND pg_table_is_visible(c.oid)
    ORDER BY c.relname, a.attnum
"""  # noqa: S608  # a constant


@dataclass(slots=True)
class Table:
    """One table as the catalog has it."""

    kind: str  # as pg_class.relkind: "r" for a plain table, "p" for a partitioned one
    partition_key: str | None
    comment_on_old: str | None  # of logs: the comment on logs_old in the same schema
    has_old: bool  # of logs: whether there is a logs_old
    record: str | None  # of logs: the table that records how far a migration is, quoted
    may_have_children: bool  # or had: tables that inherit from it
    types: dict[str, str] = field(default_factory=dict)  # by column
    categories: dict[str, str] = field(default_factory=dict)  # by column, as pg_type.typcategory
    not_null: set[str] = field(default_factory=set)
    unique: set[str] = field(default_factory=set)
    hidden: dict[str, int] = field(default_factory=dict)  # by column: the oid that `namesakes.HIDDEN` found


@dataclass(frozen=True, slots=True)
class Findings:
    """The existing tables compared with what this project needs."""

    tables: Mapping[str, Table]
    misfits: tuple[str, ...]  # for the operator: each says what to do
    migration: str | None  # the text of the record of a migration of logs

    @property
    def migrating(self) -> bool:
        """Return whether a migration of logs was started and is not finished."""
        marker = markers.read_migration(self.migration)
        return marker is not None and not marker.is_finished

    @property
    def has_old(self) -> bool:
        """Return whether the old table of a migration of logs is still there."""
        return "logs" in self.tables and self.tables["logs"].has_old and markers.is_of_migration(self.migration)

    @property
    def missing(self) -> list[str]:
        """The tables that do not exist."""
        return [name for name in ddl.TABLES if name not in self.tables]

    @property
    def missing_columns(self) -> list[tuple[str, str]]:
        """The missing columns of existing tables, as pairs of table and column."""
        return [
            (name, column)
            for name, table in self.tables.items()
            for column in ddl.COLUMNS[name]
            if column not in table.types
        ]

    @property
    def to_relax(self) -> list[str]:
        """The columns of logs whose NOT NULL must be dropped."""
        return [name for name in MAY_BE_NULL if "logs" in self.tables and name in self.tables["logs"].not_null]

    @property
    def complete(self) -> bool:
        """Whether nothing has to be created or changed before rows can be stored."""
        return not (self.missing or {*self.missing_columns} - {("logs", ddl.REJECT_REASON)} or self.to_relax)

    @property
    def warnings(self) -> list[str]:
        """Columns of a hand-made table that will reject rows: they are NOT NULL, but xray may leave them empty."""
        if "logs" not in self.tables:
            return []
        strict = self.tables["logs"].not_null & ddl.COLUMNS["logs"].keys() - {*NEVER_NULL, *MAY_BE_NULL}
        return [
            f"logs.{name} is NOT NULL: lines without it go to rejected_lines; "
            f"ALTER TABLE logs ALTER COLUMN {name} DROP NOT NULL"
            for name in sorted(strict)
        ]


def inspect(conn: Connection) -> Findings:
    """Return what exists of our tables in the search path. Changes nothing."""
    tables: dict[str, Table] = {}
    columns = session.answer(conn, CATALOG, [list(ddl.TABLES)])
    for name, kind, column, hidden, type_name, category, not_null, unique, *of_table in columns:
        table = tables.setdefault(name, Table(kind, *of_table))
        table.types[column] = type_name
        table.categories[column] = category
        if hidden:
            table.hidden[column] = hidden
        if not_null:
            table.not_null.add(column)
        if unique:
            table.unique.add(column)
    role = Identifier(conn.info.user).as_string(conn)
    foreign = *namesakes.tables_of_others(tables, ddl.COLUMNS, role), *namesakes.hiding_tables(conn, tables)
    found = foreign or (
        *misfits(tables, role),
        *lost_names.find(conn, tables),
        *child_tables.find(conn, tables),
    )
    return Findings(tables, found, _migration(conn, tables.get("logs")))


def _migration(conn: Connection, logs: Table | None) -> str | None:
    """Return the text of the record of a migration: from its own table, or the comment on logs_old."""
    if logs is None or logs.kind != "p":
        return None
    return migration_record.read(conn, logs.record) or logs.comment_on_old


KEY = 'RANGE ("timestamp")'
TIMESTAMP = "timestamp with time zone"
WHOLE_NUMBERS = (None, "smallint", "integer", "bigint")  # None: the column is missing, which is reported elsewhere


def misfits(tables: Mapping[str, Table], role: str) -> Iterator[str]:
    """Yield each mismatch of these tables, with what to do."""
    if "logs" in tables and tables["logs"].kind == "r":
        yield (
            "logs: expected a table partitioned by day, found a plain one; "
            "migrate_logs_to_partitioned.py makes one of it"
        )
    for name, key in ddl.REFERENCE_TABLES.items():
        if name in tables and tables[name].kind == "r":
            unique = tables[name].unique
            if key not in unique and key in tables[name].types:
                yield f"{name}.{key}: expected a unique column, found none; ALTER TABLE {name} ADD UNIQUE ({key})"
            if "id" not in unique and "id" in tables[name].types and "logs" not in tables:  # logs will refer to it
                yield f"{name}.id: expected a primary key, found none; ALTER TABLE {name} ADD PRIMARY KEY (id)"
    yield from column_types.find(tables)
    if are_ours := lost_columns.are_ours(tables):
        yield from lost_columns.find(tables)
    if of_others := list(_misfits_of_others(tables, are_ours)):
        own = refusals.new_schema(role)
        of_others[-1] += f"; if it is another program's, give this role a schema of its own: {own}"
    yield from of_others


def _misfits_of_others(tables: Mapping[str, Table], are_ours: bool) -> Iterator[str]:
    """Yield each mismatch that no statement can fix, because the table was made for another purpose."""
    for name, table in tables.items():
        if name == "logs" and table.kind not in "pr":
            yield "logs: expected a partitioned table, found another kind"
        elif name != "logs" and table.kind != "r":
            yield f"{name}: expected a table, found another kind"
        elif (
            name == "logs"
            and table.kind == "p"
            and table.partition_key != KEY
            and (not are_ours or "timestamp" in table.types)
        ):
            yield f"logs: expected PARTITION BY {KEY}, found {table.partition_key}"
        elif name != "logs" and "logs" not in tables and table.types.get("id") not in WHOLE_NUMBERS:
            yield f"{name}.id: expected a whole number, found {table.types['id']}"
        for column in ddl.COLUMNS[name]:
            if column not in table.types and not ddl.COLUMNS[name][column] and not are_ours:
                yield f"{name}.{column}: expected a column, found none"
    if "logs" in tables and (found := tables["logs"].types.get("timestamp")) not in (TIMESTAMP, None):
        yield f"logs.timestamp: expected {TIMESTAMP}, found {found}"


# --- creating it -------------------------------------------------------------------------------------------


def ensure(conn: Connection) -> Findings:
    """Create missing tables and columns. If nothing is missing, only read the catalog: a role without CREATE can run.

    Raises Unsuitable or Plain with all mismatches, and Migrating while a migration of `logs` is not finished.
    """
    findings = inspect(conn)  # it may wait for locks, because the server may have to lock a table to describe it
    if findings.migrating:
        raise Migrating(MIGRATING)
    if not findings.complete and not findings.misfits:
        with session.transaction(conn, PARTITIONS_LOCK):
            findings = inspect(conn)  # another run may have been faster
            if not findings.misfits:
                citus.before_ddl(conn, f"{session.LOCK_TIMEOUT_S}s")
                _create(conn, findings)
                findings = inspect(conn)
    if findings.misfits:
        plain = "logs" in findings.tables and findings.tables["logs"].kind == "r"
        raise (Plain if plain else Unsuitable)("; ".join(findings.misfits))
    return findings


# Where the default is set, and is the database's own anyway, the server refuses a partitioned table, and its indexes.
NO_OWN_TABLESPACE = """
    SELECT set_config('default_tablespace', '', true)
    FROM pg_database d
    JOIN pg_tablespace t ON t.oid = d.dattablespace
    WHERE d.datname = current_database() AND t.spcname = current_setting('default_tablespace')
"""


def _create(conn: Connection, findings: Findings) -> None:
    keys_on_logs = Capabilities.of(conn).keys_on_partitioned
    conn.execute(NO_OWN_TABLESPACE)
    for name in findings.missing:
        for statement in ddl.create(name, keys_on_logs):
            conn.execute(statement)
    for table, column in findings.missing_columns:
        conn.execute(ddl.add_column(table, column, keys_on_logs))
    for name in findings.to_relax:
        conn.execute(SQL("ALTER TABLE logs ALTER COLUMN {} DROP NOT NULL").format(Identifier(name)))
