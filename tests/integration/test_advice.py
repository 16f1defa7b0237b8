"""Who reads a message and does what it says is done: each advice is followed in the situation that it came from.

`helpers.advice` names the test of each message of the source (tests/unit/test_messages.py); the situations that no
other test has are here.
"""

from __future__ import annotations

import itertools
import os
import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from helpers.site import ROOT, Site, drop_database, line, lines, users

from xraylog.accesslog import lockfile
from xraylog.cli import Exit
from xraylog.database import session

# --- the database ----------------------------------------------------------------------------------------------

PASSWORD = "choose one"  # noqa: S105  # as the advice has it
numbers = itertools.count(1)


@pytest.fixture
def plain(site: Site) -> Site:
    """With three lines, in an empty database."""
    site.append(*lines(0, 3))
    return site


@pytest.fixture
def role(site: Site) -> Iterator[str]:
    """A role that may make tables, and that the runs use."""
    superuser = dict(site.database)
    name = f"advised_{os.getpid()}_{next(numbers)}"
    site.query(f"CREATE ROLE {name} LOGIN PASSWORD '{PASSWORD}'")
    site.query(f"GRANT ALL ON SCHEMA public TO {name}")
    site.query(f"GRANT CREATE ON DATABASE {superuser['dbname']} TO {name}")
    site.set("postgresql", user=name, password=PASSWORD)
    site.append(*lines(0, 3))
    yield name
    site.database = superuser
    site.query(f"DROP OWNED BY {name} CASCADE")
    site.query(f"DROP ROLE {name}")


STATEMENT = re.compile(r"(?:CREATE|ALTER|GRANT|SELECT|SET) [^;]+")


def told(site: Site, status: int = Exit.OPERATOR) -> str:
    """What a run says, on its one line."""
    (said,) = site.run(status=status).stderr.splitlines()
    return said


def follow_sql(said: str, superuser: dict[str, str]) -> None:
    """Paste the statements of a message into psql."""
    statements = STATEMENT.findall(said)
    assert statements, said
    with psycopg.connect(**superuser, autocommit=True) as conn:  # type: ignore[arg-type]
        for statement in statements:
            while not has_ended(conn, statement):
                assert statement.startswith("SET statement_timeout")


def has_ended(conn: psycopg.Connection, statement: str) -> bool:
    """Return whether a statement ended before statement_timeout, which on a full processor may be too short for SET."""
    try:
        conn.execute(statement)  # type: ignore[call-overload]
    except psycopg.errors.QueryCanceled:
        return False
    return True


def assert_mended(site: Site) -> None:
    done = site.run()
    assert done.stderr == ""
    assert site.emails() == users(0, 3)


def test_a_server_that_is_down(plain: Site) -> None:
    """What is started is the tests' own."""
    plain.away()
    said = told(plain, Exit.DONE)
    assert (
        "the server is down: nothing listens on 127.0.0.1, port 1; if another one is meant, change [postgresql]" in said
    )
    assert said.endswith("what to do: sudo systemctl start postgresql")
    plain.back()
    assert_mended(plain)


def test_a_host_that_no_name_service_knows(plain: Site) -> None:
    plain.set("postgresql", host="no-such-host.invalid")
    said = told(plain, Exit.DONE)
    found = "the host no-such-host.invalid has no known address"
    assert f"{found}; if it is misspelt, change [postgresql] host in {plain.config}" in said
    seen = subprocess.run(shlex.split(said.partition("; see: ")[2]), capture_output=True, text=True, check=False)
    assert seen.stdout == ""
    plain.set("postgresql", host=plain.database["host"])
    assert_mended(plain)


def test_a_database_that_is_not_there(plain: Site) -> None:
    superuser, name = dict(plain.database), f"advised_{os.getpid()}_{next(numbers)}"
    plain.set("postgresql", dbname=name)
    said = told(plain)
    assert f'the server has no database "{name}"; if another one is meant, change [postgresql] dbname in ' in said
    follow_sql(said.partition("as a superuser of PostgreSQL: ")[2], superuser)
    plain.database = {**superuser, "dbname": name}
    try:
        assert_mended(plain)
    finally:
        drop_database(plain.database)
        plain.database = superuser


