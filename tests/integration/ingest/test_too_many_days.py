"""No more days than a query over all of them can lock: what has no room is rejected, and nothing else suffers."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import date, datetime, time, timedelta, timezone
from pathlib import Path
from typing import Any

import psycopg
import pytest
from helpers.documents import read_blocks
from helpers.load_paths import LOAD_PATHS
from helpers.site import Site, create_database, drop_database, line, lines, users
from server import FAST, Server

from xraylog.database import ddl
from xraylog.database.capabilities import Capabilities
from xraylog.database.partitions import create_partition, day_bounds, partition_name

TODAY = datetime.now(timezone.utc).date()
LOCKS, SESSIONS, OF_EACH = 10, 10, 4  # a partition and its three indexes
ROOM = LOCKS * SESSIONS // OF_EACH  # partitions


@pytest.fixture(scope="module")
def small(own_server: Callable[..., Server]) -> Server:
    """A server with few locks."""
    return own_server(*FAST, f"max_connections={SESSIONS}", "max_wal_senders=0", f"max_locks_per_transaction={LOCKS}")


@pytest.fixture
def site(small: Server, tmp_path: Path) -> Iterator[Site]:
    database = create_database(small.keywords())
    found = Site(tmp_path, database)
    found.set("parser", batch_size=20, stray_days=36500)
    yield found
    drop_database(database)


def ago(days: int) -> str:
    return f"{TODAY - timedelta(days=days):%Y/%m/%d} 00:00:01.000001"


def of_days(count: int) -> list[str]:
    """Two lines on each of `count` days that follow one another, the last one 100 days ago."""
    return [line(n, ago(99 + count - n // 2)) for n in range(2 * count)]


def partitions(site: Site) -> int:
    ((count,),) = site.query("SELECT count(*) FROM pg_inherits WHERE inhparent = 'logs'::regclass")
    return int(count)


def make_partition(conn: psycopg.Connection[Any], day: date) -> None:
    """Make a day's partition by hand, whatever room there is."""
    name = partition_name(str(day), *day_bounds(str(day)))
    conn.execute(create_partition(name, *day_bounds(str(day))))
    if not Capabilities.of(conn).keys_on_partitioned:
        for statement in ddl.keys_and_indexes(name):
            conn.execute(statement)


def refused(site: Site) -> Counter[str]:
    """The users of lines that were rejected because their days have no partition. In the buffer a line is JSON."""
    emails = [
        re.search(rb'email(?:: |": ")(u\d+)', text) for reason, text in site.rejected() if " room for a part" in reason
    ]
    return Counter(found[1].decode() for found in emails if found)


def check_that_it_adds_up(site: Site, told: str) -> None:
    """Of ROOM + 5 days and today, each line is in one place, and only days without room are in rejected_lines."""
    assert partitions(site) in (ROOM, ROOM + 1)  # today's is made whatever else there is
    expected = users(0, 2 * (ROOM + 5)) + users(1000, 1003)
    assert site.emails() + refused(site) == expected
    assert site.emails() >= users(1000, 1003)
    assert 10 <= refused(site).total() <= 12
    assert "days are without a partition: a query over all of" in told
    assert "ALTER SYSTEM SET max_locks_per_transaction = " in told
    assert "--replay-rejected" in told
    site.query("SELECT count(*) FROM logs")


@pytest.mark.parametrize("load_path", LOAD_PATHS)
def test_days_without_room_go_to_unparsed_lines(site: Site, load_path: str) -> None:
    site.load_path = load_path
    site.append(*of_days(ROOM + 5), *lines(1000, 1003, ago(0)))
    check_that_it_adds_up(site, site.run().stderr)


@pytest.mark.parametrize("load_path", LOAD_PATHS)
def test_an_import_of_the_buffer_does_the_same(site: Site, load_path: str) -> None:
    site.load_path = load_path
    site.away()
    site.append(*of_days(ROOM + 5), *lines(1000, 1003, ago(0)))
    site.run()
    assert site.buffered() == users(0, 2 * (ROOM + 5)) + users(1000, 1003)
    site.back()
    check_that_it_adds_up(site, site.run().stderr)


def test_the_latest_days_come_first(site: Site) -> None:
    site.set("parser", batch_size=1000)
    site.append(*of_days(ROOM + 5))
    site.run()
    assert refused(site) == users(0, 10)


@pytest.mark.parametrize("buffered", [False, True])
def test_with_room_a_replay_moves_them(site: Site, buffered: bool) -> None:
    site.append(*of_days(ROOM + 3))
    if buffered:
        site.away()
        site.run()
        site.back()
    site.run()
    assert "6 unparsed lines read = 0 rows + 0 ignored + 6 still unparsed" in site.run("--replay-rejected", "-v").stderr
    assert refused(site).total() == 6
    site.query("DROP TABLE logs_" + (TODAY - timedelta(days=100)).strftime("%Y_%m_%d"))
    site.run("--replay-rejected")
    assert refused(site).total() == 4
    assert partitions(site) == ROOM
    assert (site.emails() + refused(site)).total() == 2 * (ROOM + 3) - 2


def test_a_database_that_has_too_many_already_takes_what_it_can(site: Site) -> None:
    """Lines of days that are there, and of recent days; --check says what to do."""
    site.append(line(0, ago(0)))
    moment = datetime.combine(TODAY, time(0, 0, 1), timezone.utc).timestamp()
    os.utime(site.log, (moment, moment))  # as xray wrote it: otherwise it may seem to be in another zone
    site.run()
    assert "✓ partitions: 1" in site.run("--check").stdout
    with psycopg.connect(**site.database, autocommit=True) as conn:  # type: ignore[arg-type]
        for n in range(200, 200 + ROOM):
            make_partition(conn, TODAY - timedelta(days=n))
    site.append(line(1, ago(0)), line(2, ago(210)), line(3, ago(40)), line(4, ago(100)))
    site.run()
    assert site.emails() == users(0, 4)
    assert refused(site) == users(4, 5)
    said = site.run("--check", status=3).stdout
    (found,) = [text for text in said.splitlines() if " partitions: " in text]
    assert found.startswith(f"✗ partitions: {ROOM + 2}, and a query over all of ")
    assert "ALTER SYSTEM SET max_locks_per_transaction = " in found
    assert "docs/operations.md#too-many-partitions" in found


def test_the_small_days_can_be_set_aside_as_the_page_says(site: Site) -> None:
    site.append(*lines(0, 300, ago(0)), *of_days(ROOM - 1))
    site.run()
    with psycopg.connect(**site.database, autocommit=True) as conn:  # type: ignore[arg-type]
        for n in range(3):
            make_partition(conn, TODAY + timedelta(days=3 + n))
        assert "✗ partitions: " in site.run("--check", status=3).stdout
        (block,) = (block for block in read_blocks("docs/operations.md") if "logs_set_aside" in block.text)
        create, _, select = block.text.partition(";")
        conn.execute(create)  # type: ignore[call-overload]
        for (statements,) in conn.execute(select.replace("\\gexec", "")).fetchall():  # type: ignore[call-overload]
            conn.execute(statements)
        ((set_aside,),) = conn.execute("SELECT count(*) FROM logs_set_aside").fetchall()
    assert set_aside == 2 * (ROOM - 1)
    assert site.emails() == users(0, 300)
    assert "✓ partitions: 1" in site.run("--check").stdout
