"""What is read in one piece stays short enough for it."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
# The entry points tell a story, and the README is what a visitor reads.
MAX_LINES = {
    "parse_logs.py": 150,
    "migrate_logs_to_partitioned.py": 200,
    "report_logs.py": 200,
    "ask_logs.py": 200,
    "README.md": 150,
}
MAX_MODULE_LINES = 400
MAX_FUNCTION_LINES = 60
MODULES = sorted([*(ROOT / "xraylog").rglob("*.py"), *(ROOT / "scripts").glob("*.py"), *ROOT.glob("*.py")])


@pytest.mark.parametrize("name", MAX_LINES)
def test_what_a_visitor_reads_first_is_short(name: str) -> None:
    assert len((ROOT / name).read_text().splitlines()) <= MAX_LINES[name]


def test_modules_and_functions_are_short() -> None:
    for path in MODULES:
        text = path.read_text()
        assert len(text.splitlines()) <= MAX_MODULE_LINES, path
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                assert (node.end_lineno or 0) - node.lineno < MAX_FUNCTION_LINES, f"{path}:{node.lineno}, {node.name}"
