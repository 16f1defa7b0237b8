"""Explain a message of libpq or the server about a missing or broken session: its cause, and how to fix it.

libpq's own messages are in English, because Python does not change LC_MESSAGES. The server's may be in any language.
"""

from __future__ import annotations

import ipaddress
import re
import shlex
from collections.abc import Mapping
from typing import NamedTuple

from psycopg import pq
from psycopg.sql import Identifier, Literal

from xraylog.printed import HIDDEN, has_credentials, passwords

LOCAL = re.compile(r"/|@|localhost$|127\.|::1$|$")
PORT = "5432"
START = "sudo systemctl start postgresql"
SUPERUSER = "as a superuser of PostgreSQL: "
RELOAD = "SELECT pg_reload_conf()"
QUOTED = "in quotes"
END_IDLE = (
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
    "WHERE state = 'idle' AND state_change < now() - interval '1 hour'"
)
WAITS = "SELECT pid, wait_event_type, wait_event, query FROM pg_stat_activity WHERE application_name = 'parse_logs'"


class Refusal(NamedTuple):
    """What is wrong, which key of the config to change if that is the cause, and what to do if it is not."""

    cause: str
    change: str
    to_do: str


def describe(message: str, keywords: Mapping[str, str], sqlstate: str | None) -> Refusal | None:
    """Explain a message; return None if its cause is unknown. `keywords`: the values of [postgresql]."""
    shown = _shown({**_defaults(), **keywords})
    for pattern, explain in BY_WORDS_AND_STATE:
        if re.search(pattern, message):
            return explain(shown)
    if sqlstate in BY_STATE:
        return BY_STATE[sqlstate](shown)
    for state, refusal in BY_STATE_PREFIX.items():
        if sqlstate is not None and sqlstate.startswith(state):
            return refusal
    for pattern, explain in BY_WORDS:
        if found := re.search(pattern, message):
            return explain({**shown, **found.groupdict("")})
    return None


def _shown(keywords: Mapping[str, str]) -> dict[str, str]:
    """Return the keywords as messages may show them: without passwords, even one under a wrong keyword."""
    secrets = passwords(keywords)
    hidden = {key for key, value in keywords.items() if value in secrets or has_credentials(value)}
    shown = {key: HIDDEN if key in hidden else value for key, value in keywords.items()}
    password = keywords.get("password", "")
    return shown | {"password": QUOTED if re.fullmatch(r"""(["']).*\1""", password) else ""}


def _defaults() -> dict[str, str]:
    """Return libpq's values for missing keywords: from its environment variables, or its built-in defaults."""
    options = ((option.keyword.decode(), option.val) for option in pq.Conninfo.get_defaults())
    return {key: value.decode(errors="replace") for key, value in options if value}


def place(keywords: Mapping[str, str]) -> str:
    """Return the socket, or host and port, at which the server was expected."""
    host, port = _host(keywords), keywords.get("port") or PORT
    return f"{host}/.s.PGSQL.{port}" if host.startswith("/") else f"{host or 'the local socket'}, port {port}"


def _host(keywords: Mapping[str, str]) -> str:
    return keywords.get("hostaddr") or keywords.get("host") or ""


def _is_local(keywords: Mapping[str, str]) -> bool:
    return LOCAL.match(_host(keywords)) is not None


def _role(keywords: Mapping[str, str]) -> str:
    return Identifier(keywords.get("user") or "ROLE").as_string(None)


def _database(keywords: Mapping[str, str]) -> str:
    return Identifier(keywords.get("dbname") or keywords.get("user") or "DATABASE").as_string(None)


def _down(keywords: Mapping[str, str]) -> Refusal:
    start = f"what to do: {START}" if _is_local(keywords) else f"what to do, on that machine: {START}"
    change = "if another one is meant, change [postgresql] host and port"
    return Refusal(f"the server is down: nothing listens on {place(keywords)}", change, start)


