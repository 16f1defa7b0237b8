"""--check looks at everything that a run needs, says what to do about it, and changes nothing."""

from __future__ import annotations

import gzip
import itertools
import os
import re
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest
from helpers import mounts
from helpers.site import Site, drop_database, line, lines, users
from psycopg.sql import SQL, Identifier, Literal

from xraylog.accesslog import file_system, lockfile
from xraylog.database.session import Connection
from xraylog.file_advice import user

LOOKED_AT = ["config", "draining", "files", "lock", "lock", "log", "partitions", "rights", "schema", "server",
             "statistics", "trial", "user"]  # fmt: skip
REPORTED = re.compile(r"(?P<mark>[✓✗]) (?P<what>[\w ]+): (?P<text>.+)")

Report = list[tuple[str, str, str]]  # mark, what, text; sorted by what


@pytest.fixture
def collapsing(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if the tests' folder were on ext4, wherever it is: what all is well with has to be known."""
    monkeypatch.setattr(file_system, "can_collapse", lambda *_: True)


@pytest.fixture
def check(site: Site, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, Report]]:
    """Runs --check in this process; exit status and report."""

    def run(*arguments: str) -> tuple[int, Report]:
        capsys.readouterr()
        status = site.main("--check", *arguments)
        return status, parsed(capsys.readouterr().out)

    return run


Check = Callable[..., tuple[int, Report]]


def parsed(text: str) -> Report:
    found = [REPORTED.fullmatch(reported) for reported in text.splitlines()]
    assert all(found), text
    return sorted((match["mark"], match["what"], match["text"]) for match in found if match)


def texts(report: Report, what: str, mark: str) -> list[str]:
    """Return what is reported about one thing, all of which must have this mark."""
    about = [(mark, text) for mark, looked_at, text in report if looked_at == what]
    assert {found for found, _ in about} == {mark}, about
    return [text for _, text in about]


# --- all is well ---------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("collapsing")
def test_all_is_well_before_the_first_run_and_after_it(site: Site, check: Check) -> None:
    site.append(*lines(0, 3))
    status, first = check()
    assert site.main() == 0
    again, second = check()
    assert (status, again) == (0, 0)
    for report, confirmed in ((first, []), (second, ["state"])):
        assert sorted(what for _, what, _ in report) == sorted([*LOOKED_AT, *confirmed])
        assert {mark for mark, _, _ in report} == {"✓"}
    assert texts(first, "config", "✓") == [str(site.config)]
    assert texts(first, "lock", "✓") == [f"{site.log}.lock is free", f"{site.buffer}.lock is free"]
    assert texts(first, "log", "✓") == [f"{site.log} has {sum(map(len, lines(0, 3)))} bytes"]
    (server,) = texts(first, "server", "✓")
    assert site.database["dbname"] in server
    assert site.database["user"] in server
    (schema,) = texts(first, "schema", "✓")
    assert schema.endswith("log_positions, rejected_lines will be created by the first run")
    assert texts(second, "schema", "✓") == ["complete"]


