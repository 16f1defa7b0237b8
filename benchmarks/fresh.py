"""Compare answers about days that were just loaded, with rows that are frozen and with rows that are not.

    python benchmarks/fresh.py [--lines 1000000] [--batch-size 20000] [--pg-bin DIR]

Rows are frozen if the run creates the partitions of the days (load path 1), and not if these exist (load path 2).
Nothing is vacuumed, as right after a run. `first`: the first question about these rows, which also sets their hint bits
if they are not frozen; `again`: the median of the next five.
"""

from __future__ import annotations

import statistics
import time

import psycopg
from lines import DAYS, lines
from load import may_switch, ours
from stage import ROOT, Stage, arguments, staged, write

WINDOW = "'2025-10-02 00:00+00', '2025-10-03 00:00+00'"
QUESTIONS = (
    "SELECT count(*) FROM logs WHERE user_id = 7",  # by index alone, where all rows are known to be visible
    f"SELECT * FROM new_destinations({WINDOW})",
    f"SELECT * FROM destinations_of('7@example.com', {WINDOW})",
    f"SELECT * FROM users_over_time('hour', {WINDOW})",
    f"SELECT * FROM traffic_by_hour({WINDOW})",
)
TIMES = 5
SIDES = ("frozen", "not frozen")


def main() -> None:
    """Load both, ask each question of both, print."""
    parser = arguments("Answers about days that were just loaded, frozen or not.", 1_000_000)
    parser.add_argument("--batch-size", type=int, default=20_000)
    options = parser.parse_args()
    with staged(options.pg_bin) as stage:
        with stage.connect() as conn:
            conn.execute("ALTER SYSTEM SET autovacuum = off")
            conn.execute("SELECT pg_reload_conf()")
        log = stage.folder / "all.log"
        write(log, lines(options.lines))
        may_switch(stage, True)
        stage.database("frozen")
        ours(stage, log, "frozen", options.batch_size)
        stage.database("not frozen", "frozen")
        with stage.connect("not frozen") as conn:
            conn.execute("TRUNCATE logs, log_positions")
        ours(stage, log, "not frozen", options.batch_size)
        print(f"{options.lines:,} lines over {DAYS} days; {stage.versions}; milliseconds")
        for question in QUESTIONS:
            print(question, *(f"    {side:<10} {compare(stage, side, question)}" for side in SIDES), sep="\n")


def compare(stage: Stage, side: str, question: str) -> str:
    """Ask a question on a copy that nobody has read yet; return its times."""
    stage.database("asked", side)
    with stage.connect("asked") as conn:
        conn.execute((ROOT / "answers.sql").read_text())
        conn.execute("SET work_mem = '64MB'")  # as ask_logs.py does
        first, *more = (milliseconds(conn, question) for _ in range(1 + TIMES))
    return f"first {first:8.1f}, again {statistics.median(more):8.1f}"


def milliseconds(conn: psycopg.Connection, question: str) -> float:
    """Return how long an answer takes, to its last row."""
    begun = time.monotonic()
    conn.execute(question).fetchall()
    return (time.monotonic() - begun) * 1000


if __name__ == "__main__":
    main()
