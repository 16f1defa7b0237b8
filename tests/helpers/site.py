"""Set up an installation in a folder, write lines into its log, run it, and read what the database contains then."""

from __future__ import annotations

import contextlib
import datetime
import importlib
import itertools
import json
import os
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import psycopg
from psycopg.sql import SQL, Identifier

from helpers import faults, forked, load_paths

ROOT = Path(__file__).resolve().parents[2]
SAMPLES = ROOT / "tests" / "samples"
LINE = "{at} from 203.0.113.{octet}:{port} accepted tcp:host{n}.example:443 [in >> out] email: u{n}\n"
AT = "2025/11/17 10:15:23.123456"

ROWS = """
    SELECT l."timestamp", l.source_ip::text, l.source_port, l.action, p.name, d.address, l.destination_port,
           i.name, o.name, u.email, n.name
    FROM logs l
    LEFT JOIN protocols p ON p.id = l.protocol_id
    LEFT JOIN endpoints d ON d.id = l.destination_id
    LEFT JOIN tags i ON i.id = l.inbound_tag_id
    LEFT JOIN tags o ON o.id = l.outbound_tag_id
    LEFT JOIN users u ON u.id = l.user_id
    LEFT JOIN nodes n ON n.id = l.node_id
    ORDER BY l.id
"""

FACTS = """
    SELECT 'table', relname, relkind::text, reloptions::text,
           CASE relkind WHEN 'p' THEN pg_get_partkeydef(oid) END, pg_get_expr(relpartbound, oid)
    FROM pg_class
    WHERE relnamespace = 'public'::regnamespace AND relkind NOT IN ('i', 'I')
    UNION ALL
    SELECT 'column', attrelid::regclass::text, attname, attnum::text, format_type(atttypid, atttypmod),
           pg_get_expr(adbin, adrelid)
    FROM pg_attribute
    JOIN pg_class c ON c.oid = attrelid
    LEFT JOIN pg_attrdef ON adrelid = attrelid AND adnum = attnum
    WHERE relnamespace = 'public'::regnamespace AND relkind NOT IN ('i', 'I') AND attnum > 0 AND NOT attisdropped
    UNION ALL
    SELECT 'not null', attrelid::regclass::text, attname, NULL, NULL, NULL
    FROM pg_attribute
    JOIN pg_class c ON c.oid = attrelid
    WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p') AND attnum > 0 AND attnotnull
    UNION ALL
    SELECT 'constraint', conrelid::regclass::text, conname, pg_get_constraintdef(oid), convalidated::text, NULL
    FROM pg_constraint
    WHERE connamespace = 'public'::regnamespace AND contype <> 'n'
    UNION ALL
    SELECT 'index', indrelid::regclass::text, pg_get_indexdef(indexrelid), indisvalid::text, indisprimary::text, NULL
    FROM pg_index
    JOIN pg_class c ON c.oid = indexrelid
    WHERE relnamespace = 'public'::regnamespace
    UNION ALL
    SELECT 'sequence', seqrelid::regclass::text, seqtypid::regtype::text, refobjid::regclass::text, attname, NULL
    FROM pg_sequence
    JOIN pg_depend ON objid = seqrelid AND deptype = 'a'
    JOIN pg_attribute ON attrelid = refobjid AND attnum = refobjsubid
"""


DROP_DAYS = """
    DO $$
    DECLARE
        day regclass;
    BEGIN
        FOR day IN SELECT inhrelid FROM pg_inherits WHERE inhparent = 'logs'::regclass LOOP
            EXECUTE 'DROP TABLE ' || day;
        END LOOP;
    END
    $$
"""
numbers = itertools.count(1)
kept_sessions: dict[tuple[object, ...], psycopg.Connection[Any]] = {}  # by _place


