"""Measure the peak memory of a run for logs of different lengths, and for a log that an adversary wrote.

    python benchmarks/memory.py [--lines 10000000] [--pg-bin DIR]

Each line of the adversary has a new user, a new address and a new endpoint. The role has the two grants of
docs/many-nodes.md, so a new day is loaded by ATTACH (path 1) for ten seconds, and then with its keys checked as a set
(path 2). Most of the time is what PostgreSQL needs for the names. To show that, psql adds the same names with a COPY
into a temporary table and one INSERT … SELECT, without any rows.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime, timedelta
from ipaddress import ip_address

from lines import lines
from load import may_switch
from stage import Run, Stage, arguments, parse_logs, staged, write

from xraylog.database import schema

FEW, GOAL_MIB, GOAL_RATIO, GOAL_FLOOR = 100_000, 100, 1.1, 0.8


def main() -> None:
    """Measure and print."""
    parser = arguments("The peak memory of a run.", 10_000_000)
    options = parser.parse_args()
    with staged(options.pg_bin) as stage:
        print(stage.versions)
        may_switch(stage, granted=True)
        few = run(stage, f"{FEW:,} lines", FEW, lines(FEW))
        many = run(stage, f"{options.lines:,} lines", options.lines, lines(options.lines))
        print(f"peak, many ÷ few: {many.peak / few.peak:.2f} (goal {GOAL_RATIO}, and less than {GOAL_MIB} MiB)")
        count = min(options.lines, 1_000_000)
        normal = run(stage, f"{count:,} lines", count, lines(count))
        hostile = run(stage, f"{count:,} lines of an adversary", count, adversary(count))
        names = bare_names(stage, count)
        print(f"{f'{count:,} users and endpoints by psql':35} {'':10}  {names.seconds:6.1f} s")
        print(f"seconds, adversary's ÷ normal: {hostile.seconds / normal.seconds:.1f}")
        print(f"seconds, psql's names ÷ adversary's: {names.seconds / hostile.seconds:.2f} (goal {GOAL_FLOOR})")


def adversary(count: int) -> Iterator[str]:
    """Yield lines in which no value occurs twice."""
    at, step = datetime(2025, 10, 1), timedelta(days=2) / count  # noqa: DTZ001  # xray's local time has no zone
    for n in range(count):
        yield (
            f"{at:%Y/%m/%d %H:%M:%S.%f} from {ip_address(n + (16 << 24))}:{n % 60000 + 1024} "
            f"accepted tcp:host{n}.example.com:443 [in >> out] email: user{n}\n"
        )
        at += step


def run(stage: Stage, what: str, count: int, text: Iterable[str]) -> Run:
    """Run once into a new database, and print what it used."""
    log = stage.folder / "access.log"
    write(log, text)
    stage.database("memory")
    done = parse_logs(stage.config("memory", log))
    print(f"{what:35} {done.peak / 1024:6.1f} MiB, {done.seconds:6.1f} s, {count / done.seconds:9,.0f} lines/s")
    return done


def bare_names(stage: Stage, count: int) -> Run:
    """Add the names of the adversary's log to a new database with psql."""
    stage.database("memory")
    with stage.connect("memory") as conn:
        schema.ensure(conn)
    commands = []
    for table, column, name in ("users", "email", "user{}"), ("endpoints", "address", "host{}.example.com"):
        file = stage.folder / table
        write(file, (f"{name.format(n)}\n" for n in range(count)))
        commands += [
            f"CREATE TEMPORARY TABLE new_{table} (name text)",
            rf"\copy new_{table} FROM '{file}'",
            f'INSERT INTO {table} ({column}) SELECT name FROM new_{table} ORDER BY name COLLATE "C"',
        ]
    return stage.psql("memory", *commands, user=stage.server.keywords()["user"])


if __name__ == "__main__":
    main()
