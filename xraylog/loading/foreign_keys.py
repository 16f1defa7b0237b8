"""Check the foreign keys of many rows as a set instead of row by row.

The row trigger of a foreign key costs 6 to 10 µs, and there are six for each row: more than everything else together
(benchmarks/load.py, path 3 compared with path 2). If the role may disable the triggers, they are off for the
transaction, and the loader does their work: it locks each name that is used, once a transaction. A concurrent DELETE of
such a name waits for our commit and then fails, as it does with the trigger.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from psycopg.sql import SQL, Identifier

from xraylog.database import citus, schema, session
from xraylog.database.capabilities import Capabilities
from xraylog.database.session import Connection
from xraylog.loading import binary_rows, copy_rows
from xraylog.loading.copy_rows import RowFormat

MIN_BULK_ROWS = 1_000  # with fewer the triggers cost no more than a second session (benchmarks/thresholds.py)

# Disabling the triggers of `logs` must not skip anything but our foreign keys: no triggers of the user's own, no
# foreign keys of other columns, no deferred constraints.
# Rows loaded into a table before it is attached bypass row-level security and publications of `logs`: subscribers would
# not get them. A publication of all tables includes that table, unless it publishes via the root, `logs`.
LOAD_PATHS = """
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
           ) AS has_only_our_keys,
           NOT EXISTS (
               SELECT FROM pg_class c
               WHERE oid = 'logs'::regclass
                 AND (reltablespace <> 0 OR relam <> 0 OR (to_jsonb(c) ->> 'relhasoids')::boolean)
           ) AND NOT EXISTS (
               SELECT FROM pg_attribute WHERE attrelid = 'logs'::regclass AND attidentity <> ''
           ) AS like_is_complete,
           row_security_active('logs') OR EXISTS (
               SELECT FROM pg_publication_rel WHERE prrelid = 'logs'::regclass
           ) OR EXISTS (
               SELECT FROM pg_publication_tables p
               JOIN pg_namespace n ON n.nspname = p.schemaname
               JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = p.tablename
               WHERE c.oid = 'logs'::regclass
           ) AS meets_rows,
           (SELECT pg_has_role(relowner, 'USAGE') FROM pg_class WHERE oid = 'logs'::regclass)
               AND coalesce(has_schema_privilege(current_schema(), 'CREATE'), false) AS may_create_days,
           (SELECT bool_and(has_any_column_privilege(name, 'UPDATE')) FROM unnest(%(tables)s::text[]) AS name)
               AS may_lock,
           {may_disable_triggers} AS may_disable_triggers,
           (SELECT count(*) = cardinality(%(binary)s::text[]) FROM pg_attribute WHERE attrelid = 'logs'::regclass
                AND (attname, format_type(atttypid, NULL)) IN (
                    SELECT * FROM unnest(%(binary)s::text[], %(types)s::text[])))
               AND NOT EXISTS (
                   SELECT FROM pg_attribute WHERE attrelid = ANY(%(tables)s::text[]::regclass[]) AND attname = 'id'
                       AND atttypid <> 'integer'::regtype)
               AS takes_binary,
           current_user
"""
MAY_DISABLE = "has_parameter_privilege('session_replication_role', 'SET')"
MAY_DISABLE_BEFORE_15 = "(SELECT rolsuper FROM pg_roles WHERE rolname = current_user)"

# FOR KEY SHARE, as the triggers take, in the order of the ids: a DELETE of these names waits.
LOCK_NAMES = """
    WITH u AS (SELECT FROM users WHERE id = ANY(%(users)s) ORDER BY id FOR KEY SHARE),
         p AS (SELECT FROM protocols WHERE id = ANY(%(protocols)s) ORDER BY id FOR KEY SHARE),
         e AS (SELECT FROM endpoints WHERE id = ANY(%(endpoints)s) ORDER BY id FOR KEY SHARE),
         t AS (SELECT FROM tags WHERE id = ANY(%(tags)s) ORDER BY id FOR KEY SHARE),
         n AS (SELECT FROM nodes WHERE id = ANY(%(nodes)s) ORDER BY id FOR KEY SHARE)
    SELECT (SELECT count(*) FROM u), (SELECT count(*) FROM p), (SELECT count(*) FROM e), (SELECT count(*) FROM t),
           (SELECT count(*) FROM n)
