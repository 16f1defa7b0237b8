"""docs/panels.md: each set-up with the files as it has them, and what the page says to do there."""

from __future__ import annotations

import contextlib
import os
import random
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers.documents import BLOCKS
from helpers.site import Site, line, lines, users
from helpers.users import OTHER, as_root, becoming

from xraylog.cli import Exit

PAGE = "docs/panels.md"
STARTED = (
    "Xray 25.10.15 (Xray, Penetrates Everything.) 6ec7f44 (go1.25.2 linux/amd64)\n"
    "A unified platform for anti-censorship.\n"
    "2025/11/17 10:15:20.000001 [Info] infra/conf/serial: Reading config: &{Name:/etc/xray/config.json Format:json}\n"
    "2025/11/17 10:15:20.000002 [Warning] core: Xray 25.10.15 started\n"
)


def commands(*words: str) -> str:
    """Return the one block of the page that has these words."""
    texts = [block.text for block in BLOCKS if block.page == PAGE and block.language == "bash"]
    (text,) = [text for text in texts if all(word in text for word in words)]
    return text


# --- who runs xray -------------------------------------------------------------------------------------------


@pytest.mark.skipif(shutil.which("ps") is None, reason="no procps here")
@pytest.mark.parametrize("program", ["xray", "xray-linux-amd64", "xray-linux-arm64-v8a", "rw-core", "v2ray"])
def test_the_program_is_found_under_each_name_with_its_log(tmp_path: Path, program: str) -> None:
    """The kernel keeps 15 letters of a name."""
    shutil.copy(shutil.which("sleep") or "", tmp_path / program)
    log = tmp_path / "access.log"
    with log.open("ab") as file, subprocess.Popen([tmp_path / program, "600"], stdout=file) as running:
        try:
            found = subprocess.run(
                ["/bin/sh", "-c", commands("user:32=")], capture_output=True, text=True, check=True
            ).stdout
            user = Path(f"/proc/{running.pid}").owner()
            assert [user, str(running.pid)] in [shown.split()[:2] for shown in found.splitlines()]
            opened = subprocess.run(["/bin/sh", "-c", commands("-lname")], capture_output=True, text=True, check=True)
            assert str(log) in opened.stdout.splitlines()
        finally:
            running.kill()


