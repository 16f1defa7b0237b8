"""Generate rows of a week, fill a database with them, and write the page."""

from __future__ import annotations

import io
import json
import random
import signal
import subprocess
import sys
from collections.abc import Sequence
from contextlib import redirect_stderr, redirect_stdout
from datetime import date, datetime, timedelta, timezone
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock
from zoneinfo import ZoneInfo

from loguru import logger

import report_logs
from helpers.site import Site
from xraylog.database import ddl, partitions, schema
from xraylog.database import session as databases
from xraylog.database.session import Connection
from xraylog.report import collect
from xraylog.report.collect import Scope
from xraylog.report.model import Findings, Thresholds
from xraylog.report.page_mask import PageMask
from xraylog.report.window import Window
from xraylog.telemetry.prometheus import Metrics

HOUR = timedelta(hours=1)
BERLIN, UTC, NEPAL = ZoneInfo("Europe/Berlin"), ZoneInfo("UTC"), ZoneInfo("Asia/Kathmandu")
LAST = date(2025, 11, 17)
NOON = datetime(2025, 11, 17, 12, tzinfo=timezone.utc)
WINDOW = Window.of(BERLIN, 3, LAST, NOON + timedelta(days=9))
NO_METRICS = Metrics(None, "", Path())
EMAILS = ("alice", "bob", "carol", "dave", None)
HOSTS = (*(f"host{n}.example" for n in range(30)), "198.51.100.9", "[2001:db8::9]", None)
SOURCES = (
    *(f"203.0.113.{n}" for n in range(12)), *(f"203.0.{n}.7" for n in range(5)),
    *(f"2001:db8:1:{n}::1" for n in range(1, 5)), "2001:db8:2::1", "198.18.0.0/24", None,
)  # fmt: skip
TAGS, NODES, PROTOCOLS = ("direct", "block", "warp", None), ("n1", "n2", None), ("tcp", "udp")
WHYS = ("invalid user", "timeout", "invalid user", None, "")


class Row(NamedTuple):
    """A row of `logs`, with names in place of ids."""

    at: datetime
    source: str | None
    action: str
    protocol: str
    host: str | None
    port: int | None
    tag: str | None
    email: str | None
    node: str | None
    why: str | None = None  # rejected


def some_rows() -> list[Row]:
    """Return bursts of rows in the window, in the period before and around both, many exactly at their limits."""
    chance = random.Random(11)
    borders = [
        *WINDOW.midnights,
        WINDOW.until,
        WINDOW.before,
        *(moment + timedelta(hours=7) for moment in WINDOW.midnights),
    ]
    rows = []
    for _ in range(400):
        start = chance.choice(
            (
                chance.choice(borders)
                + timedelta(minutes=chance.choice((-10, -5, 0, 5)), microseconds=chance.randrange(-1, 2)),
                WINDOW.before
                - timedelta(hours=2)
                + chance.random() * (WINDOW.until + timedelta(hours=4) - WINDOW.before),
            )
        )
        email, node = chance.choice(EMAILS), chance.choice(NODES)
        for _ in range(chance.randrange(1, 6)):
            at = start + timedelta(seconds=chance.choice((0, 1, 299, 300, 599, 600, 601)))
            action = chance.choice(("accepted",) * 5 + ("rejected",))
            host = chance.choice(HOSTS[: chance.choice((3, 10, len(HOSTS)))])
            port = chance.choice((443, 443, 80, 53)) if host else None
            tag, protocol = chance.choice(TAGS), chance.choice(PROTOCOLS)
            if action == "accepted" and len(rows) % 11 == 7:
                action = "api"
            why = WHYS[len(rows) % len(WHYS)] if action == "rejected" else None
            rows.append(Row(at, chance.choice(SOURCES), action, protocol, host, port, tag, email, node, why))
    return rows


ROWS = some_rows()
INSERT = """
    INSERT INTO logs ("timestamp", source_ip, action, protocol_id, destination_id, destination_port,
                      outbound_tag_id, user_id, node_id, reject_reason)
    VALUES (%s, %s, %s, (SELECT id FROM protocols WHERE name = %s), (SELECT id FROM endpoints WHERE address = %s), %s,
            (SELECT id FROM tags WHERE name = %s), (SELECT id FROM users WHERE email = %s),
            (SELECT id FROM nodes WHERE name = %s), %s)
"""
NAMES = {"users": EMAILS, "endpoints": HOSTS, "tags": TAGS, "nodes": NODES, "protocols": PROTOCOLS}


def fill(conn: Connection, rows: Sequence[Row]) -> None:
    """Create the tables, and store these rows in them."""
    schema.ensure(conn)
    partitions.Partitions(conn).ensure({str(row.at.astimezone(timezone.utc).date()) for row in rows})
    with conn.cursor() as cursor, conn.transaction():
        for table, names in NAMES.items():
            for name in {*names, *(getattr(row, FIELDS[table]) for row in rows)} - {None}:
                cursor.execute(f"INSERT INTO {table} ({ddl.REFERENCE_TABLES[table]}) VALUES (%s)", [name])
        cursor.executemany(INSERT, rows)


def fill_one(conn: Connection, row: Row) -> None:
    """Store one more row, to a new host."""
    conn.execute("INSERT INTO endpoints (address) VALUES (%s)", [row.host])
    conn.execute(INSERT, row)


FIELDS = {"users": "email", "endpoints": "host", "tags": "tag", "nodes": "node", "protocols": "protocol"}


def read(
    keywords: dict[str, str],
    window: Window = WINDOW,
    mask: PageMask = PageMask(),  # noqa: B008  # frozen
    node: str | None = None,
    thresholds: Thresholds = Thresholds(),  # noqa: B008  # frozen
) -> Findings:
    return collect.read(lambda: databases.connect(keywords), Scope(window, mask, node, thresholds), lambda *_: None)


INSIDE = [row for row in ROWS if WINDOW.since <= row.at < WINDOW.until]
LET_IN = [row for row in INSIDE if row.action == "accepted"]
LET_IN_BEFORE = [row for row in ROWS if WINDOW.before <= row.at < WINDOW.since and row.action == "accepted"]


def report(site: Site, *arguments: str, status: int = 0, **options: Any) -> subprocess.CompletedProcess[str]:
    """Write the page into the site's folder, in this process; with `options`, which subprocess.run gets, in a new one.

    Here the chart library starts once, which takes a second.
    """
    arguments = ("--output", str(site.folder / "report.html"), "--days", "3", "--until", str(LAST), *arguments)
    if options:
        return site.run(*arguments, status=status, script="report_logs", **options)
    command = site.command(*arguments, script="report_logs")[1:]
    on_sigterm = signal.getsignal(signal.SIGTERM)
    with redirect_stdout(io.StringIO()) as output, redirect_stderr(io.StringIO()) as errors:
        with mock.patch.object(sys, "argv", command):
            try:
                found: int | str | None = report_logs.main(command[1:])
            except SystemExit as exit_:
                found = exit_.code
        logger.remove()
    signal.signal(signal.SIGTERM, on_sigterm)
    done = subprocess.CompletedProcess(command, int(found or 0), output.getvalue(), errors.getvalue())
    assert done.returncode == status, f"exit {done.returncode}, expected {status}\n{done.stdout}{done.stderr}"
    assert "Traceback" not in done.stderr, done.stderr
    return done


def text(site: Site) -> str:
    return (site.folder / "report.html").read_text()


def data(site: Site) -> Any:
    return json.loads(text(site).partition('id="data">')[2].partition("</script>")[0])
