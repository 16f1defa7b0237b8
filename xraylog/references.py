"""Names to ids in the reference tables: users, protocols, endpoints, tags, nodes.

Names are committed in a short transaction of their own, before the rows that use them; what a run met already
is remembered, up to a bound. A whole reference table is never read: it may hold millions of endpoints.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from psycopg.errors import DataError, IntegrityError
from psycopg.sql import SQL, Composed, Identifier

from xraylog import database
from xraylog.database import Connection, Unsuitable

COLUMN: Final[Mapping[str, str]] = {  # of the name, by table
    "users": "email",
    "protocols": "name",
    "endpoints": "address",
    "tags": "name",
    "nodes": "name",
}
REMEMBERED = 50_000  # names a table: an adversary's log must not fill the memory


def _known(table: str) -> Composed:
    return SQL("SELECT {column}, id FROM {table} WHERE {column} = ANY(%(names)s::text[])").format(
        table=Identifier(table), column=Identifier(COLUMN[table])
    )


def _add(table: str) -> Composed:
    """Only names that `_known` did not find come here: ON CONFLICT would burn an id for every one that exists.

    Sorted, so that two writers meet the same names in the same order: no deadlock.
    """
    return SQL("""
        INSERT INTO {table} ({column})
        SELECT name FROM unnest(%(names)s::text[]) AS missing (name)
        ORDER BY name
        ON CONFLICT ({column}) DO NOTHING
        RETURNING {column}, id
    """).format(table=Identifier(table), column=Identifier(COLUMN[table]))


class References:
    """The names that this run has met, with their ids."""

    def __init__(self, conn: Connection) -> None:
        self._conn = conn
        self._ids: dict[str, dict[str, int]] = {table: {} for table in COLUMN}
        self.refused: dict[tuple[str, str], str] = {}  # table and name to reason, for the names resolved last

    def resolve(self, names: Mapping[str, Iterable[str]]) -> dict[str, int]:
        """Have an id for each of these names, by table; says how many of them are new in each table.

        A name that the database refuses has no id afterwards, but a reason in `refused`.
        """
        self.refused.clear()
        missing = {}
        for table, wanted in names.items():
            ids = self._ids[table]
            if len(ids) > REMEMBERED:
                ids.clear()
            if unknown := {name for name in wanted if name not in ids}:
                missing[table] = unknown
        if not missing:
            return {}
        met: dict[str, dict[str, int]] = {}
        with database.transaction(self._conn):
            new = {table: self._find_or_add(table, missing[table], met) for table in sorted(missing)}
        for table, ids in met.items():  # after the commit: an id that was rolled back is nobody's
            self._ids[table].update(ids)
        return {table: count for table, count in new.items() if count}

    @property
    def ids(self) -> Mapping[str, Mapping[str, int]]:
        """The ids of the names that were resolved last, and of others, by table."""
        return self._ids

    def used(self, names: Mapping[str, Iterable[str]]) -> dict[str, list[int]]:
        """The ids of these resolved names, sorted, by table; none where a table has no names here."""
        return {table: sorted(ids[name] for name in names.get(table, ())) for table, ids in self._ids.items()}

    def forget(self) -> None:
        """Ask the database again for every name: one of them was deleted meanwhile."""
        for ids in self._ids.values():
            ids.clear()

    def _find_or_add(self, table: str, names: set[str], met: dict[str, dict[str, int]]) -> int:
        ids = met[table] = dict(self._conn.execute(_known(table), {"names": list(names)}).fetchall())
        if not (missing := sorted(names - ids.keys())):
            return 0
        added = self._insert(table, missing)
        ids.update(added)
        if elsewhere := sorted(names - ids.keys()):  # another writer was faster, or the name was refused
            ids.update(self._conn.execute(_known(table), {"names": elsewhere}).fetchall())
        for name in names - ids.keys():
            self.refused.setdefault((table, name), f"{table}.{COLUMN[table]} holds another spelling of {name!r}")
        return len(added)

    def _insert(self, table: str, names: Sequence[str]) -> dict[str, int]:
        """Add names; those that the database refuses (a hand-made varchar, a CHECK) are found by halving."""
        try:
            with self._conn.transaction():
                return dict(self._conn.execute(_add(table), {"names": names}).fetchall())
        except (DataError, IntegrityError) as error:
            if len(names) == 1:
                self.refused[table, names[0]] = database.message(error)
                return {}
        middle = len(names) // 2
        return self._insert(table, names[:middle]) | self._insert(table, names[middle:])


def node_id(references: References, name: str) -> int:
    """The id of this node, made when it is new."""
    references.resolve({"nodes": [name]})
    for reason in references.refused.values():
        raise Unsuitable(f"node {name!r}: {reason}")
    return references.ids["nodes"][name]
