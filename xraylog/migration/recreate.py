"""Write the DDL that gives another table the keys and indexes of the old one, and our own."""

from __future__ import annotations

from collections.abc import Iterator

from psycopg.sql import SQL, Composed, Identifier

from xraylog.database import ddl
from xraylog.migration.old_table import DAY_INDEX, Constraint, OldTable


def keys_and_indexes(table: OldTable, on: str, named: bool) -> Iterator[Composed]:
    """Yield the DDL that gives the table `on` the foreign keys, unique keys and indexes of the old table, and our own.

    `named`: whether they keep their names, or get names that the server chooses. Invalid indexes are left out, and so
    is the primary key on id, which a partitioned table cannot have.
    """
    yield from keys(table, on, named)
    yield from indexes(table, on, named)


def keys(table: OldTable, on: str, named: bool) -> Iterator[Composed]:
    """Yield the DDL of the foreign keys of the old table, and of our keys that it lacks, for the table `on`."""
    for found in table.constraints:
        if found.kind == "f":
            yield constraint(found, on, named)
    for column in ddl.KEYS:
        if not table.has_key(column):
            yield ddl.add_key(on, column)


def indexes(table: OldTable, on: str, named: bool) -> Iterator[Composed]:
    """Yield the DDL of the unique keys and indexes of the old table, and of our indexes that it lacks."""
    for found in table.constraints:
        if found.kind in ("p", "u") and found.columns != ("id",):
            yield constraint(found, on, named)
    own = [index for index in table.indexes if index.valid and not index.of_constraint and index.name != DAY_INDEX]
    for index in own:
        yield ddl.create_index(on, index.definition, index.name if named else None, index.unique)
    for definition in ddl.LOGS_INDEXES:
        if definition not in [index.definition for index in own]:
            yield ddl.create_index(on, definition)


def constraint(found: Constraint, on: str, named: bool) -> Composed:
    """Return the DDL that adds a constraint of the old table to the table `on`, under its name if `named`."""
    name = SQL("CONSTRAINT {} ").format(Identifier(found.name)) if named else SQL("")
    return SQL("ALTER TABLE {} ADD {}{}").format(Identifier(on), name, SQL(found.definition))
