"""Define the tables, their keys and their indexes, as statements. It corresponds to Schema.md."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from psycopg.sql import SQL, Composed, Identifier

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


def add_column(table: str, column: str, keys: bool) -> Composed:
    """Return the DDL for a column that a table lacks, with its foreign key if `keys`."""
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
