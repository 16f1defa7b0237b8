"""Measure the seconds of a page over ten million rows of 30 days, and of each of its queries.

    python benchmarks/report.py [--rows 10000000] [--days 30] [--users 2000] [--pg-bin DIR]

The rows are created in SQL, ordered by time and the same every time on one PostgreSQL. A client opens connections in
bursts: BURST rows of one user from one address to several hosts (the real log tests/samples/xray_24.11.21.log has 56
rows in 13 such bursts). For an hour a user is at home, on the road with another address, or also has IPv6.
"""

from __future__ import annotations

import argparse
import re
import resource
import subprocess
import sys
import time
from datetime import date, timedelta
from pathlib import Path

import psycopg
from answers import NAMES, add_day
from stage import ROOT, arguments, staged

from xraylog.database import schema

GOAL_S, GOAL_BYTES, BURST = 12, 2_000_000, 4
ENDPOINTS = 200_000
END = date(2025, 11, 18)
ROWS = """
    INSERT INTO {table} ("timestamp", source_ip, source_port, action, protocol_id, destination_id, destination_port,
                         inbound_tag_id, outbound_tag_id, user_id, node_id)
    SELECT least(at + row * interval '0.7 seconds', timestamptz '{day} 23:59:59+00'),
           CASE WHEN probe THEN inet '198.18.0.0' + burst / 200 % 5000
                WHEN place < 70 OR row = 0 THEN inet '10.0.0.0' + person * 7919
                WHEN place < 90 THEN inet '100.64.0.0' + (person * 31 + hour * 7919) % 4194304
                ELSE format('2001:db8:%s::%s', to_hex(person), to_hex(hour % 65536))::inet END,
           (burst * 4 + row) % 64512 + 1024,
           CASE WHEN probe THEN 'rejected' ELSE 'accepted' END,
           CASE WHEN NOT probe THEN row % 2 + 1 END,
           CASE WHEN NOT probe THEN floor({endpoints} * random() ^ 4)::integer + 1 END,
           CASE WHEN NOT probe THEN CASE WHEN burst % 20 = 0 THEN 80 ELSE 443 END END,
           CASE WHEN NOT probe THEN 1 END,
           CASE WHEN NOT probe THEN burst % 4 + 2 END,
           CASE WHEN NOT probe THEN person END,
           burst % 2 + 1
    FROM (
        SELECT burst, at, person, burst % 200 = 0 AS probe, hour,
               (person * 7 + hour * 13) % 100 AS place
        FROM (
            SELECT burst, at, floor({users} * random() ^ 2)::integer + 1 AS person,
                   extract(epoch FROM at)::bigint / 3600 AS hour
            FROM (
                SELECT burst, timestamptz '{day} 00:00+00' + burst * interval '1 day' / {bursts} AS at
                FROM generate_series(0, {bursts} - 1) AS burst
            ) timed
        ) drawn
    ) lived, generate_series(0, {burst} - 1) AS row
"""


def main() -> None:
    """Create the rows, write the page, print."""
    parser = arguments("Seconds of a page.")
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--days", type=int, default=30)
    parser.add_argument("--users", type=int, default=2_000)
    options = parser.parse_args()
    with staged(options.pg_bin) as stage:
        stage.database("report")
        with stage.connect("report") as conn:
            fill(conn, options)
        config, page = stage.config("report", stage.folder / "access.log", user="postgres"), stage.folder / "page.html"
        users = f"{options.users:,} users, {ENDPOINTS:,} endpoints"
        print(f"{options.rows:,} rows over {options.days} days, {users}; {stage.versions}")
        for days in (1, options.days):
            seconds, peak, size, said = report(config, page, days)
            print(f"{days} days: {seconds:.1f} s, peak {peak} MiB, page {size:,} bytes")
            for what, spent in asked(said):
                print(f"    {what:26} {spent:6.1f} s")
        print(f"goals: {GOAL_S} s, {GOAL_BYTES:,} bytes")


def fill(conn: psycopg.Connection, options: argparse.Namespace) -> None:
    """Create the names, and the rows day by day."""
    schema.ensure(conn)
    conn.execute(NAMES.format(users=options.users, endpoints=ENDPOINTS))
    conn.execute("INSERT INTO tags (name) VALUES ('direct'), ('warp')")
    sizes = {"users": options.users, "endpoints": ENDPOINTS, "burst": BURST}
    for days_ago in range(options.days, 0, -1):
        day = END - timedelta(days=days_ago)
        add_day(conn, day, ROWS, bursts=options.rows // options.days // BURST, **sizes)
    conn.execute("VACUUM ANALYZE")
    conn.execute("CHECKPOINT")


def report(config: Path, page: Path, days: int) -> tuple[float, int, int, str]:
    """Write one page in a process of its own; return its seconds, peak in MiB, bytes of the page, and its messages."""
    last = str(END - timedelta(days=1))
    command = [sys.executable, str(ROOT / "report_logs.py"), "--config", str(config), "--output", str(page), "-v"]
    begun = time.monotonic()
    done = subprocess.run(
        [*command, "--days", str(days), "--until", last], check=True, stderr=subprocess.PIPE, text=True
    )
    seconds = time.monotonic() - begun
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss // 1024
    return seconds, peak, page.stat().st_size, done.stderr


def asked(said: str) -> list[tuple[str, float]]:
    """Return each query and its seconds; those of single days are added up."""
    spent: dict[str, float] = {}
    for what, seconds in re.findall(r"asked for (.+?)(?:, \d{4}-\d\d-\d\d)?: ([0-9.]+) s", said):
        spent[what] = spent.get(what, 0.0) + float(seconds)
    return [*spent.items()]


if __name__ == "__main__":
    main()
