"""Each function of answers.sql gives its answer, to whoever may read the rows, and reads only the window's days."""

from __future__ import annotations

import random
import re
from collections import defaultdict
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, timezone
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
    ip_interface,
    ip_network,
)
from typing import Any, NamedTuple, TypeAlias
from zoneinfo import ZoneInfo

import psycopg
import pytest
from helpers.site import ROOT
from psycopg import errors
from psycopg.sql import SQL, Identifier

from xraylog.answers import statements
from xraylog.database import partitions, schema
from xraylog.database.session import Connection

ANSWERS = (ROOT / "answers.sql").read_text()
Network: TypeAlias = IPv4Network | IPv6Network
Answer: TypeAlias = list[tuple[Any, ...]]

MIDNIGHT = datetime(2025, 11, 17, tzinfo=timezone.utc)
DAYS = [str(MIDNIGHT.date() + timedelta(days=n)) for n in (-1, 0, 1, 2)]
EMAILS = ("alice", "bob", "carol", "nobody", None)  # nobody has no row
TAGS = ("direct", "block", None)
HOSTS = ("www.example.com", "2001:db8::53", "unused.example", "new.example", None)
SOURCES = (
    "203.0.113.7", "203.0.113.8", "203.0.114.7", "198.51.100.0/24", "203.0.0.0/16", "10.0.0.0/8",
    "2001:db8:1::1", "2001:db8:1:2::1", "2001:db8:2::1", "2001:db8:2::/48", "2001:db8::/32", None,
)  # fmt: skip
CALLS = {  # a call of each function, in a window of one day
    "addresses_of_users": "addresses_of_users('2025-11-17 00:00+00', '2025-11-18 00:00+00')",
    "sharing": "sharing('simultaneous', '2025-11-17 00:00+00', '2025-11-18 00:00+00')",
    "networks_of": "networks_of('alice', '2025-11-17 00:00+00', '2025-11-18 00:00+00')",
    "destinations_of": "destinations_of('alice', '2025-11-17 00:00+00', '2025-11-18 00:00+00')",
    "total_of": "total_of('alice', '2025-11-17 00:00+00', '2025-11-18 00:00+00')",
    "days_of": "days_of('alice', '2025-11-17 00:00+00', '2025-11-18 00:00+00')",
    "ports_of": "ports_of('alice', '2025-11-17 00:00+00', '2025-11-18 00:00+00')",
    "outbound_tags_of": "outbound_tags_of('alice', '2025-11-17 00:00+00', '2025-11-18 00:00+00')",
    "addresses_of": "addresses_of('alice', '2025-11-17 00:00+00', '2025-11-18 00:00+00')",
    "rejected_of": "rejected_of('alice', '2025-11-17 00:00+00', '2025-11-18 00:00+00')",
    "users_of": "users_of('www.example.com', '2025-11-17 00:00+00', '2025-11-18 00:00+00')",
    "who_reached": "who_reached('www.example.com', 443, '2025-11-17 12:00+00', '11 hours')",
    "online": "online('2025-11-17 08:00+00', '2025-11-17 12:00+00')",
    "users_over_time": "users_over_time('hour', '2025-11-17 00:00+00', '2025-11-18 00:00+00')",
    "last_seen_of": "last_seen_of('{alice,stranger}'::text[], '2025-11-17 00:00+00')",
    "last_seen": "last_seen('2025-11-17 00:00+00')",
    "traffic_by_hour": "traffic_by_hour('2025-11-17 00:00+00', '2025-11-18 00:00+00')",
    "traffic": "traffic('hour', '2025-11-17 00:00+00', '2025-11-18 00:00+00')",
    "traffic_per": "traffic_per('outbound', 'hour', '2025-11-17 00:00+00', '2025-11-18 00:00+00')",
    "rejected_sources": "rejected_sources('2025-11-17 00:00+00', '2025-11-18 00:00+00')",
    "rejected_networks": "rejected_networks('2025-11-17 00:00+00', '2025-11-18 00:00+00')",
    "rejected_reasons": "rejected_reasons('2025-11-17 00:00+00', '2025-11-18 00:00+00')",
    "users_from": "users_from('203.0.113.0/24', '2025-11-17 00:00+00', '2025-11-18 00:00+00')",
    "rejected_from": "rejected_from('203.0.113.0/24', '2025-11-17 00:00+00', '2025-11-18 00:00+00')",
    "users_that_fan_out": "users_that_fan_out('2025-11-17 00:00+00', '2025-11-18 00:00+00')",
    "rows_by_port": "rows_by_port('2025-11-17 00:00+00', '2025-11-18 00:00+00')",
    "users_of_ports": "users_of_ports('22,70-90', '2025-11-17 00:00+00', '2025-11-18 00:00+00')",
    "rows_by_outbound": "rows_by_outbound('2025-11-17 00:00+00', '2025-11-18 00:00+00')",
    "users_by_outbound": "users_by_outbound('block', '2025-11-17 00:00+00', '2025-11-18 00:00+00')",
    "destinations_by_outbound": "destinations_by_outbound('block', '2025-11-17 00:00+00', '2025-11-18 00:00+00')",
    "new_destinations": "new_destinations('2025-11-17 00:00+00', '2025-11-18 00:00+00')",
    "users_that_reached": "users_that_reached('*.EXAMPLE.com', NULL, '2025-11-17 00:00Z', '2025-11-18 00:00Z', '{}')",
    "connections_to": "connections_to('2001:db8::/32', 80, '2025-11-17 00:00+00', '2025-11-18 00:00+00', '{}')",
}
OF_OPTIONAL_TABLES = {
    "places_of",
    "places_of_users",
    "names_of",
    "addresses_named",
}  # of tables that may not be there: tests/integration/questions/
HELPERS = {"client_network", "client_address", "endpoint_address", "endpoint_fits"}


