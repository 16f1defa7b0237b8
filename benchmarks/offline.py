"""Compare a run without a database, which writes to the offline buffer, with the parser alone.

    python benchmarks/offline.py [--lines 1000000] [--rounds 5]

Both sides are whole processes on the same log: one only reads and parses it, the other is a run of `parse_logs.py`
that reaches no server. Medians.
"""

from __future__ import annotations

import argparse
import platform
import shutil
import statistics
import sys
import tempfile
from pathlib import Path

from lines import lines
from stage import CONFIG, ROOT, parse_logs, timed

GOAL = 0.6
PARSE = """
import sys
from datetime import datetime, timezone
from pathlib import Path
from zoneinfo import ZoneInfo
sys.path.insert(0, sys.argv[1])
from xraylog.accesslog import logfile
from xraylog.accesslog.parser import Parser
with logfile.opened(Path(sys.argv[2])) as log:
    for batch in Parser(ZoneInfo("UTC"), datetime.now(timezone.utc)).batches(log.blocks(0), 20_000):
        del batch
"""


def main() -> None:
    """Measure both, print both."""
    parser = argparse.ArgumentParser(description="An offline run compared with the parser alone.")
    parser.add_argument("--lines", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="xraylog-") as name:
        folder = Path(name)
        whole = folder / "whole.log"
        with whole.open("w") as file:
            file.writelines(lines(options.lines))
        seconds, size = [], 0
        for number in range(options.rounds):
            config = installed(folder / str(number), whole)
            parsed = timed([sys.executable, "-c", PARSE, str(ROOT), str(whole)])
            seconds.append((parsed.seconds, parse_logs(config).seconds))
            size = (config.parent / "buffer.jsonl").stat().st_size
            shutil.rmtree(config.parent)
    parsing, offline = (options.lines / statistics.median(column) for column in zip(*seconds, strict=True))
    print(f"{options.lines:,} lines, {size:,} bytes in the buffer, Python {platform.python_version()}")
    print(f"parser alone   {parsing:>9,.0f} lines/s")
    print(f"offline run    {offline:>9,.0f} lines/s")
    print(f"offline ÷ parser: {offline / parsing:.2f} (goal {GOAL})")


def installed(folder: Path, whole: Path) -> Path:
    """Create a folder with a copy of the log, and without a buffer; return the config."""
    folder.mkdir()
    shutil.copyfile(whole, folder / "access.log")
    keywords = {"port": 1, "database": "nowhere", "user": "nobody", "password": "nothing"}
    text = CONFIG.format(log=folder / "access.log", folder=folder, batch_size=20_000, **keywords)
    config = folder / "config.ini"
    config.write_text(text + "[logging]\nlevel=ERROR\n")
    return config


if __name__ == "__main__":
    main()
