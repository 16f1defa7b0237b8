"""--dry-run says what a run would do, counted by kind of line, and changes nothing."""

from __future__ import annotations

import gzip
import io
import os
import re
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest
from helpers.site import SAMPLES, Site, facts, line, lines, users

from xraylog.accesslog import lockfile, logfile
from xraylog.accesslog.logfile import LogFile

KINDS = [
    *lines(0, 5),
    line(5, "2025/11/16 10:15:23"),
    "2025/11/17 10:15:23 from 203.0.113.10:51000 rejected  proxy/vless/encoding: invalid request user id\n",
    "damaged\n",
    "damaged too\n",
    "2025/11/17 10:15:23 from 203.0.113.10:99999 accepted tcp:a.example:443 [in >> out] email: a\n",
    "# a comment\n",
    "\n",
    "\n",
]

DryRun = Callable[..., str]


@pytest.fixture
def dry_run(site: Site, conn: psycopg.Connection[tuple[Any, ...]], capsys: pytest.CaptureFixture[str]) -> DryRun:
    """Runs --dry-run in this process, which must change nothing; what it says."""

    def run(*arguments: str, status: int = 0) -> str:
        before = everything(site, conn)
        capsys.readouterr()
        assert site.main("--dry-run", *arguments) == status
        said = capsys.readouterr()
        assert everything(site, conn) == before
        assert said.out.endswith("nothing was changed\n"), said.err
        return said.out

    return run


