"""What is different where Citus spreads `logs` over several servers. docs/many-nodes.md says how that is set up.

Its catalog is looked for with to_regclass() first: where Citus is missing, naming it is an error. set_config() changes
the coordinator alone; to its workers Citus carries a SET LOCAL, and only once citus.propagate_set_commands is local.
"""

from __future__ import annotations

import re
from collections.abc import Collection

import psycopg
from psycopg import errors
from psycopg.sql import SQL, Identifier, Literal

from xraylog.database import session
from xraylog.database.session import Connection

IS_THERE = "SELECT to_regclass('pg_catalog.pg_dist_partition') IS NOT NULL"
DISTRIBUTED = """
    SELECT c.relname::text
    FROM pg_catalog.pg_dist_partition p
    JOIN pg_catalog.pg_class c ON c.oid = p.logicalrelid
    WHERE c.oid = ANY(ARRAY(SELECT to_regclass(name) FROM unnest(%s::text[]) AS name))
    ORDER BY 1
"""
ON_WORKERS = """
    SELECT coalesce(bool_and(success AND result = 't'), true)
    FROM pg_catalog.run_command_on_workers(%s)
"""
# Citus runs DDL, and COPY, on all shards at once, over several connections; through the keys to reference tables, which
# every shard has, these wait for each other: "distributed deadlock". Here one connection to each worker does it all.
ONE_BY_ONE = ("citus.multi_shard_modify_mode", "sequential")
PROPAGATE = ("citus.propagate_set_commands", "local")
# It adds no row, and has the planner of one server hash where it would sort. Citus sends all rows to the coordinator
# for it, and hashes without.
PLANNER_HELP = re.compile(r"\s+UNION ALL\s+SELECT (?:NULL(?:, )?)+(?: FROM logs)? WHERE false")


def is_there(conn: Connection) -> bool:
    """Return whether this database has Citus."""
    ((found,),) = conn.execute(IS_THERE)
    return bool(found)


def distributed(conn: Connection, tables: Collection[str]) -> list[str]:
    """Return those of these tables that Citus manages: distributed ones, and reference tables."""
    return [name for (name,) in conn.execute(DISTRIBUTED, [list(tables)])] if is_there(conn) else []


def has_logs(conn: Connection) -> bool:
    """Return whether Citus manages `logs`."""
    return bool(distributed(conn, ["logs"]))


def set_everywhere(conn: Connection, name: str, value: str) -> None:
    """Change a setting until the transaction ends, here and on each worker that takes part in it."""
    for setting, to in (ONE_BY_ONE, PROPAGATE, (name, value)):
        _set_local(conn, setting, to)


def _set_local(conn: Connection, name: str, value: str) -> None:
    """Change a setting for this transaction. `name` may have a prefix: each part is quoted by itself."""
    conn.execute(SQL("SET LOCAL {} TO {}").format(Identifier(*name.split(".")), Literal(value)))


def before_ddl(conn: Connection, lock_timeout: str) -> None:
    """Bound the waits of the DDL that follows in this transaction, on the workers as well: anybody may read there."""
    ((_, has_citus),) = conn.execute(f"SELECT set_config('lock_timeout', %s, true), ({IS_THERE})", [lock_timeout])
    if has_citus:
        set_everywhere(conn, "lock_timeout", lock_timeout)


def agrees_on_workers(conn: Connection, condition: str) -> bool:
    """Return whether a query of one boolean is true on each of the workers."""
    ((agrees,),) = conn.execute(ON_WORKERS, [condition])
    return bool(agrees)


def without_planner_help(statement: str) -> str:
    """Return a statement about `logs` as Citus runs it best."""
    return PLANNER_HELP.sub("", statement)


def lost_the_reason(conn: Connection, error: psycopg.Error) -> bool:
    """Return whether a worker may have refused a row in a COPY: of its error Citus keeps the words, and says XX000.

    An INSERT of the same row keeps the SQLSTATE. The transaction, or the savepoint, that failed was rolled back.
    """
    return isinstance(error, errors.InternalError_) and not session.is_temporary(error) and has_logs(conn)
