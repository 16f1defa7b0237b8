"""The documents are true: each statement and command in them runs, each setting is read, each link leads somewhere."""

from __future__ import annotations

import configparser
import gzip
import json
import lzma
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import psycopg
import pytest
from helpers.documents import (
    BLOCKS,
    PAGES,
    STAND_INS,
    Block,
    Decision,
    anchors,
    as_psql_prints,
    decision,
    links,
    outside_of_fences,
    unused_decisions,
)
from helpers.site import ROOT
from psycopg.sql import SQL, Identifier
from server import FAST, Server

import ask_logs
import parse_logs
from xraylog import config

LANGUAGES = {"bash", "ini", "json", "sql", "text"}


def of(language: str) -> list[Block]:
    return [block for block in BLOCKS if block.language == language]


# --- what a page may have in it ------------------------------------------------------------------------------


@pytest.mark.parametrize("block", BLOCKS, ids=str)
def test_each_block_says_in_which_language_it_is(block: Block) -> None:
    assert block.language in LANGUAGES, "expected one of these languages, because blocks in others are not run"


@pytest.mark.parametrize("page", PAGES)
def test_code_is_in_fences_where_it_is_found(page: str) -> None:
    assert [line for line in outside_of_fences(page) if line.startswith("    ")] == []


def test_each_decision_is_about_a_block() -> None:
    assert unused_decisions() == []


def test_each_stand_in_has_a_reason() -> None:
    assert {path.name for path in (ROOT / "tests" / "helpers" / "standins").iterdir()} == set(STAND_INS)


@pytest.mark.parametrize("page", PAGES)
def test_each_link_leads_somewhere(page: str) -> None:
    for target in links(page):
        path, _, anchor = target.partition("#")
        found = (ROOT / page).parent / path if path else ROOT / page
        assert found.exists(), target
        if anchor:
            assert anchor in anchors(found), target


# --- settings and rows of JSON -------------------------------------------------------------------------------


@pytest.mark.parametrize("block", of("ini"), ids=str)
def test_the_settings_of_each_page_are_read(block: Block, tmp_path: Path) -> None:
    if decision(block).left_out:
        return
    parser = configparser.ConfigParser(interpolation=None)
    parser.read(ROOT / "config.ini.example")
    parser.read_string(block.text)
    path = tmp_path / "config.ini"
    with path.open("w") as file:
        parser.write(file)
    path.chmod(0o600)
    config.read(path)


@pytest.mark.parametrize("block", of("json"), ids=str)
def test_each_row_of_json_is_json(block: Block) -> None:
    for line in block.text.splitlines():
        json.loads(line)


# --- SQL ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Installation:
    """A server with the database xray of docs/install.md, in which the demo's log is stored."""

    server: Server

    def keywords(self, database: str = "xray") -> dict[str, str]:
        """Return libpq's keywords for a session of the superuser."""
        return self.server.keywords(dbname=database)

    def do(self, statement: SQL | str, database: str = "postgres", **names: str) -> None:
        with psycopg.connect(**self.keywords(database), autocommit=True) as conn:  # type: ignore[arg-type]
            conn.execute(SQL(statement).format(**{key: Identifier(name) for key, name in names.items()}))  # type: ignore[arg-type]


PASSWORD = "choose one"  # noqa: S105  # as the page has it


INSTALL = "docs/install.md"


