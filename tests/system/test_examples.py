"""The files in examples/ are ones that cron, systemd and logrotate take, and they speak of this repository."""

from __future__ import annotations

import getpass
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.daemons import found
from helpers.site import ROOT, Site, line, lines, users

EXAMPLES = ROOT / "examples"
COMMAND = "/opt/xraylog/.venv/bin/python /opt/xraylog/parse_logs.py --config /opt/xraylog/config.ini"


def needs(program: str) -> pytest.MarkDecorator:
    """Skip without a program that not every machine has. Those of the system are not always in a user's PATH."""
    return pytest.mark.skipif(not found(program), reason=f"no {program} on this machine")


def text_of(name: str, **paths: object) -> str:
    """An example, with the paths of a test in place of those of an installation."""
    text = (EXAMPLES / name).read_text()
    for old, new in {"/opt/xraylog/.venv/bin/python": sys.executable, "/opt/xraylog": ROOT, **paths}.items():
        text = text.replace(old, str(new))
    return text


@pytest.mark.parametrize("name", ["xraylog.cron", "xraylog.service", "logrotate-xray-rename"])
def test_each_example_starts_a_run_as_the_documents_do(name: str) -> None:
    text = re.sub(r"\\\n\s+", "", (EXAMPLES / name).read_text())
    assert COMMAND in text
    for page in ("README.md", "docs/install.md"):
        assert COMMAND in (ROOT / page).read_text()


def test_the_document_names_every_example() -> None:
    page = (ROOT / "docs" / "install.md").read_text()
    for path in EXAMPLES.iterdir():
        assert f"examples/{path.name}" in page, path.name


def test_the_cron_line_runs(site: Site) -> None:
    (entry,) = (text for text in (EXAMPLES / "xraylog.cron").read_text().splitlines() if text[:1] not in ("#", "M", ""))
    *when, user, command = entry.split(maxsplit=6)
    assert when == ["*/5", "*", "*", "*", "*"]
    assert user == "xray"
    assert command.strip() == COMMAND
    site.append(line(1))
    command = command.replace("/opt/xraylog/.venv/bin/python", sys.executable)
    command = command.replace("/opt/xraylog/config.ini", str(site.config)).replace("/opt/xraylog", str(ROOT))
    done = subprocess.run(["/bin/sh", "-c", command], capture_output=True, text=True, check=True, env={})
    assert (done.stdout, done.stderr) == ("", "")
    assert site.emails() == users(1, 2)


@pytest.fixture
def units(tmp_path: Path) -> list[str]:
    """The service and its timer, with the paths of this machine."""
    for name in ("xraylog.service", "xraylog.timer"):
        (tmp_path / name).write_text(text_of(name))
    return [str(tmp_path / name) for name in ("xraylog.service", "xraylog.timer")]


@needs("systemd-analyze")
def test_systemd_has_nothing_to_say_about_the_units(units: list[str]) -> None:
    command = [found("systemd-analyze") or "", "verify", "--man=no", *units]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    # Messages about the machine's own units do not concern us.
    assert [said for said in done.stderr.splitlines() if "xraylog" in said] == []
    assert done.returncode == 0, done.stderr


@needs("systemd-analyze")
def test_systemd_finds_the_service_hardened(units: list[str]) -> None:
    """Exposure from 0 to 10: a service without any hardening has 9.6, most of a system's own more than 5."""
    command = [found("systemd-analyze") or "", "security", "--offline=true", "--threshold=20", "--no-pager", units[0]]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if "unrecognized option" in done.stderr:
        pytest.skip("this systemd-analyze cannot judge a file (systemd 250 can)")
    assert done.returncode == 0, done.stdout


@needs("systemd-analyze")
def test_what_draining_and_locks_need_is_in_the_filter_of_system_calls() -> None:
    text = (EXAMPLES / "xraylog.service").read_text()
    assert "SystemCallFilter=@system-service\n" in text
    names = calls_in("@system-service")
    needed = {"fallocate", "fcntl", "flock", "fdatasync", "fsync", "ftruncate", "pwrite64", "rename", "fchmod"}
    assert needed <= names


def calls_in(group: str) -> set[str]:
    """The system calls of a group of systemd's, and of those that it names."""
    command = [found("systemd-analyze") or "", "syscall-filter", group]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    names = {text.strip() for text in said.splitlines()[1:] if text.strip()[:1] not in ("#", "")}
    return names.union(*(calls_in(name) for name in names if name.startswith("@")))


def test_the_service_may_write_where_a_run_writes() -> None:
    text = (EXAMPLES / "xraylog.service").read_text()
    (writable,) = re.findall(r"^ReadWritePaths=(.*)$", text, re.MULTILINE)
    assert {"/var/log/xray", "/var/lib/xraylog"} <= set(writable.split())


@needs("logrotate")
@pytest.mark.parametrize("name", ["logrotate-xraylog", "logrotate-xray-rename"])
def test_logrotate_takes_the_example(tmp_path: Path, name: str) -> None:
    (tmp_path / "state").touch()
    me = getpass.getuser()
    snippet = tmp_path / name
    snippet.write_text(text_of(name, **{"su xray xray": f"su {me} {group()}", "/var/l": f"{tmp_path}/var/l"}))
    snippet.chmod(0o644)
    command = [found("logrotate") or "", "-d", "-s", str(tmp_path / "state"), str(snippet)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "error" not in done.stderr.lower().replace("errors", ""), done.stderr


def group() -> str:
    import grp

    return grp.getgrgid(os.getgid()).gr_name


@needs("logrotate")
def test_a_log_renamed_by_logrotate_is_loaded_and_the_next_run_goes_on(site: Site, tmp_path: Path) -> None:
    """Half of it is stored already. xray's own part, to open its log again, is left out."""
    site.append(*lines(0, 10))
    site.run("--keep")
    site.append(*lines(10, 20))
    text = text_of("logrotate-xray-rename", **{"/var/log/xray/access.log": site.log})
    text = text.replace(f"{ROOT}/config.ini", shlex.quote(str(site.config))).replace("runuser -u xray -- ", "")
    text = re.sub(r"xray api restartlogger .*", "true", text)
    (tmp_path / "rename").write_text(text)
    (tmp_path / "rename").chmod(0o644)
    site.folder.chmod(0o755)
    command = [found("logrotate") or "", "-f", "-s", str(tmp_path / "state"), str(tmp_path / "rename")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert not site.log.exists()
    assert site.log.with_name("access.log.1").read_bytes() == b""
    site.append(*lines(20, 25))
    site.run()
    assert site.emails() == users(0, 25)


@needs("logrotate")
def test_statistics_and_our_own_log_continue_in_new_files(site: Site, tmp_path: Path) -> None:
    site.set("stats", format="csv", output="stats.csv")
    site.set("logging", file="parse_logs.log", level="INFO")
    site.run()
    me = getpass.getuser()
    text = text_of("logrotate-xraylog", **{"su xray xray": f"su {me} {group()}", "/var/lib/xraylog": site.folder})
    (tmp_path / "ours").write_text(text)
    (tmp_path / "ours").chmod(0o644)
    site.folder.chmod(0o755)
    command = [found("logrotate") or "", "-f", "-s", str(tmp_path / "state"), str(tmp_path / "ours")]
    subprocess.run(command, check=True)
    site.run()
    for name in ("stats.csv", "stats.csv.1"):
        assert (site.folder / name).read_text().count("\n") == 2
    for name in ("parse_logs.log", "parse_logs.log.1"):
        assert "0 lines read" in (site.folder / name).read_text()