def _unknown_host(keywords: Mapping[str, str]) -> Refusal:
    host = _host(keywords)
    seen = f"see: {shlex.join(['getent', 'hosts', host])}"
    return Refusal(f"the host {host} has no known address", "if it is misspelt, change [postgresql] host", seen)


def _silent(keywords: Mapping[str, str]) -> Refusal:
    seen = f"see: {shlex.join(['ping', '-c1', _host(keywords) or 'localhost'])}"
    found = f"nothing answers at {place(keywords)}: the machine is off, or a firewall drops what we send"
    return Refusal(found, "if another one is meant, change [postgresql] host and port", seen)


def _unanswered(keywords: Mapping[str, str]) -> Refusal:
    found = (
        f"what listens on {place(keywords)} does not answer: the server hangs, or asks a RADIUS or LDAP server that is "
        "down, or it is another program"
    )
    seen = (
        f"see on that machine: sudo ss -ltnp 'sport = :{keywords.get('port') or PORT}'; journalctl -u postgresql -n 50"
    )
    return Refusal(found, "if another one is meant, change [postgresql] host and port", seen)


def _no_database(keywords: Mapping[str, str]) -> Refusal:
    name, role = _database(keywords), _role(keywords)
    create = f"{SUPERUSER}CREATE DATABASE {name} OWNER {role} ENCODING 'UTF8' TEMPLATE template0"
    return Refusal(f"the server has no database {name}", "if another one is meant, change [postgresql] dbname", create)


def _no_role(keywords: Mapping[str, str]) -> Refusal:
    create = f"{SUPERUSER}{_create(_role(keywords))}"
    found = f"the server has no role {_role(keywords)}"
    return Refusal(found, "if another one is meant, change [postgresql] user", create)


def _create(role: str) -> str:
    return f"CREATE ROLE {role} LOGIN PASSWORD 'choose one'"


def _wrong_password(keywords: Mapping[str, str]) -> Refusal:
    quotes = " (its quotes are part of it: a value has none)" if keywords.get("password") == QUOTED else ""
    role = _role(keywords)
    change = (
        f"{SUPERUSER}ALTER ROLE {role} PASSWORD 'choose one'; if it has expired: "
        f"ALTER ROLE {role} VALID UNTIL 'infinity'; if there is none: {_create(role)}"
    )
    found = "the password is not that of the role, or there is no such role"
    return Refusal(found, f"change [postgresql] password{quotes}", change)


def _no_password(_: Mapping[str, str]) -> Refusal:
    return Refusal("the server asks for a password, and there is none", "set [postgresql] password, or passfile", "")


def _no_entry(keywords: Mapping[str, str]) -> Refusal:
    client = keywords.get("client", "")
    kind, address = ("local", "") if client == "[local]" else ("host", f"{_network(client)} ")
    entry = f"{kind} {_database(keywords)} {_role(keywords)} {address}scram-sha-256"
    added = f"add above the others in the file that SHOW hba_file names: {entry}; {SUPERUSER}{RELOAD}"
    change = "if it accepts only TLS, change [postgresql] sslmode" if keywords.get("sslmode") == "disable" else ""
    return Refusal("the server's pg_hba.conf does not let this machine in", change, added)


def _network(client: str) -> str:
    """Return the entry for one client in pg_hba.conf; a placeholder if the message did not contain its address."""
    try:
        return str(ipaddress.ip_network(client))
    except ValueError:
        return "ADDRESS/32"


def _ident(_: Mapping[str, str]) -> Refusal:
    found = "the server's pg_hba.conf has the method ident, which asks a service of this machine for its user"
    change = f"write scram-sha-256 for it in the file that SHOW hba_file names; {SUPERUSER}{RELOAD}"
    return Refusal(found, "", change)


def _peer(keywords: Mapping[str, str]) -> Refusal:
    found = f"by that socket only the system's user {_role(keywords)} may be this role"
    return Refusal(found, "set [postgresql] host = 127.0.0.1 and password", "or run as that user")


