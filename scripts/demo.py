"""Demonstrate the whole way from lines of a log to rows, answers and a page, on a PostgreSQL server of its own.

    scripts/demo             start, load, answer; a second time, nothing is added, because the log was drained
    scripts/demo --remove    stop the server and delete everything

Everything is in the folder .demo, which the shell script of the same name prepares.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
from psycopg.conninfo import make_conninfo
from psycopg.sql import SQL
from server import Server

if TYPE_CHECKING:
    from typing_extensions import LiteralString  # only type checkers read this

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / ".demo"
CONFIG = FOLDER / "config.ini"
PAGE = FOLDER / "report.html"
PERIOD = ("--days", "3", "--until", "2025-11-17")  # the days of examples/access.log

STATS = """
[stats]
format = json
output = stats.jsonl
"""

ANSWERS: Mapping[str, LiteralString] = {
    "addresses per user": """
        SELECT u.email, count(DISTINCT l.source_ip) AS addresses, count(*) AS rows
        FROM logs l
        JOIN users u ON u.id = l.user_id
        GROUP BY u.email
        ORDER BY addresses DESC, u.email
        LIMIT 5
    """,
    "top destinations": """
        SELECT e.address, count(*) AS rows, count(DISTINCT l.user_id) AS users
        FROM logs l
        JOIN endpoints e ON e.id = l.destination_id
        GROUP BY e.address
        ORDER BY rows DESC, e.address
        LIMIT 5
    """,
    "rejected sources": """
        SELECT host(source_ip) AS source, count(*) AS rows, max("timestamp") AS last
        FROM logs
        WHERE action = 'rejected' AND source_ip IS NOT NULL
        GROUP BY source_ip
        ORDER BY rows DESC, source_ip
        LIMIT 5
    """,
}


def main() -> int:
    """Run the demo, or remove it; return the exit status."""
    parser = argparse.ArgumentParser(prog="scripts/demo", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--remove", action="store_true", help="stop the server and delete everything the demo made")
    options = parser.parse_args()
    server = Server(FOLDER / "postgresql")
    if options.remove:
        if server.exists:
            server.stop("immediate")
        return 0
    start(server)
    load()
    answer(server)
    write_page()
    print(f"\nthe page: {PAGE}")
    print(f"\nTo look further: PGPASSWORD=$(cat {server.folder}/password) {psql(server)}")
    print("To remove it:    scripts/demo --remove")
    return 0


def start(server: Server) -> None:
    """Start the server; the first time, also create a log and a config."""
    is_first = not server.exists
    if is_first or not server.running:
        step("starting a PostgreSQL server" + (" (the first time also initdb)" if is_first else ""))
        server.start()
    if not CONFIG.exists():
        shutil.copyfile(ROOT / "examples" / "access.log", FOLDER / "access.log")
        CONFIG.touch(0o600)
        CONFIG.write_text(server.config() + STATS)


def load() -> None:
    """Load the log as cron would, and show the statistics row of that run."""
    run_script("parse_logs.py", "-v")
    print("\nstatistics row:")
    print((FOLDER / "stats.jsonl").read_text().splitlines()[-1])


def answer(server: Server) -> None:
    """Print a few questions that operators ask, with their answers."""
    with psycopg.connect(make_conninfo(**server.keywords())) as conn:
        for title, query in ANSWERS.items():
            cursor = conn.execute(SQL(query))
            header = [column.name for column in cursor.description or ()]
            print(f"\n{title}:")
            for line in aligned([header, *([str(value) for value in row] for row in cursor)]):
                print(f"  {line}")


def aligned(table: Sequence[Sequence[str]]) -> Iterator[str]:
    """Yield the rows of a table with columns of equal width."""
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    for row in table:
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()


def write_page() -> None:
    """Write the page of these rows with report_logs.py."""
    print()
    run_script("report_logs.py", *PERIOD, "--output", str(PAGE), "-q")


def psql(server: Server) -> str:
    """Return the command that opens the demo's database with the psql of the server's package."""
    program = server.bin / "psql"
    return f"{program if program.exists() else 'psql'} -h 127.0.0.1 -p {server.port} -U postgres"


def run_script(name: str, *options: str) -> None:
    """Run one of the scripts with the demo's config; show what it prints, except for debug messages."""
    command = [sys.executable, str(ROOT / name), "--config", str(CONFIG), *options]
    step(f"{name} --config {CONFIG} {' '.join(options)}")
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    print("".join(line for line in done.stdout.splitlines(keepends=True) if "DEBUG" not in line), end="", flush=True)
    if done.returncode:
        raise SystemExit(f"{name}: expected exit status 0, found {done.returncode}")


def step(what: str) -> None:
    """Print a headline for the next step."""
    print(f"== {what}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
