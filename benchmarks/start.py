"""Compare a run that finds nothing to do with the import of its two packages.

    python benchmarks/start.py [--rounds 15]

Whole processes, in turn; medians.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import sys
import tempfile
from pathlib import Path

from stage import CONFIG, ROOT, timed

GOAL = 1.5


def main() -> None:
    """Measure both, print both."""
    parser = argparse.ArgumentParser(description="A run on an empty log compared with the import of its packages.")
    parser.add_argument("--rounds", type=int, default=15)
    rounds = parser.parse_args().rounds
    with tempfile.TemporaryDirectory(prefix="xraylog-") as folder:
        log, config = Path(folder) / "access.log", Path(folder) / "config.ini"
        log.touch()
        config.write_text(
            CONFIG.format(port=1, database="nowhere", user="nobody", password="", log=log, folder=folder, batch_size=1)
        )
        ours = [sys.executable, str(ROOT / "parse_logs.py"), "--config", str(config)]
        bare = [sys.executable, "-c", "import psycopg, loguru"]
        timed(ours)  # which leaves the modules compiled
        seconds = [(timed(bare).seconds, timed(ours).seconds) for _ in range(rounds)]
    bare_median, our_median = (statistics.median(column) for column in zip(*seconds, strict=True))
    print(f"Python {platform.python_version()}, {rounds} rounds")
    print(f"import psycopg, loguru     {bare_median * 1000:6.0f} ms")
    print(f"parse_logs.py, empty log   {our_median * 1000:6.0f} ms")
    print(f"run ÷ import: {our_median / bare_median:.2f} (goal {GOAL})")


if __name__ == "__main__":
    main()
