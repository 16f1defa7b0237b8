"""Define the tables, their keys and their indexes, compare them with what exists, and create what is missing.

It corresponds to Schema.md; the daily partitions of `logs` are in `partitions`. Tables that were made by hand are used
as they are: missing columns are added, NOT NULL on the source is dropped, and nothing else. Mismatches are reported.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from psycopg.sql import SQL, Composed, Identifier

from xraylog.database import bytes_columns, citus, lost_names, markers, migration_record, namesakes, refusals, session
from xraylog.database.capabilities import Capabilities
from xraylog.database.session import Connection, Unavailable, Unsuitable

PARTITIONS_LOCK = "partitions"  # every transaction that creates or attaches one takes it first, to prevent deadlocks

REFERENCE_TABLES: Mapping[str, str] = {  # each with its unique column, which contains the name
    "users": "email",
    "protocols": "name",
    "endpoints": "address",
    "tags": "name",
    "nodes": "name",
}

TABLES: Mapping[str, str] = {  # each after those that it refers to
    "users": """
        CREATE TABLE users (
            id    serial PRIMARY KEY,
            email text   NOT NULL UNIQUE
        )""",
    "protocols": """
        CREATE TABLE protocols (
            id   serial PRIMARY KEY,
            name text   NOT NULL UNIQUE
        )""",
    "endpoints": """
        CREATE TABLE endpoints (
            id      serial PRIMARY KEY,
            address text   NOT NULL UNIQUE
        )""",
    "tags": """
        CREATE TABLE tags (
            id   serial PRIMARY KEY,
            name text   NOT NULL UNIQUE
        )""",
    "nodes": """
        CREATE TABLE nodes (
            id   serial PRIMARY KEY,
            name text   NOT NULL UNIQUE
        )""",
    "logs": """
        CREATE TABLE logs (
            id               bigserial   NOT NULL,
            "timestamp"      timestamptz NOT NULL,
            source_ip        inet,
            source_port      integer,
            action           text        NOT NULL,
            reject_reason    text,
            protocol_id      integer,
            destination_id   integer,
            destination_port integer,
            inbound_tag_id   integer,
            outbound_tag_id  integer,
            user_id          integer,
            node_id          integer{keys}
        ) PARTITION BY RANGE ("timestamp")""",
    "log_positions": """
        CREATE TABLE log_positions (
            id           bigserial   PRIMARY KEY,
            node_id      integer     NOT NULL REFERENCES nodes,
            source       text        NOT NULL,
            position     bigint      NOT NULL,
            head_length  integer     NOT NULL,
            head         bytea       NOT NULL,
            updated_at   timestamptz NOT NULL DEFAULT now(),
            stored_from  bigint      NOT NULL DEFAULT 0,
            tail         bytea,
            installation bytea
        )""",
    "rejected_lines": """
        CREATE TABLE rejected_lines (
            id          bigserial   PRIMARY KEY,
            rejected_at timestamptz NOT NULL DEFAULT now(),
            node_id     integer     NOT NULL REFERENCES nodes,
            source      text        NOT NULL,
            line_offset bigint      NOT NULL,
            reason      text        NOT NULL,
            line        bytea       NOT NULL
        )""",
}

KEYS: Mapping[str, str] = {  # the foreign keys of logs: columns, and the tables that they refer to
    "protocol_id": "protocols",
    "destination_id": "endpoints",
    "inbound_tag_id": "tags",
    "outbound_tag_id": "tags",
    "user_id": "users",
    "node_id": "nodes",
}

LOGS_INDEXES = (  # as pg_get_indexdef writes them, after USING; on PostgreSQL 10 each partition has its own
    """brin ("timestamp") WITH (autosummarize='on')""",
    'btree (user_id, "timestamp")',
    'btree (destination_id, "timestamp")',
)
INDEXES: Mapping[str, str] = {
    "rejected_lines": "CREATE INDEX ON rejected_lines USING brin (rejected_at) WITH (autosummarize = on)",
    "log_positions": "CREATE INDEX ON log_positions (node_id, source)",
}

REJECT_REASON = "reject_reason"  # of logs; rows can do without it: `database.reject_reason`
COLUMNS: Mapping[str, Mapping[str, str]] = {  # of each table; a column with a type is added if it is missing
    **{table: {"id": "", name: ""} for table, name in REFERENCE_TABLES.items()},
    "logs": {
        "timestamp": "",
        "source_ip": "inet",
        "source_port": "integer",
        "action": "text",
        REJECT_REASON: "text",
        **dict.fromkeys((*KEYS, "destination_port"), "integer"),
    },
    "log_positions": {
        **dict.fromkeys(("id", "node_id", "source", "position", "head_length", "head", "updated_at"), ""),
        "stored_from": "bigint NOT NULL DEFAULT 0",
        "tail": "bytea",
        "installation": "bytea",
    },
    "rejected_lines": dict.fromkeys(("rejected_at", "node_id", "source", "line_offset", "reason", "line"), ""),
}
MAY_BE_NULL = ("source_ip", "source_port")  # if a hand-made table has NOT NULL on these, it is dropped
NEVER_NULL = ("id", "timestamp", "action")

MIGRATING = "logs is being migrated, and not all of its days are in it"


class Plain(Unsuitable):
    """logs is not partitioned yet: the operator has to run the migration."""


class Migrating(Unavailable):
    """A migration of logs is not finished: storing rows now could conflict with it."""


# --- what exists -------------------------------------------------------------------------------------------

CATALOG = f"""
    SELECT c.relname, c.relkind::text, a.attname, hidden.confrelid, format_type(a.atttypid, NULL), a.attnotnull,
           EXISTS (SELECT FROM pg_index i
                   WHERE i.indrelid = c.oid AND i.indisunique AND i.indisvalid AND i.indimmediate AND i.indpred IS NULL
                     AND i.indkey::text = a.attnum::text),
           CASE c.relkind WHEN 'p' THEN pg_get_partkeydef(c.oid) END,
           obj_description(old.oid, 'pg_class'), old.oid IS NOT NULL, record.oid::regclass::text
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
    types: dict[str, str] = field(default_factory=dict)  # by column
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
        return [name for name in TABLES if name not in self.tables]

    @property
    def missing_columns(self) -> list[tuple[str, str]]:
        """The missing columns of existing tables, as pairs of table and column."""
        return [
            (name, column)
            for name, table in self.tables.items()
            for column in COLUMNS[name]
            if column not in table.types
        ]

    @property
    def to_relax(self) -> list[str]:
        """The columns of logs whose NOT NULL must be dropped."""
        return [name for name in MAY_BE_NULL if "logs" in self.tables and name in self.tables["logs"].not_null]

    @property
    def complete(self) -> bool:
        """Whether nothing has to be created or changed before rows can be stored."""
        return not (self.missing or {*self.missing_columns} - {("logs", REJECT_REASON)} or self.to_relax)

    @property
    def warnings(self) -> list[str]:
        """Columns of a hand-made table that will reject rows: they are NOT NULL, but xray may leave them empty."""
        if "logs" not in self.tables:
            return []
        strict = self.tables["logs"].not_null & COLUMNS["logs"].keys() - {*NEVER_NULL, *MAY_BE_NULL}
        return [
            f"logs.{name} is NOT NULL: lines without it go to rejected_lines; "
            f"ALTER TABLE logs ALTER COLUMN {name} DROP NOT NULL"
            for name in sorted(strict)
        ]