@as_root
@pytest.mark.parametrize("mode", [0o755, 0o700])
def test_the_user_nobody_in_a_folder_of_roots(site: Site, mode: int) -> None:
    """As Xray-install has it, in its two ways: the folder is root's, or nobody's alone."""
    folder = Path("/var/tmp") / f"xraylog-{os.getpid()}-{mode:o}"  # noqa: S108  # pytest's own one is closed to nobody
    folder.mkdir()
    try:
        (folder / "log").mkdir(mode=mode)
        (folder / "var").mkdir(mode=0o700)
        site.log, site.buffer = folder / "log" / "access.log", folder / "var" / "buffer.jsonl"
        site.config = folder / "config.ini"
        site.settings["stats"].clear()
        site.set("parser", logfile=str(site.log), offline_file=str(site.buffer))
        site.append(*lines(0, 3))
        owned = [site.log, site.config, folder / "var", *([folder / "log"] if mode == 0o700 else [])]
        for path in owned:
            os.chown(path, OTHER, OTHER)
        checked = subprocess.run(
            [*becoming(OTHER), *site.command("--check")], capture_output=True, text=True, check=False
        )
        assert "✗" not in checked.stdout, checked.stdout
        done = subprocess.run([*becoming(OTHER), *site.command()], capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (Exit.DONE, "")
        assert site.emails() == users(0, 3)
        assert site.log.read_bytes() == b""
        assert site.log.stat().st_uid == OTHER
    finally:
        shutil.rmtree(folder)


# --- 3x-ui ---------------------------------------------------------------------------------------------------


class Panel:
    """What 3x-ui does with the log of its xray, and the commands of the page."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.copies = site.folder / "3xipl-ap.log"
        self.before = site.folder / "3xipl-ap.prev.log"
        for path in (self.copies, self.before):
            path.touch()

    def empty_log(self) -> None:
        """Every ten seconds, or every hour."""
        with self.copies.open("ab") as copies:
            copies.write(self.site.log.read_bytes())
        os.truncate(self.site.log, 0)

    def empty_copies(self) -> None:
        """Once a day."""
        self.before.write_bytes(self.copies.read_bytes())
        os.truncate(self.copies, 0)

    def run(self, *words: str) -> list[str]:
        """Do what the page says; return what the runs complained of."""
        said = []
        for command in re.findall(r"parse_logs\.py --config config\.ini(.*)", commands(*words)):
            arguments = [re.sub(r"^/.*/", f"{self.site.folder}/", word) for word in command.split()]
            said += self.site.run(*arguments).stderr.splitlines()
        return said


@pytest.fixture
def panel(site: Site) -> Panel:
    site.append(b"")
    return Panel(site)


def test_what_the_panel_copied_is_read_once_while_it_empties_both(panel: Panel) -> None:
    panel.site.set("parser", logfile=str(panel.copies))
    chance, written = random.Random(7), 0
    for _ in range(25):
        step = chance.choice(["lines", "log", "log", "run", "run", "copies"])
        if step == "lines":
            panel.site.append(*lines(written, written + 3))
            written += 3
        elif step == "log":
            panel.empty_log()
        elif step == "run":
            assert panel.run("prev.log") == []
        else:  # once a day: there was a run since
            panel.run("prev.log")
            panel.site.append(*lines(written, written + 2))
            written += 2
            panel.empty_log()
            panel.empty_copies()
    panel.empty_log()
    assert panel.run("prev.log") == []
    assert panel.site.emails() == users(0, written)
    assert panel.site.rejected() == []
    assert panel.copies.read_bytes() != b"" or panel.before.read_bytes() != b""  # all stays there


def test_the_log_and_the_copies_beside_it_give_every_line_once(panel: Panel) -> None:
    for first in range(0, 40, 10):
        panel.site.append(*lines(first, first + 5))
        panel.run("--logfile /usr/local/x-ui/access.log")
        panel.site.append(*lines(first + 5, first + 10))
        panel.empty_log()  # before the next run
        assert panel.run("--logfile /usr/local/x-ui/access.log") == []
    assert panel.site.emails() == users(0, 40)


# --- containers ----------------------------------------------------------------------------------------------


@contextlib.contextmanager
def held_open(log: Path) -> Iterator[int]:
    """As the container has it: with O_APPEND, for as long as it runs."""
    descriptor = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    yield descriptor
    os.close(descriptor)


@pytest.mark.parametrize("email", ["12.alice", "17"], ids=["Marzban", "remnawave"])
def test_a_log_that_a_container_writes_into_a_mounted_folder(
    site: Site, email: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its clock is UTC, the host's is another; users are numbered."""
    monkeypatch.setenv("TZ", "Asia/Tehran")
    time.tzset()
    site.set("parser", timezone="UTC")
    with held_open(site.log) as descriptor:
        for n in range(4):
            os.write(descriptor, line(n).replace(f"u{n}\n", f"{email}\n").encode())
            site.run()
    monkeypatch.undo()
    time.tzset()
    assert site.query("SELECT email, count(*) FROM logs JOIN users ON users.id = user_id GROUP BY 1") == [(email, 4)]
    assert site.query('SELECT DISTINCT "timestamp"::text FROM logs') == [("2025-11-17 10:15:23.123456+00",)]


# --- standard output -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "source", ["journalctl -u xray -o cat", "docker logs xray 2>&1", 'docker logs "$(docker compose ps -q xray)" 2>&1']
)
def test_what_xray_printed_is_piped_in_again_and_again(site: Site, source: str) -> None:
    """Console lines are among it, and its oldest part goes; each line is stored once."""
    assert source in commands(source)
    pieces = [STARTED, *lines(0, 200), STARTED, *lines(200, 400)]
    for first, end in ((0, 150), (0, 201), (60, 402)):
        site.run("--logfile", "-", input="".join(pieces[first:end]))
    assert site.emails() == users(0, 400)
    assert site.rejected() == []


@pytest.mark.parametrize(
    "before",
    [
        "\x1b[2K",  # docker compose logs --no-log-prefix, Compose 2.26
        "\x1b[2Kxray  | ",  # docker compose logs
        "2026-11-30T21:02:17.540484796Z ",  # docker logs -t
        "Nov 17 10:15:23 host xray[77]: ",  # journalctl
    ],
)
def test_what_stands_before_each_piped_line_is_named_with_the_commands_that_leave_it_out(
    site: Site, before: str
) -> None:
    done = site.run("--logfile", "-", input="".join(before + text for text in lines(0, 20)))
    prefixed, none_is_ours = done.stderr.splitlines()
    assert f"found before it: {before!r}; such lines go to rejected_lines; pipe them in without it, as " in prefixed
    assert "is what was piped in its access log? If not, pipe in what it prints" in none_is_ours
    assert len(site.rejected()) == 20
    site.run("--logfile", "-", input="".join(lines(0, 20)))
    assert site.emails() == users(0, 20)