"""
REPLICATION_ROLE = "session_replication_role"
SET_REPLICATION_ROLE = f"SELECT set_config('{REPLICATION_ROLE}', %s, true)"
COUNT_NAMES = "SELECT count(*) FROM {} WHERE id = ANY(%s)"


class NamesMissing(Exception):
    """A name was deleted after it was resolved: nothing was stored."""


@dataclass(frozen=True, slots=True)
class LoadPaths:
    """What the schema of `logs` and the privileges of the role allow."""

    has_only_our_keys: bool  # the triggers of `logs` check our foreign keys, and do nothing else
    like_is_complete: bool  # a table created LIKE `logs` has all that a partition of it has
    meets_rows: bool  # row-level security or a publication has to see each row that enters `logs`
    may_create_days: bool
    may_lock: bool
    may_disable_triggers: bool
    takes_binary: bool  # the columns have the types of Schema.md
    role: str
    is_distributed: bool  # by Citus: ATTACH would send the rows once more
    workers_agree: bool  # the role may disable triggers on each of Citus's workers, too
    has_reject_reason: bool

    @property
    def can_check_in_bulk(self) -> bool:
        """Return whether row triggers may be disabled. If Citus distributes `logs`, names need no lock."""
        may = self.workers_agree if self.is_distributed else self.may_lock
        return self.has_only_our_keys and self.may_disable_triggers and may

    @property
    def can_attach(self) -> bool:
        """Return whether a day may be loaded before its table becomes a partition; ATTACH checks the foreign keys."""
        is_equal = self.has_only_our_keys and self.like_is_complete and not self.meets_rows
        return is_equal and self.may_create_days and not self.is_distributed

    @property
    def row_format(self) -> RowFormat:
        """Return the format in which to send rows: binary, or text, which also fits columns of other types.

        Text for Citus, too: its coordinator reads every row in either format to find the shard, and only text was
        measured.
        """
        if self.takes_binary and not self.is_distributed:
            return copy_rows.binary(self.has_reject_reason)
        return copy_rows.text(self.has_reject_reason)

    @property
    def hint(self) -> str | None:
        """Return what would make loading faster; None if nothing would."""
        if self.can_check_in_bulk or not self.has_only_our_keys:
            return None
        if self.is_distributed:
            grant = f"GRANT SET ON PARAMETER {REPLICATION_ROLE} TO {self.role}"
            return f"foreign keys are checked row by row; faster, from PostgreSQL 15 on, with, on every server: {grant}"
        grants = [f"GRANT UPDATE ON {', '.join(schema.REFERENCE_TABLES)} TO {self.role}"] if not self.may_lock else []
        if not self.may_disable_triggers:
            grants.append(f"GRANT SET ON PARAMETER {REPLICATION_ROLE} TO {self.role}")
        return f"foreign keys are checked row by row; faster, from PostgreSQL 15 on, with {'; '.join(grants)}"


class ForeignKeyChecks:
    """Detects once which load paths this role may use, and does for the second one what the triggers do."""

    def __init__(self, conn: Connection, has_reject_reason: bool = True) -> None:
        self._conn = conn
        self._has_reject_reason = has_reject_reason
        self.text = copy_rows.text(has_reject_reason)
        self._paths: LoadPaths | None = None

    def detect(self) -> LoadPaths:
        """Return the load paths that the catalog allows. Queries only the first time."""
        if self._paths is None:
            modern = Capabilities.of(self._conn).parameter_privileges
            may_disable = SQL(MAY_DISABLE if modern else MAY_DISABLE_BEFORE_15)
            query = SQL(LOAD_PATHS).format(may_disable_triggers=may_disable)
            binary = binary_rows.columns(self._has_reject_reason)
            values = {
                "columns": list(schema.KEYS),
                "referenced": list(schema.KEYS.values()),
                "tables": list(schema.REFERENCE_TABLES),
                "binary": list(binary),
                "types": list(binary.values()),
            }
            with session.transaction(self._conn):
                (row,) = self._conn.execute(query, values)
                is_distributed = citus.has_logs(self._conn)
                asked = SQL("SELECT {}").format(may_disable).as_string(self._conn)
                workers_agree = is_distributed and citus.agrees_on_workers(self._conn, asked)
            self._paths = LoadPaths(*(*row, is_distributed, workers_agree, self._has_reject_reason))
        return self._paths

    @property
    def hint(self) -> str | None:
        """Return what would make the next run faster, if this one had many rows."""
        return self._paths.hint if self._paths else None

    def checked_in_bulk(self, rows: int) -> bool:
        """Return whether a transaction that starts with `rows` rows checks its keys in bulk, without triggers."""
        return rows >= MIN_BULK_ROWS and self.detect().can_check_in_bulk

    def row_format(self, rows: int) -> RowFormat:
        """Return the format in which a transaction of `rows` rows sends them."""
        return self.detect().row_format if rows >= MIN_BULK_ROWS else self.text

    @contextlib.contextmanager
    def without_triggers(self) -> Iterator[None]:
        """Disable row triggers inside the block. `lock` the names of the rows before the transaction ends."""
        self._set_replication_role("replica")
        yield
        self._set_replication_role("origin")

    def _set_replication_role(self, role: str) -> None:
        if self.detect().is_distributed:
            citus.set_everywhere(self._conn, REPLICATION_ROLE, role)
        else:
            self._conn.execute(SET_REPLICATION_ROLE, [role])

    def lock(self, ids: Mapping[str, Iterable[int]]) -> None:
        """Lock names, given as ids by table, until the transaction ends: they cannot be deleted. Raises NamesMissing.

        Before or after COPY makes no difference: we wait for a concurrent DELETE, and then find the name missing. Citus
        locks a whole reference table for one of its rows, and runs deadlocked, so there the names are only counted. Our
        own DELETE of unused names needs the node's lock; one made by hand could come in between.
        """
        used = {table: sorted(set(ids[table])) for table in schema.REFERENCE_TABLES}
        found = self._count(used) if self.detect().is_distributed else self._conn.execute(LOCK_NAMES, used).fetchone()
        if found != tuple(map(len, used.values())):
            raise NamesMissing

    def _count(self, used: Mapping[str, list[int]]) -> tuple[int, ...]:
        counts = []
        for table, ids in used.items():
            ((count,),) = self._conn.execute(SQL(COUNT_NAMES).format(Identifier(table)), [ids])
            counts.append(count)
        return tuple(counts)