def everything(site: Site, conn: psycopg.Connection[tuple[Any, ...]]) -> list[object]:
    """All files with their times and bytes, all tables with their rows."""
    files = {
        path: (path.stat().st_mtime_ns, path.stat().st_mode, path.is_file() and path.read_bytes())
        for path in [site.folder, *site.folder.rglob("*")]
    }
    tables = [name for (name,) in conn.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")]
    rows = {
        name: sorted(conn.execute(f"SELECT t::text FROM {name} t").fetchall())  # type: ignore[arg-type]
        for name in tables
    }
    sequences = conn.execute("SELECT schemaname, sequencename, last_value FROM pg_sequences").fetchall()
    return [files, facts(conn), rows, sorted(sequences)]


def piped(monkeypatch: pytest.MonkeyPatch, path: Path) -> None:
    """The file as standard input of this process, once."""
    real = os.read
    file = io.BytesIO(path.read_bytes())
    monkeypatch.setattr(os, "read", lambda fd, size: file.read(size) if fd == 0 else real(fd, size))


def test_lines_are_counted_by_kind(site: Site, dry_run: DryRun) -> None:
    site.append(*KINDS)
    said = dry_run()
    assert f"{site.log}:\n  would be read from byte 0 on\n" in said
    assert "  13 lines = 7 rows + 3 unparsed + 3 ignored\n" in said
    assert "  rows by action: 6 accepted; 1 rejected\n" in said
    assert "  unparsed lines by reason: 2 expected a timestamp first; 1 expected a port up to 65535\n" in said
    assert "  ignored lines by kind: 2 blank; 1 comment\n" in said
    assert (
        "  2025-11-16: 1 rows, a partition would be created\n  2025-11-17: 6 rows, a partition would be created\n"
        in said
    )
    assert "  its lines would be taken out" in said
    assert "would be created" in said.splitlines()[0]  # the tables


@pytest.mark.parametrize("log", [*SAMPLES.glob("xray_24*.log"), None], ids=lambda path: path.name if path else "kinds")
def test_a_run_does_what_was_announced(site: Site, dry_run: DryRun, log: Path | None) -> None:
    site.append(*([log.read_bytes()] if log else KINDS))
    found = re.search(r"(\d+) lines = (\d+ rows \+ \d+ unparsed \+ \d+ ignored)", dry_run())
    assert found is not None
    assert f"{found[1]} lines read = {found[2]}" in site.run("-v").stderr


def test_it_goes_on_where_a_run_would(site: Site, dry_run: DryRun) -> None:
    site.append(*KINDS)
    site.run_here("--keep")
    stored = site.log.stat().st_size
    assert f"{site.log}:\n  nothing new after byte {stored}\n" in dry_run()
    site.append(*lines(20, 23), line(24)[:30])
    said = dry_run("--keep")
    assert f"would be read from byte {stored} on\n  3 lines = 3 rows + 0 unparsed + 0 ignored\n" in said
    assert "2025-11-17: 3 rows, its partition is there\n  its lines would stay there (--keep)\n" in said
    assert "would be read from byte 0 on\n  16 lines = 10 rows" in dry_run("--again")


def test_without_a_database_it_says_where_lines_would_go(site: Site, dry_run: DryRun) -> None:
    site.append(*lines(0, 10))
    site.away()
    said = dry_run()
    assert re.match(rf"database: not available: .*; lines would go to {site.buffer}; the server is down: ", said)
    assert "10 lines = 10 rows + 0 unparsed + 0 ignored\n" in said
    assert "2025-11-17: 10 rows\n" in said
    site.run_here("--keep")
    site.append(*lines(10, 13))
    said = dry_run()
    assert f"buffer: its {site.buffer.stat().st_size} bytes would wait\n" in said
    assert "3 lines = 3 rows" in said


def test_a_database_that_does_not_fit_is_for_the_operator(site: Site, dry_run: DryRun) -> None:
    site.query('CREATE TABLE logs (id bigserial, "timestamp" timestamptz)')
    site.append(*lines(0, 10))
    said = dry_run(status=3)
    assert said.startswith("database: logs: expected a table partitioned by day, found a plain one")
    assert "10 lines = 10 rows" in said


def test_what_waits_in_the_buffer_is_counted(site: Site, dry_run: DryRun) -> None:
    """Except what the database has; what the buffer has of the log is not read again."""
    site.set("parser", batch_size="10")
    site.append(*lines(0, 20))
    site.run_here("--keep")
    site.append(*lines(20, 25), "damaged\n")
    site.away()
    site.run_here("--keep")
    site.back()
    site.append(*lines(25, 29))
    said = dry_run()
    assert "buffer: 6 lines would be imported first = 5 rows + 1 unparsed; 20 more are stored already\n" in said
    assert "4 lines = 4 rows" in said
    site.run_here()
    assert site.emails() == users(0, 29)
    assert "buffer: " not in dry_run()


@pytest.mark.parametrize(("torn", "status"), [('{"timestamp": "2025-', 0), ('{"mark": nothing}\n', 3)])
def test_a_torn_buffer_is_left_as_it_is(site: Site, dry_run: DryRun, torn: str, status: int) -> None:
    site.append(*lines(0, 5))
    site.away()
    site.run_here()
    site.back()
    with site.buffer.open("a") as file:
        file.write(torn)
    assert ("buffer: 5 lines would be imported first" in dry_run(status=status)) == (status == 0)


def test_old_logs_are_counted_each_once(site: Site, dry_run: DryRun, monkeypatch: pytest.MonkeyPatch) -> None:
    """A log and its compressed twin, and what is piped in."""
    text = "".join(lines(0, 100)).encode()
    (site.folder / "access.log.1").write_bytes(text)
    (site.folder / "access.log.1.gz").write_bytes(gzip.compress(text + b"half a li"))
    (site.folder / "cut.gz").write_bytes(gzip.compress("".join(lines(200, 300)).encode())[:-8])
    said = dry_run("--logfile", str(site.folder / "access.log*"))
    assert said.count("100 lines = 100 rows") == 1
    assert "access.log.1.gz:\n  would be read from byte 0 on\n" in said
    assert "its last line is incomplete, and would be left out\n  it would stay as it is\n" in said
    assert f"access.log.1:\n  nothing new after byte {len(text)}\n" in said
    piped(monkeypatch, site.folder / "access.log.1")
    said = dry_run("--logfile", "-", "--logfile", str(site.folder / "access.log.1"))
    assert "\n-:\n  would be read from byte 0 on\n  100 lines = 100 rows" in said
    assert f"access.log.1:\n  nothing new after byte {len(text)}\n" in said
    assert "cut.gz:\n  would be read from byte 0 on\n" in dry_run("--logfile", f"{site.folder}/cut.gz", status=3)


def test_a_log_that_another_program_empties_meanwhile_is_reported(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    site.append(*lines(0, 20))
    real = LogFile.is_unchanged

    def emptied(log: LogFile, end: int) -> bool:
        if end > 1000:
            os.truncate(log.path, 0)
        return real(log, end)

    monkeypatch.setattr(logfile, "BLOCK_BYTES", 600)
    monkeypatch.setattr(LogFile, "is_unchanged", emptied)
    said = site.run("--dry-run").stdout
    assert "5 lines = 5 rows" in said
    assert "\n  it was changed while it was read: another run is at work, or another program emptied it\n" in said


def test_a_log_that_may_not_be_written_keeps_its_lines(site: Site) -> None:
    site.append(*lines(0, 3))
    site.log.chmod(0o400)
    root = ["setpriv", "--bounding-set=-dac_override"] if os.geteuid() == 0 else []
    command = [*root, *site.command("--dry-run")]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    assert "\n  its lines would stay there, because it may not be written\n" in done.stdout
    subprocess.run([*root, *site.command()], capture_output=True, text=True, check=True, timeout=60)
    assert site.log.read_text() == "".join(lines(0, 3))


def test_a_file_system_that_takes_no_lines_out_of_an_open_log_is_called_so(site: Site) -> None:
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:  # the one tmpfs that every Linux has
        log = Path(folder) / "access.log"
        site.append(*lines(0, 3), to=log)
        said = site.run("--dry-run", "--logfile", str(log)).stdout
    assert "\n  its lines would be taken out, or stay while another process has it open: --check says more\n" in said


def test_lines_that_were_to_be_loaded_again_leave_no_gap(site: Site, dry_run: DryRun) -> None:
    """Those in the buffer, which have no position."""
    site.append(*lines(0, 5))
    site.run_here("--keep")
    site.away()
    site.run_here("--keep", "--again")
    site.back()
    said = dry_run()
    assert "buffer: 5 lines would be imported first = 5 rows + 0 unparsed; 0 more are stored already\n" in said
    assert "missing: " not in said
    site.run_here()
    assert site.emails() == users(0, 5) + users(0, 5)


def test_a_run_in_progress_is_reported(site: Site, dry_run: DryRun) -> None:
    site.append(line(1))
    with lockfile.locked(lockfile.lock_path(site.log, site.folder)):
        assert f"lock: {site.log} is in use by process {os.getpid()} since" in dry_run()


def test_a_missing_log_is_reported_and_our_own_log_is_not_created(site: Site, dry_run: DryRun) -> None:
    site.set("logging", file="own.log", level="DEBUG")
    assert f"{site.log}: expected a log, found none\n" in dry_run()
    assert not (site.folder / "own.log").exists()


def test_many_days_are_cut_short(site: Site, dry_run: DryRun) -> None:
    site.append(*[line(n, f"2025/{1 + n // 28:02}/{1 + n % 28:02} 10:00:00") for n in range(100)])
    said = dry_run()
    assert said.count("a partition would be created") == 31
    assert "and 69 more days, up to 2025-04-16" in said


def test_only_one_of_check_and_dry_run(site: Site) -> None:
    assert "not allowed with argument" in site.run("--check", "--dry-run", status=2).stderr


def test_what_retention_would_drop_is_listed(site: Site, dry_run: DryRun) -> None:
    site.append(line(1, "2025/11/16 10:15:23"), "damaged\n")
    site.run()
    site.query("UPDATE rejected_lines SET rejected_at = '2025-11-16 10:15:23+00'")
    assert "retention:" not in dry_run()
    site.set("retention", days="30")
    bounds = "FROM ('2025-11-16 00:00:00+00') TO ('2025-11-17 00:00:00+00')"
    told = [said for said in dry_run().splitlines() if said.startswith("retention:")]
    assert told == [
        f"retention: logs_2025_11_16 ({bounds}) would be dropped",
        "retention: 1 lines of rejected_lines would be removed",
    ]
