"""Find out why no session began: the server is down or busy, or only the operator can fix it, and then how.

A server's refusal has a SQLSTATE, but libpq shows it only in verbose mode, which psycopg cannot switch on. So each host
is tried once more, with verbose messages. Before login, a server's messages are in its configured language. libpq's own
are in English, because Python does not change LC_MESSAGES from "C".
"""

from __future__ import annotations

import contextlib
import ctypes
import re
import select
import sys
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

import psycopg
from psycopg import pq
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from xraylog import password_file, tls_files

# SQLSTATEs, or how they begin, of errors that pass without the operator: connection, too many clients, no memory or
# disk, shutdown and recovery, a cancelled statement, a lock not granted, serialisation, a deadlock, a read-only server,
# an idle transaction ended. This includes 08P01, which pgbouncer uses for all its errors.
TEMPORARY = ("08", "53", "57P0", "57014", "55P03", "40001", "40P01", "25006", "25P03", "25P04")
POOLER_STATES = ("08P01", "58", "XX")  # poolers use these for all errors, so their words decide, which are in English
INVALID_AUTHORIZATION = "28000"
# Words of pgbouncer, Supavisor, PgCat, Odyssey, Pgpool-II and RDS Proxy, and of a server whose SQLSTATE could not be
# read. Those of the last lines are of Citus, and of libpq as Citus quotes it: a worker is down, or a shard is moved.
BUSY = re.compile(
    r"""no\ more\ connections\ allowed | client\ connections\ exceeded | max\ clients\ reached
      | max\ client\ connections | too\ many\ (?:clients|connections|tcp\ connections)
      | remaining\ connection\ slots | the\ database\ system\ is\ (?:starting|shutting|in\ recovery|not\ yet)
      | login\ has\ been\ failing | server_login_retry | cannot\ connect\ to\ server | DNS\ lookup\ failed
      | (?:query_wait|client_login|client_idle)_timeout | server\ conn\ crashed | admin\ forced\ disconnect
      | (?:server|pooler|bouncer)?\ ?(?:is\ )?shutting\ down | unable\ to\ check\ out | timed-out\ waiting
      | could\ not\ get\ connection\ from\ the\ pool | all\ ?servers\ ?down | all\ backend\ nodes\ are\ down
      | failed\ to\ get\ remote\ server\ connection | failed\ to\ create\ a\ backend\ connection
      | failed\ to\ (?:COPY\ to\ shard|complete\ COPY\ on) | terminating\ connection\ due\ to
      | could\ not\ acquire\ the\ lock\ required\ to | SSL\ SYSCALL\ error
      | server\ closed\ the\ connection\ unexpectedly | connection\ not\ open | connection\ to\ the\ remote\ node
    """,
    re.IGNORECASE | re.VERBOSE,
)
REFUSED_BY_WORKER = re.compile(
    r"""connection\ to\ the\ remote\ node .* (?:no\ password\ supplied | password\ authentication\ failed
      | pg_hba\.conf | (?:role|database)\ ".*"\ does\ not\ exist)
    """,
    re.VERBOSE | re.DOTALL,
)
# libpq's words for errors that the operator must fix: a server that the settings exclude, TLS files, wrong settings.
PERMANENT = re.compile(
    r"""does\ not\ support\ SSL | server\ certificate | server's\ certificate | certificate\ verify\ failed
      | (?:certificate|private\ key|CRL)\ file\ " | root\ certificate | SSL\ error: | SSL\ context | SSL\ engine
      | weak\ sslmode | verified\ SSL\ connection | channel\ binding | requirement\ .*\ failed
      | GSSAPI\ encryption\ required | no\ password\ supplied | for\ connection\ option
      | parameter\ must\ be\ an\ integer  # the same, until libpq 12
      | could\ not\ parse\ network\ address | on\ socket\ ".*"\ failed:\ Permission\ denied
      | received\ invalid\ response | expected\ authentication\ request  # no PostgreSQL listens there
      | session\ is\ not\ read-only | server\ is\ not\ in\ hot\ standby  # asked for by target_session_attrs
    """,
    re.VERBOSE,
)
# libpq's words for errors that pass, although a ping may find a server: it is starting, or in recovery. Until libpq 13,
# "could not make a writable connection" was the message for a session that is read-only.
PASSING = re.compile(
    r"""session\ is\ read-only | in\ hot\ standby\ mode | could\ not\ make\ a\ writable\ connection
      | timeout\ expired | closed\ the\ connection\ unexpectedly | closed\ unexpectedly | SSL\ SYSCALL\ error
      | Connection\ (?:refused|reset|timed\ out) | Broken\ pipe | Cannot\ contact\ any\ KDC
    """,
    re.VERBOSE,
)
STATE = re.compile(r":  ([0-9A-Z]{5}): (.*)")
LOCATION = re.compile(r"^LOCATION: .*\n?", re.MULTILINE)
LOGIN_SERVER = re.compile(r"\b(?:LDAP|RADIUS)\b")  # the same in every language
VERBOSE = 2  # PQERRORS_VERBOSE
READ, WRITE = pq.PollingStatus.READING, pq.PollingStatus.WRITING
SILENT = "connection timeout expired"
UNANSWERED = f"{SILENT}: the connection was taken, and not answered"  # refusals.py recognises these words
REACHED_S = 1.0
NO_LIMIT_S = 130  # if connect_timeout is 0: about as long as TCP itself tries


