"""What the tests stand on: a real PostgreSQL server, a fresh database for each test, and whole runs."""

from __future__ import annotations

import contextlib
import gc
import os
import shutil
import subprocess
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from helpers import faults, forked, load_paths
from helpers.site import Site, create_database, drop_database, line, one_session_for_databases
from hypothesis import settings
from loguru import logger
from psycopg.conninfo import conninfo_to_dict
from server import FAST, Server

from xraylog.database import schema
from xraylog.loading import attach, foreign_keys

# How long an example may take depends on the machine. Hypothesis has a profile for CI: the rest of it stays.
settings.register_profile("any machine", settings.default, deadline=None)
settings.load_profile("any machine")


TESTS = Path(__file__).parent
# There a database is created in three quarters of the time. The servers of two workers need 2 GiB, at most.
SHM = Path("/dev/shm")  # noqa: S108  # mkdtemp's folders in it have random names and mode 0700
IN_MEMORY = SHM if SHM.is_dir() and shutil.disk_usage(SHM).free > 8 << 30 else None
WITH_TABLES = {"ingest", "maintenance", "report", "telemetry"}  # folders
# Folders and files of tests/integration that run on each version of PostgreSQL, whatever the share. The migration has
# more differences between versions than others, and takes as long as all of these. Faults of tables differ little, what
# is replayed is loaded, and what stands in for Citus is the same on each.
ABOUT_THE_DATABASE = {"database", "loading", "maintenance", "test_run.py", "test_online.py"}
SHARED_OUT = {"test_table_faults.py", "test_replay.py", "test_citus.py", "test_retention.py", "test_timeouts.py"}
# The page is the same, whatever Python and PostgreSQL it comes from: tests/integration/report holds what is in it.
IN_A_BROWSER = "system/test_page*.py"
LANES = ("unit", "integration", "faults", "system")  # folders; each test has the marker of its own


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "empty_database: the database has no tables, as at a first run")
    for folder in LANES:
        config.addinivalue_line("markers", f"{folder}: a test in tests/{folder}/")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    for item in items:
        item.add_marker(item.path.relative_to(TESTS).parts[0])
    left_out: set[pytest.Item] = set()
    if config.getoption("--on-a-server"):
        left_out.update(item for item in items if "own_server" not in getattr(item, "fixturenames", ()))
    number, of = config.getoption("--share")
    places = {item: {*item.path.relative_to(TESTS).parts} for item in items}
    others = [item for item in items if places[item] & SHARED_OUT or not places[item] & ABOUT_THE_DATABASE]
    left_out.update(item for n, item in enumerate(others, 1) if n % of != number % of)
    number, of = config.getoption("--steps")
    in_browser = [item for item in items if item.path.match(IN_A_BROWSER)]
    left_out.update(item for n, item in enumerate(in_browser, 1) if n % of != number % of)
    config.hook.pytest_deselected(items=left_out)
    items[:] = [item for item in items if item not in left_out]


def pytest_collection_finish() -> None:
    """Take what was collected out of the sight of the garbage collector, which would copy all of it in forked runs."""
    gc.collect()
    gc.freeze()


def part(text: str) -> tuple[int, int]:
    """Return K and N of K/N."""
    number, of = map(int, text.split("/"))
    return number, of


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--pg-bin", type=Path, help="folder of another PostgreSQL's binaries")
    parser.addoption("--citus-bin", type=Path, help="folder of the binaries of a PostgreSQL with Citus")
    parser.addoption("--long", action="store_true", help="repeat what is random a thousand times")
    parser.addoption("--steps", type=part, default=(1, 1), help="K/N: strike a run at the K-th of each N steps alone, "
                     "and open the page in a browser in the K-th of each N tests")  # fmt: skip
    parser.addoption("--share", type=part, default=(1, 1), help="K/N: the K-th of each N tests, and all that are about "
                     "the database")  # fmt: skip
    parser.addoption("--on-a-server", action="store_true", help="only the tests that a server takes part in")
    parser.addoption("--dsn", help="another server, as a role that may create databases and roles")


@pytest.fixture(scope="session")
def own_server(request: pytest.FixtureRequest) -> Iterator[Callable[..., Server]]:
    """Makes servers that a test may stop, restart or reconfigure."""
    with contextlib.ExitStack() as made:

        def make(*settings: str) -> Server:
            folder = Path(made.enter_context(tempfile.TemporaryDirectory(prefix="xraylog-server-", dir=IN_MEMORY)))
            # scram-sha-256 makes a session take 5 ms longer to begin, on purpose; tests begin thousands
            server = Server(folder / "server", request.config.getoption("--pg-bin"), settings, "md5")
            made.enter_context(ended_with_the_tests(server))
            made.callback(server.remove)
            server.start()
            return server

        yield make


