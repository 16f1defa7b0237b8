"""Compare the import of an offline buffer with loading the same lines from the log itself.

    python benchmarks/imports.py [--lines 1000000] [--rounds 5] [--batch-size 20000] [--path 1 --path 2 …]

Both sides are whole processes: one reads the log, the other one the buffer that a run without a database has written.
The load paths are those of load.py.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
from pathlib import Path

from lines import DAYS, lines
from load import by_path, check, may_switch, ours
from stage import CONFIG, Run, Stage, parse_logs, staged, write

GOAL = 0.8


def main() -> None:
    """Prepare, measure each path, print."""
    options = by_path("An import of the offline buffer compared with the log.")
    with staged(options.pg_bin) as stage:
        log = stage.folder / "all.log"
        write(log, lines(options.lines))
        buffer = spooled(stage, log, options.batch_size)
        sizes = f"{log.stat().st_size:,} bytes of log, {buffer.stat().st_size:,} of buffer"
        print(f"{options.lines:,} lines over {DAYS} days, {sizes}; {stage.versions}")
        stage.database("days")
        ours(stage, log, "days", options.batch_size)
        with stage.connect("days") as conn:
            conn.execute(
                "TRUNCATE logs, log_positions, users, endpoints, protocols, tags, nodes RESTART IDENTITY CASCADE"
            )
        for path in options.path or (1, 2, 3):
            compare(stage, log, buffer, path, options)


def spooled(stage: Stage, log: Path, batch_size: int) -> Path:
    """Return the buffer that a run without a database makes of the log."""
    config, copy = stage.folder / "offline.ini", stage.folder / "access.log"
    shutil.copyfile(log, copy)
    keywords = {"port": 1, "database": "nowhere", "user": "nobody", "password": "nothing"}
    config.write_text(CONFIG.format(log=copy, folder=stage.folder, batch_size=batch_size, **keywords))
    with config.open("a") as file:
        file.write("[logging]\nlevel = ERROR\n")
    config.chmod(0o600)
    parse_logs(config)
    return (stage.folder / "buffer.jsonl").rename(stage.folder / "spooled.jsonl")


def compare(stage: Stage, log: Path, buffer: Path, path: int, options: argparse.Namespace) -> None:
    """Measure each side in turn and print their medians."""
    may_switch(stage, path == 2)
    sides: dict[str, list[Run]] = {"log": [], "import": []}
    for _ in range(options.rounds):
        for side, runs in sides.items():
            stage.database("target", "template0" if path == 1 else "days")
            if side == "log":
                runs.append(ours(stage, log, "target", options.batch_size))
            else:
                runs.append(imported(stage, buffer, options.batch_size))
            check(stage, options.lines)
    seconds = {side: statistics.median(run.seconds for run in runs) for side, runs in sides.items()}
    said = ", ".join(
        f"{side} {options.lines / seconds[side]:>8,.0f} rows/s ({seconds[side]:.1f} s, "
        f"{statistics.median(run.processor for run in runs):.1f} CPU s, {max(run.peak for run in runs) >> 10} MiB)"
        for side, runs in sides.items()
    )
    print(f"path {path}: {said}: import ÷ log {seconds['log'] / seconds['import']:.2f} (goal {GOAL})", flush=True)


def imported(stage: Stage, buffer: Path, batch_size: int) -> Run:
    """Run parse_logs.py with this buffer and an empty log."""
    log = stage.folder / "access.log"
    log.write_bytes(b"")
    config = stage.config("target", log, batch_size=batch_size)
    shutil.copyfile(buffer, stage.folder / "buffer.jsonl")
    return parse_logs(config)


if __name__ == "__main__":
    main()