def _no_login(keywords: Mapping[str, str]) -> Refusal:
    role = _role(keywords)
    return Refusal(f"the role {role} may not log in", "", f"{SUPERUSER}ALTER ROLE {role} LOGIN")


def _no_connect(keywords: Mapping[str, str]) -> Refusal:
    name = _database(keywords)
    grant = f"{SUPERUSER}GRANT CONNECT ON DATABASE {name} TO {_role(keywords)}"
    return Refusal(f"the role may not connect to the database {name}", "", grant)


def _closed_database(keywords: Mapping[str, str]) -> Refusal:
    name = _database(keywords)
    opened = f"{SUPERUSER}ALTER DATABASE {name} ALLOW_CONNECTIONS true"
    return Refusal(f"the database {name} lets no session begin", "", opened)


def _full(_: Mapping[str, str]) -> Refusal:
    who = "who has them: SELECT pid, usename, application_name, state FROM pg_stat_activity"
    return Refusal("every session that the server has is taken", "", f"{who}; {SUPERUSER}{END_IDLE}")


def _full_role(keywords: Mapping[str, str]) -> Refusal:
    lift = f"{SUPERUSER}ALTER ROLE {_role(keywords)} CONNECTION LIMIT -1"
    return Refusal(f"the role {_role(keywords)} has as many sessions as it may have", "", lift)


def _full_database(keywords: Mapping[str, str]) -> Refusal:
    lift = f"{SUPERUSER}ALTER DATABASE {_database(keywords)} CONNECTION LIMIT -1"
    return Refusal(f"the database {_database(keywords)} has as many sessions as it may have", "", lift)


def _standby(_: Mapping[str, str]) -> Refusal:
    return Refusal("the server is a standby", "change [postgresql] host: it must lead to the primary", "")


def _starting(_: Mapping[str, str]) -> Refusal:
    return Refusal("the server is starting or shutting down", "", "wait for it: pg_isready")


def _hanging(_: Mapping[str, str]) -> Refusal:
    found = "the server keeps the connection, and does not answer"
    return Refusal(found, "if it is slow, raise [postgresql] answer_timeout", f"what it waits for: {WAITS}")


def _broken(_: Mapping[str, str]) -> Refusal:
    return Refusal("the server, or the network, ended the session", "", "see: sudo journalctl -u postgresql -n 50")


def _cleartext(_: Mapping[str, str]) -> Refusal:
    found = "the server asks for the password as it is, and does not prove that it is the one"
    change = "set [postgresql] sslmode = verify-full, or a socket as host; for LDAP, RADIUS or PAM without TLS: "
    return Refusal(found, f"{change}require_auth = password", "")


def _no_tls(_: Mapping[str, str]) -> Refusal:
    change = "change [postgresql] sslmode"
    to_do = f"with its certificate in place, {SUPERUSER}ALTER SYSTEM SET ssl = on; {RELOAD}"
    return Refusal("the server has no TLS", change, to_do)


def _cancelled(keywords: Mapping[str, str]) -> Refusal:
    found = "a statement was cancelled: statement_timeout is too short, or another session did that"
    # A timeout set for the database applies to the operator's own session, too.
    reset = _reset(keywords, "statement_timeout", first="SET statement_timeout = 0; ")
    return Refusal(found, "", f"see: SHOW statement_timeout; {reset}")


def _idle(keywords: Mapping[str, str]) -> Refusal:
    found = "idle_session_timeout is too short: a run is idle while it reads the log"
    return Refusal(found, "", _reset(keywords, "idle_session_timeout"))


def _reset(keywords: Mapping[str, str], name: str, first: str = "") -> str:
    """Return the statements that reset a setting of the role, of the database, and of the role in the database.

    `first`: a statement that must run before them in the same session.
    """
    role, database = f"ALTER ROLE {_role(keywords)}", _database(keywords)
    places = (role, f"ALTER DATABASE {database}", f"{role} IN DATABASE {database}")
    return SUPERUSER + first + "; ".join(f"{place} RESET {name}" for place in places)