class Row(NamedTuple):
    """One row of logs, names in place of ids."""

    at: datetime
    source: str | None
    port: int
    action: str
    host: str | None
    host_port: int
    email: str | None
    node: str | None
    outbound: str | None = None
    reject_reason: str | None = None


def some_rows() -> list[Row]:
    """Three days, from 12 hours before MIDNIGHT on; some rows just before, at and just after a full hour."""
    chance = random.Random(7)
    rows = []
    emails = [email for email in EMAILS if email != "nobody"]
    hosts = [host for host in HOSTS if host not in ("unused.example", "new.example")]
    for n in range(600):
        at = MIDNIGHT + timedelta(hours=chance.randrange(-12, 60))
        at += chance.choice((timedelta(0), -timedelta(microseconds=1), timedelta(seconds=chance.randrange(3600))))
        source, action = chance.choice(SOURCES), chance.choice(("accepted", "rejected", "api"))
        host, port, email, node = map(chance.choice, (hosts, (80, 443), emails, ("n1", "n2", None)))
        why = ("invalid user", "timeout", "", None)[n % 4] if action == "rejected" else ""
        rows.append(Row(at, source, n + 1, action, host, port, email, node, chance.choice(TAGS), why))
    at = MIDNIGHT + timedelta(hours=5)
    return [*rows, Row(at, "203.0.113.7", 601, "accepted", "new.example", 443, "alice", "n1", "direct")]


ROWS = some_rows()
INSERT = """
    INSERT INTO logs ("timestamp", source_ip, source_port, action, destination_id, destination_port, user_id, node_id,
                      outbound_tag_id, reject_reason)
    VALUES (%s, %s, %s, %s, (SELECT id FROM endpoints WHERE address = %s), %s,
            (SELECT id FROM users WHERE email = %s), (SELECT id FROM nodes WHERE name = %s),
            (SELECT id FROM tags WHERE name = %s), %s)
"""


def fill(conn: Connection, rows: list[Row]) -> None:
    partitions.Partitions(conn).ensure([*DAYS, *(str(row.at.astimezone(timezone.utc).date()) for row in rows)])
    with conn.cursor() as cursor, conn.transaction():
        for table, column, names in (
            ("users", "email", EMAILS),
            ("endpoints", "address", HOSTS),
            ("tags", "name", TAGS),
        ):
            for name in filter(None, names):
                cursor.execute(f"INSERT INTO {table} ({column}) VALUES (%s)", [name])
        cursor.execute("INSERT INTO nodes (name) VALUES ('n1'), ('n2')")
        cursor.executemany(INSERT, rows)


@pytest.fixture
def answering(conn: Connection) -> Connection:
    """A session in a database with the functions, and no rows."""
    schema.ensure(conn)
    conn.execute(ANSWERS)
    conn.execute("SET timezone TO 'UTC'")
    return conn


@pytest.fixture
def filled(answering: Connection) -> Connection:
    """The same, with ROWS."""
    fill(answering, ROWS)
    return answering


def ask(conn: Connection, function: str, *arguments: object) -> Answer:
    call = SQL("SELECT * FROM {}({})").format(Identifier(function), SQL(", ").join(SQL("%s") * len(arguments)))
    return conn.execute(call, arguments).fetchall()


# --- the same in Python ------------------------------------------------------------------------------------


def network(source: str | None) -> Network | None:
    """The /24 or /48, or what xray's mask left."""
    if source is None:
        return None
    whole = ip_interface(source).network
    longest = 24 if whole.version == 4 else 48
    return whole if whole.prefixlen <= longest else whole.supernet(new_prefix=longest)


def grouped(rows: list[Row], key: Callable[[Row], Any]) -> dict[Any, list[Row]]:
    groups = defaultdict(list)
    for row in rows:
        groups[key(row)].append(row)
    return groups


def span(rows: list[Row]) -> tuple[int, datetime, datetime]:
    return len(rows), min(row.at for row in rows), max(row.at for row in rows)


def addresses(rows: list[Row]) -> int:
    return len({row.source for row in rows} - {None})


def networks(rows: list[Row], version: int) -> int:
    found = {network(row.source) for row in rows}
    return len([one for one in found if one is not None and one.version == version])


def window(since: datetime, until: datetime) -> list[Row]:
    return [row for row in ROWS if since <= row.at < until]


def let_in(rows: list[Row]) -> list[Row]:
    """Those of users who were: a rejected row can name one, too."""
    return [row for row in rows if row.action == "accepted"]


def both(rows: list[Row]) -> list[Row]:
    """Each of these, accepted and rejected."""
    return [row._replace(action=action) for row in rows for action in ("accepted", "rejected")]