class Failed(psycopg.OperationalError):
    """No session began. Unlike psycopg's own error, it has the SQLSTATE if the server gave one."""

    def __init__(self, said: str, state: str | None = None) -> None:
        super().__init__(said)
        self.sqlstate = state


class Verdict(NamedTuple):
    """Why no session began, whether only the operator can fix it, and how, as far as that is known ("" if not)."""

    error: Failed
    is_for_operator: bool
    to_do: str


class Failure(NamedTuple):
    """A failed attempt at one host: libpq's verbose message, and the options that it used."""

    said: str
    options: dict[str, str]

    @property
    def state(self) -> str:
        """The SQLSTATE; "" if the server gave none."""
        return next((state for state, _ in reversed(STATE.findall(self.said))), "")

    @property
    def is_from_login_server(self) -> bool:
        """Return whether an LDAP or RADIUS server had to check the password: then it may be wrong, or that one down."""
        words = self.said.replace(self.options.get("user") or "\0", "")
        return self.state == INVALID_AUTHORIZATION and LOGIN_SERVER.search(words) is not None

    @property
    def words(self) -> str:
        """The message without what verbose mode adds: the location in the server's source, and the SQLSTATE."""
        said = STATE.sub(r":  \2", LOCATION.sub("", self.said)).strip()
        # libpq may have tried with and without TLS, and got the same message twice.
        return tls_files.without_noise("\n".join(dict.fromkeys(said.splitlines())))

    @property
    def to_do(self) -> str:
        """How to fix it if the cause is a TLS file or the password file, or may be a login server; otherwise ""."""
        if self.is_from_login_server:
            return "its LDAP or RADIUS server is away, or the password is wrong"
        return password_file.how_to_fix(self.said, self.options) or tls_files.how_to_fix(self.said, self.options)


def explain(conninfo: str) -> Verdict | None:
    """Try each host again; return why no session begins at any of them, or None if one begins now."""
    failures = []
    for one in _each_host(conninfo):
        if (failure := _try(one)) is None:
            return None
        failures.append((failure, is_for_operator(failure, one)))
    to_fix = [failure for failure, is_operators in failures if is_operators]
    decisive = to_fix or [failure for failure, _ in failures]
    said = "\n".join(dict.fromkeys(failure.words for failure in decisive))
    to_do = next((failure.to_do for failure in decisive if failure.to_do), "")
    return Verdict(Failed(said, decisive[0].state or None), bool(to_fix), to_do)


def after_timeout(conninfo: str) -> Failed:
    """Return the error for an attempt that timed out, which says whether anything accepts connections there at all."""
    failure = _try(conninfo, REACHED_S)
    return Failed(UNANSWERED if failure is None or failure.said != SILENT else SILENT)


