"""Compare a small run into a large database with the same run into an empty one.

    python benchmarks/growth.py [--rounds 7] [--endpoints 5000000] [--users 1000000] [--days 1000] [--pg-bin DIR]

It also compares a log with many endpoints with one of the same length that has a tenth of these.
"""

from __future__ import annotations

import argparse
import statistics

from lines import lines
from stage import Stage, arguments, parse_logs, staged, write

LINES, GOAL, GOAL_ENDPOINTS = 1_000, 1.3, 2.0
FILL = (
    "INSERT INTO endpoints (address) SELECT 'old' || n || '.example.net' FROM generate_series(1, {endpoints}) AS n",
    "INSERT INTO users (email) SELECT 'old' || n || '@example.net' FROM generate_series(1, {users}) AS n",
)
DAY = """
    CREATE TABLE logs_old_{n} PARTITION OF logs
    FOR VALUES FROM (timestamptz '2025-10-01 00:00+00' - {n} * interval '1 day')
    TO (timestamptz '2025-10-02 00:00+00' - {n} * interval '1 day')
"""


def main() -> None:
    """Measure both, print both."""
    parser = arguments("A small run into a large database.")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--endpoints", type=int, default=5_000_000)
    parser.add_argument("--users", type=int, default=1_000_000)
    parser.add_argument("--days", type=int, default=1_000)
    options = parser.parse_args()
    with staged(options.pg_bin) as stage:
        for name in ("small", "large"):
            stage.database(name)
            run(stage, name, LINES, 0)
        fill(stage, options)
        print(
            f"{options.endpoints:,} endpoints, {options.users:,} users, {options.days:,} partitions; {LINES:,} lines a "
            f"run, new names among them; {stage.versions}"
        )
        seconds: dict[str, list[float]] = {"small": [], "large": []}
        for n in range(options.rounds):
            for name, found in seconds.items():
                found.append(run(stage, name, LINES, n + 1))
        small, large = (statistics.median(found) for found in seconds.values())
        print(f"into an empty database {small * 1000:6.0f} ms, into the large one {large * 1000:6.0f} ms")
        print(f"large ÷ empty: {large / small:.2f} (goal {GOAL})")
        many_endpoints(stage)


def fill(stage: Stage, options: argparse.Namespace) -> None:
    """Fill the large database as years of operation would."""
    with stage.connect("large") as conn:
        for statement in FILL:
            conn.execute(statement.format(endpoints=options.endpoints, users=options.users))
        for n in range(1, options.days):
            conn.execute(DAY.format(n=n))
        conn.execute("VACUUM ANALYZE users")
        conn.execute("VACUUM ANALYZE endpoints")
        conn.execute("CHECKPOINT")


def run(stage: Stage, database: str, count: int, number: int, endpoints: int = 20_000) -> float:
    """Return the seconds of one run; `number` makes some of its names new."""
    log = stage.folder / "access.log"
    write(log, (line.replace("host1", f"host-{number}-1") for line in lines(count, endpoints, days=0.5)))
    return parse_logs(stage.config(database, log)).seconds


def many_endpoints(stage: Stage) -> None:
    """Compare logs with two numbers of endpoints, all equally frequent, so that no cache helps for long."""
    found = []
    for endpoints in (50_000, 500_000):
        stage.database("endpoints")
        log = stage.folder / "access.log"
        text = (line.replace(":host", f":host{n * 7919 % endpoints}-", 1) for n, line in enumerate(lines(500_000, 1)))
        write(log, text)
        found.append(parse_logs(stage.config("endpoints", log)).seconds)
        print(f"500,000 lines with {endpoints:,} endpoints: {found[-1]:.1f} s")
    print(f"ten times the endpoints: {found[1] / found[0]:.2f} (goal {GOAL_ENDPOINTS})")


if __name__ == "__main__":
    main()
