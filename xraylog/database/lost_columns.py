"""Say what brings a column back that was renamed or dropped by hand, in tables that are ours and no other program's."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from xraylog.database import column_types, ddl

if TYPE_CHECKING:  # `schema` imports this module
    from xraylog.database.schema import Table

# How a column that was dropped is added. Without its values an old row says less; no row and no line is stored twice.
ADDED: Mapping[tuple[str, str], str] = {
    ("log_positions", "id"): "bigserial PRIMARY KEY",
    ("log_positions", "source"): "text NOT NULL DEFAULT ''",
    ("log_positions", "updated_at"): "timestamptz NOT NULL DEFAULT now()",
    ("rejected_lines", "rejected_at"): "timestamptz NOT NULL DEFAULT now()",
    ("rejected_lines", "node_id"): "integer REFERENCES nodes",
    ("rejected_lines", "source"): "text NOT NULL DEFAULT ''",
    ("rejected_lines", "line_offset"): "bigint NOT NULL DEFAULT 0",
    ("rejected_lines", "reason"): "text NOT NULL DEFAULT ''",
    ("rejected_lines", "line"): "bytea NOT NULL DEFAULT ''",
}


def find(tables: Mapping[str, Table]) -> Iterator[str]:
    """Yield a message for each missing column that a run cannot add. Call it only if the tables are ours."""
    for name, table in tables.items():
        for column, addition in ddl.COLUMNS[name].items():
            if column not in table.types and not addition:
                yield f"{name}.{column}: expected a column, found none; {_way_out(table, name, column)}"


def are_ours(tables: Mapping[str, Table]) -> bool:
    """Return whether a run has been here: all tables are there, and logs is partitioned."""
    return tables.keys() == ddl.TABLES.keys() and tables["logs"].kind == "p"


def _way_out(table: Table, name: str, column: str) -> str:
    others = (other for other in table.types if other not in ddl.COLUMNS[name] and other != "id")
    renamed = next((other for other in others if column_types.may_be(table, other, name, column)), None)
    if renamed is not None:
        return f"if it was renamed: ALTER TABLE {name} RENAME {_quoted(renamed)} TO {_quoted(column)}"
    restore = f"restore {name} from a backup"
    if (name, column) in ADDED:
        return f"{restore}; if there is none: ALTER TABLE {name} ADD {column} {ADDED[name, column]}"
    if name in ddl.REFERENCE_TABLES and column != "id":
        return f"{restore}; if there is none, old rows have no such name: ALTER TABLE {name} ADD {column} text UNIQUE"
    if name == "log_positions":
        return f"{restore}; if there is none, lines that a log has kept are stored once more: DROP TABLE {name}"
    return restore


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
