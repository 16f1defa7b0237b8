"""Measure from how many rows on each load path is faster than the one before.

The values of `foreign_keys.MIN_BULK_ROWS` and `attach.MIN_ATTACH_ROWS` are based on it.

    python benchmarks/thresholds.py [--rounds 7] [--pg-bin DIR]

Whole runs in milliseconds, medians; the names are known.
"""

from __future__ import annotations

import itertools
import statistics
import sys

from lines import lines
from load import may_switch
from stage import ROLE, ROOT, Stage, arguments, parse_logs, staged, timed, write

COUNTS = (500, 1_000, 2_000, 5_000, 10_000, 20_000)
NEVER = 1 << 60  # rows
# MIN_BULK_ROWS, MIN_ATTACH_ROWS
LOAD_PATHS = {"row by row": (NEVER, NEVER), "keys in bulk": (1, NEVER), "attach": (1, 1)}
RUN = """
import sys
sys.path.insert(0, sys.argv.pop(1))
import parse_logs
from xraylog.loading import attach, foreign_keys
foreign_keys.MIN_BULK_ROWS, attach.MIN_ATTACH_ROWS = int(sys.argv.pop(1)), int(sys.argv.pop(1))
sys.exit(parse_logs.main(sys.argv[1:]))
"""


def main() -> None:
    """Measure each path into a new day and into an existing one, and print a table."""
    parser = arguments("From how many rows on each load path pays off.")
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    with staged(options.pg_bin) as stage:
        prepare(stage)
        print(f"{stage.versions}; milliseconds of a whole run")
        print(f"{'rows':>7}  {'day':5}" + "".join(f"{path:>12}" for path in LOAD_PATHS))
        for count, day in itertools.product(COUNTS, ("new", "known")):
            medians = measure(stage, count, day, options.rounds)
            print(f"{count:7,}  {day:5}" + "".join(f"{seconds * 1000:12.0f}" for seconds in medians))


def prepare(stage: Stage) -> None:
    """Create a database with names but no day, one with the day, and a role that may switch off the triggers."""
    log = stage.folder / "access.log"
    write(log, lines(max(COUNTS), days=0.5))
    stage.database("new")
    parse_logs(stage.config("new", log))
    with stage.connect("new") as conn:
        conn.execute("TRUNCATE logs, log_positions")
    stage.database("known", "new")
    with stage.connect("new") as conn:
        conn.execute("DROP TABLE logs_2025_10_01")
    may_switch(stage, granted=True)


def measure(stage: Stage, count: int, day: str, rounds: int) -> list[float]:
    """Return the median seconds of each path, measured in turn."""
    log = stage.folder / "access.log"
    seconds: dict[str, list[float]] = {load_path: [] for load_path in LOAD_PATHS}
    for _ in range(rounds):
        for load_path, thresholds in LOAD_PATHS.items():
            stage.database("target", day)
            write(log, itertools.islice(lines(max(COUNTS), days=0.5), count))
            config = stage.config("target", log, user=ROLE)
            command = [sys.executable, "-c", RUN, str(ROOT), *map(str, thresholds), "--config", str(config)]
            seconds[load_path].append(timed(command).seconds)
    return [statistics.median(found) for found in seconds.values()]


if __name__ == "__main__":
    main()