@contextlib.contextmanager
def ended_with_the_tests(server: Server) -> Iterator[None]:
    """No server outlives tests that are killed: a shell waits for the end of its standard input."""
    pid_file = server.data / "postmaster.pid"
    end = 'cat; [ ! -e "$0" ] || kill -QUIT "$(head -n 1 "$0")"; rm -rf "$1"'
    command = ["/bin/sh", "-c", end, str(pid_file), str(server.folder.parent)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True):
        yield


@pytest.fixture(scope="session")
def server_keywords(request: pytest.FixtureRequest, own_server: Callable[..., Server]) -> Iterator[dict[str, str]]:
    """libpq's keywords for the server that all tests share."""
    if dsn := request.config.getoption("--dsn"):
        keywords = {key: str(value) for key, value in conninfo_to_dict(dsn).items()}
    else:
        keywords = own_server(*FAST, "max_connections=200").keywords()
    with one_session_for_databases(keywords):
        yield keywords


@pytest.fixture(scope="session")
def warmed_up(server_keywords: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> None:
    """Do here, once, what each forked run would do again: late imports, regular expressions, psycopg's caches."""
    site = Site(tmp_path_factory.mktemp("warmed_up"), create_database(server_keywords))
    with Path(os.devnull).open("w") as nothing, contextlib.redirect_stderr(nothing):
        for change in (site.back, site.away, site.back):
            change()
            site.append(line(0), "damaged\n")
            assert site.main() == 0
    logger.remove()
    drop_database(site.database)


@pytest.fixture(autouse=True)
def ends_its_threads() -> Iterator[None]:
    """A thread that outlives its test keeps all later runs from being forked."""
    assert forked.other_threads() == []
    yield
    assert forked.other_threads() == []


@pytest.fixture
def rounds(request: pytest.FixtureRequest) -> int:
    """How often a random test repeats itself: of several runs with --steps, each has its part."""
    return 1000 if request.config.getoption("--long") else max(1, 12 // request.config.getoption("--steps")[1])


@pytest.fixture
def steps(request: pytest.FixtureRequest) -> faults.Steps:
    """The steps at which a run is struck: all, or a part with --steps."""
    return faults.Steps(*request.config.getoption("--steps"))


@pytest.fixture(scope="session")
def with_tables(server_keywords: dict[str, str]) -> Iterator[str]:
    """The name of a database with our tables, to be copied: that takes half of the time that creating them does."""
    keywords = create_database(server_keywords)
    with psycopg.connect(**keywords, autocommit=True) as conn:  # type: ignore[arg-type]
        schema.ensure(conn)
    yield keywords["dbname"]
    drop_database(keywords)


@pytest.fixture
def database(request: pytest.FixtureRequest, server_keywords: dict[str, str]) -> Iterator[dict[str, str]]:
    """libpq's keywords for a fresh database: with our tables where others are not the point, else empty."""
    empty = request.node.path.parent.name not in WITH_TABLES or request.node.get_closest_marker("empty_database")
    keywords = create_database(server_keywords, *([] if empty else [request.getfixturevalue("with_tables")]))
    yield keywords
    drop_database(keywords)


@pytest.fixture
def conn(database: dict[str, str]) -> Iterator[psycopg.Connection[tuple[Any, ...]]]:
    """A session in the test's database, in autocommit."""
    with psycopg.connect(**database, autocommit=True) as connection:  # type: ignore[arg-type]
        yield connection


@pytest.fixture
def other_database(server_keywords: dict[str, str]) -> Iterator[psycopg.Connection[tuple[Any, ...]]]:
    """A second empty database."""
    keywords = create_database(server_keywords)
    with psycopg.connect(**keywords, autocommit=True) as conn:  # type: ignore[arg-type]
        yield conn
    drop_database(keywords)


@pytest.fixture
def paths_taken(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often a run in this process took each load path; row by row is not counted."""
    count: Counter[str] = Counter()

    def spy(module: Any, name: str, load_path: str) -> None:
        real = getattr(module, name)

        def call(*arguments: Any) -> Any:
            count[load_path] += 1
            return real(*arguments)

        monkeypatch.setattr(module, name, call)

    spy(attach, "create_tables", load_paths.ATTACH)
    spy(foreign_keys.ForeignKeyChecks, "lock", load_paths.KEYS_IN_BULK)
    return count


@pytest.fixture
def site(database: dict[str, str], tmp_path: Path, warmed_up: None) -> Iterator[Site]:  # noqa: ARG001  # happens before
    """A folder with config.ini and a log in it, and the test's database for it."""
    site = Site(tmp_path, database)
    yield site
    site.drop_backups()


@pytest.fixture
def nothing_of_the_machine(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Nothing of the machine's own: no zone, no password, and no log sink left behind."""
    monkeypatch.setenv("TZ", "UTC")
    monkeypatch.delenv("PGPASSWORD", raising=False)
    monkeypatch.setenv("PGPASSFILE", "/nonexistent")
    yield
    logger.remove()
