"""What passes by itself is an outage; what only the operator can change is an error, and names the file that it is."""

from __future__ import annotations

import os
import shutil
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers import refusing
from helpers.refusing import Answer
from helpers.users import OTHER, acting_as, as_root, folder_of
from psycopg.conninfo import make_conninfo

from xraylog import password_file, tls_files
from xraylog.database import logins, refusals

KEYWORDS = {"host": "127.0.0.1", "user": "ldap", "dbname": "xray", "gssencmode": "disable", "connect_timeout": "5"}

AWAY = {
    "full, in German": Answer("tut mir leid, schon zu viele Verbindungen", "53300", "FATAL", "InitProcess"),
    "full, in Russian": Answer("оставшиеся слоты подключений зарезервированы", "53300", "ВАЖНО", "InitPostgres"),
    "starts, in French": Answer("le système de bases de données se lance", "57P03"),
    "a login that took too long": Answer("annulation de l'authentification", "57014"),
    "pgbouncer is full": Answer("no more connections allowed (max_client_conn)", "08P01"),
    "pgbouncer has no server": Answer("server login has been failing, try again later (server_login_retry)", "08P01"),
    "pgbouncer shuts down": Answer("shutting down", "08P01"),
    "Supavisor is full": Answer("MaxClientsInSessionMode: max clients reached - in Session mode", "XX000"),
    "Supavisor waits": Answer("Max client connections reached", "XX000"),
    "PgCat has no server": Answer("could not get connection from the pool - AllServersDown", "58000"),
    "Pgpool-II is full": Answer("Sorry, too many clients already", "53300"),
    "LDAP": Answer('LDAP authentication failed for user "ldap"', "28000"),
    "LDAP, in German": Answer("LDAP-Authentifizierung für Benutzer »ldap« fehlgeschlagen", "28000"),
    "RADIUS": Answer('RADIUS authentication failed for user "ldap"', "28000"),
}
FOR_THE_OPERATOR = {
    "a password, in German": Answer("Passwort-Authentifizierung für Benutzer »ldap« fehlgeschlagen", "28P01"),
    "a rule, for a user of that name": Answer('no pg_hba.conf entry for host "::1", user "ldap"', "28000"),
    "a database": Answer('database "too many clients" does not exist', "3D000"),
    "pgbouncer's database": Answer("no such database: xray", "08P01"),
    "pgbouncer's settings": Answer("unsupported startup parameter: options", "08P01"),
    "Supavisor's user": Answer("Tenant or user not found", "XX000"),
    "another program": Answer("HTTP/1.1 400 Bad Request\r\n\r\n", None),
}


def explained(port: str, **others: str) -> tuple[str, bool]:
    """Return what a session that cannot begin says, and whether it is for the operator."""
    verdict = logins.explain(make_conninfo("", **{**KEYWORDS, "port": port, **others}))
    assert verdict is not None
    return "; ".join(filter(None, (str(verdict.error), verdict.error.sqlstate, verdict.to_do))), verdict.is_for_operator


@pytest.mark.parametrize("answer", AWAY.values(), ids=AWAY)
def test_a_server_that_is_full_or_on_its_way_is_away_in_any_language(answer: Answer) -> None:
    with refusing.server(answer) as port:
        said, is_for_operator = explained(port)
    assert not is_for_operator
    assert f"{answer.words}; {answer.state}" in said
    assert "LOCATION" not in said


@pytest.mark.parametrize("answer", FOR_THE_OPERATOR.values(), ids=FOR_THE_OPERATOR)
def test_a_refusal_is_for_the_operator(answer: Answer) -> None:
    with refusing.server(answer) as port:
        assert explained(port)[1]


def test_the_order_of_hosts_makes_no_difference() -> None:
    away, refused = AWAY["full, in German"], FOR_THE_OPERATOR["a password, in German"]
    with refusing.server(away) as full, refusing.server(refused) as closed:
        for ports in (f"{full},1", f"1,{full}"):
            assert not explained(ports, host="127.0.0.1,127.0.0.1")[1]
        for ports in (f"{closed},{full}", f"{full},{closed}", f"1,{closed}"):
            assert explained(ports, host="127.0.0.1,127.0.0.1")[1]