def same(found: Answer, expected: list[tuple[Any, ...]], by: int, reverse: bool = True) -> None:
    """The same rows, however equal ones are ordered; in the order of that column."""
    assert sorted(map(repr, found)) == sorted(map(repr, expected))
    assert [row[by] for row in found] == sorted((row[by] for row in expected), reverse=reverse)


# --- the answers -------------------------------------------------------------------------------------------

HOUR = timedelta(hours=1)
WINDOWS = (
    (MIDNIGHT, MIDNIGHT + 24 * HOUR),
    (MIDNIGHT - 3 * HOUR, MIDNIGHT + 40 * HOUR),
    tuple(sorted(row.at for row in ROWS[:2])),
    (MIDNIGHT + 7 * HOUR, MIDNIGHT + 7 * HOUR),
)
in_each_window = pytest.mark.parametrize(("since", "until"), WINDOWS, ids=("a day", "days", "rows", "nothing"))


def test_a_window_has_its_first_moment_and_not_its_last(answering: Connection) -> None:
    edges = [
        MIDNIGHT - timedelta(microseconds=1),
        MIDNIGHT,
        MIDNIGHT + HOUR - timedelta(microseconds=1),
        MIDNIGHT + HOUR,
    ]
    fill(answering, both([Row(at, "203.0.113.7", 1, "", "www.example.com", 443, "alice", "n1") for at in edges]))
    inside = (2, edges[1], edges[2])

    given = MIDNIGHT, MIDNIGHT + HOUR
    assert [row[4:] for row in ask(answering, "addresses_of_users", *given)] == [inside]
    assert [row[2:] for row in ask(answering, "networks_of", "alice", *given)] == [inside]
    assert [row[2:] for row in ask(answering, "destinations_of", "alice", *given)] == [inside]
    assert [row[2:] for row in ask(answering, "rejected_of", "alice", *given)] == [inside]
    assert [row[1:] for row in ask(answering, "users_of", "www.example.com", *given)] == [inside]
    assert [row[3:] for row in ask(answering, "rejected_sources", *given)] == [inside]
    assert ask(answering, "traffic_by_hour", *given) == [(MIDNIGHT, 4)]


@in_each_window
def test_addresses_of_users(filled: Connection, since: datetime, until: datetime) -> None:
    expected = [
        (email, addresses(rows), networks(rows, 4), networks(rows, 6), *span(rows))
        for email, rows in grouped(let_in(window(since, until)), lambda row: row.email).items()
        if email is not None
    ]
    same(ask(filled, "addresses_of_users", since, until), expected, by=1)


@in_each_window
@pytest.mark.parametrize("email", ["alice", "nobody", "unknown"])
def test_networks_of_a_user(filled: Connection, email: str, since: datetime, until: datetime) -> None:
    own = [row for row in let_in(window(since, until)) if row.email == email]
    expected = [
        (of_them, addresses(rows), *span(rows))
        for of_them, rows in grouped(own, lambda row: network(row.source)).items()
    ]
    same(ask(filled, "networks_of", email, since, until), expected, by=2)


@in_each_window
@pytest.mark.parametrize("email", ["alice", "nobody", "unknown"])
def test_destinations_of_a_user(filled: Connection, email: str, since: datetime, until: datetime) -> None:
    own = [row for row in let_in(window(since, until)) if row.email == email and row.host is not None]
    expected = [(*to, *span(rows)) for to, rows in grouped(own, lambda row: (row.host, row.host_port)).items()]
    same(ask(filled, "destinations_of", email, since, until), expected, by=2)


@in_each_window
@pytest.mark.parametrize("host", ["www.example.com", "2001:db8::53", "unused.example", "unknown.example"])
def test_users_of_a_destination(filled: Connection, host: str, since: datetime, until: datetime) -> None:
    """Lines that name no user are there too: a user visited it all the same."""
    own = [row for row in let_in(window(since, until)) if row.host == host]
    expected = [(email, *span(rows)) for email, rows in grouped(own, lambda row: row.email).items()]
    same(ask(filled, "users_of", host, since, until), expected, by=1)


@pytest.mark.parametrize("hours", [None, 5])
@pytest.mark.parametrize(("host", "port"), [("2001:db8::53", 80), ("www.example.com", 443), ("www.example.com", 22)])
def test_who_reached_a_host_and_port_around_a_time(filled: Connection, host: str, port: int, hours: int | None) -> None:
    """Both ends are included; five minutes to each side, by default."""
    own = [row for row in of_clients(ROWS) if (row.host, row.host_port) == (host, port)]
    at = own[0].at + timedelta(minutes=5) if own else MIDNIGHT
    within = timedelta(minutes=5) if hours is None else hours * HOUR
    expected = [
        (row.at, row.email, row.source and ip(row.source), row.port, row.action, row.node)
        for row in own
        if at - within <= row.at <= at + within
    ]
    assert bool(expected) == bool(own)
    same(ask(filled, "who_reached", host, port, at, *([] if hours is None else [within])), expected, 0, reverse=False)


