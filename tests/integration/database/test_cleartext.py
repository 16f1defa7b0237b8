"""Who listens where PostgreSQL does, while it is down, does not get the password."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from collections.abc import Iterator

import pytest
from helpers.refusing import GSS_REQUEST, SSL_REQUEST
from helpers.site import Site, line
from psycopg import pq

from xraylog import cleartext
from xraylog.cli import Exit

PASSWORD = "Zq7xK"  # noqa: S105  # of nobody
VARIABLES = ("PGHOST", "PGHOSTADDR", "PGSSLMODE", "PGREQUIREAUTH", "PGSERVICE")
CLEARTEXT = b"R" + struct.pack("!II", 8, 3)


@contextlib.contextmanager
def listener() -> Iterator[tuple[str, list[bytes]]]:
    """Yield the port of what asks for the password as it is, and what it is sent."""
    heard: list[bytes] = []

    def serve() -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = door.accept()
                with client:
                    length, kind = struct.unpack("!II", client.recv(8, socket.MSG_WAITALL))
                    while kind in (SSL_REQUEST, GSS_REQUEST):
                        client.sendall(b"N")
                        length, kind = struct.unpack("!II", client.recv(8, socket.MSG_WAITALL))
                    client.recv(length - 8, socket.MSG_WAITALL)
                    client.sendall(CLEARTEXT)
                    heard.append(client.recv(1000))

    with socket.create_server(("127.0.0.1", 0)) as door:
        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield str(door.getsockname()[1]), heard
        finally:
            door.shutdown(socket.SHUT_RDWR)  # accept ends
            thread.join()


needs_libpq_16 = pytest.mark.skipif(pq.version() < cleartext.REQUIRE_AUTH, reason="this libpq knows no require_auth")


@needs_libpq_16
@pytest.mark.parametrize("option", [[], ["--check"]], ids=["a run", "--check"])
def test_the_password_is_not_sent_as_it_is_to_a_server_that_has_not_proven_who_it_is(
    site: Site, option: list[str]
) -> None:
    site.append(line(1))
    with listener() as (port, heard):
        site.set("postgresql", host="127.0.0.1", port=port, password=PASSWORD, sslmode="prefer")
        done = site.run(*option, status=Exit.OPERATOR)
        assert "set [postgresql] sslmode = verify-full, or a socket as host" in done.stdout + done.stderr
    assert heard
    assert not any(PASSWORD.encode() in text for text in heard)


@needs_libpq_16
def test_it_is_sent_where_the_operator_says_so(site: Site) -> None:
    site.append(line(1))
    with listener() as (port, heard):
        site.set("postgresql", host="127.0.0.1", port=port, password=PASSWORD, require_auth="password")
        site.run()
    assert any(PASSWORD.encode() in text for text in heard)


@pytest.mark.parametrize("keywords", [
    {"host": "/run/postgresql"}, {"host": "@socket"}, {}, {"host": "db", "sslmode": "verify-full"},
    {"host": "db", "sslmode": "verify-ca"}, {"host": "db", "require_auth": "password"}, {"service": "xray"},
], ids=str)  # fmt: skip
def test_what_is_proven_or_decided_is_left_as_it_is(keywords: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    assert cleartext.refused(keywords, pq.version()) == {}


@pytest.mark.parametrize("keywords", [
    {"host": "db"}, {"hostaddr": "192.0.2.1"}, {"host": "/run/postgresql,db"}, {"host": "db", "sslmode": "require"},
], ids=str)  # fmt: skip
def test_what_is_not_proven_is_refused_the_password(keywords: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    assert cleartext.refused(keywords, cleartext.REQUIRE_AUTH) == {"require_auth": "!password"}
    assert cleartext.refused(keywords, cleartext.REQUIRE_AUTH - 1) == {}