def create_database(server: dict[str, str], template: str = "template0") -> dict[str, str]:
    """Create a database on a server, empty or as a copy of `template`; return libpq's keywords for it."""
    name = f"test_{os.getpid()}_{next(numbers)}"
    with _session_for_databases(server) as conn:
        # From 15 on another way is the default, which takes the server twice the time.
        strategy = SQL("STRATEGY file_copy" if conn.info.server_version >= 15_00_00 else "")
        create = SQL("CREATE DATABASE {} ENCODING 'UTF8' TEMPLATE {} {}")
        conn.execute(create.format(Identifier(name), Identifier(template), strategy))
    return {**server, "dbname": name}


def drop_database(keywords: dict[str, str]) -> None:
    with _session_for_databases({**keywords, "dbname": "postgres"}) as conn:
        can_end_sessions = conn.info.server_version >= 13_00_00
        if not can_end_sessions:
            end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s"
            conn.execute(end, [keywords["dbname"]])
        drop = SQL("DROP DATABASE {} WITH (FORCE)" if can_end_sessions else "DROP DATABASE {}")
        conn.execute(drop.format(Identifier(keywords["dbname"])))


@contextlib.contextmanager
def one_session_for_databases(server: dict[str, str]) -> Iterator[None]:
    """Inside, all databases of this server are created and dropped in one session: a new one takes the server as long
    as a quarter of that. No test may stop this server.
    """
    with psycopg.connect(**server, autocommit=True) as conn:  # type: ignore[arg-type]
        kept_sessions[_place(server)] = conn
        yield
        del kept_sessions[_place(server)]


@contextlib.contextmanager
def _session_for_databases(server: dict[str, str]) -> Iterator[psycopg.Connection[Any]]:
    if (kept := kept_sessions.get(_place(server))) is not None:
        yield kept
        return
    with psycopg.connect(**server, autocommit=True) as conn:  # type: ignore[arg-type]
        yield conn


def _place(server: dict[str, str]) -> tuple[object, ...]:
    """Return a key for reusing a session: the same server and process, because a forked run needs its own session."""
    return os.getpid(), *(server.get(name) for name in ("host", "port", "user"))


