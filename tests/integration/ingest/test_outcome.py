"""Whatever is wrong, a run without a terminal says one line: what, what happens next, and the command that mends it."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable

import pytest
from helpers.site import ROOT, Site, line, lines, users

from xraylog.accesslog import lockfile, logfile

pytestmark = pytest.mark.empty_database


def command(site: Site, *options: str, script: str = "parse_logs.py") -> str:
    return shlex.join([sys.executable, str(ROOT / script), "--config", str(site.config), *options])


def migrate(site: Site, *options: str) -> str:
    return command(site, *options, script="migrate_logs_to_partitioned.py")


def is_away(site: Site) -> None:
    site.away()


def refuses(site: Site) -> None:
    site.set("postgresql", dbname="nothing here")


def does_not_fit(site: Site) -> None:
    site.query("CREATE TABLE users (id integer, email text)")


def is_plain(site: Site) -> None:
    site.query('CREATE TABLE logs (id bigserial, "timestamp" timestamptz)')


def damage(site: Site) -> None:
    """In the first of two batches: in the last it would be one that a crash tore."""
    site.away()
    for n in (1, 2):
        site.append(line(n))
        site.run_here()
    site.back()
    text = site.buffer.read_bytes()
    site.buffer.write_bytes(text.replace(b'"u1"', b'"u1', 1))
    site.append(line(3))


def take_for_buffer(site: Site) -> None:
    site.buffer.write_text("not ours\n")


def make_no_log(site: Site) -> None:
    site.log.unlink()
    site.log.mkdir()


def fill_statistics(site: Site) -> None:
    site.set("stats", output="/dev/full")


def change_header(site: Site) -> None:
    site.set("stats", format="csv")
    site.stats.write_text("a,b\n")


def open_password(site: Site) -> None:
    site.config.chmod(0o644)


def make_no_xray(site: Site) -> None:
    site.log.write_text("another log\n" * 20)


def mv(what: str, where: str) -> Callable[[Site], str]:
    return lambda site: f"mv -T {getattr(site, what)} {getattr(site, what)}{where}"


def df(_: Site) -> str:
    return "make room: df -h /dev"


TROUBLES = [
    (
        is_away,
        0,
        (
            "new lines go to BUFFER; the server is down: nothing listens on 127.0.0.1, port 1; if another one is "
            "meant, change [postgresql] host and port in CONFIG; what to do: "
        ),
        lambda _: "sudo systemctl start postgresql",
    ),
    (
        refuses,
        3,
        (
            'new lines go to BUFFER; the server has no database "nothing here"; if another one is meant, change '
            "[postgresql] dbname in CONFIG; as a superuser of PostgreSQL: "
        ),
        lambda _: 'CREATE DATABASE "nothing here" OWNER "postgres" ENCODING \'UTF8\' TEMPLATE template0',
    ),
    (
        does_not_fit,
        3,
        "found none; ALTER TABLE users ADD PRIMARY KEY (id); new lines go to ",
        lambda site: str(site.buffer),
    ),
    (
        is_plain,
        3,
        "new lines go to BUFFER; to see what a migration does, then repeat it without --dry-run: ",
        lambda site: migrate(site, "--dry-run"),
    ),
    (
        damage,
        3,
        "new lines go to BUFFER; its lines stay in it; to continue with a new buffer: ",
        mv("buffer", ".damaged"),
    ),
    (
        take_for_buffer,
        3,
        "nothing was read; it stays as it is: name another [parser] offline_file in ",
        lambda site: str(site.config),
    ),
    (
        make_no_log,
        3,
        "nothing was read; name the file in it, [parser] logfile in CONFIG: ",
        lambda site: f"ls -la {site.log}",
    ),
    (fill_statistics, 3, "committed rows are kept; ", df),
    (change_header, 3, "move it away: ", mv("stats", ".old")),
    (open_password, 0, "", lambda site: f"chmod 600 {site.config}"),
    (make_no_xray, 0, "is LOG its access log? If not, change [parser] logfile in ", lambda site: str(site.config)),
]


@pytest.mark.parametrize(
    ("arrange", "status", "next_words", "mend"), TROUBLES, ids=[trouble[0].__name__ for trouble in TROUBLES]
)
def test_one_line_says_what_happens_next_and_what_mends_it(
    site: Site, arrange: Callable[[Site], None], status: int, next_words: str, mend: Callable[[Site], str]
) -> None:
    site.append(line(1))
    arrange(site)
    (said,) = site.run(status=status).stderr.splitlines()
    assert re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d (WARNING|ERROR) ", said)
    expected = next_words.replace("BUFFER", str(site.buffer)).replace("LOG", str(site.log))
    expected = expected.replace("CONFIG", str(site.config)) + mend(site)
    assert expected in said


def test_the_command_can_be_pasted(site: Site) -> None:
    """From whatever folder, also when the run was started from another one and its path has a space."""
    odd = site.folder / "with space"
    odd.mkdir()
    os.rename(site.config, odd / "config.ini")
    site.config = odd / "config.ini"
    site.set("parser", logfile=str(site.log), offline_file=str(site.buffer))
    site.append(line(1))
    relative = [*site.command()[:2], "--config", "config.ini"]
    is_plain(site)
    done = subprocess.run(relative, cwd=odd, capture_output=True, text=True, check=False)
    pasted = done.stderr.partition("then repeat it without --dry-run: ")[2].strip()
    shown = subprocess.run(["/bin/sh", "-c", pasted], cwd="/", capture_output=True, text=True, check=True)
    assert "-- renaming logs to logs_old" in shown.stdout or "ALTER TABLE" in shown.stdout


def test_a_buffer_that_was_moved_away_as_said_stands_in_nobodys_way(site: Site) -> None:
    damage(site)
    (checked,) = re.findall("^✗ buffer: (.*)", site.run("--check", status=3).stdout, re.MULTILINE)
    said = site.run(status=3).stderr
    assert checked.rpartition("; ")[2] == said.strip().rpartition("; ")[2]
    site.append(line(4))
    subprocess.run(["/bin/sh", "-c", said.partition("to continue with a new buffer: ")[2]], check=True)
    assert site.run().stderr == ""
    moved = site.buffer.with_name("buffer.jsonl.damaged").read_text()
    assert site.emails() == users(4, 5)
    assert re.findall(r'"email": "(\w+)', moved) == ["u1", "u2", "u3"]


@pytest.mark.parametrize("text", ["not ours\n", "", '\n{"mark": 1}\n{"mark": 2}\n'], ids=["text", "empty", "marks"])
@pytest.mark.parametrize("option", ["-v", "--dry-run"])
def test_a_file_that_is_no_buffer_is_never_to_be_moved(site: Site, text: str, option: str) -> None:
    """It may be a file that another program needs where it is."""
    site.buffer.write_text(text)
    site.append(line(1))
    if not text:
        assert site.run(option).returncode == 0
        return
    said = site.run(option, status=3).stderr
    assert "expected our buffer, found a file that begins with" in said
    assert f"; it stays as it is: name another [parser] offline_file in {site.config}" in said
    assert "mv " not in said
    assert site.buffer.read_text() == text


def test_a_missing_config_names_the_copy(site: Site) -> None:
    site.config.unlink()
    example = (ROOT / "config.ini.example").resolve()
    assert site.run(status=78).stderr == (
        f"{site.config}: expected a config file, found nothing; cp {example} {site.config}\n"
    )


def test_another_run_at_work_is_one_line(site: Site) -> None:
    site.append(line(1))
    with lockfile.locked(lockfile.lock_path(site.log, site.folder)):
        (said,) = site.run(status=75).stderr.splitlines()
    assert f"held by process {os.getpid()} since" in said
    assert said.endswith(f"; nothing to do; what it does: ps -fp {os.getpid()}")


def test_a_renamed_log_names_the_run_that_loads_the_rest(site: Site) -> None:
    site.append(*lines(0, 10))
    site.run("--keep")
    site.append(*lines(10, 12))
    site.log.rename(site.folder / "access.log.1")
    site.append(line(20))
    (said,) = site.run().stderr.splitlines()
    mend = said.partition("; if it was renamed: ")[2]
    assert mend == command(site, "--logfile", f"{site.log}.1")
    assert subprocess.run(["/bin/sh", "-c", mend], capture_output=True, text=True, check=True).stderr == ""
    assert site.emails() == users(0, 12) + users(20, 21)


def test_an_unexpected_error_names_the_run_for_a_report(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    def break_down(_: logfile.LogFile) -> None:
        raise RuntimeError("{odd}\nindeed")

    site.append(line(1))
    monkeypatch.setattr(logfile.LogFile, "sync", break_down)
    assert site.run_here() == 1
    words = "unexpected RuntimeError: {odd}; indeed; the next run tries again; for a report: "
    assert words + command(site, "-v") in site.output()
