"""The file side and the database side do not know each other: they meet in the records."""

from __future__ import annotations

import ast
from pathlib import Path

from conftest import ROOT

FILE_SIDE = {"logfile", "archive", "sources", "locks", "masking", "grammar", "parser", "buffer"}
MIGRATION = {"plain", "survey", "migration", "days", "proof", "undoing", "plan", "rehearsal"}
LOADING = {"references", "positions", "rows", "refusals", "keys", "newdays", "together", "loader", "replay"}
RETENTION = {"detached", "unused", "retention"}
DATABASE_SIDE = {"database", "schema", "partitions"} | LOADING | MIGRATION | RETENTION
NOUNS = {"records"}
STORIES = {"check", "preview", "advice", "chores"}  # like the scripts, they speak of both
ALONE = {"config", "exits", "stats", "metrics", "ownlog", "ahead", "replacing", "commandline"}


def imports(path: Path) -> set[str]:
    """The modules of the package that a module imports."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module == "xraylog":
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("xraylog."):
            found.add(node.module.split(".")[1])
    return found


def outside(path: Path) -> set[str]:
    """The top-level packages that a module imports."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module.split(".")[0])
        elif isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
    return found


MODULES = {path.stem: path for path in (ROOT / "xraylog").glob("*.py") if path.stem != "__init__"}


def test_every_module_is_on_a_side() -> None:
    assert set(MODULES) == FILE_SIDE | DATABASE_SIDE | NOUNS | STORIES | ALONE


def test_the_sides_do_not_know_each_other() -> None:
    for name in FILE_SIDE:
        assert imports(MODULES[name]) <= NOUNS | FILE_SIDE, name
    for name in DATABASE_SIDE:
        assert imports(MODULES[name]) <= NOUNS | DATABASE_SIDE | {"ahead"}, name
    for name in NOUNS:
        assert imports(MODULES[name]) == set(), name
    for name in ALONE:
        assert imports(MODULES[name]) <= NOUNS | {"replacing"}, name


def test_the_file_side_knows_no_database_and_the_database_side_opens_no_file() -> None:
    for name in FILE_SIDE | NOUNS:
        assert "psycopg" not in outside(MODULES[name]), name
    for name in DATABASE_SIDE:
        assert not outside(MODULES[name]) & {"os", "pathlib", "io", "re"}, name
        assert "open(" not in MODULES[name].read_text(), name


def test_the_parser_is_pure() -> None:
    for name in ("parser", "grammar", "masking"):
        assert not outside(MODULES[name]) & {"os", "io", "pathlib", "time", "loguru", "logging"}, name
        assert ".now(" not in MODULES[name].read_text(), name


REPORT = {path.stem: path for path in (ROOT / "xraylog" / "report").glob("*.py") if path.stem != "__init__"}
ASKING = {"snapshot", "common", "traffic", "accounts", "goals", "reading"}
DRAWING = {"charts", "page", "series"}


def test_the_page_asks_the_database_then_draws() -> None:
    """Both know what was found, and not each other; the runs' own files are read by a third."""
    assert set(REPORT) == ASKING | DRAWING | {"findings", "runs"}
    for name, path in REPORT.items():
        used = {module.split(".")[-1] for module in _report_imports(path)}
        if name in ASKING:
            assert used <= ASKING | {"findings"}, name
            assert not outside(path) & {"os", "io", "pathlib", "jinja2", "vl_convert"}, name
        if name in DRAWING:
            assert used <= DRAWING | {"findings", "runs"}, name
            assert not outside(path) & {"psycopg", "os", "io", "time"}, name
    assert _report_imports(REPORT["findings"]) == set()


def _report_imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module == "xraylog.report":
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("xraylog.report."):
            found.add(str(node.module))
    return found


def test_ingest_does_not_know_the_page() -> None:
    """It stays at two packages."""
    for path in (*MODULES.values(), ROOT / "parse_logs.py", ROOT / "migrate_logs_to_partitioned.py"):
        assert "report" not in imports(path), path
        assert not outside(path) & {"jinja2", "vl_convert", "markupsafe"}, path
