"""A run stores every line once, says what it did, and leaves an empty log."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
from collections import Counter
from pathlib import Path

import psycopg
import pytest
from helpers.site import SAMPLES, Site, create_database, drop_database, line, lines, users, wait_until
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from xraylog.accesslog import lockfile
from xraylog.cli import Exit
from xraylog.database import schema
from xraylog.ingest import new_users, reminders

pytestmark = pytest.mark.empty_database


def test_a_line_becomes_a_row(site: Site) -> None:
    site.append(
        "2025/11/17 10:15:23.123456 from 203.0.113.10:51000 accepted tcp:www.example.com:443 [in >> out] email: k\n"
    )
    site.run()
    ((at, *rest),) = site.rows()
    assert at.isoformat() == "2025-11-17T10:15:23.123456+00:00"
    assert rest == ["203.0.113.10/32", 51000, "accepted", "tcp", "www.example.com", 443, "in", "out", "k", "n1"]


def test_a_log_is_empty_after_a_run_and_the_next_run_adds_nothing(site: Site) -> None:
    site.append(*lines(0, 100))
    site.run()
    assert site.log.read_bytes() == b""
    site.run()
    assert site.emails() == users(0, 100)


def test_a_good_run_says_nothing_under_cron(site: Site) -> None:
    site.append(line(1), "no line of xray\n")
    done = site.run()
    assert (done.stdout, done.stderr) == ("", "")


def test_the_last_line_adds_up(site: Site) -> None:
    site.append(line(1), "damaged\n", "\n", "2025/11/17 10:15:23 [Info] app/dispatcher: default route\n")
    assert "4 lines read = 1 rows + 1 unparsed + 2 ignored" in site.run("-v").stderr


@pytest.mark.parametrize(("sample", "rows", "ignored"), [("xray_24.11.21.log", 152, 19), ("v2ray_4.34.0.log", 160, 0)])
def test_a_real_log_loads_completely_without_the_line_that_a_client_forged(
    site: Site, sample: str, rows: int, ignored: int
) -> None:
    site.append((SAMPLES / sample).read_bytes())
    site.set("parser", timezone="Asia/Tehran")
    said = site.run("-v").stderr
    assert f"{rows + 1 + ignored} lines read = {rows} rows + 1 unparsed + {ignored} ignored" in said
    assert len(site.rows()) == rows
    ((reason, forged),) = site.rejected()
    assert reason.startswith("expected a date near those of the lines around it")
    assert forged.startswith(b"2026/01/01 00:00:00 from 6.6.6.6:666 accepted tcp:forged.test:443")


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    cuts=st.lists(st.integers(0, 60 * 105), max_size=4).map(sorted),
    keep=st.booleans(),
    size=st.sampled_from(["1", "7", "20000"]),
)
def test_any_cut_of_a_file_into_runs_gives_the_same_rows(
    server_keywords: dict[str, str], tmp_path_factory: pytest.TempPathFactory, cuts: list[int], keep: bool, size: str
) -> None:
    """Cut at any byte, with positions kept in the file or the file drained, in batches of any size."""
    data = "".join([*lines(0, 30), "damaged\n", *[line(7)] * 5, "#\n", "\0\0" + line(60), *lines(30, 55)]).encode()
    whole = Site(tmp_path_factory.mktemp("whole"), create_database(server_keywords))
    parts = Site(tmp_path_factory.mktemp("parts"), create_database(server_keywords))
    parts.set("parser", batch_size=size)
    try:
        whole.append(data)
        assert whole.run_here() == 0
        for start, end in zip([0, *cuts], [*cuts, len(data)], strict=True):
            parts.append(data[start:end])
            assert parts.run_here(*(["--keep"] if keep else [])) == 0
        assert parts.rows() == whole.rows()
        assert parts.rejected() == whole.rejected()
        assert len(whole.rows()) == 61
    finally:
        drop_database(whole.database)
        drop_database(parts.database)


# --- nothing to do


@pytest.mark.parametrize("log", ["missing", "empty", "drained"])
def test_a_log_without_lines_is_a_quiet_success_without_a_connection(site: Site, log: str) -> None:
    if log == "drained":
        site.append(line(1))
        with site.log.open():
            site.run()
        assert site.log.stat().st_size > 0
    elif log == "empty":
        site.log.touch()
    else:
        assert "expected xray's log, found none" in site.run().stderr  # once a day
    site.set("postgresql", port="1")
    done = site.run()
    assert (done.stdout, done.stderr) == ("", "")
    assert site.last_stats()["processed"] == 0


def test_half_a_line_waits_for_its_end(site: Site) -> None:
    site.append(line(1), line(2)[:40])
    site.run()
    assert site.emails() == users(1, 2)
    site.append(line(2)[40:])
    site.run()
    assert site.emails() == users(1, 3)
    assert site.rejected() == []


# --- options


def test_keep_leaves_the_lines_and_stores_them_once(site: Site) -> None:
    site.append(*lines(0, 10))
    before = site.log.read_bytes()
    site.run("--keep")
    site.run("--keep")
    assert site.log.read_bytes() == before
    site.append(*lines(10, 20))
    site.run()
    assert site.log.read_bytes() == b""
    assert site.emails() == users(0, 20)


def test_again_loads_from_the_start_once(site: Site) -> None:
    site.append(*lines(0, 10))
    site.run("--keep")
    site.run("--keep", "--again")
    assert site.emails() == users(0, 10) + users(0, 10)
    site.run("--keep")
    assert site.emails() == users(0, 10) + users(0, 10)


def test_again_for_a_log_that_was_never_stored_loads_it_once(site: Site) -> None:
    """Beside the position of another log, which was emptied."""
    site.append(line(0))
    site.run()
    other = site.folder / "other.log"
    site.append(*lines(1, 5), to=other)
    site.run("--again", "--keep", "--logfile", str(other))
    assert site.emails() == users(0, 5)
    site.run("--keep", "--logfile", str(other))
    assert site.emails() == users(0, 5)


def test_logfile_is_read_and_emptied_in_place_of_the_log(site: Site) -> None:
    old = site.folder / "access.log.1"
    site.append(*lines(0, 5), to=old)
    site.append(*lines(5, 10))
    site.run("--logfile", str(old))
    assert site.emails() == users(0, 5)
    assert old.read_bytes() == b""
    assert site.log.read_bytes() == "".join(lines(5, 10)).encode()


def test_a_log_that_we_may_not_write_is_read_remembered_and_left(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    real_open = os.open

    def refusing(path: str, flags: int, *mode: int, **options: int) -> int:
        if path == site.log.name and flags & os.O_RDWR:
            raise PermissionError(13, "Permission denied")
        return real_open(path, flags, *mode, **options)

    site.append(*lines(0, 10))
    monkeypatch.setattr(os, "open", refusing)  # root may write everything
    for _ in range(2):
        assert site.run_here() == 0
    assert site.emails() == users(0, 10)
    assert site.log.read_bytes() == "".join(lines(0, 10)).encode()
    assert "is not writable: its lines are stored, but stay in it" in (site.folder / "output").read_text()


# --- files that are no log of xray


def test_lines_with_another_programs_prefix_are_rejected_with_one_message(site: Site) -> None:
    site.append(*[f"Nov 17 10:15:23 host xray[77]: {text}" for text in lines(0, 5)])
    said = site.run().stderr
    assert said.count("found before it: 'Nov 17 10:15:23 host xray[77]: '") == 1
    assert len(site.rejected()) == 5


def test_a_file_without_one_line_of_xray_is_reported(site: Site) -> None:
    site.append(*["2025-11-17 10:15:23 status installed man-db:amd64 2.11.2-2\n"] * 20)
    assert f"not one of 20 lines is xray's; is {site.log} its access log?" in site.run().stderr
    site.append(*["2025-11-17 10:15:23 status installed man-db:amd64 2.11.2-2\n"] * 20, line(1))
    assert site.run().stderr == ""


def test_a_user_for_each_line_is_one_warning_that_names_the_fields(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of fields that are known, nothing of the kind is left."""
    monkeypatch.setattr(new_users, "MIN_NEW", 10)
    site.append(*[line(1).replace("\n", f" request_bytes: {n} response_bytes: 9\n") for n in range(20)])
    assert site.run_here() == 0
    assert "new users" not in site.output()
    site.append(*[line(1).replace("\n", f" spent: {n}\n") for n in range(20)])
    site.append(*lines(0, 5))
    assert site.run_here() == 0
    assert site.output().count("nearly one for each line") == 1
    assert "24 new users in 25 rows" in site.output()
    assert "appends to the email, here: spent: *; " not in site.output()  # five lines of real users: not all have it
    monkeypatch.setattr(reminders, "DAY_S", 0)  # as if the next run were a day later
    site.append(*[line(1).replace("\n", f" spent: {n} in: x\n") for n in range(20)])
    assert site.run_here() == 0
    assert "44 new users in 45 rows" in site.output()
    assert "appends to the email, here: spent: * in: *; docs/log-format.md" in site.output()


