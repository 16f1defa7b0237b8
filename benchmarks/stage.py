"""Provide what the benchmarks share: a server of their own, databases, and the timing of whole processes."""

from __future__ import annotations

import argparse
import contextlib
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psycopg
from psycopg.sql import SQL, Identifier

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "scripts")]

from server import Server  # noqa: E402  # the path comes first

ROLE = "ingest"
CONFIG = """
[postgresql]
host = 127.0.0.1
port = {port}
dbname = {database}
user = {user}
password = {password}
[parser]
logfile = {log}
offline_file = {folder}/buffer.jsonl
batch_size = {batch_size}
timezone = UTC
node = bench
[stats]
format = json
output = {folder}/stats.jsonl
"""


@dataclass(frozen=True, slots=True)
class Run:
    """The time and memory that a process used."""

    seconds: float
    peak: int  # KiB of resident memory
    processor: float  # CPU seconds of the process


@dataclass(frozen=True, slots=True)
class Stage:
    """A server with PostgreSQL's default settings, except for a larger WAL, and a folder."""

    server: Server
    folder: Path

    @property
    def versions(self) -> str:
        """Return the versions of PostgreSQL and Python."""
        with self.connect() as conn:
            return f"PostgreSQL {conn.info.parameter_status('server_version')}, Python {platform.python_version()}"

    def connect(self, database: str = "postgres") -> psycopg.Connection:
        """Open a superuser's session in autocommit mode."""
        return psycopg.connect(**self.server.keywords(dbname=database), autocommit=True)  # type: ignore[arg-type]

    def database(self, name: str, template: str = "template0") -> None:
        """Recreate a database, then checkpoint, so that no earlier write slows the measurement."""
        with self.connect() as conn:
            conn.execute(SQL("DROP DATABASE IF EXISTS {}").format(Identifier(name)))
            conn.execute(
                SQL("CREATE DATABASE {} OWNER {} ENCODING 'UTF8' TEMPLATE {}").format(
                    Identifier(name), Identifier(ROLE), Identifier(template)
                )
            )
            conn.execute("CHECKPOINT")

    def config(self, database: str, log: Path, user: str = ROLE, batch_size: int = 20_000) -> Path:
        """Write a config file for `parse_logs.py`, and delete the state of earlier runs; return the config's path."""
        (self.folder / "buffer.jsonl.state").unlink(missing_ok=True)
        path = self.folder / "config.ini"
        keywords = {"port": self.server.port, "user": user, "password": self.server.password}
        path.write_text(
            CONFIG.format(database=database, log=log, folder=self.folder, batch_size=batch_size, **keywords)
        )
        path.chmod(0o600)
        return path

    def psql(self, database: str, *commands: str, user: str = ROLE, options: str = "") -> Run:
        """Run commands in one psql; return what it used."""
        arguments = [argument for command in commands for argument in ("-c", command)]
        keywords = {"PGHOST": "127.0.0.1", "PGPORT": str(self.server.port), "PGPASSWORD": self.server.password}
        environment = {**os.environ, **keywords, "PGUSER": user, "PGDATABASE": database, "PGOPTIONS": options}
        psql = self.server.bin / "psql"  # a folder of a server's binaries may have none: another version's is as good
        return timed([str(psql) if psql.exists() else "psql", "-qX", "-v", "ON_ERROR_STOP=1", *arguments], environment)


def arguments(description: str, count: int | None = None) -> argparse.ArgumentParser:
    """Return a parser with the options that all share. `count`: the default of --lines, for those that have it."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--pg-bin", type=Path, help="folder of another PostgreSQL's binaries")
    if count is not None:
        parser.add_argument("--lines", type=int, default=count)
    return parser


def write(log: Path, text: Iterable[str]) -> None:
    """Write the log, in place of an earlier one."""
    with log.open("w") as file:
        file.writelines(text)


@contextlib.contextmanager
def staged(bin_folder: Path | None = None) -> Iterator[Stage]:
    """Start a server with the benchmarks' role, which is no superuser; remove it at the end."""
    with tempfile.TemporaryDirectory(prefix="xraylog-") as folder:
        server = Server(Path(folder) / "server", bin_folder, ("max_wal_size=16GB", "checkpoint_timeout=1h"))
        server.start()
        try:
            stage = Stage(server, Path(folder))
            with stage.connect() as conn:
                conn.execute(f"CREATE ROLE {ROLE} LOGIN PASSWORD '{server.password}'")
            yield stage
        finally:
            server.remove()


def parse_logs(config: Path, *arguments: str) -> Run:
    """Time one whole run."""
    return timed([sys.executable, str(ROOT / "parse_logs.py"), "--config", str(config), *arguments])


def timed(command: list[str], environment: dict[str, str] | None = None) -> Run:
    """Time a command from start to end. Raises SystemExit if it fails."""
    environment = {**(environment or os.environ)}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)  # a run of cron's does not compile its modules each time
    begun = time.monotonic()
    process = subprocess.Popen(command, env=environment)
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.monotonic() - begun
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        raise SystemExit(f"{command[0]}: exit {process.returncode}")
    return Run(seconds, usage.ru_maxrss, usage.ru_utime + usage.ru_stime)
