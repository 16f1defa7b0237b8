"""`pip install .` gives four commands that work from any folder."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import venv
from pathlib import Path

import pytest
from helpers.site import ROOT, Site, line, lines, users

COMMANDS = ("parse_logs", "migrate_logs_to_partitioned", "report_logs", "ask_logs")


def run(*command: str | Path, cwd: Path, status: int = 0) -> str:
    """Run a command as a user would, with no path of this checkout; return what it prints."""
    env = {"PATH": os.environ["PATH"], "HOME": str(cwd), "LANG": "C.UTF-8"}
    env |= {key: value for key, value in os.environ.items() if key.startswith(("PIP_", "UV_"))}
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, check=False, cwd=cwd, env=env)
    assert done.returncode == status, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh venv with the wheel and what it depends on, without the report's packages; its bin folder."""
    folder = tmp_path_factory.mktemp("install")
    tree, wheels, environment = folder / "tree", folder / "wheels", folder / "venv"
    shutil.copytree(ROOT, tree, ignore=shutil.ignore_patterns(".*", "build", "*.egg-info", "__pycache__", "tests"))
    run(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "-w", wheels, tree, cwd=folder)
    (wheel,) = wheels.iterdir()
    shutil.rmtree(tree)  # nothing of it may be needed from here on
    venv.create(environment, with_pip=True)
    run(environment / "bin" / "python", "-m", "pip", "install", "--quiet", wheel, cwd=folder)
    return environment / "bin"


def test_each_command_knows_its_version_and_its_options(installed: Path, tmp_path: Path) -> None:
    for command in COMMANDS:
        assert re.search(r"\b\d+\.\d+\.\d+\n", run(installed / command, "--version", cwd=tmp_path))
        assert "--config FILE" in run(installed / command, "--help", cwd=tmp_path)


def test_each_command_names_the_example_of_a_config_and_that_one_is_there(installed: Path, tmp_path: Path) -> None:
    for command in COMMANDS:
        question = ("last-seen",) if command == "ask_logs" else ()
        said = run(installed / command, *question, cwd=tmp_path, status=78)
        (copy,) = re.findall("expected a config file, found nothing; (.*)", said)
        run(*shlex.split(copy), cwd=tmp_path)
        assert (tmp_path / "config.ini").read_text() == (ROOT / "config.ini.example").read_text()
        (tmp_path / "config.ini").unlink()


def test_the_commands_load_a_log_and_know_that_nothing_is_to_be_migrated(installed: Path, site: Site) -> None:
    site.append(*lines(0, 3))
    run(installed / "parse_logs", cwd=site.folder)  # config.ini is in this folder
    assert site.emails() == users(0, 3)
    assert "partitioned" in run(installed / "migrate_logs_to_partitioned", "--status", cwd=site.folder)


def test_the_command_that_a_message_names_works_from_any_folder(installed: Path, site: Site, tmp_path: Path) -> None:
    site.append(line(0))
    site.query('CREATE TABLE logs (id bigserial PRIMARY KEY, "timestamp" timestamptz)')
    said = run(installed / "parse_logs", "--config", site.config, cwd=Path("/"), status=3)
    (advice,) = re.findall("then repeat it without --dry-run: (.*)", said)
    assert "ALTER TABLE" in run(*shlex.split(advice), cwd=tmp_path)


def test_the_page_names_the_command_that_installs_its_packages_and_that_one_works(installed: Path, site: Site) -> None:
    site.append(line(0))
    run(installed / "parse_logs", cwd=site.folder)
    said = run(installed / "report_logs", cwd=site.folder, status=3)
    install = re.findall(r"expected the package jinja2, found none; (.*)", said)[0]
    run(*shlex.split(install), cwd=site.folder)
    run(installed / "report_logs", "--output", "page.html", cwd=site.folder)
    assert "<html" in (site.folder / "page.html").read_text()