@pytest.fixture(scope="module")
def installation(own_server: Callable[..., Server], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """A server on which docs/install.md was followed, and two databases: xray, and a copy to copy from."""
    installed = Installation(own_server(*FAST))
    (create,) = [block for block in of("sql") if block.page == INSTALL and "CREATE DATABASE xray" in block.text]
    for statement in create.statements():
        installed.do(statement)
    folder = tmp_path_factory.mktemp("documents")
    shutil.copy(ROOT / "examples" / "access.log", folder)
    (folder / "config.ini").write_text(f"""
[postgresql]
host = 127.0.0.1
port = {installed.server.port}
dbname = xray
user = xray
password = {PASSWORD}

[parser]
logfile = access.log
offline_file = buffer.jsonl
timezone = UTC
node = demo
""")
    (folder / "config.ini").chmod(0o600)
    assert parse_logs.main(["--config", str(folder / "config.ini"), "-q"]) == 0
    own = {**installed.keywords(), "user": "xray", "password": PASSWORD}
    with psycopg.connect(**own, autocommit=True) as conn:  # type: ignore[arg-type]
        conn.execute((ROOT / "answers.sql").read_bytes())
    installed.do("CREATE DATABASE {copy} TEMPLATE xray", copy="documents")
    yield installed
    installed.server.stop("immediate")


def test_what_installation_creates_in_the_server_the_page_removes(server_keywords: dict[str, str]) -> None:
    blocks = [block for block in of("sql") if block.page == INSTALL]
    (create,) = (block for block in blocks if "CREATE DATABASE xray" in block.text)
    (remove,) = (block for block in blocks if "DROP DATABASE xray" in block.text)
    left = "SELECT rolname FROM pg_roles WHERE rolname = 'xray'"
    left += " UNION ALL SELECT datname FROM pg_database WHERE datname = 'xray'"
    with psycopg.connect(**server_keywords, autocommit=True) as conn:  # type: ignore[arg-type]
        for statement in create.statements():
            conn.execute(statement.encode())
        assert conn.execute(left).fetchall() == [("xray",), ("xray",)]
        for statement in remove.statements():
            conn.execute(statement.encode())
        assert conn.execute(left).fetchall() == []


def test_both_pages_that_create_the_database_say_the_same() -> None:
    first, second = (block for block in of("sql") if "CREATE DATABASE xray" in block.text)
    assert {first.page, second.page} == {"README.md", INSTALL}
    assert first.text == second.text


@pytest.fixture
def copied(installation: Installation, request: pytest.FixtureRequest) -> Iterator[psycopg.Connection[Any]]:
    """A session in a database of this test's own, with the rows of the demo."""
    name = f"copy_{abs(hash(request.node.name))}"
    installation.do("CREATE DATABASE {name} TEMPLATE {copy}", name=name, copy="documents")
    keywords = installation.keywords(name)
    with psycopg.connect(**keywords, options="-c timezone=UTC", autocommit=True) as conn:  # type: ignore[arg-type]
        yield conn
    installation.do("DROP DATABASE {name}", name=name)


@pytest.mark.parametrize("block", of("sql"), ids=str)
def test_the_statements_of_each_page_run(block: Block, copied: psycopg.Connection[Any]) -> None:
    """A query finds at least one row; where the page shows its answer, the answer is that one."""
    decided = decision(block)
    if decided.left_out:
        return
    for statement in decided.before:
        copied.execute(statement)  # type: ignore[call-overload]
    for statement in block.statements():
        if copied.info.server_version // 10000 < decided.needs(statement):
            continue
        result = copied.pgconn.exec_(statement.encode())
        assert not result.error_message, f"{result.error_message.decode()}{statement}"
        if statement.lstrip().upper().startswith("SELECT"):
            assert result.ntuples > 0, f"found nothing:\n{statement}"
        if block.answer is not None:
            assert sorted(as_psql_prints(result)) == sorted(block.answer.splitlines())


def test_the_answers_of_ask_logs_are_those_of_the_page(
    copied: psycopg.Connection[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """In any order, for names are sorted as the server's locale has it."""
    info = copied.info
    (tmp_path / "config.ini").write_text(
        f"[postgresql]\nhost = {info.host}\nport = {info.port}\ndbname = {info.dbname}\nuser = {info.user}\n"
        f"password = {info.password}\n[parser]\nlogfile = access.log\noffline_file = b.jsonl\ntimezone = UTC\n"
    )
    (tmp_path / "config.ini").chmod(0o600)
    monkeypatch.chdir(tmp_path)
    asked = [block for block in of("bash") if block.answer is not None]
    assert asked
    for block in asked:
        capsys.readouterr()
        assert ask_logs.main(shlex.split(block.text)[2:]) == 0
        printed = capsys.readouterr().out
        assert sorted(printed.rstrip().splitlines()) == sorted((block.answer or "").splitlines()), printed


# --- commands ------------------------------------------------------------------------------------------------------


@dataclass
class Sandbox:
    """A machine in a folder: the tree under opt/xraylog, xray's log, stand-ins for what a test may not do."""

    root: Path
    environment: dict[str, str]

    @property
    def tree(self) -> Path:
        """The installation."""
        return self.root / "opt" / "xraylog"

    def run(self, block: Block, decided: Decision) -> None:
        """Run a block where the one before it on its page ended, and expect its exit status."""
        where = self.root / "cwd"
        script = re.sub(r"(?<![\w.{}~-])/(opt|var|etc|root|tmp|usr/local)/", rf"{self.root}/\1/", block.text)
        lines = ["set -euo pipefail", f'cd "$(cat {where})"', f"trap 'pwd >{where}' EXIT", script]
        done = subprocess.run(
            ["/bin/bash", "-c", "\n".join(lines)], capture_output=True, text=True, check=False, env=self.environment,
            stdin=subprocess.DEVNULL, timeout=120,
        )  # fmt: skip
        said = f"{block}: exit {done.returncode}, expected {decided.status}\n{script}\n{done.stdout}{done.stderr}"
        assert done.returncode == decided.status, said
        assert "Traceback" not in done.stderr, said
        if "cp config.ini.example config.ini" in block.text:
            fill_in(self.root)


def build(root: Path, server: Server) -> Sandbox:
    """Create a machine on which the project is installed as docs/install.md says."""
    tree = root / "opt" / "xraylog"
    shutil.copytree(ROOT, tree, ignore=shutil.ignore_patterns(".*", "__pycache__", "tests"))
    (tree / "tests").symlink_to(ROOT / "tests")
    for folder in ("var/log/xray", "var/lib/xraylog", "var/lib/prometheus/node-exporter", "etc/cron.d", "etc/xraylog",
                   "etc/systemd/system", "etc/logrotate.d", "root", "tmp", "home"):  # fmt: skip
        (root / folder).mkdir(parents=True)
    log = root / "var/log/xray/access.log"
    shutil.copy(ROOT / "examples" / "access.log", log)
    old = log.read_bytes().replace(b"2025/11/1", b"2025/10/1")
    for name, packed in (("access.log.1", old), ("access.log.2.gz", gzip.compress(old))):
        log.with_name(name).write_bytes(packed)
    for name in ("var/log/x-ui/3xipl-ap.log", "var/log/x-ui/3xipl-ap.prev.log", "usr/local/x-ui/access.log"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(old)
    (root / "root/older.xz").write_bytes(lzma.compress(old.replace(b"2025/10/1", b"2025/09/1")))
    fill_in(root)
    shutil.copytree(ROOT / "tests" / "helpers" / "standins", root / "bin")
    for name in ("scripts/test", "scripts/demo", "benchmarks/run"):
        (tree / name).rename(tree / f"{name}.real")
        shutil.copy(root / "bin" / "test", tree / name)
    (root / "bin" / "test").unlink()  # the shell has a command of this name
    (root / "cwd").write_text(str(tree))
    environment = {
        "PATH": f"{root}/bin:{os.environ['PATH']}", "HOME": str(root / "home"), "PYTHON": sys.executable,
        "ROOT": str(root),
        "PGPORT": str(server.port), "PGPASSWORD": PASSWORD, "LC_ALL": "C.UTF-8",
    }  # fmt: skip
    subprocess.run([root / "bin" / "python3", "-m", "venv", tree / ".venv"], env=environment, check=True)
    return Sandbox(root, environment)


def fill_in(root: Path) -> None:
    """Fill in config.ini, as the pages ask the reader to."""
    path = root / "opt" / "xraylog" / "config.ini"
    text = (ROOT / "config.ini.example").read_text().replace("/var/", f"{root}/var/")
    text = re.sub(r"(?m)^password = .*$", f"password = {PASSWORD}", text)
    path.write_text(re.sub(r"(?m)^(dbname|user) = .*$", r"\1 = xray", text))
    path.chmod(0o600)


CRON = re.compile(r"^(?:[*\d/,-]+ +){5}\w+ +(?P<command>/.*|cd .*)$", re.MULTILINE)


def for_cron() -> list[Block]:
    """Return the commands of the lines for cron, as blocks."""
    found = ((block, match["command"]) for block in of("text") for match in CRON.finditer(block.text))
    return [replace(block, language="bash", text=f"{command}\n") for block, command in found]


COMMANDS = sorted([*of("bash"), *for_cron()], key=lambda block: (block.page, block.line))


def test_the_lines_for_cron_are_found() -> None:
    """Each is run as the others are, and the first is that of examples/."""
    assert len(for_cron()) == 5
    (line,) = CRON.findall((ROOT / "examples" / "xraylog.cron").read_text())
    assert {f"{line}\n"} == {block.text for block in for_cron() if block.page in ("README.md", INSTALL)}


@pytest.mark.parametrize("page", sorted({block.page for block in COMMANDS}))
def test_the_commands_of_each_page_run(page: str, installation: Installation, tmp_path: Path) -> None:
    """One after the other, on a machine of the page's own: a command may need what the one before it did."""
    machine = build(tmp_path, installation.server)
    for block in COMMANDS:
        if block.page == page and not (decided := decision(block)).left_out:
            machine.run(block, decided)