class Site:
    """An installation: a folder with its config and log, and its database."""

    def __init__(self, folder: Path, database: dict[str, str], node: str = "n1") -> None:
        self.folder = folder
        self.database = database
        self.log = folder / "access.log"
        self.buffer = folder / "buffer.jsonl"
        self.state = folder / "buffer.jsonl.state"
        self.stats = folder / "stats.jsonl"
        self.backups: list[dict[str, str]] = []  # other databases of this installation, to be dropped
        self.load_path: str | None = None  # of every run; None: the number of rows decides
        self.config = folder / "config.ini"
        self.settings: dict[str, dict[str, str]] = {
            "postgresql": dict(database),
            "parser": {
                "logfile": "access.log",
                "offline_file": "buffer.jsonl",
                "timezone": "UTC",
                "node": node,
            },
            "stats": {"format": "json", "output": "stats.jsonl"},
        }
        self.write_config()

    def write_config(self) -> None:
        text = "".join(
            f"[{section}]\n" + "".join(f"{key} = {value}\n" for key, value in keys.items())
            for section, keys in self.settings.items()
        )
        self.config.write_text(text)
        self.config.chmod(0o600)

    def set(self, section: str, **keys: str | int) -> None:
        """Change settings."""
        self.settings.setdefault(section, {}).update({key: str(value) for key, value in keys.items()})
        self.write_config()

    def append(self, *lines: str | bytes, to: Path | None = None) -> None:
        """Append lines as xray does: with O_APPEND, and one write for each line with its LF."""
        descriptor = os.open(to or self.log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        for line in lines:
            os.write(descriptor, line if isinstance(line, bytes) else line.encode())
        os.close(descriptor)

    def command(self, *arguments: str, script: str = "parse_logs") -> list[str]:
        started = [str(ROOT / f"{script}.py")]
        if self.load_path is not None and script == "parse_logs":
            started = [load_paths.__file__, self.load_path]
        return [sys.executable, *started, "--config", str(self.config), *arguments]

    def run(
        self, *arguments: str, status: int = 0, script: str = "parse_logs", **options: Any
    ) -> subprocess.CompletedProcess[str]:
        """Run a script, which must exit with `status`: in a forked child, or in a new process if there are `options`
        other than its folder and standard input.
        """
        command = self.command(*arguments, script=script)
        if options.keys() - {"input", "stdin", "cwd"} or not forked.is_possible(script):
            done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600, **options)
        else:
            done = forked.run(script, lambda: self._main(script, arguments), command[1:], **options)
        assert done.returncode == status, f"exit {done.returncode}, expected {status}\n{done.stdout}{done.stderr}"
        assert "Traceback" not in done.stderr, done.stderr
        return done

    def _main(self, script: str, arguments: Sequence[str]) -> int:
        """Return the function that does in this process what `command` would run."""
        if self.load_path is not None:
            load_paths.take(self.load_path)
        return int(importlib.import_module(script).main(["--config", str(self.config), *arguments]))

    def migrate(self, *arguments: str, status: int = 0, **options: Any) -> subprocess.CompletedProcess[str]:
        """Run the migration once."""
        return self.run(*arguments, status=status, script="migrate_logs_to_partitioned", **options)

    def run_here(
        self,
        *arguments: str,
        kill_at: int | str | None = None,
        inside: contextlib.AbstractContextManager[None] | None = None,
        script: str = "parse_logs",
    ) -> int:
        """Run once in a forked child, append its output to `output`, and return its exit status.

        After step `kill_at` (see faults.py) it is killed: then the status is -9. `inside`: a context instead of that.
        """

        def work() -> int:
            with inside or faults.after_step(kill_at, self.folder / "steps"):
                return self._main(script, [*(["-v"] if script == "parse_logs" else []), *arguments])

        with (self.folder / "output").open("a") as output:
            command = self.command(*arguments, script=script)
            return forked.call(script, work, command[1:], output.fileno(), output.fileno())

    def main(self, *arguments: str) -> int:
        """Run once in this process, which a test has changed or will look at; return the exit status."""
        return int(importlib.import_module("parse_logs").main(["--config", str(self.config), *arguments]))

    def start_here(self, output: int, *arguments: str) -> int:
        """Start a run in a forked child that prints to this descriptor; return its pid, for forked.wait."""

        def work() -> int:
            return self._main("parse_logs", arguments)

        return forked.start("parse_logs", work, self.command(*arguments)[1:], output, output)

    def steps(self) -> list[str]:
        """Return the names of the steps that were struck, oldest first."""
        path = self.folder / "steps"
        return [step.partition(" ")[2] for step in path.read_text().splitlines()] if path.exists() else []

    def output(self) -> str:
        """Return the output of the runs in forked children."""
        path = self.folder / "output"
        return path.read_text() if path.exists() else ""

    def away(self) -> None:
        """Make the database unreachable from now on."""
        self.set("postgresql", port="1")

    def back(self) -> None:
        """Make the database reachable again."""
        self.set("postgresql", port=self.database["port"])

    def back_up(self) -> dict[str, str]:
        """Copy the database as it is now, as pg_basebackup or pg_dump would."""
        backup = create_database({**self.database, "dbname": "postgres"}, template=self.database["dbname"])
        self.backups.append(backup)
        return backup

    def restore(self, backup: dict[str, str]) -> None:
        """Let the runs use a copy of this backup from now on; with an empty name, a new database."""
        template = backup.get("dbname", "template0")
        restored = create_database({**self.database, "dbname": "postgres"}, template=template)
        self.backups.append(restored)
        self.fail_over(restored)

    def fail_over(self, database: dict[str, str]) -> dict[str, str]:
        """Let the runs use this database from now on; return the one that they used before."""
        before, self.database = self.database, database
        self.set("postgresql", **database)
        return before

    def drop_backups(self) -> None:
        while self.backups:
            drop_database(self.backups.pop())

    def clone(self, name: str = "clone") -> Site:
        """Copy the machine: its log, buffer, state and settings, into another folder."""
        folder = self.folder.with_name(f"{self.folder.name}-{name}")
        shutil.copytree(self.folder, folder)
        copy = Site(folder, self.database)
        copy.settings = {section: dict(keys) for section, keys in self.settings.items()}
        copy.write_config()
        copy.load_path = self.load_path
        return copy

    def query(self, sql: str, *values: object) -> list[tuple[Any, ...]]:
        with psycopg.connect(**self.database, options="-c timezone=UTC -c datestyle=ISO", autocommit=True) as conn:  # type: ignore[arg-type]
            cursor = conn.execute(sql, values)  # type: ignore[arg-type]
            return cursor.fetchall() if cursor.description else []

    def wait_for_sessions(self) -> None:
        """Until the server has ended what killed runs left: one of them may still be committing."""
        sessions = (
            "SELECT count(*) FROM pg_stat_activity "
            "WHERE datname = current_database() AND application_name = 'parse_logs'"
        )
        wait_until(lambda: self.query(sessions) == [(0,)])

    def rows(self) -> list[tuple[Any, ...]]:
        """Return all rows of `logs`, ordered by id, with names in place of ids."""
        return self.query(ROWS)

    def emails(self) -> Counter[str]:
        """Return how often each user is in `logs`; each line from `line` has its own user."""
        if not self.query("SELECT to_regclass('logs')")[0][0]:
            return Counter()
        return Counter(dict(self.query("SELECT email, count(*) FROM logs JOIN users ON users.id = user_id GROUP BY 1")))

    def drop_days(self) -> None:
        """Drop all rows with their partitions; a row that appears later was stored twice."""
        self.query(DROP_DAYS)

    def buffered(self) -> Counter[str]:
        """Return how often each user is in the buffer."""
        if not self.buffer.exists():
            return Counter()
        objects = map(json.loads, self.buffer.read_bytes().splitlines())
        return Counter(found["email"] for found in objects if "email" in found)

    def runs_that_wait(self, event_type: str = "Lock") -> int:
        """Count the waiting sessions of runs in this database."""
        return self.sessions_that_wait(event_type, "parse_logs")

    def sessions_that_wait(self, event_type: str = "Lock", application: str = "%") -> int:
        """Count all waiting sessions in this database."""
        ((count,),) = self.query(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() "
            "AND application_name LIKE %s AND wait_event_type = %s",
            application,
            event_type,
        )
        return int(count)

    def rejected(self) -> list[tuple[str, bytes]]:
        """Return reason and bytes of every unparsed line, oldest first."""
        return self.query("SELECT reason, line FROM rejected_lines ORDER BY id")  # type: ignore[return-value]

    def last_stats(self) -> dict[str, Any]:
        return json.loads(self.stats.read_text().splitlines()[-1])  # type: ignore[no-any-return]


