"""Compare a whole run of `parse_logs.py` with psql's bare COPY of the same rows, on each load path.

    python benchmarks/load.py [--lines 1000000] [--rounds 5] [--batch-size 20000] [--pg-bin DIR] [--path 1 --path 2 …]

The bare side copies rows whose names are already replaced by ids, in the order of the log and with one COPY, into the
same tables with the same indexes: once as text, and once in COPY's binary format. Our side is a whole process: it
parses, resolves names, creates partitions, copies, stores positions and drains the log.

    path 1  the days have no partition yet                           bare: session_replication_role = replica
    path 2  they have one, and the role may switch off triggers      bare: the same
    path 3  they have one, and the role may not                      bare: with the row triggers of the foreign keys
"""

from __future__ import annotations

import argparse
import shutil
import statistics
from pathlib import Path

from lines import DAYS, lines
from stage import ROLE, Run, Stage, arguments, parse_logs, staged, write

GOALS = {1: 1.20, 2: 1.05, 3: 1.10}  # by path
FORMATS = ("text", "binary")
COLUMNS = (
    '"timestamp", source_ip, source_port, action, protocol_id, destination_id, destination_port, '
    "inbound_tag_id, outbound_tag_id, user_id, node_id"
)


def main() -> None:
    """Prepare, measure each path, print."""
    options = by_path("A whole run compared with a bare COPY.")
    with staged(options.pg_bin) as stage:
        log = stage.folder / "all.log"
        write(log, lines(options.lines))
        print(f"{options.lines:,} lines over {DAYS} days, {log.stat().st_size:,} bytes; {stage.versions}")
        prepare(stage, log)
        for path in options.path or (1, 2, 3):
            compare(stage, log, path, options)


def by_path(description: str) -> argparse.Namespace:
    """Return the options of a benchmark that measures each load path."""
    parser = arguments(description, 1_000_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batch-size", type=int, default=20_000)
    parser.add_argument("--path", type=int, action="append", choices=(1, 2, 3), help="only this one")
    return parser.parse_args()


def prepare(stage: Stage, log: Path) -> None:
    """Create the template databases `days` (tables, partitions) and `names` (names, too), and the files of rows."""
    stage.database("names")
    ours(stage, log, "names", 20_000)
    with stage.connect("names") as conn:
        for form in FORMATS:
            rows = f'COPY (SELECT {COLUMNS} FROM logs ORDER BY "timestamp") TO STDOUT (FORMAT {form})'
            with (stage.folder / f"rows.{form}").open("wb") as file, conn.cursor().copy(rows) as copy:
                file.writelines(copy)
        conn.execute("TRUNCATE logs, log_positions")
    stage.database("days", "names")
    with stage.connect("days") as conn:
        conn.execute("TRUNCATE users, endpoints, protocols, tags, nodes RESTART IDENTITY CASCADE")


def compare(stage: Stage, log: Path, path: int, options: argparse.Namespace) -> None:
    """Measure each side in turn and print their medians."""
    may_switch(stage, path == 2)
    bare_seconds: dict[str, list[float]] = {form: [] for form in FORMATS}
    our_runs = []
    for _ in range(options.rounds):
        for form, seconds in bare_seconds.items():
            stage.database("target", "names")
            seconds.append(bare(stage, form, replica=path != 3).seconds)
        stage.database("target", "template0" if path == 1 else "days")
        our_runs.append(ours(stage, log, "target", options.batch_size))
        check(stage, options.lines)
    text, binary = (statistics.median(seconds) for seconds in bare_seconds.values())
    our_median = statistics.median(run.seconds for run in our_runs)
    processor = statistics.median(run.processor for run in our_runs)
    print(
        f"path {path}: bare COPY {options.lines / text:>8,.0f} rows/s ({text:.1f} s), "
        f"binary {options.lines / binary:>8,.0f} ({binary:.1f} s), "
        f"parse_logs.py {options.lines / our_median:>8,.0f} ({our_median:.1f} s, {processor:.1f} CPU s, "
        f"{max(run.peak for run in our_runs) >> 10} MiB)\n"
        f"        parse_logs.py ÷ bare COPY {text / our_median:.2f} (goal {GOALS[path]:.2f}), "
        f"÷ bare binary COPY {binary / our_median:.2f}"
    )


def may_switch(stage: Stage, granted: bool) -> None:
    """Grant or revoke the right to set session_replication_role; before PostgreSQL 15 only a superuser has it."""
    with stage.connect() as conn:
        if conn.info.server_version >= 150000:
            grant = (
                "GRANT SET ON PARAMETER session_replication_role TO"
                if granted
                else "REVOKE SET ON PARAMETER session_replication_role FROM"
            )
            conn.execute(f"{grant} {ROLE}")
        else:
            conn.execute(f"ALTER ROLE {ROLE} {'SUPERUSER' if granted else 'NOSUPERUSER'}")


def bare(stage: Stage, form: str, replica: bool) -> Run:
    """Copy the prepared rows with psql."""
    options = "-c session_replication_role=replica" if replica else ""
    user = stage.server.keywords()["user"] if replica else ROLE
    command = rf"\copy logs ({COLUMNS}) FROM '{stage.folder / f'rows.{form}'}' (FORMAT {form})"
    return stage.psql("target", command, user=user, options=options)


def ours(stage: Stage, log: Path, database: str, batch_size: int) -> Run:
    """Run parse_logs.py on a copy of the log, since it drains what it reads."""
    copy = stage.folder / "access.log"
    shutil.copyfile(log, copy)
    return parse_logs(stage.config(database, copy, batch_size=batch_size))


def check(stage: Stage, count: int) -> None:
    """Check that the measured work was done."""
    with stage.connect("target") as conn:
        stored = conn.execute("SELECT count(*) FROM logs").fetchone()
        assert stored == (count,), stored


if __name__ == "__main__":
    main()