def test_a_role_that_is_not_there(role: str, site: Site) -> None:
    """A server that asks for passwords does not say so."""
    site.query(f"DROP OWNED BY {role}")
    site.query(f"DROP ROLE {role}")
    said = told(site)
    assert "the password is not that of the role, or there is no such role; " in said
    follow_sql(said.partition("if there is none: ")[2], site.database)
    site.query(f"GRANT ALL ON SCHEMA public TO {role}")
    assert_mended(site)


def test_a_password_that_is_another(role: str, site: Site) -> None:
    site.query(f"ALTER ROLE {role} PASSWORD 'another'")
    said = told(site)
    assert f"; change [postgresql] password in {site.config}; as a superuser of PostgreSQL: " in said
    follow_sql(said.partition("as a superuser of PostgreSQL: ")[2].partition("; if there is none")[0], site.database)
    assert_mended(site)


def test_a_password_that_has_expired(role: str, site: Site) -> None:
    site.query(f"ALTER ROLE {role} VALID UNTIL '2020-01-01'")
    follow_sql(told(site).partition("; if it has expired: ")[2].partition("; if there is none")[0], site.database)
    assert_mended(site)


def test_a_password_that_is_missing(role: str, site: Site, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: ARG001
    monkeypatch.delenv("PGPASSWORD", raising=False)
    site.set("postgresql", password="", passfile="/nonexistent")
    said = told(site)
    assert (
        "set [postgresql] password, or make the file that passfile names: install -m 600 /dev/null /nonexistent" in said
    )
    site.set("postgresql", password=PASSWORD)
    assert_mended(site)


@pytest.fixture
def passfile(role: str, site: Site, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file with the role's password that the config names."""
    monkeypatch.delenv("PGPASSWORD", raising=False)
    path = site.folder / "passwords"
    path.write_text(f"*:*:*:{role}:{PASSWORD}\n")
    path.chmod(0o600)
    site.set("postgresql", password="", passfile=path)
    return path


def test_a_file_of_passwords_that_others_may_open(passfile: Path, site: Site) -> None:
    passfile.chmod(0o644)
    (said,) = [text for text in site.run(status=Exit.OPERATOR).stderr.splitlines() if "ERROR" in text]
    assert f"the password is looked for in {passfile}: others may open it, so libpq does not; " in said
    subprocess.run(["/bin/sh", "-c", said.partition("what to do: ")[2].partition(";")[0]], check=True)
    assert_mended(site)


def test_a_file_of_passwords_without_the_line(passfile: Path, site: Site) -> None:
    passfile.write_text(f"*:*:*:another:{PASSWORD}\n")
    said = told(site)
    assert PASSWORD not in said
    line_of_it = said.partition(f"in {passfile}: no line of it is for this login; add: ")[2].partition("; ")[0]
    passfile.write_text(line_of_it.replace("PASSWORD", PASSWORD) + "\n")
    assert_mended(site)


def test_a_file_of_passwords_that_is_not_there_is_made(passfile: Path, site: Site) -> None:
    passfile.unlink()
    made, _, line_of_it = told(site).partition("passfile names: ")[2].partition(", then add a line to it: ")
    subprocess.run(["/bin/sh", "-c", made], check=True)
    passfile.write_text(line_of_it.partition("; ")[0].replace("PASSWORD", PASSWORD) + "\n")
    assert_mended(site)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file to another user")
def test_a_file_of_passwords_of_another_user(passfile: Path, site: Site) -> None:
    os.chown(passfile, 65534, 65534)
    bound = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"]
    said = subprocess.run([*bound, *site.command()], capture_output=True, text=True, check=False, cwd="/").stderr
    assert f"the password is looked for in {passfile}: what to do: chown -h root {passfile}" in said
    os.chown(passfile, 0, 0)
    assert_mended(site)


def test_a_role_that_may_not_log_in(role: str, site: Site) -> None:
    site.query(f"ALTER ROLE {role} NOLOGIN")
    follow_sql(told(site).partition("as a superuser of PostgreSQL: ")[2], site.database)
    assert_mended(site)


def test_a_role_that_may_not_connect(role: str, site: Site) -> None:  # noqa: ARG001
    site.query(f"REVOKE CONNECT ON DATABASE {site.database['dbname']} FROM PUBLIC")
    follow_sql(told(site).partition("as a superuser of PostgreSQL: ")[2], site.database)
    assert_mended(site)


@pytest.mark.parametrize("of", ["ROLE", "DATABASE"])
def test_a_role_or_a_database_that_may_have_no_more_sessions(role: str, site: Site, of: str) -> None:
    name = role if of == "ROLE" else site.database["dbname"]
    site.query(f"ALTER {of} {name} CONNECTION LIMIT 0")
    said = told(site, Exit.DONE)
    assert f'the {of.lower()} "{name}" has as many sessions as it may have; ' in said
    follow_sql(said.partition("as a superuser of PostgreSQL: ")[2], site.database)
    assert_mended(site)


def test_a_database_that_lets_no_session_begin(role: str, site: Site) -> None:  # noqa: ARG001
    elsewhere = {**site.database, "dbname": "template1"}
    with psycopg.connect(**elsewhere, autocommit=True) as conn:  # type: ignore[arg-type]
        conn.execute(f"ALTER DATABASE {site.database['dbname']} ALLOW_CONNECTIONS false")
    said = told(site)
    follow_sql(said.partition("as a superuser of PostgreSQL: ")[2], elsewhere)
    assert_mended(site)


@pytest.mark.parametrize("place", ["ROLE {role}", "DATABASE {database}", "ROLE {role} IN DATABASE {database}"])
def test_a_timeout_that_ends_every_statement(role: str, site: Site, place: str) -> None:
    name = place.format(role=role, database=site.database["dbname"])
    with psycopg.connect(**site.database, autocommit=True) as holder:  # type: ignore[arg-type]
        # What the first statement waits for: on a fast machine 1 ms would do for it.
        holder.execute("SELECT pg_advisory_lock(%s)", [session.lock_key(session.run_mark("n1"))])
        holder.execute(f"ALTER {name} SET statement_timeout = 1")
        said = told(site, Exit.DONE)
    to_do = said.partition("as a superuser of PostgreSQL: ")[2]
    assert to_do.startswith("SET statement_timeout = 0; ALTER ROLE ")
    follow_sql(to_do, site.database)
    assert_mended(site)


def test_a_role_that_lacks_a_right(role: str, site: Site) -> None:
    """What --check prints is pasted as it is: what follows a GRANT is another one."""
    site.query(f"REVOKE ALL ON SCHEMA public FROM {role}, PUBLIC; GRANT USAGE ON SCHEMA public TO {role}")
    checked = shell(told(site).partition("which GRANT it needs: ")[2])
    (rights,) = (text for text in checked.stdout.splitlines() if text.startswith("✗ rights: "))
    follow_sql(rights.partition("as their owner, or a superuser of PostgreSQL: ")[2], site.database)
    assert_mended(site)


def test_a_setting_that_the_server_does_not_offer(plain: Site) -> None:
    plain.set("postgresql", sslmode="require")
    assert f"the server has no TLS; change [postgresql] sslmode in {plain.config}; " in told(plain)
    plain.set("postgresql", sslmode="prefer")
    assert_mended(plain)


def test_a_setting_that_libpq_does_not_understand(plain: Site) -> None:
    plain.set("postgresql", sslmode="nonsense")
    said = told(plain)
    assert 'invalid sslmode value: "nonsense"; ' in said
    assert said.endswith(f"; change [postgresql] sslmode in {plain.config}")
    plain.set("postgresql", sslmode="prefer")
    assert_mended(plain)


@pytest.mark.parametrize("key", ["connect_timeout", "keepalives_idle", "ssl_min_protocol_version"])
def test_a_setting_with_a_bad_value_is_named_by_a_check_too(plain: Site, key: str) -> None:
    plain.set("postgresql", **{key: "abc"})
    change = f"; change [postgresql] {key} in {plain.config}"
    assert told(plain).endswith(change)
    (shown,) = [text for text in plain.run("--check", status=3).stdout.splitlines() if text.startswith("✗")]
    assert shown.endswith(change)
    del plain.settings["postgresql"][key]
    plain.write_config()
    assert_mended(plain)


def test_a_lock_that_another_session_keeps(plain: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    from xraylog.database import session

    plain.run("--keep")
    monkeypatch.setattr(session, "LOCK_TIMEOUT_S", 1)
    with psycopg.connect(**plain.database) as other:  # type: ignore[arg-type]
        other.execute("LOCK TABLE log_positions IN ACCESS EXCLUSIVE MODE")
        plain.append(line(3))
        said = plain.run().stderr
        assert "another session keeps the lock; see who: " in said
        with psycopg.connect(**plain.database) as conn:  # type: ignore[arg-type]
            seen = conn.execute(said.partition("see who: ")[2].splitlines()[0].encode()).fetchall()
        assert other.info.backend_pid in [row[0] for row in seen]
    plain.run()
    assert plain.emails() == users(0, 4)


def test_a_database_in_another_encoding(plain: Site) -> None:
    superuser = dict(plain.database)
    latin = f"{superuser['dbname']}_l"
    plain.query(f"CREATE DATABASE {latin} ENCODING 'SQL_ASCII' TEMPLATE template0")
    made = f"{latin}_utf8"
    try:
        plain.set("postgresql", dbname=latin)
        follow_sql(told(plain).partition("[postgresql] dbname: ")[2], superuser)
        plain.set("postgresql", dbname=made)
        plain.database = {**superuser, "dbname": made}
        assert_mended(plain)
    finally:
        plain.database = superuser
        for name in (latin, made):
            drop_database({**superuser, "dbname": name})


@pytest.mark.parametrize(
    "theirs",
    [
        "CREATE TABLE users (id serial, email text)",
        "CREATE VIEW tags AS SELECT 1 AS id, 'a'::text AS name",
        "CREATE TABLE log_positions (id serial)",
        "CREATE TABLE logs (id bigint, timestamp timestamptz) PARTITION BY LIST (id)",
        "CREATE TABLE logs (id bigint, timestamp timestamp) PARTITION BY RANGE (timestamp)",
    ],
)
def test_tables_that_do_not_fit(role: str, site: Site, theirs: str) -> None:
    site.query(theirs)
    own = {**site.database, "user": role, "password": PASSWORD}
    superuser = site.database
    said = told(site).partition("; new lines go to ")[0]
    if "ADD UNIQUE" in said:
        follow_sql(said, superuser)
        site.query(f"GRANT ALL ON users TO {role}; GRANT REFERENCES ON users TO {role}")
        site.query(f"GRANT ALL ON SEQUENCE users_id_seq TO {role}")
    else:
        follow_sql(f"CREATE {said.partition(': CREATE ')[2]}", own)
    assert site.run().stderr == ""
    site.database = own  # whose search path it is
    assert site.emails() == users(0, 3)


def test_rows_that_a_check_refuses(plain: Site) -> None:
    plain.run("--make-partitions", "0")
    plain.query("ALTER TABLE logs ADD CONSTRAINT mine CHECK (source_port = 1)")
    plain.append(*lines(3, 200))
    said = told(plain)
    with psycopg.connect(**plain.database) as conn:  # type: ignore[arg-type]
        seen = conn.execute(said.partition("what refuses them: ")[2].partition("; new lines")[0].encode()).fetchall()
    assert "mine" in [name for name, _ in seen]
    plain.query("ALTER TABLE logs DROP CONSTRAINT mine")
    assert plain.run().stderr == ""
    assert plain.emails() == users(0, 200)


@pytest.mark.parametrize("check", ["logs ADD CHECK (source_port = 1)", "users ADD CHECK (email = 'x')"])
def test_a_few_rows_that_a_check_refuses(plain: Site, check: str) -> None:
    """They are stored apart, and that is logged: an empty `logs` after a silent run looked like a good one."""
    plain.run("--make-partitions", "0")
    plain.query(f"ALTER TABLE {check}")
    said = told(plain, Exit.DONE)
    assert "rows were refused, and are in rejected_lines: new row for relation " in said
    follow_sql(said.partition("; to accept such rows: ")[2].partition("; then: ")[0], plain.database)
    shell(said.partition("; then: ")[2])
    assert_mended(plain)


def test_a_table_with_the_name_of_a_partition(plain: Site) -> None:
    plain.run("--make-partitions", "0")
    plain.query("CREATE TABLE logs_2025_11_17 (mine text)")
    said = told(plain)
    follow_sql(said.partition("attach it to logs, or: ")[2].partition("; new lines")[0], plain.database)
    assert_mended(plain)


def test_another_programs_logs_in_a_schema_that_the_page_does_not_see(role: str, site: Site) -> None:
    site.run()
    site.query("CREATE SCHEMA hidden")
    for (table,) in site.query(
        "SELECT relname FROM pg_class WHERE relkind IN ('r', 'p') AND relnamespace = 'public'::regnamespace"
    ):
        site.query(f"ALTER TABLE {table} SET SCHEMA hidden")
    site.query(f"GRANT SELECT ON ALL TABLES IN SCHEMA hidden TO {role}")
    said = site.run("--output", str(site.folder / "page.html"), script="report_logs", status=Exit.OPERATOR).stderr
    follow_sql(said.partition("as the owner of that schema: ")[2].partition("; no page")[0], site.database)
    site.run("--output", str(site.folder / "page.html"), "-q", script="report_logs")
    assert (site.folder / "page.html").exists()


# --- files -------------------------------------------------------------------------------------------------------


def shell(command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["/bin/sh", "-c", command], capture_output=True, text=True, check=False)


def test_another_run_at_work_is_shown(plain: Site) -> None:
    with lockfile.locked(lockfile.lock_path(plain.log, plain.folder)):
        said = told(plain, Exit.BUSY)
        checked = plain.run("--check", status=Exit.OPERATOR).stdout
    assert said.partition("what it does: ")[2] in checked
    if not Path("/usr/bin/ps").exists() and not Path("/bin/ps").exists():
        pytest.skip("no procps here")
    assert str(os.getpid()) in shell(said.partition("what it does: ")[2]).stdout
    assert_mended(plain)


def test_a_folder_in_the_place_of_a_lock(plain: Site) -> None:
    plain.log.with_name("access.log.lock").mkdir()
    said = told(plain)
    assert shell(said.partition("what to do: ")[2].removeprefix("sudo ")).returncode == 0
    assert_mended(plain)


@pytest.mark.parametrize("what", ["folder", "file"])
def test_another_file_in_the_place_of_the_buffer(plain: Site, what: str) -> None:
    plain.buffer.mkdir() if what == "folder" else plain.buffer.write_text("not ours\n")
    said = told(plain)
    assert re.search(r"name another (file, )?\[parser\] offline_file in ", said)
    plain.set("parser", offline_file="other.jsonl")
    assert_mended(plain)


def test_a_file_in_the_place_of_a_folder(plain: Site) -> None:
    """It may be any program's: it is shown, and another path is to be named."""
    (plain.folder / "var").write_text("a file\n")
    plain.set("parser", offline_file="var/buffer.jsonl")
    said = told(plain)
    assert f"; if another one is meant, change [parser] offline_file in {plain.config}; " in said
    assert f"{plain.folder}/var is a file, and no folder: ls -ld {plain.folder}/var" in said
    plain.set("parser", offline_file="buffer.jsonl")
    assert_mended(plain)


def test_a_table_of_statistics_with_another_header(plain: Site) -> None:
    plain.set("stats", format="csv")
    plain.stats.write_text("a,b\n")
    said = told(plain)
    assert shell(said.partition("move it away: ")[2].partition("; committed")[0]).returncode == 0
    plain.append(line(3))
    assert plain.run().stderr == ""
    assert plain.stats.with_name("stats.jsonl.old").read_text() == "a,b\n"


def test_standard_input_that_is_closed(plain: Site) -> None:
    done = subprocess.run(
        ["/bin/sh", "-c", 'exec "$@" <&-', "sh", *plain.command("--logfile", "-")],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == Exit.OPERATOR
    piped = done.stderr.partition("what to do: ")[2].replace("LOG", shlex.quote(str(plain.log)))
    assert shell(piped).returncode == Exit.DONE
    assert plain.emails() == users(0, 3)


def test_a_folder_for_what_is_piped_in_that_is_full_is_named(plain: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    import errno
    import tempfile

    def refuse(**_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(tempfile, "TemporaryFile", refuse)
    assert plain.run_here("--logfile", "-") == Exit.OPERATOR
    mend = plain.output().partition("make room: ")[2].splitlines()[0]
    assert mend.startswith(f"df -h {plain.folder}")
    assert shell(mend).returncode == 0


def test_a_config_in_a_folder_that_is_not_there(plain: Site) -> None:
    there = plain.config
    plain.config = plain.folder / "etc" / "config.ini"
    said = plain.run(status=Exit.CONFIGURATION).stderr
    assert shell(said.partition("found nothing; ")[2].replace("sudo ", "")).returncode == 0
    assert plain.config.read_text() == (ROOT / "config.ini.example").read_text()
    plain.config = there
    assert_mended(plain)


def test_a_list_of_the_nodes_that_there_are(plain: Site) -> None:
    plain.run()
    said = plain.run("--node", "n9", script="report_logs", status=Exit.OPERATOR).stderr
    assert "expected one of the nodes n1, found n9" in said
    plain.run("--node", "n1", "-q", "--output", str(plain.folder / "page.html"), script="report_logs")
