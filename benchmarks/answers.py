"""Measure the milliseconds of each function of `answers.sql`.

    python benchmarks/answers.py [--rows 10000000] [--days 30] [--users 2000] [--endpoints 200000] [--pg-bin DIR]

The rows are created in SQL, ordered by time, and are the same every time on one version of PostgreSQL: a few users and
hosts have most of them, a tenth of the users stopped on some day, one in 200 rows is rejected. Each question is asked
once to load its pages into memory, and then five times; the result is the median, from the call to the last row.
"""

from __future__ import annotations

import argparse
import statistics
import time
from datetime import date, timedelta

import psycopg
from stage import ROOT, Stage, arguments, staged

from xraylog.database import ddl, partitions, schema
from xraylog.database.capabilities import Capabilities

GOAL, TIMES = 50, 5  # milliseconds for the median; how often each question is asked
GOAL_OF_A_DAY = 300  # for those that read all rows of a day, because no index has what they ask for
WHOLE_DAY = (
    "traffic(", "traffic_per(", "traffic_by_hour({window}", "users_from", "users_that_reached(NULL", "rows_by_",
    "users_of_ports", "users_by_outbound", "destinations_by_outbound", "new_destinations",
    "users_that_fan_out({window}", "users_over_time(", "sharing('simultaneous', {window}", "rejected_",
)  # fmt: skip
PROBES = 5_000  # addresses
END = date(2025, 11, 18)
NAMES = """
    INSERT INTO users (email) SELECT n || '@example.com' FROM generate_series(1, {users}) AS n;
    INSERT INTO protocols (name) VALUES ('tcp'), ('udp');
    INSERT INTO endpoints (address)
    SELECT CASE WHEN n % 10 = 3 THEN host(inet '1.0.0.0' + n * 256) ELSE 'host' || n || '.example.com' END
    FROM generate_series(1, {endpoints}) AS n;
    INSERT INTO tags (name) VALUES ('in'), ('out'), ('block');
    INSERT INTO nodes (name) VALUES ('a'), ('b');
    SELECT setseed(0.7);
"""
# One day. A client has one address at home, a new one each hour on the road, and sometimes IPv6; one account in
# fifty is shared by ten homes.
ROWS = """
    INSERT INTO {table} ("timestamp", source_ip, source_port, action, reject_reason, protocol_id, destination_id,
                         destination_port, inbound_tag_id, outbound_tag_id, user_id, node_id)
    SELECT at,
           CASE WHEN probe THEN inet '198.18.0.0' + n / 200 % {probes}
                WHEN way < 0.7 THEN inet '10.0.0.0' + person * 7919
                                    + CASE WHEN person % 50 = 0 THEN n % 10 * 256 ELSE 0 END
                WHEN way < 0.9 THEN inet '100.64.0.0' + (person * 31 + hour * 7919) % 4194304
                ELSE format('2001:db8:%s::%s', to_hex(person), to_hex(hour % 65536))::inet END,
           n % 64512 + 1024,
           CASE WHEN probe THEN 'rejected' ELSE 'accepted' END,
           CASE WHEN NOT probe THEN '' WHEN n % 3 = 0 THEN 'invalid user' ELSE 'not this protocol' END,
           CASE WHEN NOT probe THEN n % 2 + 1 END,
           CASE WHEN NOT probe THEN host END,
           CASE WHEN NOT probe THEN CASE WHEN way < 0.95 THEN 443 ELSE 80 END END,
           CASE WHEN NOT probe THEN 1 END,
           CASE WHEN NOT probe THEN CASE WHEN n % 50 = 7 THEN 3 ELSE 2 END END,
           CASE WHEN NOT probe THEN person END,
           n % 2 + 1
    FROM (
        SELECT n, at, way, host, n % 200 = 0 AS probe, extract(epoch FROM at)::bigint / 3600 AS hour,
               person - CASE WHEN person % 10 = 0 AND person / 10 % {days} > {days_ago} THEN 1 ELSE 0 END AS person
        FROM (
            SELECT n, timestamptz '{day} 00:00+00' + n * interval '1 day' / {rows} AS at, random() AS way,
                   floor({users} * random() ^ 2)::integer + 1 AS person,
                   floor({endpoints} * random() ^ 4)::integer + 1 AS host
            FROM generate_series(0, {rows} - 1) AS n
        ) drawn
    ) lived
"""
# A window is typed, or it is an expression as in the defaults: then the planner counts the cost of all days, even of
# those that will be pruned, and a server with JIT compiles.
TYPED = "'{since} 00:00+00', '{end} 00:00+00'"
DEFAULT = "timestamptz '{end} 00:00+00' - interval '{window}', '{end} 00:00+00'"
PARTS = ("ports_of", "outbound_tags_of", "addresses_of", "rejected_of", "days_of", "total_of")
QUESTIONS = (  # with the window, where the question has one
    ("addresses_of_users('{last} 09:00+00', '{last} 10:00+00')", ""),
    ("sharing('simultaneous', '{last} 09:00+00', '{last} 10:00+00')", ""),
    ("sharing('simultaneous', {window})", "1 day"),
    ("networks_of('{user}@example.com', {window})", "1 day"),
    ("networks_of('{user}@example.com', {window})", "30 days"),
    ("networks_of('1@example.com', {window})", "1 day"),
    ("destinations_of('{user}@example.com', {window})", "1 day"),
    ("destinations_of('{user}@example.com', {window})", "30 days"),
    ("destinations_of('1@example.com', {window})", "1 day"),
    *((f"{part}('{{user}}@example.com', {{window}})", "30 days") for part in PARTS),
    *((f"{part}('1@example.com', {{window}})", "1 day") for part in PARTS),
    ("users_of('host10000.example.com', {window})", "1 day"),
    ("users_of('host10000.example.com', {window})", "30 days"),
    ("users_of('host1.example.com', {window})", "1 day"),
    ("who_reached('host10000.example.com', 443, '{last} 15:00+00')", ""),
    ("who_reached('host1.example.com', 443, '{last} 15:00+00')", ""),
    ("users_that_reached('HOST10000.example.com', NULL, {window})", "1 day"),
    ("users_that_reached('*.host10000.example.com', NULL, {window})", "30 days"),
    ("users_that_reached('1.100.0.0/16', 443, {window})", "1 day"),
    ("connections_to('1.100.0.0/16', NULL, {window})", "1 day"),
    ("users_that_reached(NULL, 80, {window})", "1 day"),
    ("users_from('10.0.0.0/16', {window})", "1 day"),
    ("rejected_from('198.18.0.0/24', {window})", "1 day"),
    ("users_that_fan_out('{last} 09:00+00', '{last} 10:00+00')", ""),
    ("users_that_fan_out({window})", "1 day"),
    ("rows_by_port({window})", "1 day"),
    ("users_of_ports('80,6881-6889', {window})", "1 day"),
    ("rows_by_outbound({window})", "1 day"),
    ("users_by_outbound('block', {window})", "1 day"),
    ("destinations_by_outbound('block', {window})", "1 day"),
    ("new_destinations({window})", "1 day"),
    ("last_seen('2000-01-01')", ""),
    ("last_seen_of(ARRAY['{user}@example.com', '1@example.com', 'stranger'], '2000-01-01')", ""),
    ("online('{last} 19:55+00', '{last} 20:00+00')", ""),
    ("users_over_time('5m', {window})", "1 day"),
    ("users_over_time('hour', {window})", "1 day"),
    ("traffic_by_hour('{last} 00:00+00', '{last} 12:00+00')", ""),
    ("traffic_by_hour({window})", "1 day"),
    ("traffic('hour', {window})", "1 day"),
    ("traffic_per('node', 'day', {window})", "1 day"),
    ("rejected_sources({window})", "1 day"),
    ("rejected_networks({window})", "1 day"),
    ("rejected_reasons({window})", "1 day"),
    ("addresses_of_users({default})", "1 hour"),
    ("traffic_by_hour({default})", "12 hours"),
    ("rejected_sources({default})", "1 day"),
)


