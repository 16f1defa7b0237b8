"""config.ini is read as it is written: every mistake in it is reported at once, and its password never."""

from __future__ import annotations

import contextlib
import io
import re
import socket
from collections.abc import Callable, Mapping
from pathlib import Path

import psycopg
import pytest
from helpers.config import written
from helpers.site import ROOT, Site, line, lines, users

import parse_logs
from xraylog import config
from xraylog.database import session

EXAMPLE = ROOT / "config.ini.example"


pytestmark = pytest.mark.usefixtures("nothing_of_the_machine")


def test_the_example_filled_in_stores_lines(site: Site) -> None:
    """Copied, and host, dbname, user, password and the two files changed; the port as the tests' is another."""
    site.append(*lines(0, 3))
    text = EXAMPLE.read_text().replace("# port = 5432", "port = 5432")
    for key, value in {**site.database, "logfile": str(site.log), "offline_file": str(site.buffer)}.items():
        text, found = re.subn(rf"^{key} = .*$", f"{key} = {value}", text, flags=re.MULTILINE)
        assert found == 1, key
    written(site.folder, text)
    assert site.main() == 0
    assert site.emails() == users(0, 3)


def test_a_keyword_of_libpq_reaches_the_server(site: Site) -> None:
    site.set("postgresql", application_name="another name", options="-c work_mem=1234kB")
    with session.connect(config.read(site.config).connection) as conn:
        row = conn.execute("SELECT current_setting('application_name'), current_setting('work_mem')").fetchone()
    assert row == ("another name", "1234kB")


