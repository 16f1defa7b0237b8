"""The daily partitions of `logs`: which ones exist, and how one is created.

A partition covers one UTC day. Which days exist is read from the bounds in the catalog, never from names.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta, timezone

from psycopg import errors
from psycopg.sql import SQL, Composed, Identifier, Literal

from xraylog.database import citus, ddl, detach, lock_table, schema, session
from xraylog.database.capabilities import Capabilities
from xraylog.database.retry import retry_on_lock_timeout
from xraylog.database.session import Connection, Unsuitable

DAYS_AT_ONCE = 30  # each partition is a dozen locks: a year at once would exceed max_locks_per_transaction
DDL_LOCK_TIMEOUT_S = 2  # waiting for ACCESS EXCLUSIVE blocks every new reader: give up soon, and try again


class PartitionMissing(Exception):
    """There is no partition for a row: it was detached or dropped after we saw it."""


class _NameTaken(Exception):
    """Another object has the name of a partition."""


# The kind of object, in the words of ALTER, from pg_class. Types other than row types are not in there.
KIND_OF_RELATION = """
    CASE relkind WHEN 'v' THEN 'view' WHEN 'm' THEN 'materialized view' WHEN 'S' THEN 'sequence'
                 WHEN 'f' THEN 'foreign table' WHEN 'i' THEN 'index' WHEN 'I' THEN 'index'
                 WHEN 'c' THEN 'type' ELSE 'table' END
"""
KIND = f"SELECT {KIND_OF_RELATION} FROM pg_class WHERE oid = to_regclass(%s)"  # noqa: S608  # a constant
# Bounds come from the catalog, because anything can have the name of a partition. MINVALUE and MAXVALUE are not quoted.
# A half-detached partition takes no rows; to_jsonb, because pg_inherits has that column only from PostgreSQL 14 on.
BOUNDS = """
    WITH partition (name, bound) AS (
        SELECT c.oid::regclass::text, pg_get_expr(c.relpartbound, c.oid)
        FROM pg_inherits i
        JOIN pg_class c ON c.oid = i.inhrelid
        WHERE i.inhparent = 'logs'::regclass AND NOT coalesce((to_jsonb(i) ->> 'inhdetachpending')::boolean, false)
          AND (%(names)s::text[] IS NULL OR c.relname = ANY(%(names)s))
    ), quoted (name, low, high) AS (
        SELECT name, substring(bound FROM 'FROM [(]''([^'']*)''[)]')::timestamptz,
               substring(bound FROM 'TO [(]''([^'']*)''[)]')::timestamptz
        FROM partition
        WHERE bound <> 'DEFAULT'
    )
    SELECT name, extract(epoch FROM coalesce(low, '-infinity'))::float8 AS low,
           extract(epoch FROM coalesce(high, 'infinity'))::float8 AS high
    FROM quoted
    ORDER BY low
"""

# PostgreSQL 10 has no DEFAULT partition, and no partdefid.
DEFAULT_PARTITION = """
    SELECT n.nspname, c.relname
    FROM pg_partitioned_table p
    JOIN pg_class c ON c.oid = (to_jsonb(p) ->> 'partdefid')::oid
    JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE p.partrelid = to_regclass('logs') AND has_table_privilege(c.oid, 'SELECT')
          AND has_schema_privilege(n.oid, 'USAGE')
"""
FIRST_TO_COME = """
    SELECT min("timestamp") FROM {} WHERE "timestamp" >= date_trunc('day', now() AT TIME ZONE 'UTC') AT TIME ZONE 'UTC'
