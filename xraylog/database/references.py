"""The ids of names in the reference tables: users, protocols, endpoints, tags, nodes.

Names are committed in a short transaction of their own, before the rows that use them. A run caches a limited number of
them. A whole reference table is never read, because it may hold millions of endpoints.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import psycopg
from psycopg.errors import DataError, IntegrityError
from psycopg.sql import SQL, Composed, Identifier, Literal, Placeholder

from xraylog.database import ddl, rejection, retry, session, table_faults
from xraylog.database.ddl import REFERENCE_TABLES
from xraylog.database.rejection import Rejection
from xraylog.database.session import Connection, Unsuitable
from xraylog.records import Ids

# The order in which creating or attaching a partition locks these tables, for its foreign keys. In any other order, a
# run that adds names and one that creates a partition would deadlock.
LOCK_ORDER = tuple(dict.fromkeys([*ddl.KEYS.values(), *REFERENCE_TABLES]))
MAX_ATTEMPTS = 3
CACHE_SIZE = 10_000  # names per table: an adversary's log must not fill the memory


def _known(tables: Iterable[str]) -> Composed:
    """Return the query that looks up names.

    They are sent as one text, because an array of 20,000 takes ten times as long to write. No name contains a line end.
    """
    one = """
        SELECT {literal} AS reference, {column} AS name, id FROM {table}
        WHERE {column} = ANY(string_to_array({names}, E'\\n'))"""
    return SQL(" UNION ALL").join(
        SQL(one).format(
            literal=Literal(table),
            table=Identifier(table),
            column=Identifier(REFERENCE_TABLES[table]),
            names=Placeholder(table),
        )
        for table in tables
    )


def _add(table: str, on_conflict: str = "") -> Composed:
    """Return the INSERT for missing names only: ON CONFLICT burns an id for each name that exists already.

    Sorted, so that two writers insert common names in the same order: no deadlock.
    """
    return SQL("""
        INSERT INTO {table} ({column})
        SELECT name FROM unnest(string_to_array(%s, E'\\n')) AS missing (name)
        ORDER BY name COLLATE "C"
        {on_conflict}
        RETURNING {column}, id
    """).format(table=Identifier(table), column=Identifier(REFERENCE_TABLES[table]), on_conflict=SQL(on_conflict))


@dataclass(frozen=True, slots=True)
class Resolved:
    """The result of looking up some names."""

    ids: Ids  # id by name, by table
    refused: Mapping[tuple[str, str], Rejection]  # by (table, name): the database rejects these names
    new: Mapping[str, int]  # how many names were added, by table

    def used(self, node_id: int) -> dict[str, set[int]]:
        """Return the ids that rows of this node with these names refer to, by table."""
        return {**{table: set(ids.values()) for table, ids in self.ids.items()}, "nodes": {node_id}}


class References:
    """Looks up and adds names in one session, and caches their ids."""

    def __init__(self, conn: Connection) -> None:
        self._conn = conn
        self._ids: dict[str, dict[str, int]] = {table: {} for table in REFERENCE_TABLES}

    def resolve(self, names: Mapping[str, Iterable[str]]) -> Resolved:
        """Return the ids of these names, by table; add missing ones, except those that the database rejects."""
        missing = {}
        for table, wanted in names.items():
            ids = self._ids[table]
            if len(ids) > CACHE_SIZE:
                ids.clear()
            if unknown := {name for name in wanted if name not in ids}:
                missing[table] = unknown
        new, refused = retry.retry_on_conflict(lambda: self._look_up(missing), MAX_ATTEMPTS) if missing else ({}, {})
        return Resolved({table: self._found(table, wanted, refused) for table, wanted in names.items()}, refused, new)

    def _found(self, table: str, wanted: Iterable[str], refused: Mapping[tuple[str, str], Rejection]) -> dict[str, int]:
        ids = self._ids[table]
        return {name: ids[name] for name in wanted if not refused or (table, name) not in refused}

    def forget(self) -> None:
        """Clear the cache, because a cached name was deleted."""
        for ids in self._ids.values():
            ids.clear()

    def _look_up(self, missing: Mapping[str, set[str]]) -> tuple[dict[str, int], dict[tuple[str, str], Rejection]]:
        met: dict[str, dict[str, int]] = {table: {} for table in missing}
        refused: dict[tuple[str, str], Rejection] = {}
        new: dict[str, int] = {}
        self._find(missing, met)
        if any(missing[table] - met[table].keys() for table in missing):
            with session.transaction(self._conn, by_index=True):
                for table in filter(missing.__contains__, LOCK_ORDER):
                    new[table] = self._add(table, missing[table], met[table], refused)
        for table, ids in met.items():  # only after the commit: it may be rolled back
            self._ids[table].update(ids)
        return {table: count for table, count in new.items() if count}, refused

    def _find(self, names: Mapping[str, Iterable[str]], met: dict[str, dict[str, int]]) -> None:
        texts = {table: "\n".join(wanted) for table, wanted in names.items()}
        for table, name, at in session.answer(self._conn, _known(names), texts, by_index=True):
            met[table][name] = at

    def _add(self, table: str, names: set[str], ids: dict[str, int], refused: dict[tuple[str, str], Rejection]) -> int:
        if not (missing := sorted(names - ids.keys())):
            return 0
        added = self._insert(table, missing, refused)
        ids.update(added)
        if elsewhere := names - ids.keys():  # another writer was faster, or the name was refused
            self._find({table: elsewhere}, {table: ids})
        lost = [name for name in names - ids.keys() if (table, name) not in refused]
        if lost:
            table_faults.raise_if_lost(self._conn, table)
            for name, found in rejection.of_other_spellings(self._conn, table, lost).items():
                refused[table, name] = found
        return len(added)

    def _insert(self, table: str, names: Sequence[str], refused: dict[tuple[str, str], Rejection]) -> dict[str, int]:
        """Insert names. Without ON CONFLICT, which takes half as long again; that comes only after a conflict."""
        try:
            with self._conn.transaction():
                return self._insert_all(table, names)
        except (DataError, IntegrityError) as error:
            table_faults.raise_if_at_fault(self._conn, error, table)
        return self._insert_by_halves(table, names, refused)

    def _insert_by_halves(
        self, table: str, names: Sequence[str], refused: dict[tuple[str, str], Rejection]
    ) -> dict[str, int]:
        """Find the names that the database rejects (a hand-made varchar, a CHECK) by bisection; add the others."""

        def insert(names: Sequence[str]) -> dict[str, int]:
            with self._conn.transaction():
                return self._insert_all(table, names, "ON CONFLICT DO NOTHING")

        def reject(name: str, error: psycopg.Error) -> dict[str, int]:
            table_faults.raise_if_at_fault(self._conn, error, table)
            refused[table, name] = Rejection.of(error)
            return {}

        added: dict[str, int] = {}
        for part in retry.bisect(names, insert, reject, (DataError, IntegrityError)):
            added |= part
        return added

    def _insert_all(self, table: str, names: Sequence[str], on_conflict: str = "") -> dict[str, int]:
        return dict(self._conn.execute(_add(table, on_conflict), ["\n".join(names)]).fetchall())


def node_id(references: References, name: str) -> int:
    """Return the id of this node; add a new node."""
    node = references.resolve({"nodes": [name]})
    for refused in node.refused.values():
        raise Unsuitable(f"node {name!r}: {refused.reason}")
    return node.ids["nodes"][name]


def known_node(conn: Connection, name: str) -> int | None:
    """Return the id of this node; None if it is new. Changes nothing."""
    row = conn.execute("SELECT id FROM nodes WHERE name = %s", [name]).fetchone()
    return None if row is None else row[0]
