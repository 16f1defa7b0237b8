"""What libpq and the server say when there is no session: the cause, and what mends it. Texts as they print them."""

from __future__ import annotations

import pytest

from xraylog.database import refusals

KEYWORDS = {"host": "db.internal", "port": "5433", "dbname": "xray", "user": "xray", "password": "Zq7xK"}
TEXTS = [
    (
        ('connection failed: connection to server at "192.0.2.7", port 5433 failed: Connection refused; Is the server '
        "running on that host and accepting TCP/IP connections?"),
        "the server is down: nothing listens on db.internal, port 5433",
        "what to do, on that machine: sudo systemctl start postgresql",
    ),
    (
        "connection failed: connection timeout expired",
        "nothing answers at db.internal, port 5433: the machine is off, or a firewall drops what we send",
        "see: ping -c1 db.internal",
    ),
    (
        'failed: FATAL:  no pg_hba.conf entry for host "192.0.2.1", user "xray", database "xray", no encryption',
        "the server's pg_hba.conf does not let this machine in",
        ('add above the others in the file that SHOW hba_file names: host "xray" "xray" 192.0.2.1/32 scram-sha-256; '
        "as a superuser of PostgreSQL: SELECT pg_reload_conf()"),
    ),
    (
        'failed: FATAL:  Ident authentication failed for user "xray"',
        "the server's pg_hba.conf has the method ident, which asks a service of this machine for its user",
        ("write scram-sha-256 for it in the file that SHOW hba_file names; "
        "as a superuser of PostgreSQL: SELECT pg_reload_conf()"),
    ),
    (
        'failed: FATAL:  Peer authentication failed for user "xray"',
        'by that socket only the system\'s user "xray" may be this role',
        "or run as that user",
    ),
    (
        'failed: FATAL:  role "xray" does not exist',
        'the server has no role "xray"',
        "as a superuser of PostgreSQL: CREATE ROLE \"xray\" LOGIN PASSWORD 'choose one'",
    ),
    (
        "connection failed: fe_sendauth: no password supplied",
        "the server asks for a password, and there is none",
        "",
    ),
    (
        "failed: FATAL:  sorry, too many clients already",
        "every session that the server has is taken",
        (
            "who has them: SELECT pid, usename, application_name, state FROM pg_stat_activity; as a superuser of "
            "PostgreSQL: SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE state = 'idle' AND state_change < now() - interval '1 hour'"
        ),
    ),
    (
        "failed: FATAL:  the database system is starting up",
        "the server is starting or shutting down",
        "wait for it: pg_isready",
    ),
    (
        "server closed the connection unexpectedly; This probably means the server terminated abnormally",
        "the server, or the network, ended the session",
        "see: sudo journalctl -u postgresql -n 50",
    ),
    (
        "no answer for 60 s from the server's process 4711",
        "the server keeps the connection, and does not answer",
        f"what it waits for: {refusals.WAITS}",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("text", "cause", "to_do"), TEXTS, ids=[cause[:30] for _, cause, _ in TEXTS])
def test_a_text_has_its_cause_and_its_way_out(text: str, cause: str, to_do: str) -> None:
    found = refusals.describe(text, KEYWORDS, None)
    assert found is not None
    assert (found.cause, found.to_do) == (cause, to_do)


@pytest.mark.parametrize(
    ("state", "cause"),
    [
        ("55P03", "another session keeps the lock"),
        ("53100", "the server's disk is full"),
        ("57P01", "the server, or its administrator, ended the session"),
        ("57P05", "idle_session_timeout is too short: a run is idle while it reads the log"),
    ],
)
def test_a_state_counts_whatever_the_language_is(state: str, cause: str) -> None:
    found = refusals.describe("das Schloss ist vergeben", KEYWORDS, state)
    assert found is not None
    assert found.cause == cause
    assert found.to_do


@pytest.mark.parametrize(
    ("client", "entry"),
    [
        ('host "2001:db8::1", user', 'host "xray" "xray" 2001:db8::1/128 scram-sha-256'),
        ('host "[local]", user', 'local "xray" "xray" scram-sha-256'),
        ('host "client.example.org", user', 'host "xray" "xray" ADDRESS/32 scram-sha-256'),
        ("Host »192.0.2.1«, Benutzer", 'host "xray" "xray" ADDRESS/32 scram-sha-256'),
    ],
)
def test_an_entry_of_pg_hba_conf_is_that_of_the_client(client: str, entry: str) -> None:
    found = refusals.describe(f"FATAL:  no pg_hba.conf entry for {client}", KEYWORDS, "28000")
    assert found is not None
    assert f": {entry}; " in found.to_do
    assert found.change == ""


def test_a_server_that_lets_in_with_tls_alone_is_one_of_the_causes() -> None:
    text = 'FATAL:  no pg_hba.conf entry for host "192.0.2.1", user "xray", database "xray", no encryption'
    found = refusals.describe(text, {**KEYWORDS, "sslmode": "disable"}, "28000")
    assert found is not None
    assert found.change == "if it accepts only TLS, change [postgresql] sslmode"


def test_a_standby_that_takes_no_sessions_is_not_waited_for() -> None:
    text = "FATAL:  the database system is not accepting connections; DETAIL:  Hot standby mode is disabled."
    found = refusals.describe(text, KEYWORDS, "57P03")
    assert found is not None
    assert found.change == "change [postgresql] host: it must lead to the primary"


def test_what_nothing_is_known_of_has_no_cause() -> None:
    assert refusals.describe("etwas anderes", KEYWORDS, "XX000") is None


@pytest.mark.parametrize("host", ["", "/var/run/postgresql", "localhost", "127.0.0.1", "::1"])
def test_a_server_of_this_machine_is_started_here(host: str) -> None:
    found = refusals.describe("Connection refused", {**KEYWORDS, "host": host}, None)
    assert found is not None
    assert found.to_do == "what to do: sudo systemctl start postgresql"


def test_a_socket_that_is_not_there_is_named() -> None:
    text = (
        'connection to server on socket "/run/x/.s.PGSQL.5433" failed: No such file or directory; Is the server '
        "running locally and accepting connections on that socket?"
    )
    found = refusals.describe(text, {**KEYWORDS, "host": "/run/x"}, None)
    assert found is not None
    assert found.cause == "the server is down: nothing listens on /run/x/.s.PGSQL.5433"


@pytest.mark.parametrize("key", ["host", "user", "dbname"])
@pytest.mark.parametrize("text", [text for text, _, _ in TEXTS])
def test_a_password_in_a_wrong_key_is_not_shown(key: str, text: str) -> None:
    found = refusals.describe(text, {**KEYWORDS, key: KEYWORDS["password"]}, None)
    assert KEYWORDS["password"] not in str(found)