@in_each_window
@pytest.mark.parametrize("email", ["alice", "nobody", "unknown"])
def test_parts_of_a_user(filled: Connection, email: str, since: datetime, until: datetime) -> None:
    own = [row for row in let_in(window(since, until)) if row.email == email]

    def by(key: Callable[[Row], Any]) -> list[tuple[Any, list[Row]]]:
        return list(grouped(own, key).items())

    def hosts(rows: list[Row]) -> int:
        return len({row.host for row in rows} - {None})

    ports = [(port, len(rows), hosts(rows), *span(rows)[1:]) for port, rows in by(lambda row: row.host_port)]
    same(ask(filled, "ports_of", email, since, until), ports, by=1)
    tags = [(tag, len(rows), hosts(rows), *span(rows)[1:]) for tag, rows in by(lambda row: row.outbound)]
    same(ask(filled, "outbound_tags_of", email, since, until), tags, by=1)
    sources = [(source and ip(source), network(source), *span(rows)) for source, rows in by(lambda row: row.source)]
    same(ask(filled, "addresses_of", email, since, until), sources, by=2)
    days = [
        (day, len(rows), hosts(rows), addresses(rows), *span(rows)[1:])
        for day, rows in by(lambda row: row.at.astimezone(timezone.utc).date())
    ]
    same(ask(filled, "days_of", email, since, until), days, by=0, reverse=False)
    total = (len(own), hosts(own), addresses(own), len({network(row.source) for row in own} - {None}))
    assert ask(filled, "total_of", email, since, until) == [(*total, *(span(own)[1:] if own else (None, None)))]
    refused = [row for row in window(since, until) if row.email == email and row.action == "rejected"]
    by_reason = grouped(refused, lambda row: (row.source, row.reject_reason or "not recorded"))
    reasons = [(source and ip(source), why, *span(rows)) for (source, why), rows in by_reason.items()]
    same(ask(filled, "rejected_of", email, since, until), reasons, by=2)


def ip(source: str) -> Any:
    """As psycopg gives an inet: an interface only where there is a mask."""
    whole = ip_interface(source)
    return whole if "/" in source else whole.ip


def test_last_seen_of_names(filled: Connection) -> None:
    everyone = {row[0]: row for row in ask(filled, "last_seen", MIDNIGHT)}
    found = ask(filled, "last_seen_of", ["stranger", "bob", "nobody"], MIDNIGHT)
    assert found == [everyone["bob"], ("nobody", None, None), ("stranger", None, None)]


PAUSE, LOOKBACK = timedelta(minutes=30), timedelta(hours=6)


@pytest.mark.parametrize("hours", [0, 11, 30])
def test_online(filled: Connection, hours: int) -> None:
    since, until = MIDNIGHT + hours * HOUR, MIDNIGHT + (hours + 1) * HOUR
    expected = []
    for email, rows in grouped(let_in(window(since - LOOKBACK, until)), lambda row: row.email).items():
        times = sorted(row.at for row in rows)
        starts = [at for before, at in zip([None, *times], times, strict=False) if not before or at - before >= PAUSE]
        recent = [row for row in rows if row.at >= since]
        if recent and email:
            sources = {row.source for row in recent} - {None}
            expected.append((email, starts[-1], times[-1], len(recent), sources, {network(one) for one in sources}))
    found = [
        (*row[:4], {str(one) for one in row[4] or ()}, {*(row[5] or ())}) for row in ask(filled, "online", since, until)
    ]
    assert found == sorted(expected, key=lambda row: (row[1], row[0]))


