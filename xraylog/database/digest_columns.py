"""Notice that a column of digests has another type than bytea: the server cannot compare a digest with text."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # `schema` imports this module
    from xraylog.database.schema import Table

COLUMNS = ("head", "tail", "installation")  # of log_positions


def find(tables: Mapping[str, Table]) -> Iterator[str]:
    """Yield a message for each of these columns that has another type."""
    types = tables["log_positions"].types if "log_positions" in tables else {}
    for column in COLUMNS:
        found = types.get(column, "bytea")
        if found.strip('"') != "bytea":  # quoted where quote_all_identifiers is on
            yield (
                f"log_positions.{column}: expected the type bytea, found {found}; "
                f"ALTER TABLE log_positions ALTER {column} TYPE bytea USING {column}::text::bytea"
            )
