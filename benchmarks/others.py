"""Compare a whole run of `parse_logs.py` with what people would use instead: same lines, same tables.

    pip install duckdb duckdb-extension-postgres-scanner
    python benchmarks/others.py [--lines 200000] [--pg-bin DIR]

* DuckDB with its postgres extension: regular expressions in SQL, names by joins, one INSERT into `logs`;
* `executemany`: lines parsed by our parser, INSERTs of 1,000 rows, names resolved to ids beforehand.

The tables are those of Schema.md, with their keys and indexes; partitions for the days exist. Each side is a whole
process.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from lines import lines
from stage import ROLE, ROOT, Stage, arguments, parse_logs, staged, timed, write

GOALS = {"DuckDB": 2, "executemany": 10}
DUCKDB = r"""
import sys, duckdb, duckdb_extension_postgres_scanner
from pathlib import Path
log, dsn = sys.argv[1:]
db = duckdb.connect()
db.execute("SET enable_progress_bar = false")
(extension,) = Path(duckdb_extension_postgres_scanner.__file__).parent.rglob("*.duckdb_extension")
db.execute(f"LOAD '{extension}'")
db.execute(f"ATTACH '{dsn}' AS pg (TYPE postgres)")
db.execute("SET TimeZone = 'UTC'")
db.execute('''
    CREATE TABLE line AS
    SELECT strptime(p[1], '%Y/%m/%d %H:%M:%S.%f')::timestamptz AS moment, trim(p[2], '[]') AS ip, p[3]::int AS port,
           p[4] AS protocol, p[5] AS host, p[6]::int AS to_port, p[7] AS inbound, p[8] AS outbound, p[9] AS email
    FROM (SELECT regexp_extract(line,
              '^(\S+ \S+) from (\S+):(\d+) accepted (\w+):(\S+):(\d+) \[(\S+) \S+ (\S+)\] email: (.*)$',
              ['1','2','3','4','5','6','7','8','9']) AS s,
              [s['1'], s['2'], s['3'], s['4'], s['5'], s['6'], s['7'], s['8'], s['9']] AS p
          FROM read_csv(?, columns = {'line': 'VARCHAR'}, delim = '\x01', quote = '', escape = '', header = false))
''', [log])
for table, column, source in (
    ("users", "email", "SELECT email FROM line"), ("protocols", "name", "SELECT protocol FROM line"),
    ("endpoints", "address", "SELECT host FROM line"),
    ("tags", "name", "SELECT inbound FROM line UNION SELECT outbound FROM line"),
):
    db.execute(f"INSERT INTO pg.{table} ({column}) SELECT DISTINCT * FROM ({source}) AS s (name) "
               f"WHERE name NOT IN (SELECT {column} FROM pg.{table})")
    db.execute(f"CREATE TABLE {table} AS SELECT id, {column} AS name FROM pg.{table}")
db.execute('''
    INSERT INTO pg.logs ("timestamp", source_ip, source_port, action, protocol_id, destination_id, destination_port,
                         inbound_tag_id, outbound_tag_id, user_id)
    SELECT moment, ip, port, 'accepted', p.id, e.id, to_port, i.id, o.id, u.id
    FROM line JOIN protocols p ON p.name = protocol JOIN endpoints e ON e.name = host JOIN users u ON u.name = email
    JOIN tags i ON i.name = inbound JOIN tags o ON o.name = outbound
''')
"""
EXECUTEMANY = """
import sys, itertools, psycopg
from datetime import datetime, timezone
from pathlib import Path
from zoneinfo import ZoneInfo
sys.path.insert(0, sys.argv[3])
from xraylog.accesslog import logfile
from xraylog.database import references
from xraylog.accesslog.parser import Parser
with psycopg.connect(sys.argv[2], autocommit=True) as conn, logfile.opened(Path(sys.argv[1])) as log:
    names = references.References(conn)
    for batch in Parser(ZoneInfo("UTC"), datetime.now(timezone.utc)).batches(log.blocks(0), 1_000):
        ids = names.resolve(batch.records.names()).ids
        rows = [
            (r.timestamp, r.source_ip, r.source_port, r.action, ids["protocols"][r.protocol],
             ids["endpoints"][r.destination], r.destination_port, ids["tags"][r.inbound_tag],
             ids["tags"][r.outbound_tag], ids["users"][r.email])
            for r in batch.records
        ]
        with conn.transaction(), conn.cursor() as cursor:
            cursor.executemany(
                'INSERT INTO logs ("timestamp", source_ip, source_port, action, protocol_id, destination_id, '
                'destination_port, inbound_tag_id, outbound_tag_id, user_id) '
                'VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s)', rows)
"""


def main() -> None:
    """Measure and print each."""
    parser = arguments("A whole run compared with what people would use instead.", 200_000)
    options = parser.parse_args()
    with staged(options.pg_bin) as stage:
        log = stage.folder / "all.log"
        write(log, lines(options.lines))
        print(f"{options.lines:,} lines; {stage.versions}")
        prepare(stage, log)
        keywords = stage.server.keywords(dbname="target", user=ROLE)
        dsn = " ".join(f"{key}={value}" for key, value in keywords.items())
        seconds = {}
        for name, command in (
            ("parse_logs.py", None),
            ("DuckDB", [sys.executable, "-c", DUCKDB, str(log), dsn]),
            ("executemany", [sys.executable, "-c", EXECUTEMANY, str(log), dsn, str(ROOT)]),
        ):
            stage.database("target", "days")
            copy = stage.folder / "access.log"
            shutil.copyfile(log, copy)
            run = timed(command) if command else parse_logs(stage.config("target", copy))
            seconds[name] = run.seconds
            with stage.connect("target") as conn:
                assert conn.execute("SELECT count(*) FROM logs").fetchone() == (options.lines,), name
            ratio = f"{run.seconds / seconds['parse_logs.py']:6.1f} (goal {GOALS[name]})" if name in GOALS else ""
            print(f"{name:15} {options.lines / run.seconds:9,.0f} lines/s {ratio}")


def prepare(stage: Stage, log: Path) -> None:
    """Create tables and partitions without names or rows, and let the role switch off the row triggers."""
    stage.database("days")
    copy = stage.folder / "access.log"
    shutil.copyfile(log, copy)
    parse_logs(stage.config("days", copy))
    with stage.connect("days") as conn:
        conn.execute("TRUNCATE logs, log_positions, users, endpoints, protocols, tags, nodes RESTART IDENTITY CASCADE")
        conn.execute(f"GRANT SET ON PARAMETER session_replication_role TO {ROLE}")


if __name__ == "__main__":
    main()