def inspect(conn: Connection) -> Findings:
    """Return what exists of our tables in the search path. Changes nothing."""
    tables: dict[str, Table] = {}
    columns = session.answer(conn, CATALOG, [list(TABLES)])
    for name, kind, column, hidden, type_name, not_null, unique, *of_logs in columns:
        table = tables.setdefault(name, Table(kind, *of_logs))
        table.types[column] = type_name
        if hidden:
            table.hidden[column] = hidden
        if not_null:
            table.not_null.add(column)
        if unique:
            table.unique.add(column)
    role = Identifier(conn.info.user).as_string(conn)
    foreign = *namesakes.tables_of_others(tables, COLUMNS, role), *namesakes.hiding_tables(conn, tables)
    found = foreign or (*misfits(tables, role), *lost_names.find(conn, tables, KEYS, TABLES))
    return Findings(tables, found, _migration(conn, tables.get("logs")))


def _migration(conn: Connection, logs: Table | None) -> str | None:
    """Return the text of the record of a migration: from its own table, or the comment on logs_old."""
    if logs is None or logs.kind != "p":
        return None
    return migration_record.read(conn, logs.record) or logs.comment_on_old


TIMESTAMP = "timestamp with time zone"
WHOLE_NUMBERS = (None, "smallint", "integer", "bigint")  # None: the column is missing, which is reported elsewhere


