"""Extra columns of an answer, from the optional tables: country, provider and DNS names of an address."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from xraylog.answers import statements
from xraylog.database import dns_names, networks
from xraylog.database.optional import OptionalTable
from xraylog.questions.fetching import Row
from xraylog.questions.present import Part

NOTES = {
    networks.TABLE.name: "{}: as the table networks has them, empty where it has none.",
    dns_names.TABLE.name: "{}: what DNS answers called an address, from the day before on, at most five; of any node.",
}


@dataclass(frozen=True, slots=True)
class ExtraColumns:
    """Columns to add to one part of an answer: a second statement looks up the values of a key column."""

    part: str
    key: str  # the column to look up; where its values are lists, the new columns have lists, too
    columns: Mapping[str, str]  # name of each new column, and its name in the result of the second statement
    function: str = "places_of"
    after: str | None = None  # the column after which they are inserted; None: the key
    table: OptionalTable = networks.TABLE  # which the function reads


def places(part: str, key: str) -> ExtraColumns:
    """Return the country and provider columns for the addresses in column `key` of a part."""
    return ExtraColumns(part, key, {"country": "country", "provider": "provider"})


def names(part: str) -> ExtraColumns:
    """Return the column with the DNS names of those destinations of a part that are bare addresses."""
    return ExtraColumns(part, "destination", {"names": "names"}, "names_of", table=dns_names.TABLE)


def add(parts: Sequence[Part], wanted: Sequence[ExtraColumns], ask: Callable[[str, list[str]], Any]) -> list[Part]:
    """Return the parts with these columns. `ask` calls a function with a list of keys, and returns its rows."""
    for extra in wanted:
        parts = [_with_columns(part, extra, ask) if part.name == extra.part else part for part in parts]
    return list(parts)


def note(wanted: Sequence[ExtraColumns]) -> str:
    """Return the note that says where these columns come from. All of them read the same table."""
    names = dict.fromkeys(name for extra in wanted for name in extra.columns)
    return NOTES[wanted[0].table.name].format(", ".join(names))


def _with_columns(part: Part, extra: ExtraColumns, ask: Callable[[str, list[str]], Any]) -> Part:
    at = part.columns.index(extra.key)
    after = part.columns.index(extra.after or extra.key) + 1
    columns = statements.read()[extra.function].columns
    nothing = (None,) * len(extra.columns)

    def change(rows: list[Row]) -> list[Row]:
        keys = dict.fromkeys(str(value) for row in rows for value in _as_list(row[at]))
        found = {
            str(row[0]): tuple(row[columns.index(name)] for name in extra.columns.values())
            for row in (ask(extra.function, list(keys)) if keys else ())
        }
        return [(*row[:after], *_values_of(row[at], found, nothing), *row[after:]) for row in rows]

    part.rows.change(change)
    return replace(part, columns=(*part.columns[:after], *extra.columns, *part.columns[after:]))


def _values_of(key: Any, found: Mapping[str, tuple[Any, ...]], nothing: tuple[None, ...]) -> tuple[Any, ...]:
    """Return the values of a key; of a list of keys, a list of each."""
    if not isinstance(key, list):
        return found.get(str(key), nothing)
    each = [found.get(str(item), nothing) for item in key]
    return tuple([*dict.fromkeys(filter(None, column))] or None for column in zip(*each, strict=True))


def _as_list(value: Any) -> Sequence[Any]:
    if value is None:
        return ()
    return value if isinstance(value, list) else (value,)