def test_a_service_stands_for_host_dbname_and_user(
    site: Site, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    services = site.folder / "pg_service.conf"
    services.write_text("[xray]\n" + "".join(f"{key}={value}\n" for key, value in site.database.items()))
    monkeypatch.setenv("PGSERVICEFILE", str(services))
    site.settings["postgresql"] = {"service": "xray"}
    site.write_config()
    site.append(*lines(0, 3))
    assert site.main() == 0, capsys.readouterr().err
    assert site.emails() == users(0, 3)


def test_a_wrong_config_touches_nothing(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    """All of it is good except one key: still no lock, no statistics, no log of its own, no table."""
    site.set("stats", outputs="x")
    site.set("logging", file="own.log")
    site.append(*lines(0, 3))
    before = snapshot(site.folder)
    for more in ((), ("--check",), ("-v",)):
        assert site.main(*more) == 78
        assert capsys.readouterr().out == ""
    assert snapshot(site.folder) == before
    assert site.query("SELECT to_regclass('logs')") == [(None,)]


def snapshot(folder: Path) -> dict[str, tuple[int, int]]:
    return {str(path): (path.stat().st_size, path.stat().st_mtime_ns) for path in (folder, *folder.rglob("*"))}


MARKER = "zq7xk"  # at both ends of every secret here, to find also a part of it, in whatever case


def asks_for_a_password(keywords: Mapping[str, str]) -> bool:
    try:
        psycopg.connect(**{**keywords, "password": "not this one"}).close()  # type: ignore[arg-type]
    except psycopg.OperationalError:
        return True
    return False


@pytest.fixture
def guarded(site: Site) -> Site:
    """A site whose server asks for a password."""
    if not asks_for_a_password(site.database):
        pytest.skip("the server given by --dsn asks for no password")
    site.append(*lines(0, 3))
    return site


def by_variable(site: Site, password: str, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: ARG001
    monkeypatch.setenv("PGPASSWORD", password)


def by_file_of_variable(site: Site, password: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGPASSFILE", str(password_file(site, password)))


def by_keyword(site: Site, password: str, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: ARG001
    site.set("postgresql", passfile=str(password_file(site, password)))


def password_file(site: Site, password: str) -> Path:
    path = site.folder / "pgpass"
    path.write_text(f"*:*:*:*:{password}\n")
    path.chmod(0o600)
    return path


@pytest.mark.parametrize("key", [None, ""], ids=["no key", "an empty key"])
@pytest.mark.parametrize("way", [by_variable, by_file_of_variable, by_keyword])
def test_without_a_password_libpqs_own_ways_work(
    guarded: Site, monkeypatch: pytest.MonkeyPatch, way: Callable[..., None], key: str | None
) -> None:
    password = guarded.settings["postgresql"].pop("password")
    if key is not None:
        guarded.set("postgresql", password=key)
    guarded.write_config()
    assert guarded.main("-q") == 3
    way(guarded, password, monkeypatch)
    assert guarded.main("-q") == 0
    assert guarded.emails() == users(0, 3)


def output_of(path: Path, *arguments: str) -> tuple[int, str]:
    """Exit status, and all that a run says and writes: stdout, stderr, its own log and the statistics."""
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        status = parse_logs.main(["--config", str(path), *arguments])
    written_files = [path.parent / name for name in ("own.log", "stats.jsonl")]
    return status, said.getvalue() + "".join(file.read_text() for file in written_files if file.exists())


NOT_CONNECTED: dict[str, dict[str, str]] = {
    "a wrong password": {},
    "a port that refuses": {"port": "REFUSED"},
    "a folder without a socket": {"host": "/nonexistent"},
    "an unknown sslmode": {"sslmode": "SSLMODE"},
    "no SSL": {"sslmode": "require", "dbname": "no such database"},
    "a timeout that is no number": {"connect_timeout": "many"},
    "keepalives that are no number": {"keepalives": "many"},
    "an unknown encoding": {"client_encoding": "x"},
    "unknown attributes": {"target_session_attrs": "x"},
    "an unknown setting": {"options": "-c nonsense=1"},
    "no such service": {"service": "no such service"},
    "more ports than hosts": {"port": "5432,5433"},
    "a URI as the host": {"host": "postgresql://postgres:PASSWORD@db/x"},
    "a URI as the service": {"service": "postgresql://postgres:PASSWORD@db/x"},
    "a URI as the port": {"port": "postgresql://postgres:PASSWORD@db/x"},
    "a URI as the user": {"user": "postgresql://postgres:PASSWORD@db/x"},
    "pairs as an option": {"options": "host=db password=PASSWORD"},
    "the password as the host": {"host": "PASSWORD"},
    "the password among the hosts": {"host": "127.0.0.1,PASSWORD"},
    "the password as the user": {"user": "PASSWORD"},
    "the password as the database": {"dbname": "PASSWORD"},
    "the password as the port": {"port": "PASSWORD"},
    "the password as the service": {"service": "PASSWORD"},
    "the password as sslmode": {"sslmode": "PASSWORD"},
    "the password as an option": {"options": "-c PASSWORD=1"},
    "an indented key": {"user": "postgres\n  sslmode = prefer\n  password = Zq7xK"},
    "an indented key under the host": {"host": "127.0.0.1\n  password = Zq7xK"},
}


@pytest.mark.parametrize("keywords", NOT_CONNECTED.values(), ids=NOT_CONNECTED.keys())
@pytest.mark.parametrize("arguments", [("-v",), ("--check", "-v")], ids=["run", "check"])
def test_no_failed_connection_tells_the_password(
    server_keywords: dict[str, str], tmp_path: Path, keywords: dict[str, str], arguments: tuple[str, ...]
) -> None:
    secret = "Zq7xK%(user)s=:#{}<red>'\\Zq7xK"  # noqa: S105
    site = Site(tmp_path, {**server_keywords, "dbname": "no such database"})
    site.set("logging", file="own.log")
    site.append(*lines(0, 3))
    with socket.socket() as bound:  # without listen: nobody else gets the port, and it refuses
        bound.bind(("127.0.0.1", 0))
        port = str(bound.getsockname()[1])
        refused = {key: value.replace("REFUSED", port).replace("PASSWORD", secret) for key, value in keywords.items()}
        site.set("postgresql", password=secret, **refused)
        status, said = output_of(site.config, *arguments)
    assert status != 0 or "WARNING" in said  # an outage: the lines are buffered
    assert said
    assert MARKER not in said.casefold()
    if "--check" in arguments or status == 78:
        assert site.log.read_text() == "".join(lines(0, 3))
    else:
        assert site.buffered() == users(0, 3)


@pytest.mark.parametrize("arguments", [("-v",), ("--check", "-v")], ids=["run", "check"])
def test_a_good_run_does_not_tell_the_password_either(site: Site, arguments: tuple[str, ...]) -> None:
    site.append(*lines(0, 3), "a bad line\n")
    site.set("logging", file="own.log")
    site.config.chmod(0o644)
    _, said = output_of(site.config, *arguments)
    assert "holds a password" in said
    if password := site.database.get("password"):
        assert password not in said


def test_an_unexpected_error_does_not_tell_the_password(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """With -v its traceback is shown, and a traceback may show values."""

    def break_down(keywords: Mapping[str, str]) -> None:
        raise RuntimeError(len(keywords))

    monkeypatch.setattr(session, "connect", break_down)
    site.set("postgresql", password="Zq7xK")  # noqa: S106
    site.set("logging", file="own.log")
    site.append(line(1))
    status, said = output_of(site.config, "-v")
    assert status == 1
    assert "Traceback" in said
    assert MARKER not in said.casefold()


@pytest.mark.parametrize(("script", "option"), [("parse_logs", "--logfile"), ("report_logs", "--output")])
@pytest.mark.parametrize("name", ["access.log.lock", "buffer.jsonl.lock"])
def test_our_own_lock_is_refused_on_the_command_line(site: Site, script: str, option: str, name: str) -> None:
    said = site.run(option, f"{site.folder}/{name}", status=78, script=script).stderr
    assert said.startswith(f"{option}: expected ")
    assert said.endswith(f", found a lock, {site.folder}/{name}\n")


LOOP = (
    "expected the path of a file, found {folder}/loop: Too many levels of symbolic links; see: namei -l {folder}/loop"
)


@pytest.mark.parametrize(
    ("section", "key"), [("parser", "logfile"), ("parser", "offline_file"), ("stats", "output"), ("logging", "file")]
)
def test_a_link_that_leads_to_itself_is_a_complaint(
    site: Site, capsys: pytest.CaptureFixture[str], section: str, key: str
) -> None:
    (site.folder / "loop").symlink_to("loop")
    site.set(section, **{key: "loop"})
    assert site.main() == 78
    said = capsys.readouterr().err
    assert said == f"{site.config}: [{section}] {key}: {LOOP.format(folder=site.folder)}\n"


@pytest.mark.parametrize(
    ("script", "option"), [("parse_logs", "--logfile"), ("report_logs", "--output"), ("parse_logs", "--config")]
)
def test_a_link_that_leads_to_itself_is_refused_on_the_command_line(site: Site, script: str, option: str) -> None:
    (site.folder / "loop").symlink_to("loop")
    said = site.run(option, f"{site.folder}/loop", status=78, script=script).stderr
    expected = LOOP.format(folder=site.folder)
    if option == "--config":
        option = f"{site.folder}/loop"
        expected = "expected a file that can be read, found: Too many levels of symbolic links"
        expected += f"; see: namei -l {site.folder}/loop"
    assert said == f"{option}: {expected}\n"
