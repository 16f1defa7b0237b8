"""Notice columns of another kind than what a run compares and keeps in them: numbers, digests or names as other things.

The server refuses to compare some, with an error that names no column, and others are never equal to what a run looks
for: then lines would be stored twice.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, NamedTuple

from xraylog.database import ddl

if TYPE_CHECKING:  # `schema` imports this module
    from xraylog.database.schema import Table

BYTES = "bytea"


class Kind(NamedTuple):
    """What a column may be: kinds as pg_type.typcategory, or types."""

    wanted: str
    accepted: tuple[str, ...]
    default: str = ""


TEXT = Kind("text", ("S",))
DIGEST = Kind(BYTES, (BYTES,))
NUMBER = Kind("bigint", ("N",))
MOMENT = Kind("timestamp with time zone", ("D",), "now()")
KINDS: Mapping[tuple[str, str], Kind] = {
    **dict.fromkeys(ddl.REFERENCE_TABLES.items(), TEXT),
    ("log_positions", "source"): TEXT,
    ("log_positions", "position"): Kind("bigint", ("smallint", "integer", "bigint")),
    ("log_positions", "head_length"): NUMBER,
    ("log_positions", "head"): DIGEST,
    ("log_positions", "updated_at"): MOMENT,
    ("log_positions", "stored_from"): NUMBER._replace(default="0"),
    ("log_positions", "tail"): DIGEST,
    ("log_positions", "installation"): DIGEST,
    ("rejected_lines", "rejected_at"): MOMENT,
    ("rejected_lines", "source"): TEXT._replace(accepted=("S", BYTES)),
    ("rejected_lines", "line_offset"): NUMBER._replace(accepted=("N", "S")),
    ("rejected_lines", "reason"): TEXT,
    ("rejected_lines", "line"): Kind(BYTES, ("S", BYTES)),
}


def find(tables: Mapping[str, Table]) -> Iterator[str]:
    """Yield a message for each column of another kind."""
    for (table, column), kind in KINDS.items():
        found = tables[table].types.get(column) if table in tables else None
        if found is None:
            continue
        found, category = found.strip('"'), tables[table].categories.get(column)  # quoted by quote_all_identifiers
        if not {found, category} & {*kind.accepted}:
            statement = f"ALTER TABLE {table} {_changes(column, kind, found)}"
            yield f"{table}.{column}: expected the type {kind.wanted}, found {found}; {statement}"


def may_be(table: Table, other: str, name: str, column: str) -> bool:
    """Return whether a column of a table may be our `column`, by its type: it was renamed."""
    kind = KINDS.get((name, column), NUMBER)  # ids, and what refers to them
    if (name, column) == ("logs", "timestamp"):
        kind = MOMENT
    return bool({table.types[other].strip('"'), table.categories.get(other)} & {*kind.accepted})


def _changes(column: str, kind: Kind, found: str) -> str:
    """Return the changes of ALTER TABLE that give a column its type. A default of the old one would prevent them."""
    text = f"convert_from({column}, 'UTF8')" if found == BYTES else f"{column}::text"
    using = text if kind.wanted == "text" else f"{text}::{kind.wanted}"
    if found.startswith(("numeric", "double", "real")):
        using = f"{column}::{kind.wanted}"
    change = f"ALTER {column} TYPE {kind.wanted} USING {using}"
    if not kind.default:
        return change
    return f"ALTER {column} DROP DEFAULT, {change}, ALTER {column} SET DEFAULT {kind.default}"
