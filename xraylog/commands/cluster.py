"""--check for a `logs` that Citus distributes: whether its servers reach each other, and what slows them down."""

from __future__ import annotations

from collections.abc import Iterator

from psycopg.sql import Identifier

from xraylog.commands.finding import Finding
from xraylog.database import citus
from xraylog.database.session import Connection
from xraylog.loading.foreign_keys import ForeignKeyChecks

HEALTH = """
    SELECT from_nodename || ':' || from_nodeport, to_nodename || ':' || to_nodeport
    FROM pg_catalog.citus_check_cluster_node_health()
    WHERE result IS NOT TRUE
"""
SHARDS = """
    SELECT (SELECT count(*) FROM pg_catalog.pg_dist_shard WHERE logicalrelid = 'logs'::regclass),
           (SELECT count(*) FROM pg_catalog.pg_dist_node WHERE isactive AND noderole = 'primary' AND shouldhaveshards)
"""
FEW_SHARDS, SHARDS_OF_WORKER = 8, 4  # each day has a table, its files and its triggers on each shard


def findings(conn: Connection) -> Iterator[Finding]:
    """Yield what was checked, what was found, and what to do; nothing without a cluster."""
    if not citus.has_logs(conn):
        return
    ((shards, workers),) = conn.execute(SHARDS)
    broken = conn.execute(HEALTH).fetchall()
    for one, other in broken:
        found = f"server {one} does not reach {other}"
        yield "citus", found, "start it, or let them in, each as this role: docs/many-nodes.md#beyond-one-machine-citus"
    if not broken:
        yield "citus", f"logs has {shards} shards on {workers} servers, which reach each other", ""
    if shards > max(FEW_SHARDS, SHARDS_OF_WORKER * workers):
        found = f"{shards} shards are many for a table with partitions: each day is a table on each of them"
        yield "citus", found, f"SELECT alter_distributed_table('logs', shard_count := {FEW_SHARDS})"
    paths = ForeignKeyChecks(conn).detect()
    if not broken and paths.may_disable_triggers and not paths.workers_agree:
        role = Identifier(conn.info.user).as_string(conn)
        grant = f"on every server: GRANT SET ON PARAMETER session_replication_role TO {role}"
        yield "citus", "not every server lets foreign keys be checked as a set, which is several times as fast", grant