def is_for_operator(failure: Failure, conninfo: str) -> bool:
    """Return whether only the operator can fix this failure; otherwise it passes without them."""
    state = failure.state
    if is_busy(failure.said) and (not state or state.startswith((*POOLER_STATES, *TEMPORARY))):
        return False
    if state:
        is_temporary = state.startswith(TEMPORARY) and not state.startswith(POOLER_STATES)
        return not is_temporary and not failure.is_from_login_server
    if PERMANENT.search(failure.said):
        return True
    if PASSING.search(failure.said):
        return False
    return pq.PGconn.ping(conninfo.encode()) in (pq.Ping.OK, pq.Ping.NO_ATTEMPT)


def is_busy(said: str) -> bool:
    """Return whether this is the message of a pooler whose server is busy or down."""
    return BUSY.search(said) is not None


def is_refused_among_servers(said: str) -> bool:
    """Return whether a worker refuses Citus's coordinator, although the SQLSTATE is that of a server that is down."""
    return REFUSED_BY_WORKER.search(said) is not None


def count_hosts(conninfo: str) -> int:
    """Return how many hosts these settings name."""
    return len(list(_each_host(conninfo)))


def _each_host(conninfo: str) -> Iterator[str]:
    """Yield the settings for each host by itself: psycopg tries all, libpq would stop at the first that refuses."""
    given = conninfo_to_dict(conninfo)
    defaults = {option.keyword.decode(): option.val or b"" for option in pq.Conninfo.get_defaults()}
    lists = {
        key: str(given.get(key) or defaults.get(key, b"").decode()).split(",") for key in ("host", "hostaddr", "port")
    }
    count = max(len(lists["host"]), len(lists["hostaddr"]))
    for number in range(count):
        one = {key: values[min(number, len(values) - 1)] for key, values in lists.items()}
        yield conninfo if count == 1 else make_conninfo(conninfo, **one)


# --- one attempt -----------------------------------------------------------------------------------------------


def _try(conninfo: str, timeout_s: float | None = None) -> Failure | None:
    """Try to open a session, and close it at once. Return why it failed, or None if it did not."""
    conn = pq.PGconn.connect_start(conninfo.encode())
    try:
        _make_verbose(conn)
        options = {option.keyword.decode(): (option.val or b"").decode(errors="replace") for option in conn.info}
        said = _wait(conn, timeout_s or _timeout(options))
        return None if said is None else Failure(said, options)
    finally:
        conn.finish()


def _wait(conn: pq.abc.PGconn, timeout_s: float) -> str | None:
    """Wait until the session is open, libpq fails or the time is over. Return the message, or None if it is open."""
    ends = time.monotonic() + timeout_s
    while conn.status != pq.ConnStatus.BAD:
        polled = conn.connect_poll()
        if polled == pq.PollingStatus.OK:
            return None
        if polled not in (READ, WRITE):
            break
        poll = select.poll()
        poll.register(conn.socket, select.POLLIN if polled == READ else select.POLLOUT)
        if not poll.poll(max(0, ends - time.monotonic()) * 1000):
            return SILENT if conn.status == pq.ConnStatus.STARTED else UNANSWERED
    return conn.get_error_message()


def _timeout(options: dict[str, str]) -> float:
    with contextlib.suppress(ValueError):
        if (seconds := int(options.get("connect_timeout", ""))) > 0:
            return max(2, seconds)  # as libpq does
    return NO_LIMIT_S


def _make_verbose(conn: Any) -> None:
    """Switch libpq to verbose messages, which contain the SQLSTATE, by ctypes: psycopg does not offer that function."""
    module = sys.modules[pq.PGconn.__module__]
    with contextlib.suppress(OSError, AttributeError):  # libpq is linked in another way: its words and a ping decide
        path = getattr(module, "libname", None) or module.__file__
        function = ctypes.CDLL(path).PQsetErrorVerbosity
        function.argtypes = [ctypes.c_void_p, ctypes.c_int]
        function(conn.pgconn_ptr, VERBOSE)