def facts(conn: psycopg.Connection[tuple[Any, ...]]) -> set[tuple[str | None, ...]]:
    """Return everything in the catalog about our tables, as a set of facts, so that a difference shows what differs."""
    with conn.transaction():
        conn.execute("SET LOCAL timezone TO 'UTC'")
        return set(conn.execute(FACTS).fetchall())


def wait_until(condition: Callable[[], bool], seconds: float = 600) -> None:
    """Wait until a condition holds, but not endlessly, so that a test fails instead of hanging."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)


def line(n: int, at: str = AT) -> str:
    """Return the n-th line, which has its own user, source and destination."""
    return LINE.format(at=at, n=n, octet=n % 254 + 1, port=1024 + n % 60000)


def lines(first: int, end: int, at: str = AT) -> list[str]:
    return [line(n, at) for n in range(first, end)]


def users(first: int, end: int) -> Counter[str]:
    """Return what `emails` must return if lines(first, end) are each stored once."""
    return Counter(f"u{n}" for n in range(first, end))


def day(step: int) -> str:
    """Return the day of a step; each has its own, and so needs a new partition."""
    return (datetime.date(2024, 1, 1) + datetime.timedelta(days=step)).strftime("%Y/%m/%d 12:00:00.000001")


def backends(conn: psycopg.Connection[tuple[int]], condition: str) -> int:
    """Count the sessions of runs on the whole server that are in a state like this."""
    row = conn.execute(
        "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'parse_logs' AND " + condition  # type: ignore[arg-type]
    ).fetchone()
    assert row is not None
    return row[0]