def test_what_ends_a_statement_is_named_in_any_language() -> None:
    found = refusals.describe("Anfrage wird storniert", {"user": "xray", "dbname": "logs"}, "57014")
    assert found is not None
    assert 'ALTER ROLE "xray" RESET statement_timeout; ALTER DATABASE "logs" RESET statement_timeout' in found.to_do


def test_a_server_that_takes_the_connection_and_does_not_answer_is_away() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        conninfo = make_conninfo("", **{**KEYWORDS, "port": silent.getsockname()[1], "connect_timeout": 2})
        verdict = logins.explain(conninfo)
    assert verdict is not None
    assert str(verdict.error) == logins.UNANSWERED
    assert not verdict.is_for_operator
    found = refusals.describe(str(verdict.error), {**KEYWORDS, "port": "5433"}, None)
    assert found is not None
    assert "does not answer" in found.cause
    assert found.to_do.startswith("see on that machine: sudo ss -ltnp 'sport = :5433'; ")


# --- the client's files of TLS ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with certificates and keys: of the server, of a client that it trusts, of one that it does not."""
    folder = tmp_path_factory.mktemp("tls")
    folder.chmod(0o755)
    for name in ("localhost", "trusted", "stranger"):
        refusing.certificate(folder, name)
    return folder


@pytest.fixture
def home(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """~/.postgresql with what this server expects."""
    monkeypatch.setenv("HOME", str(tmp_path))
    folder = tmp_path / ".postgresql"
    folder.mkdir()
    for name, source in (("postgresql.crt", "trusted.crt"), ("postgresql.key", "trusted.key"),
                         ("root.crt", "localhost.crt")):  # fmt: skip
        (folder / name).write_bytes((made / source).read_bytes())
        (folder / name).chmod(0o600)
    return folder


@pytest.fixture
def port(made: Path) -> Iterator[str]:
    """Of a server with TLS that trusts one client."""
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(made / "localhost.crt", made / "localhost.key")
    tls.load_verify_locations(made / "trusted.crt")
    tls.verify_mode = ssl.CERT_OPTIONAL
    with refusing.server(Answer("connection requires a valid client certificate", "28000"), tls) as found:
        yield found


def test_a_key_that_others_may_read(port: str, home: Path) -> None:
    (home / "postgresql.key").chmod(0o644)
    said, is_for_operator = explained(port, sslmode="require")
    assert is_for_operator
    assert said.endswith(f"; chmod 600 {home}/postgresql.key")


def test_a_certificate_without_its_key(port: str, home: Path) -> None:
    (home / "postgresql.key").unlink()
    said, is_for_operator = explained(port, sslmode="require")
    assert is_for_operator
    assert f"the private key of {home}/postgresql.crt is expected there" in said


def test_a_key_of_another_certificate(port: str, home: Path, made: Path) -> None:
    said, is_for_operator = explained(port, sslmode="require", sslkey=str(made / "stranger.key"))
    assert is_for_operator
    assert f"openssl x509 -noout -pubkey -in {home}/postgresql.crt" in said
    assert f"openssl pkey -pubout -in {made}/stranger.key" in said


@pytest.mark.parametrize(("name", "key"), [("postgresql.key", "sslkey"), ("postgresql.crt", "sslcert")])
def test_a_file_that_is_none(port: str, home: Path, name: str, key: str) -> None:
    (home / name).write_text("nothing\n")
    for others in ({}, {key: str(home / name)}):
        said, is_for_operator = explained(port, sslmode="require", **others)
        assert is_for_operator
        assert f" -in {home}/{name}" in said


def test_a_certificate_that_is_not_there(port: str) -> None:
    said, is_for_operator = explained(port, sslmode="require", sslcert="/nowhere/postgresql.crt")
    assert is_for_operator
    assert "[postgresql] sslcert: there is no /nowhere/postgresql.crt" in said


def test_a_certificate_that_the_server_asks_for(port: str, home: Path) -> None:
    assert f"-subject -in {home}" not in explained(port, sslmode="require")[0]
    (home / "postgresql.crt").unlink()
    said, is_for_operator = explained(port, sslmode="require")
    assert is_for_operator
    assert f"there is no {home}/postgresql.crt: put it there, or name it in [postgresql] sslcert" in said


@pytest.mark.usefixtures("home")
def test_a_certificate_that_the_server_does_not_trust(port: str, made: Path) -> None:
    files = {"sslcert": str(made / "stranger.crt"), "sslkey": str(made / "stranger.key")}
    said, is_for_operator = explained(port, sslmode="require", ssl_max_protocol_version="TLSv1.2", **files)
    assert is_for_operator
    assert f"the server does not accept {made}/stranger.crt" in said


def test_a_server_that_the_client_does_not_trust(port: str, home: Path, made: Path) -> None:
    root = home / "root.crt"
    root.write_bytes((made / "stranger.crt").read_bytes())
    said, is_for_operator = explained(port, sslmode="verify-full", host="localhost")
    assert is_for_operator
    assert f"openssl s_client -starttls postgres -connect localhost:{port} -CAfile {root}" in said
    root.unlink()
    assert "copy the certificate of the authority there" in explained(port, sslmode="verify-full")[0]
    root.write_bytes((made / "localhost.crt").read_bytes())
    assert "[postgresql] host: a name that the certificate has" in explained(port, sslmode="verify-full")[0]


def test_a_file_of_passwords_that_is_none_is_called_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said = "fe_sendauth: no password supplied"
    assert "it is no file: name another one in [postgresql] passfile" in password_file.how_to_fix(
        said, {"passfile": str(tmp_path)}
    )
    monkeypatch.setenv("HOME", str(tmp_path))
    assert password_file.how_to_fix(said, {}) == ""  # the usual one is not there, and nothing names another


def test_a_path_that_no_file_can_have_is_not_taken_for_a_missing_file() -> None:
    said = f'could not read certificate file "/{"x" * 5000}": File name too long'
    assert tls_files.without_noise(said) == said


@as_root
@pytest.mark.parametrize("reason", ["", " ", " \x01\n\x7f", " Permission denied"])
def test_whatever_openssl_gives_as_the_reason_for_a_closed_file_it_is_named(reason: str) -> None:
    with folder_of(OTHER) as folder:
        file = folder / "client.crt"
        file.touch(mode=0o600)
        with acting_as(OTHER):
            said = tls_files.without_noise(f'could not read certificate file "{file}":{reason}')
    assert said == f'could not read certificate file "{file}": Permission denied'


@as_root
def test_a_file_in_a_closed_folder_is_named() -> None:
    with folder_of(OTHER) as folder:
        closed = folder / "closed"
        closed.mkdir(mode=0o700)
        with acting_as(OTHER):
            said = tls_files.without_noise(f'could not read certificate file "{closed}/client.crt": \x01')
    assert said == f'could not read certificate file "{closed}/client.crt": Permission denied'


@as_root
@pytest.mark.parametrize("name", ["postgresql.key", "postgresql.crt", "root.crt"])
def test_a_file_that_this_user_may_not_read(port: str, home: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with folder_of(OTHER) as folder:
        files = folder / ".postgresql"
        shutil.copytree(home, files)
        for path in (files, *files.iterdir()):
            os.chown(path, *((0, 0) if path.name == name else (OTHER, OTHER)))
        monkeypatch.setenv("HOME", str(folder))
        with acting_as(OTHER):
            said, is_for_operator = explained(port, sslmode="verify-ca")
        assert is_for_operator
        assert f'file "{files}/{name}": Permission denied; what to do: sudo chown ' in said
        assert said.endswith(f" {files}/{name}")