@in_each_window
@pytest.mark.parametrize(("by", "seconds"), [("5m", 300), ("hour", 3600), ("day", 86400)])
def test_users_over_time(filled: Connection, by: str, seconds: int, since: datetime, until: datetime) -> None:
    def slot(row: Row, length: int) -> datetime:
        return datetime.fromtimestamp(row.at.timestamp() // length * length, timezone.utc)

    named = [row for row in let_in(window(since, until)) if row.email]
    expected = [
        (begin, len({row.email for row in rows}),
         max(len({row.email for row in few}) for few in grouped(rows, lambda row: slot(row, 300)).values()))
        for begin, rows in grouped(named, lambda row: slot(row, seconds)).items()
    ]  # fmt: skip
    assert ask(filled, "users_over_time", by, since, until) == sorted(expected)


@pytest.mark.parametrize("by", ["5m", "hour", "day"])
def test_users_over_time_where_hours_begin_at_a_quarter(filled: Connection, by: str) -> None:
    zone = ZoneInfo("Asia/Kathmandu")  # 5:45 before UTC

    def begin(row: Row, by: str) -> datetime:
        at = row.at.astimezone(zone).replace(second=0, microsecond=0)
        if by == "5m":
            return at.replace(minute=at.minute // 5 * 5)
        return at.replace(minute=0, hour=at.hour if by == "hour" else 0)

    named = [row for row in let_in(window(MIDNIGHT, MIDNIGHT + 24 * HOUR)) if row.email]
    expected = [
        (start, len({row.email for row in rows}),
         max(len({row.email for row in few}) for few in grouped(rows, lambda row: begin(row, "5m")).values()))
        for start, rows in grouped(named, lambda row: begin(row, by)).items()
    ]  # fmt: skip
    filled.execute("SET TimeZone = 'Asia/Kathmandu'")
    try:
        assert ask(filled, "users_over_time", by, MIDNIGHT, MIDNIGHT + 24 * HOUR) == sorted(expected)
    finally:
        filled.execute("SET TimeZone = 'UTC'")


@in_each_window
@pytest.mark.parametrize(("by", "column"), [("simultaneous", 1), ("addresses", 4), ("networks", 5)])
def test_sharing(filled: Connection, by: str, column: int, since: datetime, until: datetime) -> None:
    expected = []
    named = [row for row in let_in(window(since, until)) if row.email]
    for email, rows in grouped(named, lambda row: row.email).items():
        slots = grouped(rows, lambda row: row.at.timestamp() // 600 * 600)
        most = {begin: max(networks(few, 4), networks(few, 6)) for begin, few in slots.items()}
        at = datetime.fromtimestamp(min(begin for begin in most if most[begin] == max(most.values())), timezone.utc)
        of_window = addresses(rows), len({network(row.source) for row in rows} - {None})
        many = sum(number > 1 for number in most.values())
        expected.append((email, max(most.values()), many, at, *of_window, *span(rows)))
    same([tuple(utc(value) for value in row) for row in ask(filled, "sharing", by, since, until)],
         [tuple(utc(value) for value in row) for row in expected], by=column)  # fmt: skip


def utc(value: Any) -> Any:
    return value.astimezone(timezone.utc) if isinstance(value, datetime) else value


@pytest.mark.parametrize("since", [MIDNIGHT, MIDNIGHT + 58 * HOUR, MIDNIGHT + 90 * HOUR])
def test_last_seen(filled: Connection, since: datetime) -> None:
    """Each user is there, at the end those who were not seen."""
    latest: dict[str | None, Row] = {}
    for row in sorted(let_in(ROWS), key=lambda row: row.at):
        if row.at >= since:
            latest[row.email] = row
    found = ask(filled, "last_seen", since)

    assert {row[0]: row[1] for row in found} == {
        email: latest[email].at if email in latest else None for email in EMAILS if email is not None
    }
    for email, at, source in found:  # of rows at one moment, any
        sources = {row.source and ip(row.source) for row in let_in(ROWS) if (row.email, row.at) == (email, at)}
        assert source in (sources or {None})
    seen = [row[1] for row in found]
    assert seen == sorted(filter(None, seen), reverse=True) + [None] * seen.count(None)


@in_each_window
@pytest.mark.parametrize("zone", ["UTC", "Asia/Kolkata"])
def test_traffic_by_hour(filled: Connection, zone: str, since: datetime, until: datetime) -> None:
    """Hours are those of the session: in India they begin at half past."""
    filled.execute("SELECT set_config('timezone', %s, false)", [zone])
    half = timedelta(minutes=30 if zone == "Asia/Kolkata" else 0)
    hours = grouped(
        of_clients(window(since, until)), lambda row: (row.at - half).replace(minute=0, second=0, microsecond=0) + half
    )
    expected = sorted((hour, len(rows)) for hour, rows in hours.items())
    assert ask(filled, "traffic_by_hour", since, until) == expected


def of_clients(rows: list[Row]) -> list[Row]:
    """Those that are no call of xray's own API: no question counts these."""
    return [row for row in rows if row.action != "api"]


def clients(rows: list[Row]) -> tuple[int, int, int]:
    """Rows, users and addresses."""
    return len(rows), len({row.email for row in rows} - {None}), addresses(rows)


@in_each_window
@pytest.mark.parametrize("client", ["203.0.113.7", "203.0.113.0/24", "203.0.0.0/15", "2001:db8:2::/48", "0.0.0.0/0"])
def test_users_and_rejected_rows_of_a_client(filled: Connection, since: datetime, until: datetime, client: str) -> None:
    """A source that xray masked is in a network that holds all of it."""
    wanted = ip_network(client)
    rows = [row for row in window(since, until) if row.source and within(ip_network(row.source), wanted)]
    let_in = grouped([row for row in rows if row.action == "accepted"], lambda row: row.email)
    expected: list[tuple[Any, ...]] = [(email, addresses(of), *span(of)) for email, of in let_in.items()]
    same(ask(filled, "users_from", client, since, until), expected, by=2)
    rejected = [row for row in rows if row.action == "rejected"]
    by_source = grouped(rejected, lambda row: (row.source, row.reject_reason or "not recorded"))
    expected = [(ip(source), reason, *span(of)) for (source, reason), of in by_source.items()]
    same(ask(filled, "rejected_from", client, since, until), expected, by=2)


def within(one: Network, other: Network) -> bool:
    return one.version == other.version and one.subnet_of(other)  # type: ignore[arg-type]


@in_each_window
@pytest.mark.parametrize("by", ["hour", "day"])
def test_traffic(filled: Connection, by: str, since: datetime, until: datetime) -> None:
    """Periods are those of the session; only accepted connections count."""
    filled.execute("SET timezone TO 'Asia/Kolkata'")
    zone = ZoneInfo("Asia/Kolkata")
    zero = {"minute": 0, "second": 0, "microsecond": 0, **({"hour": 0} if by == "day" else {})}
    accepted = [row for row in window(since, until) if row.action == "accepted"]

    def begin(row: Row) -> datetime:
        return row.at.astimezone(zone).replace(**zero)  # type: ignore[arg-type]

    periods = sorted((at, *clients(rows)) for at, rows in grouped(accepted, begin).items())
    assert ask(filled, "traffic", by, since, until) == periods
    for per, name in (("node", "node"), ("outbound", "outbound")):
        found = ask(filled, "traffic_per", per, by, since, until)
        groups = grouped(accepted, lambda row, name=name: (begin(row), getattr(row, name)))  # type: ignore[misc]
        same(found, [(*key, *clients(rows)) for key, rows in groups.items()], by=0, reverse=False)


@in_each_window
def test_rejected_by_source_network_and_reason(filled: Connection, since: datetime, until: datetime) -> None:
    rejected = [row for row in window(since, until) if row.action == "rejected"]

    def why(row: Row) -> str:
        return row.reject_reason or "not recorded"

    by_source = grouped(rejected, lambda row: (row.source, why(row)))
    expected: list[tuple[Any, ...]] = [
        (source and ip(source), network(source), reason, *span(rows)) for (source, reason), rows in by_source.items()
    ]
    same(ask(filled, "rejected_sources", since, until), expected, by=3)

    def counted(rows: list[Row], *more: int) -> tuple[Any, ...]:
        count, first, last = span(rows)
        return (count, addresses(rows), *more, first, last)

    by_network = grouped(rejected, lambda row: (network(row.source), why(row)))
    expected = [(*key, *counted(rows)) for key, rows in by_network.items()]
    same(ask(filled, "rejected_networks", since, until), expected, by=2)
    by_reason = grouped(rejected, why)
    expected = [
        (reason, *counted(rows, len({network(row.source) for row in rows} - {None})))
        for reason, rows in by_reason.items()
    ]
    same(ask(filled, "rejected_reasons", since, until), expected, by=1)


MAPPED: dict[str | None, str | None] = {  # a client's address, or none
    "::ffff:203.0.113.5": "203.0.113.5",
    "::ffff:203.0.113.0/120": "203.0.113.0/24",
    "::ffff:255.255.255.255": "255.255.255.255",
    **dict.fromkeys(["0.0.0.0", "127.0.0.1", "127.1.2.3", "127.0.0.0/24", "::", "::1", "::/48", None]),  # noqa: S104
    **dict.fromkeys(["::ffff:0.0.0.0", "::ffff:127.0.0.1"]),
    **{kept: kept for kept in ("203.0.113.5", "10.0.0.0/8", "0.0.0.0/0", "64:ff9b::1", "2001:db8::1", "::/0")},
}


def test_mapped_addresses_are_those_of_ipv4_and_a_proxys_are_none(answering: Connection) -> None:
    for source, address in MAPPED.items():
        found = answering.execute("SELECT client_address(%s::inet)", [source]).fetchone()
        assert found == (address and ip(address),), source
    sources = ["203.0.113.5", "::ffff:203.0.113.5", "0.0.0.0", "::ffff:127.0.0.1", None]  # noqa: S104
    fill(answering, both([Row(MIDNIGHT, one, 1, "", "www.example.com", 443, "alice", "n1") for one in sources]))
    client, when, day = ip("203.0.113.5"), (MIDNIGHT, MIDNIGHT), (MIDNIGHT, MIDNIGHT + 24 * HOUR)
    assert ask(answering, "addresses_of_users", *day) == [("alice", 1, 1, 0, 5, *when)]
    assert ask(answering, "networks_of", "alice", *day) == [
        (None, 0, 3, *when),
        (network("203.0.113.0/24"), 1, 2, *when),
    ]
    assert ask(answering, "rejected_sources", *day) == [
        (None, None, "not recorded", 3, *when),
        (client, network("203.0.113.0/24"), "not recorded", 2, *when),
    ]
    reached = [row[2] for row in ask(answering, "who_reached", "www.example.com", 443, MIDNIGHT)]
    assert sorted(map(str, reached)) == sorted(map(str, [client, client, None, None, None] * 2))
    assert ask(answering, "last_seen", MIDNIGHT)[0][2] in (client, None)


def test_without_a_window_they_answer_for_the_time_before_now(answering: Connection) -> None:
    now = datetime.now(timezone.utc)
    ago = {"alice": timedelta(minutes=59), "bob": timedelta(hours=22), "carol": timedelta(days=29)}
    rows = [Row(now - by, "203.0.113.7", 1, "", "www.example.com", 443, email, "n1") for email, by in ago.items()]
    rows += [
        Row(now - timedelta(days=31), "203.0.113.7", 1, "", None, 443, "nobody", "n1"),
        Row(now + HOUR, "203.0.113.9", 1, "", "www.example.com", 443, "alice", "n1"),
    ]
    fill(answering, both(rows))
    assert [row[0] for row in ask(answering, "addresses_of_users")] == ["alice"]
    assert [row[2] for row in ask(answering, "networks_of", "bob")] == [1]
    assert ask(answering, "networks_of", "carol") == []
    assert [row[2] for row in ask(answering, "destinations_of", "bob")] == [1]
    assert ask(answering, "destinations_of", "carol") == []
    assert {row[0] for row in ask(answering, "users_of", "www.example.com")} == {"alice", "bob"}
    assert [row[0] for row in ask(answering, "last_seen")] == ["alice", "bob", "carol", "nobody"]
    assert [row[0] for row in ask(answering, "last_seen") if row[1]] == ["alice", "bob", "carol"]
    assert sum(row[1] for row in ask(answering, "traffic_by_hour")) == 2
    assert [row[3] for row in ask(answering, "rejected_sources")] == [2]


def looks_like_an_address(chance: random.Random) -> str:
    """A text of the characters of addresses, now and then an address."""
    if chance.random() < 0.5:
        return ".".join(
            chance.choice(("0", "7", "10", "255", "256", "01", "", "1a")) for _ in range(chance.randint(3, 5))
        )
    groups = [chance.choice(("0", "7", "ABCD", "ffff", "", "", "12345", "g")) for _ in range(chance.randint(2, 9))]
    return ":".join(groups) + chance.choice(("", "", "", ":", "::", ":203.0.113.5", "/48", "\n"))


def address(text: str) -> IPv4Address | IPv6Address | None:
    """The same in Python. Nobody writes :: for one group: Go writes the zero."""
    try:
        found = ip_address(text)
    except ValueError:
        return None
    if found.version == 6 and "." in text:
        return found.ipv4_mapped if text.lower().startswith("::ffff:") else None
    return found if text.count(":") <= 7 else None


def test_a_destination_is_an_address_or_a_name_and_never_an_error(answering: Connection) -> None:
    chance = random.Random(7)
    texts = [looks_like_an_address(chance) for _ in range(5000)]
    texts += ["10.example.com", "999.1.1.1", "::FFFF:203.0.113.5", "::", "1::", "2001:db8::1", "1:2:3:4:5:6:7:8", ""]
    found = answering.execute("SELECT t, endpoint_address(t) FROM unnest(%s::text[]) AS t", [texts]).fetchall()
    assert found == [(text, address(text)) for text in texts]
    assert len({one for _, one in found}) > 50


# --- what is around them -----------------------------------------------------------------------------------


def test_answers_sql_can_be_run_again(answering: Connection) -> None:
    answering.execute(ANSWERS)
    made = answering.execute("SELECT proname FROM pg_proc WHERE pronamespace = 'public'::regnamespace").fetchall()
    assert {name for (name,) in made} == {*CALLS, *OF_OPTIONAL_TABLES, *HELPERS}


def test_columns_that_were_changed_to_varchar_serve_as_well(conn: Connection) -> None:
    schema.ensure(conn)
    for column in ("users ALTER email", "endpoints ALTER address", "nodes ALTER name", "logs ALTER action"):
        conn.execute(f"ALTER TABLE {column} TYPE varchar(64)")
    conn.execute(ANSWERS)
    fill(conn, ROWS)
    for call in CALLS.values():
        assert conn.execute(f"SELECT * FROM {call}").fetchall(), call


@pytest.mark.parametrize("function", CALLS)
def test_only_the_days_of_the_window_are_read(filled: Connection, function: str) -> None:
    """The planner sees through the call, even where it does not know the window's constants."""
    plan = "\n".join(line for (line,) in filled.execute(f"EXPLAIN SELECT * FROM {CALLS[function]}"))
    read = {day for day in DAYS if f"logs_{day.replace('-', '_')}" in plan}
    open_end = {*DAYS[2:]} if function in ("last_seen", "last_seen_of") else set()
    if function == "who_reached" and filled.info.server_version < 110000:
        assert read == {*DAYS}  # PostgreSQL 10 has only the planner to leave days out, and `at - within` is no constant
    elif function in ("who_reached", "online") and filled.info.server_version < 120000:
        assert DAYS[1] in read  # PostgreSQL 11 leaves days out of an Append, but not yet of a Merge Append
    else:
        before = {DAYS[0]} if function == "new_destinations" else set()
        assert read == {*before, DAYS[1], *open_end}, plan
    assert f"Function Scan on {function}" not in plan


EARLIER = {
    "traffic_by_hour": """
        CREATE FUNCTION traffic_by_hour(since timestamptz, until timestamptz)
        RETURNS TABLE (hour timestamptz, rejected bigint) LANGUAGE sql AS 'SELECT now(), 1::bigint'
    """,
    "rejected_sources": """
        CREATE FUNCTION rejected_sources(since timestamptz, until timestamptz)
        RETURNS TABLE (source_ip inet, rows bigint) LANGUAGE sql AS 'SELECT inet ''::1'', 1::bigint'
    """,
    "users_that_reached": """
        CREATE FUNCTION users_that_reached(target text, port integer DEFAULT NULL, since timestamptz DEFAULT now(),
                                           until timestamptz DEFAULT now())
        RETURNS TABLE (email text) LANGUAGE sql AS 'SELECT ''alice''::text'
    """,
    "connections_to": """
        CREATE FUNCTION connections_to(target text, port integer DEFAULT NULL, since timestamptz DEFAULT now(),
                                       until timestamptz DEFAULT now())
        RETURNS TABLE (email text) LANGUAGE sql AS 'SELECT ''alice''::text'
    """,
}


def test_functions_of_earlier_versions_give_way(filled: Connection) -> None:
    with filled.transaction(force_rollback=True):
        for name in EARLIER:
            filled.execute(SQL("DROP FUNCTION {}").format(Identifier(name)))
        for earlier in EARLIER.values():
            filled.execute(earlier)  # type: ignore[arg-type]  # written above
        for _ in range(2):
            filled.execute(ANSWERS)  # type: ignore[arg-type]  # our own file
            for name in CALLS:
                ((count,),) = filled.execute("SELECT count(*) FROM pg_proc WHERE proname = %s", [name])
                assert (name, count) == (name, 1)
        for name in "users_that_reached", "connections_to":  # which of two is meant would not be clear
            filled.execute(SQL("SELECT * FROM {}('www.example.com', 443, now(), now())").format(Identifier(name)))


@pytest.fixture
def reader(filled: Connection, database: dict[str, str]) -> Iterator[Connection]:
    """A session of a role that owns nothing and may read nothing yet."""
    name, password = f"reader_of_{database['dbname']}", "only for this test"
    role = Identifier(name)
    filled.execute(SQL("CREATE ROLE {} LOGIN PASSWORD {}").format(role, password))
    with psycopg.connect(**{**database, "user": name, "password": password}, autocommit=True) as conn:  # type: ignore[arg-type]
        yield conn
    filled.execute(SQL("DROP OWNED BY {}").format(role))
    filled.execute(SQL("DROP ROLE {}").format(role))


@pytest.mark.parametrize("function", CALLS)
def test_the_statement_that_ask_logs_sends_gives_the_same_rows(filled: Connection, function: str) -> None:
    statement = statements.read()[function]
    call = CALLS[function].partition("(")[2].removesuffix(")")
    given = filled.execute(f"SELECT {call}").fetchone() or ()
    values = dict(zip(statement.parameters, given, strict=False))
    answer = filled.execute(f"SELECT * FROM {CALLS[function]}")
    assert [column.name for column in answer.description or ()] == [*statement.columns]
    assert filled.execute(statement.text, values).fetchall() == answer.fetchall() != []


@pytest.mark.parametrize("is_distributed", [False, True])
def test_of_one_node_each_statement_reads_its_rows_alone(is_distributed: bool) -> None:
    """--node changes the text `FROM logs l`: whoever reads logs in other words reads those of all nodes."""
    for name, statement in statements.read(is_distributed).items():
        read = re.findall(
            r"\b(?:FROM|JOIN)\s+logs\b(?! WHERE (?:node_id = %\(node_id\)s|false))",
            statement.narrowed(statements.OF_NODE),
        )
        assert read == [], name


def test_of_each_function_the_statement_is_known() -> None:
    assert set(statements.read()) == set(statements.read(is_distributed=True)) == {*CALLS, *OF_OPTIONAL_TABLES}


def test_where_citus_distributes_logs_other_forms_give_the_same_rows(filled: Connection) -> None:
    """Both those that ask_logs.py sends, and the functions, which become PL/pgSQL."""

    def answers() -> dict[str, Answer]:
        return {name: filled.execute(f"SELECT * FROM {call}").fetchall() for name, call in CALLS.items()}

    expected = answers()
    filled.execute((ROOT / "answers_citus.sql").read_text())
    of_logs = [name for name, statement in statements.read().items() if re.search(r"\blogs\b", statement.text)]
    languages = "SELECT DISTINCT lanname FROM pg_proc p JOIN pg_language l ON l.oid = prolang WHERE proname = ANY(%s)"
    assert filled.execute(languages, [of_logs]).fetchall() == [("plpgsql",)]
    assert answers() == expected
    for name, statement in statements.read(is_distributed=True).items():
        if name in OF_OPTIONAL_TABLES:
            continue
        given = filled.execute(f"SELECT {CALLS[name].partition('(')[2].removesuffix(')')}").fetchone() or ()
        values = dict(zip(statement.parameters, given, strict=False))
        assert filled.execute(statement.text, values).fetchall() == expected[name], name


@pytest.mark.parametrize("function", CALLS)
def test_they_show_nothing_to_whoever_may_not_read_the_tables(reader: Connection, function: str) -> None:
    with pytest.raises(errors.InsufficientPrivilege):
        reader.execute(f"SELECT * FROM {CALLS[function]}")


def test_they_show_only_the_rows_that_the_caller_may_read(filled: Connection, reader: Connection) -> None:
    role = Identifier(reader.info.user)
    filled.execute(SQL("GRANT SELECT ON ALL TABLES IN SCHEMA public TO {}").format(role))
    filled.execute("ALTER TABLE users ENABLE ROW LEVEL SECURITY")
    filled.execute(SQL("CREATE POLICY only_bob ON users TO {} USING (email = 'bob')").format(role))

    assert [row[0] for row in reader.execute(f"SELECT * FROM {CALLS['addresses_of_users']}")] == ["bob"]
    assert [row[0] for row in reader.execute(f"SELECT * FROM {CALLS['last_seen']}")] == ["bob"]
    assert {row[0] for row in reader.execute(f"SELECT * FROM {CALLS['users_of']}")} == {"bob", None}
    assert reader.execute(f"SELECT * FROM {CALLS['destinations_of']}").fetchall() == []
    assert filled.execute(f"SELECT * FROM {CALLS['destinations_of']}").fetchall() != []


def test_traffic_can_be_read_by_a_role_that_may_read_logs_alone(filled: Connection, reader: Connection) -> None:
    filled.execute(SQL("GRANT SELECT ON logs TO {}").format(Identifier(reader.info.user)))
    query = f"SELECT * FROM {CALLS['traffic_by_hour']}"
    assert reader.execute(query).fetchall() == filled.execute(query).fetchall() != []
