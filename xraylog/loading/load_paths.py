"""Find out which load paths a role may use on `logs`, from the catalog and its privileges."""

from __future__ import annotations

from dataclasses import dataclass

from psycopg.rows import dict_row
from psycopg.sql import SQL

from xraylog.database import citus, ddl, session
from xraylog.database.capabilities import Capabilities
from xraylog.database.session import Connection
from xraylog.loading import binary_rows, copy_rows
from xraylog.loading.copy_rows import RowFormat

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
           current_user AS role
"""
MAY_DISABLE = "has_parameter_privilege('session_replication_role', 'SET')"
MAY_DISABLE_BEFORE_15 = "(SELECT rolsuper FROM pg_roles WHERE rolname = current_user)"
REPLICATION_ROLE = "session_replication_role"


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
        grants = [f"GRANT UPDATE ON {', '.join(ddl.REFERENCE_TABLES)} TO {self.role}"] if not self.may_lock else []
        if not self.may_disable_triggers:
            grants.append(f"GRANT SET ON PARAMETER {REPLICATION_ROLE} TO {self.role}")
        return f"foreign keys are checked row by row; faster, from PostgreSQL 15 on, with {'; '.join(grants)}"


def detect(conn: Connection, has_reject_reason: bool) -> LoadPaths:
    """Return the load paths that the catalog and the privileges of the role allow."""
    modern = Capabilities.of(conn).parameter_privileges
    may_disable = SQL(MAY_DISABLE if modern else MAY_DISABLE_BEFORE_15)
    binary = binary_rows.columns(has_reject_reason)
    values = {
        "columns": list(ddl.KEYS),
        "referenced": list(ddl.KEYS.values()),
        "tables": list(ddl.REFERENCE_TABLES),
        "binary": list(binary),
        "types": list(binary.values()),
    }
    with session.transaction(conn):
        query = SQL(LOAD_PATHS).format(may_disable_triggers=may_disable)
        (allowed,) = conn.cursor(row_factory=dict_row).execute(query, values)
        is_distributed = citus.has_logs(conn)
        question = SQL("SELECT {}").format(may_disable).as_string(conn)
        workers_agree = is_distributed and citus.agrees_on_workers(conn, question)
    return LoadPaths(
        **allowed, is_distributed=is_distributed, workers_agree=workers_agree, has_reject_reason=has_reject_reason
    )
