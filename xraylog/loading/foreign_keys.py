"""The foreign keys of many rows, checked as a set instead of row by row.

The row trigger of a foreign key costs 6 to 10 µs, and there are six of them for each row: more than everything else
together (benchmarks/load.py, path 3 beside path 2). Where the role may do without them, they are switched off for
the transaction, and their promise is kept by hand: each name that is used is locked, once a transaction. A concurrent
DELETE of such a name waits for our commit and then fails, as it does behind the trigger.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from psycopg.sql import SQL

from xraylog.database import schema, session
from xraylog.database.session import Connection

FEWEST = 1_000  # rows: for fewer the triggers cost no more than a second session (benchmarks/thresholds.py)
PARAMETER_PRIVILEGES = 150000  # PostgreSQL 15; before it only a superuser may set session_replication_role

# What the triggers of `logs` and its partitions do beside checking our own foreign keys would not happen, or not in
# time: triggers of somebody's own, foreign keys of columns that we do not know, constraints that are deferred.
WAYS = """
    WITH RECURSIVE part (oid) AS (
        SELECT 'logs'::regclass::oid
        UNION ALL
        SELECT inhrelid FROM pg_inherits JOIN part ON part.oid = inhparent
    ), known (column_name, referenced) AS (
        SELECT * FROM unnest(%(columns)s::text[], %(referenced)s::text[])
    )
    SELECT NOT EXISTS (
               SELECT FROM pg_trigger JOIN part ON part.oid = tgrelid WHERE NOT tgisinternal
           ) AND NOT EXISTS (
               SELECT FROM pg_constraint c JOIN part ON part.oid = c.conrelid
               WHERE c.condeferrable OR (c.contype = 'f' AND NOT EXISTS (
                   SELECT FROM pg_attribute a JOIN known ON a.attname = known.column_name
                   WHERE a.attrelid = c.conrelid AND c.conkey = ARRAY[a.attnum]
                     AND c.confrelid = to_regclass(known.referenced)))
           ) AS plain,
           NOT EXISTS (
               SELECT FROM pg_class WHERE oid = 'logs'::regclass AND reltablespace <> 0
           ) AND NOT EXISTS (
               SELECT FROM pg_attribute WHERE attrelid = 'logs'::regclass AND attidentity <> ''
           ) AS copied_by_like,
           (SELECT pg_has_role(relowner, 'USAGE') FROM pg_class WHERE oid = 'logs'::regclass)
               AND coalesce(has_schema_privilege(current_schema(), 'CREATE'), false) AS may_make_days,
           (SELECT bool_and(has_any_column_privilege(name, 'UPDATE')) FROM unnest(%(tables)s::text[]) AS name),
           {may_switch},
           current_user,
           to_regclass('pg_catalog.pg_dist_partition') IS NOT NULL AS has_citus
"""
MAY_SWITCH = "has_parameter_privilege('session_replication_role', 'SET')"
MAY_SWITCH_BEFORE_15 = "(SELECT rolsuper FROM pg_roles WHERE rolname = current_user)"

# A table of Citus: whoever names it where it is not gets an error, hence `has_citus` first.
DISTRIBUTED = "SELECT EXISTS (SELECT FROM pg_catalog.pg_dist_partition WHERE logicalrelid = 'logs'::regclass)"

# FOR KEY SHARE in the order of the ids, as the triggers lock them one by one: whoever deletes names waits.
LOCK = """
    WITH u AS (SELECT FROM users WHERE id = ANY(%(users)s) ORDER BY id FOR KEY SHARE),
         p AS (SELECT FROM protocols WHERE id = ANY(%(protocols)s) ORDER BY id FOR KEY SHARE),
         e AS (SELECT FROM endpoints WHERE id = ANY(%(endpoints)s) ORDER BY id FOR KEY SHARE),
         t AS (SELECT FROM tags WHERE id = ANY(%(tags)s) ORDER BY id FOR KEY SHARE),
         n AS (SELECT FROM nodes WHERE id = ANY(%(nodes)s) ORDER BY id FOR KEY SHARE)
    SELECT (SELECT count(*) FROM u), (SELECT count(*) FROM p), (SELECT count(*) FROM e), (SELECT count(*) FROM t),
           (SELECT count(*) FROM n)
