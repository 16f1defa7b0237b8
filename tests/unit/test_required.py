"""What has to be there before a script can begin, and what it says where that is missing."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.site import ROOT

from xraylog import required


def test_an_older_python_is_named_beside_what_is_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(required, "MINIMUM", (99, 0))
    monkeypatch.setattr(required, "ROOT", tmp_path)
    found = (
        f"expected Python 99.0 or newer, found {sys.version_info[0]}.{sys.version_info[1]}, {sys.executable}; run it"
    )
    assert required.missing() == f"{found} with another one: ls /usr/bin/python3.*"
    own = tmp_path / ".venv" / "bin" / "python"
    own.parent.mkdir(parents=True)
    own.touch()
    assert required.missing() == f"{found} with {own}"


READ_FIRST = [*sorted(path.name for path in ROOT.glob("*.py")), "xraylog/__init__.py", "xraylog/required.py"]


@pytest.mark.parametrize("script", READ_FIRST)
def test_an_older_python_can_read_a_script_far_enough_to_say_so(script: str) -> None:
    ast.parse((ROOT / script).read_text(), feature_version=(3, 7))


def test_any_other_error_is_shown_as_python_does(monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[object] = []
    monkeypatch.setattr(sys, "__excepthook__", lambda *error: shown.append(error))
    error = ValueError("?")
    required._without_traceback(ValueError, error, None)
    assert shown == [(ValueError, error, None)]


@pytest.mark.parametrize("script", sorted(path.name for path in ROOT.glob("*.py")))
def test_a_script_finds_its_package_where_python_leaves_its_folder_out(script: str, tmp_path: Path) -> None:
    """As hardening guides advise: python -I, python -P, PYTHONSAFEPATH; here through a link, from another folder."""
    link = tmp_path / "command"
    link.symlink_to(ROOT / script)
    env = {key: text for key, text in os.environ.items() if key != "PYTHONPATH"}
    env["PYTHONSAFEPATH"] = "1"
    for isolated in ([], ["-I"]):
        command = [sys.executable, *isolated, str(link), "--version"]
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path, env=env)
        assert (done.returncode, done.stderr) == (0, ""), done.stderr
