"""Columns that stand beside an answer where their table is filled: the country and the provider of an address."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from psycopg.sql import Identifier

from xraylog.database import networks
from xraylog.database.session import Connection
from xraylog.questions import statements
from xraylog.questions.present import Part

IS_FILLED = "SELECT EXISTS (SELECT FROM networks)"
OF_NETWORKS = "{}: as the table networks has them, empty where it has none."


@dataclass(frozen=True, slots=True)
class Beside:
    """Columns of a second statement, which is asked about the values of one column of the answer."""

    part: str
    key: str  # the column; where its values are lists, so are those of the new columns
    columns: Mapping[str, str]  # the name of each new one, and what the statement calls it
    function: str = "places_of"
    after: str | None = None  # the column after which they come; None: the key


def places(part: str, key: str) -> Beside:
    """Return country and provider of each address in a column."""
    return Beside(part, key, {"country": "country", "provider": "provider"})


def readable(conn: Connection) -> tuple[bool, list[str]]:
    """Return whether there are networks to be read, and a note if there are and this role may not."""
    found = networks.state(conn)
    if not (found.exists and found.is_ours):
        return False, []
    if not found.may_read:
        role = Identifier(conn.info.user).as_string(conn)
        return False, [f"Without country and provider: as the owner of networks: GRANT SELECT ON networks TO {role}"]
    ((is_filled,),) = conn.execute(IS_FILLED)
    return is_filled, []


def add(parts: Sequence[Part], wanted: Sequence[Beside], ask: Callable[[str, list[str]], Any]) -> list[Part]:
    """Return the parts with these columns. `ask`: returns the rows of a function about some values."""
    for beside in wanted:
        parts = [_added(part, beside, ask) if part.name == beside.part else part for part in parts]
    return list(parts)


def note(wanted: Sequence[Beside]) -> str:
    """Return what the new columns are."""
    names = dict.fromkeys(name for beside in wanted for name in beside.columns)
    return OF_NETWORKS.format(", ".join(names))


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
