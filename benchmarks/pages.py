"""Compare on how many pages of the table a user's rows are if a run stores them, and if they are in the log's order.

    python benchmarks/pages.py [--lines 1000000] [--batch-size 20000] [--pg-bin DIR]

An answer about a user reads exactly these pages of `logs`.
"""

from __future__ import annotations

import statistics

from lines import DAYS, USERS, lines
from load import bare, may_switch, ours, prepare
from stage import Stage, arguments, staged, write

# The first number of a ctid is that of its page.
PAGES = """
    SELECT count(*), count(DISTINCT (tableoid, (ctid::text::point)[0]))
    FROM logs
    GROUP BY user_id
"""


def main() -> None:
    """Load the same lines both ways, count, print."""
    parser = arguments("Pages of one user's rows.", 1_000_000)
    parser.add_argument("--batch-size", type=int, default=20_000)
    options = parser.parse_args()
    with staged(options.pg_bin) as stage:
        log = stage.folder / "all.log"
        write(log, lines(options.lines))
        prepare(stage, log)
        may_switch(stage, True)
        print(f"{options.lines:,} lines of {USERS} users over {DAYS} days; {stage.versions}; of one user, median:")
        stage.database("target", "names")
        bare(stage, "binary", replica=True)
        in_order = pages(stage, "order of the log")
        stage.database("target", "days")
        ours(stage, log, "target", options.batch_size)
        by_run = pages(stage, "stored by a run")
        print(f"order of the log ÷ stored by a run: {in_order / by_run:.1f}")


def pages(stage: Stage, label: str) -> float:
    """Print the medians over all users; return that of the pages."""
    with stage.connect("target") as conn:
        found = conn.execute(PAGES).fetchall()
    rows, held_by = (statistics.median(column) for column in zip(*found, strict=True))
    print(f"{label:<17} {rows:>8,.0f} rows on {held_by:>8,.0f} pages")
    return held_by


if __name__ == "__main__":
    main()