"""
SWITCH = "SELECT set_config('session_replication_role', %s, true)"


class NamesMissing(Exception):
    """Somebody deleted a name that we had resolved: nothing was stored."""


@dataclass(frozen=True, slots=True)
class Ways:
    """How rows may come into `logs`."""

    plain: bool  # its triggers check our foreign keys, and do nothing else
    copied_by_like: bool  # a table made LIKE it has all that a partition of it has
    may_make_days: bool
    may_lock: bool
    may_switch: bool
    role: str
    distributed: bool  # by Citus: the switch does not reach its servers, and ATTACH would send the rows once more

    @property
    def as_a_set(self) -> bool:
        """Whether the row triggers may be switched off."""
        return self.plain and self.may_lock and self.may_switch and not self.distributed

    @property
    def by_day(self) -> bool:
        """Whether a day may be loaded before it becomes a partition: its foreign keys are checked then."""
        return self.plain and self.copied_by_like and self.may_make_days and not self.distributed

    @property
    def advice(self) -> str | None:
        """What would make loading faster; None when nothing would."""
        if self.as_a_set or not self.plain or self.distributed:
            return None
        grants = [f"GRANT UPDATE ON {', '.join(schema.UNIQUE)} TO {self.role}"] if not self.may_lock else []
        grants += [f"GRANT SET ON PARAMETER session_replication_role TO {self.role}"] if not self.may_switch else []
        return f"foreign keys are checked row by row; faster, from PostgreSQL 15 on, with {'; '.join(grants)}"


class Keys:
    """What this role may do without, asked once, and only when there are many rows."""

    def __init__(self, conn: Connection) -> None:
        self._conn = conn
        self.ways: Ways | None = None

    def look(self) -> Ways:
        """What the catalog says."""
        if self.ways is None:
            modern = self._conn.info.server_version >= PARAMETER_PRIVILEGES
            query = SQL(WAYS).format(may_switch=SQL(MAY_SWITCH if modern else MAY_SWITCH_BEFORE_15))
            values = {
                "columns": list(schema.KEYS),
                "referenced": list(schema.KEYS.values()),
                "tables": list(schema.UNIQUE),
            }
            with session.transaction(self._conn):
                ((*row, has_citus),) = self._conn.execute(query, values)
                (distributed,) = self._conn.execute(DISTRIBUTED) if has_citus else [(False,)]
            self.ways = Ways(*row, *distributed)
        return self.ways

    @property
    def advice(self) -> str | None:
        """What would make this run faster next time, if it had many rows."""
        return self.ways.advice if self.ways else None

    def as_a_set(self, rows: int) -> bool:
        """Whether a transaction that begins with so many rows does without the row triggers."""
        return rows >= FEWEST and self.look().as_a_set

    @contextlib.contextmanager
    def without_triggers(self) -> Iterator[None]:
        """Inside, in a transaction, rows come without the row triggers: `lock` what they refer to before it ends."""
        self._conn.execute(SWITCH, ["replica"])
        yield
        self._conn.execute(SWITCH, ["origin"])

    def lock(self, ids: Mapping[str, Iterable[int]]) -> None:
        """Lock names, by table: until the transaction ends nobody deletes them. Raises NamesMissing.

        Before it or behind the rows is the same: who deleted one meanwhile is waited for, and it is missing then.
        """
        used = {table: sorted(set(ids[table])) for table in schema.UNIQUE}
        (found,) = self._conn.execute(LOCK, used)
        if list(found) != [len(used[table]) for table in schema.UNIQUE]:
            raise NamesMissing
