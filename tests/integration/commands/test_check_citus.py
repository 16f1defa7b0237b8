"""--check sees the other servers of a cluster: one that is away, one that lacks a grant, and too many shards."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest
from helpers import citus
from helpers.site import Site, line

Connection = psycopg.Connection[tuple[Any, ...]]

BROKEN = {
    "a worker that is away": (
        "INSERT INTO cluster_health VALUES ('coordinator', 5432, 'two', 5432, NULL)",
        "server coordinator:5432 does not reach two:5432; start it, or let them in",
        "DELETE FROM cluster_health WHERE result IS NULL",
    ),
    "too many shards": (
        "INSERT INTO pg_dist_shard SELECT 'logs', n FROM generate_series(9, 32) n",
        "SELECT alter_distributed_table('logs', shard_count := 8)",
        "DELETE FROM pg_dist_shard WHERE shardid > 8",
    ),
    "a worker without the grant": (
        citus.WORKER_WITHOUT_GRANT,
        "on every server: GRANT SET ON PARAMETER session_replication_role TO",
        citus.WORKER_WITH_GRANT,
    ),
}


@pytest.mark.parametrize("what", BROKEN)
def test_what_is_wrong_with_the_cluster_is_named(site: Site, conn: Connection, what: str) -> None:
    breaks, said, mends = BROKEN[what]
    site.append(line(1))
    site.run()
    citus.distribute(conn)
    conn.execute(breaks)  # type: ignore[call-overload]
    found = site.run("--check", status=3).stdout.splitlines()
    assert [text for text in found if text.startswith("✗ citus: ") and said in text]
    assert not [text for text in found if "trial" in text]
    conn.execute(mends)  # type: ignore[call-overload]
    assert "✓ citus: logs has 8 shards on 2 servers, which reach each other" in site.run("--check").stdout
