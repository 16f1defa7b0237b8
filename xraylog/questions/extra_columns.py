"""Columns that stand beside an answer where their table is filled: country, provider and names of an address."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from xraylog.answers import statements
from xraylog.database import dns_names, networks
from xraylog.database.optional import OptionalTable
from xraylog.questions.present import Part

NOTES = {
    networks.TABLE.name: "{}: as the table networks has them, empty where it has none.",
    dns_names.TABLE.name: "{}: what DNS answers called an address, from the day before on, at most five; of any node.",
}


@dataclass(frozen=True, slots=True)
class Beside:
    """Columns of a second statement, which is asked about the values of one column of the answer."""

    part: str
    key: str  # the column; where its values are lists, so are those of the new columns
    columns: Mapping[str, str]  # the name of each new one, and what the statement calls it
    function: str = "places_of"
    after: str | None = None  # the column after which they come; None: the key
    table: OptionalTable = networks.TABLE  # which the function reads


def places(part: str, key: str) -> Beside:
    """Return country and provider of each address in a column."""
    return Beside(part, key, {"country": "country", "provider": "provider"})


def names(part: str) -> Beside:
    """Return the names that bare addresses had, beside the destinations of a part."""
    return Beside(part, "destination", {"names": "names"}, "names_of", table=dns_names.TABLE)


def add(parts: Sequence[Part], wanted: Sequence[Beside], ask: Callable[[str, list[str]], Any]) -> list[Part]:
    """Return the parts with these columns. `ask`: returns the rows of a function about some values."""
    for beside in wanted:
        parts = [_added(part, beside, ask) if part.name == beside.part else part for part in parts]
    return list(parts)


def note(wanted: Sequence[Beside]) -> str:
    """Return what the new columns are. `wanted`: those of one table."""
    names = dict.fromkeys(name for beside in wanted for name in beside.columns)
    return NOTES[wanted[0].table.name].format(", ".join(names))


def _added(part: Part, beside: Beside, ask: Callable[[str, list[str]], Any]) -> Part:
    at = part.columns.index(beside.key)
    values = dict.fromkeys(str(value) for row in part.rows for value in _listed(row[at]))
    columns = statements.read()[beside.function].columns
    found = {
        str(row[0]): tuple(row[columns.index(name)] for name in beside.columns.values())
        for row in (ask(beside.function, list(values)) if values else ())
    }
    none = (None,) * len(beside.columns)
    after = part.columns.index(beside.after or beside.key) + 1

    def of(value: Any) -> tuple[Any, ...]:
        if not isinstance(value, list):
            return found.get(str(value), none)
        each = [found.get(str(one), none) for one in value]
        return tuple([*dict.fromkeys(filter(None, column))] or None for column in zip(*each, strict=True))

    return replace(
        part,
        columns=(*part.columns[:after], *beside.columns, *part.columns[after:]),
        rows=[(*row[:after], *of(row[at]), *row[after:]) for row in part.rows],
    )


def _listed(value: Any) -> Sequence[Any]:
    if value is None:
        return ()
    return value if isinstance(value, list) else (value,)
