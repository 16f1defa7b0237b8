"""The folders are the layers: a package imports only from the rows below it, and each side keeps to its own tools."""

from __future__ import annotations

import ast
import functools
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from helpers.site import ROOT

# Packages in one row do not know each other. docs/architecture.md draws the same rows.
ROWS = (
    {"commands"},
    {"ingest", "maintenance", "migration", "networks", "questions", "report"},
    {"loading", "hints", "answers"},
    {"accesslog", "database", "telemetry"},
    {"load_result"},
    {"records", "config", "cli", "prefetch", "atomic_file", "tls_files", "cleartext", "password_file"},
    {"file_advice"},
    {"safe_open", "printed", "required"},
    {"safe_path"},
)
HEIGHT = {name: len(ROWS) - number for number, names in enumerate(ROWS) for name in names}
PURE = {
    f"accesslog.{name}"
    for name in (
        "buffer_lines",
        "client",
        "clock",
        "destination",
        "dns_answers",
        "grammar",
        "lines",
        "masking",
        "other_lines",
        "parser",
        "reject_reasons",
        "stray_days",
        "suffixes",
        "values",
    )
}
FILES = {"os", "io", "pathlib", "shutil", "tempfile", "glob", "fileinput", "mmap", "codecs", "subprocess",
         "gzip", "bz2", "lzma"}  # fmt: skip
# How our own files are found, opened, replaced and mended.
OUR_FILES = {"safe_path", "safe_open", "atomic_file", "file_advice"}
LIBPQS_FILES = {"tls_files", "password_file"}  # those that libpq opens: what its errors about them mean
TEXT = {"questions.present"}  # writes CSV into memory


@dataclass(frozen=True)
class Module:
    """A module of the package, without `xraylog.` in its name."""

    name: str
    path: Path

    @property
    def package(self) -> str:
        """Its place in ROWS: the first name below xraylog."""
        return self.name.partition(".")[0]

    @property
    def imports(self) -> set[str]:
        """All that it imports, with full names: `xraylog.database.session`, `psycopg.sql.SQL`."""
        return _imports(self.path)

    @property
    def ours(self) -> set[str]:
        """What it imports of this project, without `xraylog.`."""
        ours = {name.removeprefix("xraylog.") for name in self.imports if name.startswith("xraylog.")}
        return ours - {"__version__"}

    @property
    def others(self) -> set[str]:
        """The top-level packages that it imports, ours left out."""
        return {name.partition(".")[0] for name in self.imports} - {"xraylog"}

    def __str__(self) -> str:
        return self.name


@functools.cache
def _imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return found


def modules() -> list[Module]:
    folder = ROOT / "xraylog"
    found = [(path, path.relative_to(folder).with_suffix("").parts) for path in sorted(folder.rglob("*.py"))]
    return [
        Module(".".join(part for part in parts if part != "__init__"), path)
        for path, parts in found
        if parts != ("__init__",)
    ]


MODULES = modules()
SCRIPTS = [Module(path.stem, path) for path in sorted(ROOT.glob("*.py"))]


def every_module(check: Callable[[Module], None]) -> Callable[[], None]:
    """Make one test of a check of each module: as many tests as modules would take longer than all checks."""

    def test() -> None:
        for module in MODULES:
            try:
                check(module)
            except AssertionError as error:
                raise AssertionError(f"{module}: {error}") from error

    test.__doc__ = check.__doc__
    return test


def test_each_package_has_its_row() -> None:
    assert {module.package for module in MODULES} <= set(HEIGHT)


def test_options_are_frozen() -> None:
    """A namespace of argparse has any name, and can be changed by whoever gets it."""
    assert [module.name for module in [*MODULES, *SCRIPTS] if "Namespace" in module.path.read_text()] == []


def test_the_package_itself_imports_nothing() -> None:
    """Every module would import it, too."""
    assert Module("", ROOT / "xraylog" / "__init__.py").imports == set()


BY_NAME = {"required", "accesslog.archive"}  # what may be missing


def test_each_import_is_one_that_these_tests_see() -> None:
    relative = re.compile(r"^\s*from\s+\.", re.MULTILINE)
    by_name = re.compile(r"\b(?:import_module|__import__)\b")
    for module in [*MODULES, *SCRIPTS]:
        text = module.path.read_text()
        assert not relative.search(text), module
        assert module.name in BY_NAME or not by_name.search(text), module


def test_nothing_is_imported_that_is_not_declared() -> None:
    """Loading stays at two packages; no module needs a script, the tests or what only they install."""
    for module in [*MODULES, *SCRIPTS]:
        declared = {"psycopg", "loguru", "typing_extensions"}  # the last one only for type checkers
        if module.package == "report":
            declared |= {"jinja2", "markupsafe", "vl_convert"}
        assert module.others - sys.stdlib_module_names <= declared, module


