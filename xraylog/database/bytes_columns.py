"""Notice that a column that contains bytes has another type.

The server cannot compare a digest with text, and would store an unparsed line as the text of its hexadecimal digits.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # `schema` imports this module
    from xraylog.database.schema import Table

COLUMNS: Mapping[str, tuple[str, ...]] = {
    "log_positions": ("head", "tail", "installation"),
    "rejected_lines": ("line",),
}


def find(tables: Mapping[str, Table]) -> Iterator[str]:
    """Yield a message for each of these columns that has another type."""
    for name, columns in COLUMNS.items():
        for column in columns:
            found = tables[name].types.get(column, "bytea") if name in tables else "bytea"
            if found.strip('"') != "bytea":  # quoted where quote_all_identifiers is on
                yield (
                    f"{name}.{column}: expected the type bytea, found {found}; "
                    f"ALTER TABLE {name} ALTER {column} TYPE bytea USING {column}::text::bytea"
                )
