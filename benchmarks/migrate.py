"""Compare the migration with what PostgreSQL itself needs for the same rows.

    python benchmarks/migrate.py [--rows 5000000] [--days 30] [--pg-bin DIR]

Both sides in one run, on a server of their own with PostgreSQL's default settings:

* bare: one `INSERT … SELECT` into a partitioned table that has neither keys nor indexes, then the same three indexes;
* migration: `migrate_logs_to_partitioned.py`, a transaction a day; its time for rows and indexes is compared, its
  time for the foreign keys (ATTACH checks them) and for the verification is printed separately.
"""

from __future__ import annotations

import argparse
import platform
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psycopg

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "scripts")]

from server import Server  # noqa: E402  # the path comes first

from xraylog.database import ddl  # noqa: E402

USERS, ENDPOINTS = 200, 20_000
PLAIN = """
    INSERT INTO users (email) SELECT 'user' || n FROM generate_series(1, {users}) AS n;
    INSERT INTO protocols (name) VALUES ('tcp'), ('udp');
    INSERT INTO endpoints (address) SELECT 'host' || n || '.example' FROM generate_series(1, {endpoints}) AS n;
    INSERT INTO tags (name) VALUES ('in'), ('out');
    CREATE TABLE logs (
        id bigserial PRIMARY KEY,
        "timestamp" timestamptz NOT NULL,
        source_ip inet NOT NULL,
        source_port integer NOT NULL,
        action text NOT NULL,
        protocol_id integer REFERENCES protocols,
        destination_id integer REFERENCES endpoints,
        destination_port integer,
        inbound_tag_id integer REFERENCES tags,
        outbound_tag_id integer REFERENCES tags,
        user_id integer REFERENCES users
    );
    ALTER TABLE logs DISABLE TRIGGER ALL;
    INSERT INTO logs ("timestamp", source_ip, source_port, action, protocol_id, destination_id, destination_port,
                      inbound_tag_id, outbound_tag_id, user_id)
    SELECT timestamptz '2025-10-01 00:00+00' + n * interval '{days} days' / {rows},
           inet '10.0.0.0' + n * 7919 % 16777216, n % 64512 + 1024, 'accepted', n % 2 + 1, n * 7919 % {endpoints} + 1,
           443, 1, 2, n * 31 % {users} + 1
    FROM generate_series(0::bigint, {rows} - 1) AS n;
    ALTER TABLE logs ENABLE TRIGGER ALL;
"""
BARE = 'CREATE TABLE bare (LIKE logs, node_id integer) PARTITION BY RANGE ("timestamp")'
DAY = """
    CREATE TABLE bare_{n} PARTITION OF bare
    FOR VALUES FROM (timestamptz '2025-10-01 00:00+00' + interval '{n} days')
                TO (timestamptz '2025-10-01 00:00+00' + interval '{n} days' + interval '1 day')
"""


def main() -> None:
    """Create the rows, run both sides, print."""
    parser = argparse.ArgumentParser(description="The migration compared with a bare INSERT … SELECT.")
    parser.add_argument("--rows", type=int, default=5_000_000)
    parser.add_argument("--days", type=int, default=30)
    parser.add_argument("--pg-bin", type=Path, help="folder of another PostgreSQL's binaries")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="xraylog-") as folder:
        server = Server(Path(folder) / "server", options.pg_bin, ("max_wal_size=8GB",))
        server.start()
        try:
            compare(server, Path(folder), options)
        finally:
            server.remove()


def compare(server: Server, folder: Path, options: argparse.Namespace) -> None:
    """Run both sides and print what they took."""
    with psycopg.connect(**server.keywords(), autocommit=True) as conn:  # type: ignore[arg-type]
        print(
            f"{options.rows:,} rows over {options.days} days; "
            f"PostgreSQL {conn.info.parameter_status('server_version')}, Python {platform.python_version()}"
        )
        for name in ddl.TABLES:
            if name != "logs":
                for statement in ddl.create(name):
                    conn.execute(statement)
        conn.execute(PLAIN.format(rows=options.rows, days=options.days, users=USERS, endpoints=ENDPOINTS))
        conn.execute("VACUUM ANALYZE")
        bare_rows, bare_indexes = bare(conn, options.days)
    settle(server)
    said, total, peak = migration(server, folder)
    seconds = [float(text) for text in re.findall(r"rows ([\d.]+) s, indexes ([\d.]+) s, keys ([\d.]+) s", said)[0]]
    (verification,) = re.findall(r"verification ([\d.]+) s", said)
    print(f"bare:      rows {bare_rows:6.1f} s, indexes {bare_indexes:6.1f} s, {bare_rows + bare_indexes:6.1f} s")
    print(f"migration: rows {seconds[0]:6.1f} s, indexes {seconds[1]:6.1f} s, {seconds[0] + seconds[1]:6.1f} s")
    print(f"           keys {seconds[2]:6.1f} s, verification {float(verification):6.1f} s, total {total:.1f} s")
    print(f"           peak {peak} MiB")
    print(f"speed of the migration ÷ bare: {(bare_rows + bare_indexes) / (seconds[0] + seconds[1]):.2f} (goal 0.9)")


def bare(conn: psycopg.Connection, days: int) -> tuple[float, float]:
    """Return the seconds for the rows and for the indexes, without the migration."""
    conn.execute(BARE)
    for n in range(days):
        conn.execute(DAY.format(n=n))
    conn.execute("CHECKPOINT")
    clock = [time.monotonic()]
    conn.execute("INSERT INTO bare SELECT * FROM logs")
    clock.append(time.monotonic())
    for index in ddl.LOGS_INDEXES:
        conn.execute(ddl.create_index("bare", index))
    clock.append(time.monotonic())
    conn.execute("DROP TABLE bare")
    return clock[1] - clock[0], clock[2] - clock[1]


def settle(server: Server) -> None:
    """Write out what one side left, so that the other side does not pay for it."""
    with psycopg.connect(**server.keywords(), autocommit=True) as conn:  # type: ignore[arg-type]
        conn.execute("CHECKPOINT")


def migration(server: Server, folder: Path) -> tuple[str, float, int]:
    """Return what the script printed, its seconds, and its peak memory in MiB."""
    keywords = "".join(f"{key} = {value}\n" for key, value in server.keywords().items())
    config = folder / "config.ini"
    config.write_text(
        f"[postgresql]\n{keywords}[parser]\nlogfile = access.log\noffline_file = buffer\ntimezone = UTC\n"
    )
    command = [sys.executable, "-c", RUN, str(ROOT), "--config", str(config)]
    begun = time.monotonic()
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    (peak,) = re.findall(r"VmHWM:\s*(\d+) kB", done.stdout)
    return done.stdout, time.monotonic() - begun, int(peak) >> 10


RUN = """
import sys
root, *arguments = sys.argv[1:]
sys.path.insert(0, root)
import migrate_logs_to_partitioned
status = migrate_logs_to_partitioned.main(arguments)
print(open("/proc/self/status").read())
sys.exit(status)
"""


if __name__ == "__main__":
    main()