def _taken(keywords: Mapping[str, str]) -> Refusal:
    to_do = f"if it is another program's, give this role a schema of its own: {new_schema(_role(keywords))}"
    return Refusal("another object of the database has that name", "", to_do)


def new_schema(role: str) -> str:
    """Return the statements that give a role (quoted) its own schema. Renaming a table would break its program."""
    return f"CREATE SCHEMA xraylog AUTHORIZATION {role}; ALTER ROLE {role} SET search_path = xraylog"


def _worker_refuses(keywords: Mapping[str, str]) -> Refusal:
    found = "Citus's coordinator may not connect to a worker as this role"
    let_in = "in the worker's pg_hba.conf let every server in; with a password, on every server, "
    name = Literal(keywords.get("user") or "ROLE").as_string(None)
    login = f"INSERT INTO pg_dist_authinfo VALUES (0, {name}, 'password=…')"  # noqa: S608  # for the operator to read
    return Refusal(found, "", f"{let_in}{SUPERUSER}{login}")


def _worker_away(_: Mapping[str, str]) -> Refusal:
    health = "SELECT * FROM citus_check_cluster_node_health() WHERE result IS NOT TRUE"
    return Refusal("a worker of Citus is away, or moves a shard", "", f"see: {health}")


BY_WORDS = (
    (r"(?s)connection to the remote node .*(no password supplied|authentication failed|pg_hba)", _worker_refuses),
    (r"failed to (COPY to shard|complete COPY)|could not acquire the lock|connection to the remote node", _worker_away),
    (r"server requested a cleartext password", _cleartext),
    (r"does not support SSL", _no_tls),
    (r"Connection refused|No such file or directory\W+Is the server running", _down),
    (r"could not translate host name|Name or service not known|failed to resolve host", _unknown_host),
    (r"was taken, and not answered", _unanswered),
    (r"timeout expired|timed out|No route to host|Network is unreachable", _silent),
    (r'database ".*" does not exist', _no_database),
    (r'role ".*" does not exist', _no_role),
    (r"password authentication failed", _wrong_password),
    (r"no password supplied", _no_password),
    (r'pg_hba\.conf(.*? host "(?P<client>[^"]+)")?', _no_entry),  # this word is the same in every language
    (r"[Pp]eer authentication failed", _peer),
    (r"[Ii]dent authentication failed", _ident),
    (r'database ".*" is not currently accepting connections', _closed_database),
    (r"is not permitted to log in", _no_login),
    (r"permission denied for database", _no_connect),
    (r"too many (clients|connections)|no more connections|max client|remaining connection slots", _full),
    (r"the database system is", _starting),
    (r"no answer for .* from the server's process", _hanging),
    (r"server closed the connection|SSL SYSCALL error|terminating connection|connection to server was lost", _broken),
)
# Checked before SQLSTATEs, because these have one in common with other causes.
BY_WORDS_AND_STATE = (
    (r"too many connections for role", _full_role),
    (r"too many connections for database", _full_database),
    (r"Hot standby mode is disabled", _standby),
)
BY_STATE = {  # whatever the language of the server is
    "28P01": _wrong_password,
    "3D000": _no_database,
    "42710": _taken,  # a type
    "42P07": _taken,  # a sequence, an index, a composite type
    "53300": _full,
    "57014": _cancelled,
    "57P03": _starting,
    "57P05": _idle,
}
SESSIONS = "SELECT pid, usename, application_name, state, query FROM pg_stat_activity WHERE state <> 'idle'"
BY_STATE_PREFIX = {  # of errors in an open session, whatever the language of the server is
    "55P03": Refusal("another session keeps the lock", "", f"see who: {SESSIONS}"),
    "53100": Refusal("the server's disk is full", "", "make room on it: SHOW data_directory"),
    "57P": Refusal("the server, or its administrator, ended the session", "", "see: sudo systemctl status postgresql"),
}