def misfits(tables: Mapping[str, Table], role: str) -> Iterator[str]:
    """Yield each mismatch of these tables, with what to do."""
    if "logs" in tables and tables["logs"].kind == "r":
        yield (
            "logs: expected a table partitioned by day, found a plain one; "
            "migrate_logs_to_partitioned.py makes one of it"
        )
    for name, key in REFERENCE_TABLES.items():
        if name in tables and tables[name].kind == "r":
            unique = tables[name].unique
            if key not in unique and key in tables[name].types:
                yield f"{name}.{key}: expected a unique column, found none; ALTER TABLE {name} ADD UNIQUE ({key})"
            if "id" not in unique and "id" in tables[name].types and "logs" not in tables:  # logs will refer to it
                yield f"{name}.id: expected a primary key, found none; ALTER TABLE {name} ADD PRIMARY KEY (id)"
    yield from bytes_columns.find(tables)
    if of_others := list(_misfits_of_others(tables)):
        own = refusals.new_schema(role)
        of_others[-1] += f"; if it is another program's, give this role a schema of its own: {own}"
    yield from of_others


def _misfits_of_others(tables: Mapping[str, Table]) -> Iterator[str]:
    """Yield each mismatch that no statement can fix, because the table was made for another purpose."""
    for name, table in tables.items():
        if name == "logs" and table.kind not in "pr":
            yield "logs: expected a partitioned table, found another kind"
        elif name != "logs" and table.kind != "r":
            yield f"{name}: expected a table, found another kind"
        elif name == "logs" and table.kind == "p" and table.partition_key != 'RANGE ("timestamp")':
            yield f'logs: expected PARTITION BY RANGE ("timestamp"), found {table.partition_key}'
        elif name != "logs" and "logs" not in tables and table.types.get("id") not in WHOLE_NUMBERS:
            yield f"{name}.id: expected a whole number, found {table.types['id']}"
        for column in COLUMNS[name]:
            if column not in table.types and not COLUMNS[name][column]:
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
        for statement in create(name, keys_on_logs):
            conn.execute(statement)
    for table, column in findings.missing_columns:
        conn.execute(_add_column(table, column, keys_on_logs))
    for name in findings.to_relax:
        conn.execute(SQL("ALTER TABLE logs ALTER COLUMN {} DROP NOT NULL").format(Identifier(name)))


def create(name: str, keys_on_logs: bool = True) -> Iterator[Composed]:
    """Yield the DDL for one table, with its keys and indexes; for `logs` only if it can have them (`keys_on_logs`).

    The keys are inside CREATE TABLE: Citus refuses to add one that refers to a reference table afterwards.
    """
    keys = SQL("").join(SQL(",\n            {}").format(_key(column)) for column in KEYS if keys_on_logs)
    yield SQL(TABLES[name]).format(keys=keys)
    if name in INDEXES:
        yield SQL(INDEXES[name]).format()
    if name == "logs" and keys_on_logs:
        yield from (create_index(name, index) for index in LOGS_INDEXES)


def _add_column(table: str, column: str, keys: bool) -> Composed:
    has_key = keys and table == "logs" and column in KEYS
    reference = SQL(" REFERENCES {}").format(Identifier(KEYS[column])) if has_key else SQL("")
    return SQL("ALTER TABLE {table} ADD COLUMN {column} {type}{reference}").format(
        table=Identifier(table), column=Identifier(column), type=SQL(COLUMNS[table][column]), reference=reference
    )


def keys_and_indexes(table: str) -> Iterator[Composed]:
    """Yield the DDL for the foreign keys and indexes of logs on one partition, as PostgreSQL 10 needs it."""
    for column in KEYS:
        yield add_key(table, column)
    for index in LOGS_INDEXES:
        yield create_index(table, index)


def add_key(table: str, column: str) -> Composed:
    """Return the DDL for the foreign key of a column of logs."""
    return SQL("ALTER TABLE {table} ADD {key}").format(table=Identifier(table), key=_key(column))


def _key(column: str) -> Composed:
    return SQL("FOREIGN KEY ({column}) REFERENCES {referenced}").format(
        column=Identifier(column), referenced=Identifier(KEYS[column])
    )


def create_index(table: str, definition: str, name: str | None = None, unique: bool = False) -> Composed:
    """Return the DDL for an index. `definition`: pg_get_indexdef after USING; without a name the server makes one."""
    return SQL("CREATE {unique}INDEX {name}ON {table} USING {definition}").format(
        unique=SQL("UNIQUE " if unique else ""),
        name=SQL("{} ").format(Identifier(name)) if name else SQL(""),
        table=Identifier(table),
        definition=SQL(definition),  # the catalog's own text
    )