def main() -> None:
    """Create the rows, ask, print."""
    parser = arguments("Milliseconds of each answer.")
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--days", type=int, default=30)
    parser.add_argument("--users", type=int, default=2_000)
    parser.add_argument("--endpoints", type=int, default=200_000)
    options = parser.parse_args()
    with staged(options.pg_bin) as stage:
        stage.database("answers")
        with stage.connect("answers") as conn:
            fill(conn, options)
            conn.execute((ROOT / "answers.sql").read_text())
        ask_all(stage, options)


def fill(conn: psycopg.Connection, options: argparse.Namespace) -> None:
    """Create the names, and the rows day by day."""
    schema.ensure(conn)
    sizes = {"users": options.users, "endpoints": options.endpoints, "probes": PROBES, "days": options.days}
    conn.execute(NAMES.format(**sizes))
    for days_ago in range(options.days - 1, -1, -1):
        day = END - timedelta(days=days_ago + 1)
        add_day(conn, day, ROWS, days_ago=days_ago, rows=options.rows // options.days, **sizes)
    conn.execute("VACUUM ANALYZE")
    conn.execute("CHECKPOINT")


def add_day(conn: psycopg.Connection, day: date, insert: str, **sizes: int) -> None:
    """Create the rows of a day and then its indexes, and attach it, as a run does."""
    low, high = partitions.day_bounds(str(day))
    name = partitions.partition_name(str(day), low, high)
    conn.execute(partitions.create_standalone(name, "logs", Capabilities.of(conn)))
    conn.execute(insert.format(table=name, day=day, **sizes))
    for index in ddl.LOGS_INDEXES:
        conn.execute(ddl.create_index(name, index))
    conn.execute(partitions.attach(name, "logs", low, high))


def ask_all(stage: Stage, options: argparse.Namespace) -> None:
    """Ask each question in a session of its own, and print its time."""
    print(
        f"{options.rows:,} rows over {options.days} days, {options.users:,} users, {options.endpoints:,} endpoints; "
        f"{stage.versions}"
    )
    missed = 0
    for question, length in QUESTIONS:
        days = int(length.split()[0]) if "day" in length else 1
        since = END - timedelta(days=min(days, options.days))
        typed, default = TYPED.format(since=since, end=END), DEFAULT.format(end=END, window=length)
        names = {"last": END - timedelta(days=1), "user": options.users // 2 + 1}
        with stage.connect("answers") as conn:
            found, milliseconds = ask(conn, question.format(window=typed, default=default, **names))
        goal = GOAL_OF_A_DAY if question.startswith(WHOLE_DAY) else GOAL
        missed += milliseconds > goal
        asked = question.format(window=length, default=f"now() - interval '{length}'", **names)
        print(
            f"{asked:70} {found:6,} rows {milliseconds:7.1f} ms" + ("" if milliseconds <= goal else "  over the goal")
        )
    print(f"{len(QUESTIONS) - missed} of {len(QUESTIONS)} within the goal of {GOAL} ms, or {GOAL_OF_A_DAY} ms")


def ask(conn: psycopg.Connection, call: str) -> tuple[int, float]:
    """Return how many rows the call finds, and the median of its milliseconds."""
    conn.execute("SET work_mem = '64MB'")  # as ask_logs.py does
    milliseconds = []
    for _ in range(1 + TIMES):
        begun = time.monotonic()
        rows = conn.execute(f"SELECT * FROM {call}").fetchall()
        milliseconds.append((time.monotonic() - begun) * 1000)
    return len(rows), statistics.median(milliseconds[1:])


if __name__ == "__main__":
    main()