@pytest.mark.usefixtures("collapsing")
def test_a_good_check_prints_nothing_except_its_report(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    site.append(line(1))
    assert site.main("--check") == 0
    told = capsys.readouterr()
    assert len(told.out.splitlines()) == len(LOOKED_AT)
    assert told.err == ""


def test_another_log_is_looked_at_where_one_is_given(site: Site, check: Check) -> None:
    site.append(line(1), to=site.folder / "other.log")
    _, report = check("--logfile", str(site.folder / "other.log"))
    assert texts(report, "log", "✓") == [f"{site.folder}/other.log has {len(line(1))} bytes"]


def test_a_log_that_no_run_empties_is_called_so(site: Site, check: Check) -> None:
    old = site.folder / "access.log.1.gz"
    old.write_bytes(gzip.compress(line(1).encode()))
    status, report = check("--logfile", str(old))
    assert status == 0
    assert texts(report, "log", "✓") == [f"{old} is compressed, and stays as it is"]
    assert texts(check("--logfile", "-")[1], "log", "✓") == ["- is standard input, and stays as it is"]


def state_of(site: Site) -> tuple[object, ...]:
    """Everything that a check could change: files and their times, the catalog, and what is in the tables.

    Ids are used up: sequences know no rollback.
    """
    files = {
        str(path): (found.st_ino, found.st_mode, found.st_size, found.st_mtime_ns)
        for path in (site.folder, *site.folder.rglob("*"))
        for found in (path.stat(),)
    }
    catalog = [
        site.query("SELECT oid, relname, relkind, relnatts, relacl::text, xmin::text FROM pg_class ORDER BY oid"),
        site.query("SELECT attrelid, attnum, attname, attnotnull, xmin::text FROM pg_attribute ORDER BY 1, 2"),
        site.query("SELECT oid, conname FROM pg_constraint ORDER BY oid"),
        site.query("SELECT oid, nspname, nspacl::text FROM pg_namespace ORDER BY oid"),
    ]
    tables = [name for (name,) in site.query("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")]
    rows = {name: site.query(f"SELECT t::text, xmin::text FROM {name} t") for name in tables}
    return files, catalog, rows


@pytest.mark.parametrize("runs", [0, 1])
def test_a_check_changes_nothing(site: Site, check: Check, runs: int) -> None:
    for n in range(runs):
        site.append(*lines(n, n + 3))
        assert site.main() == 0
    site.append(*lines(10, 13), "bad\n", "torn")
    before = state_of(site)
    check()
    check("--again", "-v")
    assert state_of(site) == before


def test_a_check_writes_to_no_log_of_its_own(site: Site, check: Check) -> None:
    """Not even a warning: this password may be read by others."""
    site.set("logging", file="own.log", level="DEBUG")
    site.config.chmod(0o644)
    before = set(site.folder.iterdir())
    check()
    assert set(site.folder.iterdir()) == before


# --- config, locks, log --------------------------------------------------------------------------------------


def test_a_config_that_others_may_read_is_to_be_changed(site: Site, check: Check) -> None:
    site.set("postgresql", password="x")  # noqa: S106
    site.config.chmod(0o644)
    status, report = check()
    assert status == 3
    assert texts(report, "config", "✗")[0].endswith(f"chmod 600 {site.config}")


@pytest.mark.usefixtures("collapsing")
@pytest.mark.parametrize("held", ["access.log.lock", "buffer.jsonl.lock"])
def test_a_held_lock_is_reported_with_its_holder(site: Site, check: Check, held: str) -> None:
    site.append(line(1))
    with lockfile.locked(site.folder / held):
        status, report = check()
    assert status == 3
    (text,) = (text for mark, what, text in report if (mark, what) == ("✗", "lock"))
    assert text.startswith(f"{site.folder / held} is held by process {os.getpid()} since ")
    assert [mark for mark, _, _ in report].count("✗") == 1
    assert check()[0] == 0


def test_a_missing_log_is_reported(site: Site, check: Check) -> None:
    status, report = check()
    assert status == 3
    assert texts(report, "log", "✗")[0].startswith(f"{site.log} does not exist; ")
    assert len(texts(report, "server", "✓")) == 1


def test_a_missing_folder_of_the_log_is_reported(site: Site, check: Check) -> None:
    site.set("parser", logfile=str(site.folder / "xary" / "access.log"))
    status, report = check()
    assert status == 3
    (said,) = texts(report, "log", "✗")
    assert said.startswith(f"{site.folder}/xary: expected the folder of an access log, found none; ")
    (site.folder / "xary").mkdir()
    assert texts(check()[1], "log", "✗")[0].startswith(f"{site.folder}/xary/access.log does not exist; ")


def test_a_log_that_is_no_file_is_reported(site: Site, check: Check) -> None:
    site.log.mkdir()
    status, report = check()
    assert status == 3
    assert str(site.log) in texts(report, "log", "✗")[0]


def check_without_privileges(site: Site) -> tuple[int, Report]:
    """In a process that a file's permissions bind also when we are root: without the right to pass them by."""
    root = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"] if os.geteuid() == 0 else []
    command = [*root, *site.command("--check")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert "Traceback" not in done.stderr, done.stderr
    return done.returncode, parsed(done.stdout)


def test_a_log_that_we_may_not_write_is_reported(site: Site) -> None:
    site.append(line(1))
    site.log.chmod(0o400)
    status, report = check_without_privileges(site)
    assert status == 3
    assert texts(report, "log", "✓") == [f"{site.log} has {len(line(1))} bytes"]
    (text,) = texts(report, "draining", "✗")
    assert text.startswith(
        "the log may not be written; its lines would be loaded and stay; to leave them there: --keep; "
    )
    assert text.endswith(f"chmod u+rwX {site.log}")


def test_a_log_that_we_may_not_read_is_reported(site: Site) -> None:
    site.append(line(1))
    site.log.chmod(0)
    status, report = check_without_privileges(site)
    assert status == 3
    assert texts(report, "log", "✗")[0].startswith(f"{site.log}: ")
    assert texts(report, "log", "✗")[0].endswith(f"chmod u+rwX {site.log}")


def test_locks_that_cannot_be_made_are_reported(site: Site) -> None:
    site.append(line(1))
    site.folder.chmod(0o500)
    try:
        status, report = check_without_privileges(site)
    finally:
        site.folder.chmod(0o700)
    assert status == 3
    mend = f" cannot be created: Permission denied; what to do: chown -h {user()} {site.folder}"
    assert [text.endswith(mend) for text in texts(report, "lock", "✗")] == [True, True]


@pytest.fixture
def closed(site: Site) -> Iterator[Path]:
    """A folder that we may not enter."""
    folder = site.folder / "closed"
    folder.mkdir(mode=0)
    yield folder
    folder.chmod(0o700)


def test_outputs_in_a_folder_that_we_may_not_enter_are_reported_and_the_rest_is_checked(
    site: Site, closed: Path
) -> None:
    site.append(line(1))
    site.set("stats", output=str(closed / "stats.jsonl"), prometheus=str(closed / "xray.prom"))
    site.set("logging", file=str(closed / "own.log"))
    status, report = check_without_privileges(site)
    assert status == 3
    for what, name in (("statistics", "stats.jsonl"), ("own log", "own.log")):
        path = closed / name
        enter = f"what to do: setfacl -m u:{user()}:x {closed}"
        assert texts(report, what, "✗") == [f"{path} cannot be written: Permission denied; {enter}"]
    assert texts(report, "metrics", "✗")[0].endswith(f"; {enter}")
    assert texts(report, "server", "✓")


def test_a_folder_that_may_be_written_but_not_entered_is_reported(site: Site, closed: Path) -> None:
    closed.chmod(0o200)
    site.set("stats", output=str(closed / "stats.jsonl"))
    assert texts(check_without_privileges(site)[1], "statistics", "✗")


def test_a_lock_that_cannot_be_looked_at_is_not_called_held(site: Site, closed: Path) -> None:
    site.append(line(1))
    site.set("parser", offline_file=str(closed / "buffer.jsonl"))
    status, report = check_without_privileges(site)
    assert status == 3
    (text,) = (text for mark, what, text in report if (mark, what) == ("✗", "lock"))
    assert "held" not in text
    assert text.endswith(
        f"found: Permission denied; a run now would exit with status 3; what to do: setfacl -m u:{user()}:x {closed}"
    )


def test_a_lock_of_another_that_may_not_be_read_is_reported_as_a_run_finds_it(site: Site) -> None:
    site.append(line(1))
    (site.folder / "access.log.lock").touch(mode=0)
    status, report = check_without_privileges(site)
    assert status == 3
    (text,) = (text for mark, what, text in report if (mark, what) == ("✗", "lock"))
    assert text.endswith(
        f"a run now would exit with status 3; what to do: chown -h {user()} {site.folder}/access.log.lock"
    )


@pytest.mark.parametrize("option", ["--check", "--dry-run"])
@pytest.mark.parametrize("encoding", ["ascii", "utf-8"])
def test_what_standard_output_cannot_show_is_escaped(site: Site, option: str, encoding: str) -> None:
    log = os.fsencode(site.folder / "zugriffe-ä-") + b"\xff.log"
    site.append(line(1), to=Path(os.fsdecode(log)))
    environment = {**os.environ, "PYTHONIOENCODING": encoding, "PYTHONUTF8": "0"}
    arguments = [option, "--logfile", os.fsdecode(log)]
    done = subprocess.run(site.command(*arguments), env=environment, capture_output=True, check=False)
    assert done.stderr == b""
    shown = done.stdout.decode(encoding)
    assert re.search(r"zugriffe-(ä|\\xe4|\\udcc3\\udca4)-\\\w*ff\.log", shown)
    assert "PostgreSQL" in shown


# --- draining ------------------------------------------------------------------------------------------------


@pytest.fixture(params=["the tests' folder", "/dev/shm"])  # noqa: S108  # the one tmpfs that every Linux has
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """Folders on file systems of different kinds, where the machine has them."""
    if request.param != "/dev/shm":  # noqa: S108
        yield tmp_path
        return
    if not os.access(request.param, os.W_OK | os.X_OK):
        pytest.skip("no /dev/shm that may be written")
    folder = tempfile.mkdtemp(dir=request.param)
    yield Path(folder)
    shutil.rmtree(folder)


def really_collapses(folder: Path) -> bool:
    """Whether util-linux can take a block out of a file here."""
    file = folder / "blocks"
    file.write_bytes(b"x" * (3 << 16))
    command = ["fallocate", "--collapse-range", "--offset", "0", "--length", str(1 << 16), str(file)]
    done = subprocess.run(command, capture_output=True, check=False)
    assert (done.returncode == 0) == (file.stat().st_size == 2 << 16)
    file.unlink()
    return done.returncode == 0


def kind_of(folder: Path) -> str:
    """The type of its file system, as util-linux knows it."""
    command = ["findmnt", "--noheadings", "--output", "FSTYPE", "--target", str(folder)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()[-1]


def test_small_blocks_are_no_reason_to_keep_lines(tmp_path: Path, site: Site, check: Check) -> None:
    """mke2fs chooses blocks of 1 KiB below 512 MB."""
    with mounts.image(tmp_path, "ext4", 1024) as folder:
        site.append(line(1), to=folder / "access.log")
        site.set("parser", logfile=str(folder / "access.log"))
        _, report = check()
        assert texts(report, "draining", "✓") == ["ext4 can take lines out of the front of an open log"]


def test_the_way_of_draining_is_that_of_the_file_system(site: Site, check: Check, place: Path) -> None:
    log = place / "access.log"
    site.append(line(1), to=log)
    site.set("parser", logfile=str(log), truncate_mib="7")
    status, report = check()
    if really_collapses(place):
        assert status == 0
        assert texts(report, "draining", "✓") == [f"{kind_of(place)} can take lines out of the front of an open log"]
    else:
        assert status == 3
        (text,) = texts(report, "draining", "✗")
        assert text.startswith(f"{kind_of(place)} keeps the lines of an open log here; ")
        assert "at 7 MiB it is truncated; a line written at that very moment is lost" in text
    assert log.read_text() == line(1)


# --- server --------------------------------------------------------------------------------------------------


def test_a_server_that_is_away_is_reported(site: Site, check: Check) -> None:
    site.append(line(1))
    with socket.socket() as bound:  # without listen: nobody else gets the port, and it refuses
        bound.bind(("127.0.0.1", 0))
        site.set("postgresql", port=str(bound.getsockname()[1]))
        status, report = check()
    assert status == 3
    (text,) = texts(report, "server", "✗")
    assert "Connection refused" in text
    port = site.settings["postgresql"]["port"]
    assert f"; the server is down: nothing listens on 127.0.0.1, port {port}; " in text
    assert text.endswith(
        f"change [postgresql] host and port in {site.config}; what to do: sudo systemctl start postgresql"
    )
    assert texts(report, "log", "✓") == [f"{site.log} has {len(line(1))} bytes"]


def test_a_server_that_refuses_us_is_reported(site: Site, check: Check) -> None:
    site.set("postgresql", dbname="no such database")
    status, report = check()
    assert status == 3
    assert '"no such database"' in texts(report, "server", "✗")[0]


def test_a_database_in_another_encoding_is_reported(site: Site, check: Check) -> None:
    name = f"{site.database['dbname']}_latin"
    with psycopg.connect(**site.database, autocommit=True) as conn:  # type: ignore[arg-type]
        conn.execute(SQL("CREATE DATABASE {} ENCODING 'SQL_ASCII' TEMPLATE template0").format(Identifier(name)))
    try:
        site.set("postgresql", dbname=name)
        status, report = check()
    finally:
        drop_database({**site.database, "dbname": name})
    assert status == 3
    assert "expected the encoding UTF8, found SQL_ASCII" in texts(report, "server", "✗")[0]


# --- rights --------------------------------------------------------------------------------------------------

numbers = itertools.count(1)


@pytest.fixture
def make_role(server_keywords: dict[str, str]) -> Iterator[Callable[..., dict[str, str]]]:
    """Makes roles that may connect and no more; dropped at the end. To be asked for before the database, which
    has to go first.
    """
    made: list[str] = []

    def make(name: str = "test_role") -> dict[str, str]:
        made.append(f"{name}_{os.getpid()}_{next(numbers)}")
        with psycopg.connect(**server_keywords, autocommit=True) as conn:  # type: ignore[arg-type]
            conn.execute(SQL("CREATE ROLE {} LOGIN PASSWORD {}").format(Identifier(made[-1]), Literal("a password")))
        return {"user": made[-1], "password": "a password"}

    yield make
    with psycopg.connect(**server_keywords, autocommit=True) as conn:  # type: ignore[arg-type]
        for name in reversed(made):
            conn.execute(SQL("DROP ROLE {}").format(Identifier(name)))


MakeRole = Callable[..., dict[str, str]]


@pytest.fixture
def strict(make_role: MakeRole, site: Site, conn: Connection) -> Site:  # noqa: ARG001  # roles go last
    """A site in whose database nobody may create, as on PostgreSQL 15 and later."""
    conn.execute("REVOKE CREATE ON SCHEMA public FROM PUBLIC")
    site.append(*lines(0, 3))
    return site


def run_as(site: Site, role: dict[str, str], *arguments: str) -> int:
    site.set("postgresql", **role)
    return site.main("-q", *arguments)


def grant(conn: Connection, what: str, to: str) -> None:
    conn.execute(SQL("GRANT {} TO {}").format(SQL(what), Identifier(to)))  # type: ignore[arg-type]


def nothing_there(conn: Connection, site: Site, role: dict[str, str], owner: dict[str, str]) -> None:
    """An empty database."""


def tables_of_another(conn: Connection, site: Site, role: dict[str, str], owner: dict[str, str]) -> None:  # noqa: ARG001
    grant(conn, "CREATE ON SCHEMA public", owner["user"])
    assert run_as(site, owner, "--keep") == 0


def own_tables_but_no_more(conn: Connection, site: Site, role: dict[str, str], owner: dict[str, str]) -> None:  # noqa: ARG001
    """The database's owner made the tables for the role: it cannot make a partition."""
    grant(conn, "CREATE ON SCHEMA public", role["user"])
    assert run_as(site, role, "--keep") == 0
    conn.execute(SQL("REVOKE CREATE ON SCHEMA public FROM {}").format(Identifier(role["user"])))


def own_logs_only(conn: Connection, site: Site, role: dict[str, str], owner: dict[str, str]) -> None:
    """It may insert into the other tables, but not take an id from their sequences."""
    tables_of_another(conn, site, role, owner)
    grant(conn, "CREATE ON SCHEMA public", role["user"])
    grant(conn, "ALL ON ALL TABLES IN SCHEMA public", role["user"])
    conn.execute(SQL("ALTER TABLE logs OWNER TO {}").format(Identifier(role["user"])))


@pytest.mark.usefixtures("collapsing")
@pytest.mark.parametrize("name", ["test_role", "Test-Role"])
@pytest.mark.parametrize("prepare", [nothing_there, tables_of_another, own_tables_but_no_more, own_logs_only])
def test_rights_are_enough_when_a_run_can_store_a_new_day_and_else_the_advice_helps(
    make_role: MakeRole,
    strict: Site,
    conn: Connection,
    check: Check,
    prepare: Callable[..., None],
    name: str,
) -> None:
    role, owner = make_role(name), make_role()
    prepare(conn, strict, role, owner)
    strict.append(line(3).replace("2025/11/17", "2025/11/18").replace("host3", "another"))
    assert run_as(strict, role) == 3
    status, report = check()
    assert status == 3
    (text,) = texts(report, "rights", "✗")
    assert text.startswith("not enough for a run; ")
    follow(text, conn, owner["user"], role["user"])
    status, report = check()
    assert texts(report, "rights", "✓") == ["enough for a run"]
    assert status == 0
    assert run_as(strict, role) == 0
    assert strict.emails() == users(0, 4)


def follow(advice: str, conn: Connection, owner: str, role: str) -> None:
    """Paste its statements into psql, as one would."""
    for statement in re.findall(r"GRANT [^;]+", advice):
        conn.execute(statement)
    if "only the owner of logs can make partitions" in advice and f"GRANT {owner}" not in advice:
        grant(conn, owner, role)


def test_what_is_mounted_read_only_is_not_to_be_given_to_another_user(site: Site, check: Check, tmp_path: Path) -> None:
    with mounts.image(tmp_path, "ext4", 1024) as folder:
        site.append(line(0), to=folder / "access.log")
        site.set("parser", logfile=str(folder / "access.log"), offline_file=str(folder / "buffer.jsonl"))
        mount = ["mount", "-o", "remount,ro", str(folder)]
        subprocess.run(mount, check=True)
        _, report = check()
        for what in ("lock", "state", "draining"):
            for text in texts(report, what, "✗"):
                assert "it is mounted read-only" in text
                assert "; which one: findmnt -T " in text


def test_another_database_than_that_which_confirmed_lines(site: Site, check: Check) -> None:
    """A run ends with status 3 there, and so does a check."""
    site.append(line(0))
    site.run()
    for (table,) in site.query("SELECT relname FROM pg_class WHERE relkind IN ('r', 'p') AND NOT relispartition AND "
                               "relnamespace = 'public'::regnamespace"):  # fmt: skip
        site.query(f"DROP TABLE {table} CASCADE")
    status, report = check()
    assert status == 3
    (text,) = texts(report, "state", "✗")
    assert "the database is older than the log, or another one" in text


@pytest.mark.usefixtures("collapsing")
def test_a_schema_that_a_role_may_not_use_is_opened_and_its_tables_stay_in_use(
    make_role: MakeRole, strict: Site, conn: Connection, check: Check
) -> None:
    """A schema of its own would be another, empty database."""
    role = make_role("closed_role")
    own_tables_but_no_more(conn, strict, role, make_role())
    conn.execute(f"GRANT CREATE ON SCHEMA public TO {role['user']}")
    conn.execute(f"REVOKE ALL ON SCHEMA public FROM PUBLIC, {role['user']}")
    run_as(strict, role)
    _, report = check()
    assert "state" not in [what for _, what, _ in report]
    (text,) = texts(report, "rights", "✗")
    assert text.endswith(f": GRANT USAGE, CREATE ON SCHEMA public TO {role['user']}")
    follow(text, conn, "", role["user"])
    assert run_as(strict, role) == 0


@pytest.mark.usefixtures("collapsing")
def test_a_search_path_that_leads_nowhere_is_taken_back(
    make_role: MakeRole, strict: Site, conn: Connection, check: Check
) -> None:
    role = make_role("lost_role")
    nothing_there(conn, strict, role, make_role())
    conn.execute(f"GRANT CREATE ON SCHEMA public TO {role['user']}")
    conn.execute(f"ALTER ROLE {role['user']} SET search_path = nowhere")
    run_as(strict, role)
    _, report = check()
    (text,) = texts(report, "rights", "✗")
    conn.execute(text.rpartition(": ")[2])
    assert run_as(strict, role) == 0


@pytest.mark.usefixtures("collapsing")
def test_a_database_without_the_schema_of_the_default_search_path_gets_one(
    make_role: MakeRole, strict: Site, conn: Connection, check: Check
) -> None:
    role = make_role("poor_role")
    conn.execute("DROP SCHEMA public")
    assert run_as(strict, role) == 3
    _, report = check()
    (text,) = texts(report, "rights", "✗")
    assert text.startswith("not enough for a run; as their owner, or a superuser of PostgreSQL: ")
    conn.execute(text.rpartition(" is there: ")[2])
    assert run_as(strict, role) == 0
    conn.execute("DROP SCHEMA xraylog CASCADE")


def test_where_no_schema_can_be_created_in_none_is_named(site: Site, check: Check) -> None:
    site.set("postgresql", options="-c search_path=nowhere")
    status, report = check()
    assert status == 3
    assert "None" not in texts(report, "rights", "✗")[0]


def test_a_full_disk_is_no_green_light(site: Site, check: Check) -> None:
    """A run could neither replace the state file nor put lines aside."""
    with mounts.full(site.folder / "small") as small:
        site.set("parser", offline_file=str(small / "buffer.jsonl"))
        site.set("stats", output=str(small / "stats.jsonl"))
        site.append(line(0))
        status, report = check()
        assert status == 3
        for what in ("state", "statistics"):
            (text,) = texts(report, what, "✗")
            assert "No space left on device; make room: df -h " in text
        (small / "filler").unlink()
        assert check()[0] == 0


# --- schema --------------------------------------------------------------------------------------------------

MISFITS = [
    ("CREATE TABLE logs (id bigint, timestamp timestamptz)", "logs: expected a table partitioned by day"),
    (
        "CREATE TABLE logs (id bigint, timestamp timestamptz) PARTITION BY LIST (id)",
        'logs: expected PARTITION BY RANGE ("timestamp"), found LIST (id)',
    ),
    (
        "CREATE TABLE logs (id bigint, timestamp timestamp) PARTITION BY RANGE (timestamp)",
        "logs.timestamp: expected timestamp with time zone, found timestamp without time zone",
    ),
    ("CREATE TABLE users (id serial, email text)", "users.email: expected a unique column, found none"),
    ("CREATE VIEW tags AS SELECT 1 AS id, 'a'::text AS name", "tags: expected a table, found another kind"),
    ("CREATE TABLE log_positions (id serial)", "log_positions.position: expected a column, found none"),
]


@pytest.mark.parametrize(("made_by_hand", "said"), MISFITS)
def test_what_does_not_fit_is_reported_as_a_run_would_report_it(
    site: Site,
    conn: Connection,
    check: Check,
    capsys: pytest.CaptureFixture[str],
    made_by_hand: str,
    said: str,
) -> None:
    conn.execute(made_by_hand)  # type: ignore[call-overload]
    site.append(line(1))
    status, report = check()
    assert status == 3
    assert said in texts(report, "schema", "✗")[0]
    assert site.main() == 3
    assert said in capsys.readouterr().err


HAND_MADE = """
    CREATE TABLE logs (id bigserial, "timestamp" timestamptz NOT NULL, source_ip inet NOT NULL,
                       source_port integer NOT NULL, action text NOT NULL, user_id integer {user_id})
    PARTITION BY RANGE ("timestamp")
"""


@pytest.mark.usefixtures("collapsing")
def test_what_the_first_run_will_change_is_reported(site: Site, conn: Connection, check: Check) -> None:
    conn.execute(HAND_MADE.format(user_id=""))  # type: ignore[call-overload]
    site.append(line(1))
    status, report = check()
    (text,) = texts(report, "schema", "✓")
    assert status == 0
    assert re.search(r"logs\.node_id.* will be created by the first run", text)
    assert "logs.source_ip will lose its NOT NULL" in text
    assert "logs.source_port will lose its NOT NULL" in text


@pytest.mark.usefixtures("collapsing")
def test_the_column_that_a_later_version_has_is_reported(site: Site, conn: Connection, check: Check) -> None:
    site.append(*lines(0, 3))
    site.run()
    conn.execute("ALTER TABLE logs DROP COLUMN reject_reason")
    status, report = check()
    assert status == 0
    (text,) = texts(report, "schema", "✓")
    assert text.endswith("the next run of a role that owns logs adds it")
    site.append(line(3))
    site.run()
    assert texts(check()[1], "schema", "✓") == ["complete"]


def test_a_column_that_will_cost_rows_is_reported(conn: Connection, check: Check) -> None:
    conn.execute(HAND_MADE.format(user_id="NOT NULL"))  # type: ignore[call-overload]
    status, report = check()
    assert status == 3
    assert "ALTER TABLE logs ALTER COLUMN user_id DROP NOT NULL" in texts(report, "schema", "✗")[0]