def test_users_of_small_runs_are_one_warning_a_day(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(new_users, "MIN_NEW", 20)
    for run in range(4):
        site.append(*[line(1).replace("\n", f" spent: {run}{n}\n") for n in range(9)])
        assert site.run_here() == 0
        assert ("27 new users in 27 rows" in site.output()) == (run >= 2)
    assert site.output().count("nearly one for each line") == 1


def test_good_lines_that_the_database_rejects_are_lines_of_xray(site: Site) -> None:
    with psycopg.connect(**site.database, autocommit=True) as conn:  # type: ignore[arg-type]
        schema.ensure(conn)
        conn.execute("ALTER TABLE logs ADD CHECK (destination_port <> 443)")
    site.append(*lines(0, 30))
    assert "access log?" not in site.run().stderr
    assert len(site.rejected()) == 30


def test_a_folder_of_the_log_that_does_not_exist_is_no_success(site: Site) -> None:
    """A log that is not there yet is no error: xray writes it with its first line."""
    site.run()
    site.set("parser", logfile="xary/access.log")
    said = site.run(status=Exit.OPERATOR).stderr
    assert f"{site.folder}/xary: expected the folder of an access log, found none" in said
    command = said.partition("or: ")[2].partition("\n")[0].replace("sudo ", "")
    subprocess.run(shlex.split(command), check=True)
    site.run()
    site.append(line(1), to=site.folder / "xary" / "access.log")
    site.run()
    assert site.emails() == users(1, 2)


def test_a_log_named_on_the_command_line_that_is_missing_is_reported(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(site.folder)  # where the lock of such a log stays
    assert "nowhere.log: expected a log, found none" in site.run("--logfile", "nowhere.log").stderr
    assert "expected the path of a file" in site.run("--logfile", "", status=2).stderr


# --- many nodes, many logs


def test_two_nodes_with_the_same_bytes_have_a_position_each(site: Site, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    other = Site(tmp_path / "other", site.database, node="n2")
    for one in (site, other):
        one.append(*lines(0, 10))
        one.run("--keep")
        one.run("--keep")
    assert site.emails() == users(0, 10) + users(0, 10)
    assert Counter(row[-1] for row in site.rows()) == {"n1": 10, "n2": 10}


def test_a_second_run_of_the_same_log_says_who_is_at_work_and_exits_75(site: Site) -> None:
    site.append(line(1))
    with lockfile.locked(lockfile.lock_path(site.log, site.folder)):
        done = site.run(status=75)
    assert f"held by process {os.getpid()} since" in done.stderr
    assert site.log.read_bytes() == line(1).encode()
    site.run()
    assert site.emails() == users(1, 2)


# --- when it does not work


def test_a_plain_logs_table_is_left_alone(site: Site) -> None:
    site.query('CREATE TABLE logs (id bigserial, "timestamp" timestamptz)')
    site.append(line(1))
    assert "logs: expected a table partitioned by day, found a plain one" in site.run(status=3).stderr
    assert site.buffered() == users(1, 2)


def test_an_interrupted_run_says_so_without_a_traceback(site: Site) -> None:
    site.append(line(1))
    site.run()
    site.append(line(2))
    with psycopg.connect(**site.database) as blocker:  # type: ignore[arg-type]
        blocker.execute("LOCK TABLE log_positions")
        command = ["env", "--default-signal=INT", *site.command()]  # the tests may run in the background: ignored there
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
            wait_until(lambda: site.runs_that_wait() == 1)
            process.send_signal(signal.SIGINT)
            _, said = process.communicate(timeout=600)
    assert process.returncode == 1
    assert re.fullmatch(r".*interrupted; committed rows are kept.*\n", said)
    site.run()
    assert site.emails() == users(1, 3)


@pytest.mark.parametrize("arguments", [["--logfile", "."], ["--logfile", "/dev/null"]])
def test_what_is_no_log_is_refused(site: Site, arguments: list[str]) -> None:
    assert "expected" in site.run(*arguments, status=3).stderr
