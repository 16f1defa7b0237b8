"""Load a new day into a standalone table, then ATTACH it: the fast path for backlogs.

A table without keys and indexes takes rows several times as fast; ATTACH creates the indexes, and checks the foreign
keys as a set. All of it is one transaction, together with the position: the day is stored as a whole or not at all. The
only privilege it needs is to create partitions.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from xraylog.database import ddl, partitions
from xraylog.database.capabilities import Capabilities
from xraylog.database.session import Connection

MIN_ATTACH_ROWS = 2_000  # of a day: with fewer the other paths are as fast (benchmarks/thresholds.py)
MAX_LOCK_S = 10.0  # longest time to hold the partitions lock: a third of LOCK_TIMEOUT_S


class PartitionExists(Exception):
    """Another run has created a partition for one of these days meanwhile."""


def create_tables(conn: Connection, days: Iterable[str]) -> dict[str, str]:
    """Create a table for each of these days; return their names by day.

    The lock on partitions must be the transaction's first. Raises PartitionExists, and DuplicateTable if another table
    has the name of a partition.
    """
    bounds = partitions.read_bounds(conn)
    tables = {}
    for day in days:
        low, high = partitions.day_bounds(day)
        if partitions.gaps(day, bounds) != [(low, high)]:
            raise PartitionExists
        tables[day] = partitions.partition_name(day, low, high)
        conn.execute(partitions.create_standalone(tables[day], "logs", Capabilities.of(conn)))
    return tables


def attach(conn: Connection, tables: Mapping[str, str]) -> None:
    """Attach the tables as partitions: the server adds the indexes, and checks bounds and foreign keys."""
    for day, table in tables.items():
        if not Capabilities.of(conn).keys_on_partitioned:
            for statement in ddl.keys_and_indexes(table):
                conn.execute(statement)
        conn.execute(partitions.attach(table, "logs", *partitions.day_bounds(day)))
