"""Days that have no partition yet, loaded before they become partitions of `logs`: backlogs come in this way.

A table of its own, without keys and indexes, takes rows several times as fast; what it lacks is made, and its foreign
keys are checked as a set, when it is attached. All of it is one transaction, with its position: a day is there, or
nothing of it is. Needs no privilege but that of making partitions.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from xraylog.database import partitions, schema
from xraylog.database.session import Connection

MANY = 2_000  # rows of a day: for fewer the other ways are as fast (benchmarks/thresholds.py)
LONGEST_S = 10.0  # others wait for new partitions meanwhile: a third of what they wait in all


class Taken(Exception):
    """Another run made a partition of such a day in the meantime."""


def make(conn: Connection, days: Iterable[str]) -> dict[str, str]:
    """Make a table for each of these days; its name by day. The transaction's first lock is that of partitions.

    Raises Taken, and DuplicateTable where a table has the name of a partition.
    """
    bounds = partitions.read_bounds(conn)
    tables = {}
    for day in days:
        low, high = partitions.day_bounds(day)
        if partitions.gaps(day, bounds) != [(low, high)]:
            raise Taken
        tables[day] = partitions.partition_name(day, low, high)
        conn.execute(partitions.create_standalone(tables[day], "logs", conn.info.server_version))
    return tables


def attach(conn: Connection, tables: Mapping[str, str]) -> None:
    """Make partitions of the tables: the server adds the indexes, and checks the bounds and the foreign keys."""
    for day, table in tables.items():
        if conn.info.server_version < schema.NO_KEYS_ON_PARENT:
            for statement in schema.keys_and_indexes(table):
                conn.execute(statement)
        conn.execute(partitions.attach(table, "logs", *partitions.day_bounds(day)))