def test_what_measures_and_shows_the_product_needs_no_test() -> None:
    for path in (*ROOT.glob("scripts/*.py"), *ROOT.glob("benchmarks/*.py")):
        assert not Module(path.stem, path).others & {"tests", "helpers", "conftest", "pytest"}, path


@every_module
def test_a_package_imports_only_from_the_rows_below_it(module: Module) -> None:
    for imported in module.ours:
        package = imported.partition(".")[0]
        assert package == module.package or HEIGHT[package] < HEIGHT[module.package], imported


# What a side must not know, though it is in a row below.
UNKNOWN = {
    **{name: {"accesslog", "telemetry"} for name in ("loading", "maintenance", "migration")},
    **{name: {"accesslog"} for name in ("answers", "questions")},
    "networks": {"accesslog", "database"},
}


@every_module
def test_a_package_does_not_know_the_other_side(module: Module) -> None:
    assert not {imported.partition(".")[0] for imported in module.ours} & UNKNOWN.get(module.package, set())
    assert module.package != "networks" or "psycopg" not in module.others


@every_module
def test_only_the_database_and_what_is_above_it_knows_psycopg(module: Module) -> None:
    if module.package == "config":
        assert {name for name in module.imports if name.startswith("psycopg")} <= {
            "psycopg.pq"
        }  # the names of settings
    elif HEIGHT[module.package] <= HEIGHT["accesslog"] and module.package != "database":
        assert "psycopg" not in module.others


@every_module
def test_the_database_side_opens_no_file(module: Module) -> None:
    if module.package in ("database", "loading", "maintenance", "migration", "questions"):
        assert not module.others & (FILES - {"io"} if module.name in TEXT else FILES)
        assert "open(" not in module.path.read_text()
        known = {imported.partition(".")[0] for imported in module.ours}
        assert not known & OUR_FILES
        assert module.name == "database.logins" or not known & LIBPQS_FILES


@every_module
def test_grammar_parser_and_masking_are_pure(module: Module) -> None:
    if module.name in PURE:
        assert not module.others & (FILES | {"time", "loguru", "logging"})
        assert not re.search(r"\.(?:now|today|utcnow)\(", module.path.read_text())
        for imported in module.ours:
            assert imported.partition(".")[0] == "records" or is_in(imported, PURE), imported


def is_in(imported: str, names: set[str]) -> bool:
    """Return whether a name is one of these modules, or in one of them."""
    return imported in names or imported.rpartition(".")[0] in names


@every_module
def test_only_the_script_of_the_page_imports_the_report(module: Module) -> None:
    if module.package != "report":
        assert "report" not in {imported.partition(".")[0] for imported in module.ours}


READING = {"snapshot", "fragments", "page_mask", "traffic", "users", "destinations", "today", "usage",
           "places", "address_names", "collect", "concurrent"}  # fmt: skip
DRAWING = {"charts", "client_data", "figures", "notes", "origins", "page", "stalls", "time_series", "wording"}
MEETING = {"model", "window"}


@every_module
def test_the_page_asks_the_database_then_draws(module: Module) -> None:
    """Both know what was found, and not each other; the runs' own files are read by a third."""
    package, _, name = module.name.partition(".")
    used = {imported.split(".")[1] for imported in module.ours if imported.startswith("report.")}
    if package != "report" or not name:
        return
    assert name in READING | DRAWING | MEETING | {"run_history"}
    if name in READING:
        assert used <= READING | MEETING
        assert not module.others & (FILES | {"jinja2", "vl_convert"})
        assert not {imported.partition(".")[0] for imported in module.ours} & OUR_FILES
    elif name in DRAWING:
        assert used <= DRAWING | MEETING | {"run_history"}
        assert not module.others & {"psycopg", "os", "io", "time"}
        assert "database" not in {imported.partition(".")[0] for imported in module.ours}
    elif name in MEETING:
        assert used <= MEETING


@every_module
def test_differences_between_servers_are_in_one_place(module: Module) -> None:
    if module.name != "database.capabilities":
        assert "info.server_version" not in module.path.read_text()


@every_module
def test_comments_that_carry_state_are_in_one_place(module: Module) -> None:
    if module.name != "database.markers":
        assert '"xraylog: ' not in module.path.read_text()


# Files that come with the program or the system, an unnamed file, and a list that the operator names to be read.
OTHERS_OPENED = {"cli", "safe_open", "safe_path", "atomic_file", "accesslog.archive", "accesslog.drain",
                 "accesslog.file_system", "config.time_zone", "networks.files", "printed", "required",
                 "answers.statements", "report.page"}  # fmt: skip
OPENING = re.compile(
    r"(?<![\w.])open\((?!descriptor)|os\.open\(|\.(?:open|read_text|read_bytes|write_text|write_bytes|touch)\("
)


@every_module
def test_our_own_files_are_opened_in_one_place(module: Module) -> None:
    """No other user decides which ones they are (docs/security.md)."""
    if module.name not in OTHERS_OPENED:
        assert not OPENING.search(module.path.read_text())
