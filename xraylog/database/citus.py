"""Handle what is different if Citus distributes `logs` over several servers. For the set-up see docs/many-nodes.md.

Without Citus, naming its catalog is an error, so to_regclass() looks for that first. set_config() changes a setting on
the coordinator only; Citus passes a SET LOCAL on to its workers, but only after citus.propagate_set_commands = local.
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
# Citus runs DDL and COPY on all shards in parallel, over several connections. Because of the keys to reference tables,
# which every shard has, these can wait for each other: "distributed deadlock". With this setting, Citus uses one
# connection to each worker.
SEQUENTIAL = ("citus.multi_shard_modify_mode", "sequential")
PROPAGATE = ("citus.propagate_set_commands", "local")
# This part of a query adds no row; it makes the planner of a single server hash instead of sort. With it, Citus would
# send all rows to the coordinator, and without it Citus hashes anyway.
PLANNER_HELP = re.compile(r"\s+UNION ALL\s+SELECT (?:NULL(?:, )?)+(?: FROM logs)? WHERE false")


def is_there(conn: Connection) -> bool:
    """Return whether this database has Citus."""
    ((found,),) = conn.execute(IS_THERE)
    return bool(found)


def distributed(conn: Connection, tables: Collection[str]) -> list[str]:
    """Return which of these tables Citus manages, as distributed tables or as reference tables."""
    return [name for (name,) in conn.execute(DISTRIBUTED, [list(tables)])] if is_there(conn) else []


def has_logs(conn: Connection) -> bool:
    """Return whether Citus manages `logs`."""
    return bool(distributed(conn, ["logs"]))


def set_everywhere(conn: Connection, name: str, value: str) -> None:
    """Change a setting until the transaction ends, here and on each worker that takes part in it."""
    for setting, to in (SEQUENTIAL, PROPAGATE, (name, value)):
        _set_local(conn, setting, to)


def _set_local(conn: Connection, name: str, value: str) -> None:
    """Change a setting for this transaction. `name` may have a prefix: each part is quoted by itself."""
    conn.execute(SQL("SET LOCAL {} TO {}").format(Identifier(*name.split(".")), Literal(value)))


def before_ddl(conn: Connection, lock_timeout: str) -> None:
    """Limit how long the following DDL of this transaction waits for locks, also on the workers, where others read."""
    ((_, has_citus),) = conn.execute(f"SELECT set_config('lock_timeout', %s, true), ({IS_THERE})", [lock_timeout])
    if has_citus:
        set_everywhere(conn, "lock_timeout", lock_timeout)


def agrees_on_workers(conn: Connection, condition: str) -> bool:
    """Return whether a query for one boolean returns true on every worker."""
    ((agrees,),) = conn.execute(ON_WORKERS, [condition])
    return bool(agrees)


def without_planner_help(statement: str) -> str:
    """Return a query of `logs` without the part that helps only the planner of a single server."""
    return PLANNER_HELP.sub("", statement)


def lost_the_reason(conn: Connection, error: psycopg.Error) -> bool:
    """Return whether a worker may have refused a row of a COPY: Citus then replaces its SQLSTATE by XX000.

    An INSERT of the same row would show the SQLSTATE. The caller has rolled back the failed transaction or savepoint.
    """
    return isinstance(error, errors.InternalError_) and not session.is_temporary(error) and has_logs(conn)