"""


class Partitions:
    """The days that, as far as this run knows, have partitions of `logs`."""

    def __init__(self, conn: Connection) -> None:
        self._conn = conn
        self._known: set[str] = set()
        self._refused: dict[str, str] = {}  # by day, the reason

    def ensure(self, days: Iterable[str]) -> list[str]:
        """Create the missing partitions of these UTC days, "2025-11-17"; return the names of the new ones.

        Old days for which the server has no locks get none: `refused` returns them. Runs in short transactions of its
        own, because whoever holds this lock blocks everyone. Raises Unsuitable if another table has the name of a
        partition, or if this role may not create any.
        """
        unknown = sorted(set(days) - self._known - self._refused.keys())
        if not unknown:
            return []
        bounds = self._look(unknown)
        missing = self._with_room([day for day in unknown if gaps(day, bounds)])
        made = []
        for first in range(0, len(missing), DAYS_AT_ONCE):
            chunk = missing[first : first + DAYS_AT_ONCE]
            made += retry_on_lock_timeout(functools.partial(self._create, chunk), session.LOCK_TIMEOUT_S)
        self._known.update(set(unknown) - self._refused.keys())
        return made

    def refused(self, days: Iterable[str]) -> dict[str, str]:
        """Return those days that get no partition, with the reason, as far as `ensure` has seen them."""
        return {day: self._refused[day] for day in days if day in self._refused}

    @property
    def shortage(self) -> str | None:
        """Return what the operator can do about the refused days; None if there are none."""
        if not self._refused:
            return None
        *_, reason = self._refused.values()
        return f"{len(self._refused)} days are without a partition: {reason}"

    def are_known(self, days: Iterable[str]) -> bool:
        """Return whether each of these days is known to have a partition."""
        return self._known.issuperset(days)

    def missing(self, days: Iterable[str]) -> set[str]:
        """Those of these days of which no partition has any part."""
        unknown = sorted(set(days) - self._known - self._refused.keys())
        bounds = self._look(unknown)
        return {*self._with_room([day for day in unknown if gaps(day, bounds) == [day_bounds(day)]])}

    def _with_room(self, missing: list[str]) -> list[str]:
        """Return those of these days for which the server has locks; remember the others."""
        if not missing:
            return []
        with session.transaction(self._conn):
            found = lock_table.days_without_room(self._conn, missing)
        if found is not None:
            self._refused.update(dict.fromkeys(found.days, found.shortage))
        return [day for day in missing if day not in self._refused]

    def _look(self, days: Sequence[str]) -> list[tuple[float, float]]:
        """Read the bounds of partitions: of those named after the days, if these suffice. A thousand take 20 ms."""
        bounds = read_bounds(self._conn, [partition_name(day, *day_bounds(day)) for day in days])
        if any(gaps(day, bounds) for day in days):
            bounds = read_bounds(self._conn)
        self._known.update(day for day in days if not gaps(day, bounds))
        return bounds

    def forget(self) -> None:
        """Ask the catalog again for every day."""
        self._known.clear()
        self._refused.clear()

    def _create(self, days: list[str]) -> list[str]:
        try:
            with session.transaction(self._conn, schema.PARTITIONS_LOCK):
                citus.before_ddl(self._conn, f"{DDL_LOCK_TIMEOUT_S}s")
                bounds = read_bounds(self._conn)
                missing = [(partition_name(day, *gap), *gap) for day in days for gap in gaps(day, bounds)]
                detach.make_room(self._conn, missing)
                for name, low, high in missing:
                    self._create_one(name, low, high)
        except _NameTaken as error:
            raise Unsuitable(_name_taken(self._conn, str(error))) from error
        return [name for name, _, _ in missing]

    def _create_one(self, name: str, low: float, high: float) -> None:
        create = create_partition(name, low, high)
        try:
            self._conn.execute(create)
        except (errors.DuplicateTable, errors.DuplicateObject) as error:
            raise _NameTaken(name) from error
        except errors.CheckViolation as error:
            raise Unsuitable(
                f"table {name}: expected to create it, found rows of that day in the DEFAULT partition of logs; "
                f"move them as Schema.md says: {session.message(error)}"
            ) from error
        except errors.InsufficientPrivilege as error:
            raise Unsuitable(
                f"{name}: expected this partition of logs, found none, and this role may not create it: "
                f"{session.message(error)}; the owner of logs creates today's and the next days' with "
                f"parse_logs.py --make-partitions 7, and an older one with: "
                f"{' '.join(create.as_string(self._conn).split())}"
            ) from error
        if not Capabilities.of(self._conn).keys_on_partitioned:
            for statement in ddl.keys_and_indexes(name):
                self._conn.execute(statement)


def _name_taken(conn: Connection, name: str) -> str:
    """Return which object has the name of a partition, and the statement that renames it."""
    with session.transaction(conn):
        kinds = [kind for (kind,) in conn.execute(KIND, [name])]
    kind = kinds[0] if kinds else "type"
    found = f"{name}: expected to create this partition of logs, found a {kind} of that name; as its owner: "
    if kind == "table":
        found = f"table {name}: expected a partition of logs, found a table of its own; attach it to logs, or: "
    return f"{found}ALTER {kind.upper()} {name} RENAME TO {name}_old"


def are_there(conn: Connection, days: Iterable[str]) -> bool:
    """Return whether each of these days is covered by partitions now."""
    bounds = read_bounds(conn)
    return not any(gaps(day, bounds) for day in days)


def read_bounds(conn: Connection, names: Sequence[str] | None = None) -> list[tuple[float, float]]:
    """Return lower and upper bound of each partition of logs, or of those with these names, in seconds since 1970."""
    return [(low, high) for _, low, high in read_named_bounds(conn, names)]


def read_named_bounds(conn: Connection, names: Sequence[str] | None = None) -> list[tuple[str, float, float]]:
    """Return quoted name and bounds of each partition of logs except DEFAULT, sorted by the bounds.

    Call it in a transaction of `session`, because the catalog writes bounds in the session's zone and style. Binary,
    because before PostgreSQL 12 a float8 is sent as text of 15 digits: 23:59:59.999999 would become midnight.
    """
    return [(name, low, high) for name, low, high in session.answer(conn, BOUNDS, {"names": names}, binary=True)]


def create_partition(name: str, low: float, high: float) -> Composed:
    """Return the DDL for a partition that includes the lower bound, and excludes the upper. Seconds since 1970."""
    return SQL("""
        CREATE TABLE {partition}
            PARTITION OF logs
            FOR VALUES FROM ({low}) TO ({high})
    """).format(
        partition=Identifier(name),
        low=moment(low),
        high=moment(high),
    )


def create_standalone(name: str, parent: str, server: Capabilities) -> Composed:
    """Return the DDL for a table that will be attached when it is filled: without keys and indexes, to be fast."""
    copied = ["DEFAULTS", "CONSTRAINTS", "STORAGE"]
    copied += ["GENERATED"] if server.generated_columns else []
    copied += ["COMPRESSION"] if server.compression_of_columns else []
    including = SQL(" ").join(SQL(f"INCLUDING {what}") for what in copied)
    return SQL("CREATE TABLE {} (LIKE {} {})").format(Identifier(name), Identifier(parent), including)


def first_to_come_in_default(conn: Connection) -> tuple[str, datetime] | None:
    """Return the DEFAULT partition of logs, and its first row of today or later: that day cannot get a partition.

    None if there is no such row, or if this role may not read it.
    """
    for schema_name, name in conn.execute(DEFAULT_PARTITION):
        table = SQL("{}.{}").format(Identifier(schema_name), Identifier(name))
        for (first,) in conn.execute(SQL(FIRST_TO_COME).format(table)):
            return (name, first) if first else None
    return None


def attach(name: str, parent: str, low: float, high: float) -> Composed:
    """Return the DDL that attaches a table as a partition: the server checks bounds, and foreign keys as a set."""
    return SQL("ALTER TABLE {} ATTACH PARTITION {} FOR VALUES FROM ({}) TO ({})").format(
        Identifier(parent), Identifier(name), moment(low), moment(high)
    )


def moment(epoch: float) -> Literal:
    """Return a bound, given in seconds since 1970, as SQL."""
    return Literal(_utc(epoch).isoformat(" "))


def partition_name(day: str, low: float, high: float) -> str:
    """Return logs_YYYY_MM_DD; with hour and minute if partitions made by hand leave only a part of the day."""
    name = f"logs_{day.replace('-', '_')}"
    return name if (low, high) == day_bounds(day) else f"{name}_{_utc(low):%H%M}"


def gaps(day: str, bounds: Iterable[tuple[float, float]]) -> list[tuple[float, float]]:
    """Return the parts of a day that no partition covers. `bounds` are sorted and do not overlap."""
    at, end = day_bounds(day)
    gaps = []
    for low, high in bounds:
        if high <= at or low >= end:
            continue
        if low > at:
            gaps.append((at, low))
        at = max(at, high)
    if at < end:
        gaps.append((at, end))
    return gaps


def day_bounds(day: str) -> tuple[float, float]:
    """Return where a UTC day begins and ends, in seconds since 1970."""
    start = datetime.fromisoformat(day).replace(tzinfo=timezone.utc)
    return start.timestamp(), (start + timedelta(days=1)).timestamp()


def _utc(epoch: float) -> datetime:
    return datetime.fromtimestamp(epoch, tz=timezone.utc)
