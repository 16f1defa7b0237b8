"""report_logs.py writes the page as a whole, or says what kept it from that and which command helps."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from helpers.report_data import (
    INSIDE,
    ROWS,
    WINDOW,
    Row,
    data,
    fill,
    read,
    report,
    text,
)
from helpers.site import ROOT, Site, wait_until
from psycopg.sql import SQL, Identifier
from server import NOBODY

import report_logs
from xraylog import config
from xraylog.database import partitions
from xraylog.database.session import Connection
from xraylog.printed import UNPRINTABLE
from xraylog.report import collect


@pytest.mark.usefixtures("filled")
def test_the_page_of_one_node_names_it(site: Site) -> None:
    report(site, "--node", "n1")
    assert "of node <bdi>n1</bdi>;" in text(site)
    report(site, "--node", "n1", "--mask")
    assert re.search("of node <bdi>node [0-9]+</bdi>;", text(site))
    report(site)
    assert "of node" not in text(site)


def test_tables_that_are_there_and_not_seen_are_no_empty_page(site: Site, filled: Connection) -> None:
    filled.execute("CREATE SCHEMA hidden")
    filled.execute("ALTER TABLE logs SET SCHEMA hidden")
    assert "found hidden.logs" in report(site, status=3).stderr


def test_of_a_table_that_was_not_migrated_there_is_no_page(site: Site, conn: Connection) -> None:
    conn.execute("DROP TABLE IF EXISTS logs")
    conn.execute('CREATE TABLE logs (id bigserial PRIMARY KEY, "timestamp" timestamptz)')
    said = report(site, status=3).stderr
    assert "logs: expected a table partitioned by day, found a plain one; migrate_logs_to_partitioned.py" in said
    assert "no page was written" in said


def test_a_table_that_is_missing_is_named(site: Site, filled: Connection) -> None:
    filled.execute("DROP TABLE rejected_lines")
    assert "rejected_lines, found none; a run of parse_logs.py creates them" in report(site, status=3).stderr


@pytest.mark.usefixtures("filled", "reader")
def test_a_role_that_may_only_read_is_enough(site: Site) -> None:
    report(site)
    report(site, "--until", "2025-12-31")
    assert "<code>--until 2025-11-" in text(site)


def test_a_role_that_may_not_read_one_of_them_gets_the_grant_it_needs(
    site: Site, filled: Connection, role: Identifier
) -> None:
    filled.execute(SQL("GRANT SELECT ON logs, nodes TO {}").format(role))
    (grant,) = re.findall("GRANT SELECT ON .*", report(site, status=3).stderr)
    filled.execute(grant)
    report(site)


@pytest.mark.usefixtures("filled")
def test_the_page_is_its_owners_alone_and_replaces_the_old_one_as_a_whole(site: Site) -> None:
    old = site.folder / "report.html"
    old.write_text("old")
    old.chmod(0o644)
    with old.open() as opened:
        done = report(site, umask=0)
        assert opened.read() == "old"
    assert (done.stdout, done.stderr) == ("", "")
    assert old.stat().st_mode & 0o777 == 0o600
    assert not [path for path in site.folder.iterdir() if path.name.endswith(".new")]
    assert len(data(site)["users"]) == 4


@pytest.mark.usefixtures("filled")
def test_the_page_can_be_shared_with_the_group_of_its_folder_and_with_nobody_else(site: Site) -> None:
    site.folder.chmod(0o2750)
    report(site, "--mode", "640", umask=0o777)
    assert (site.folder / "report.html").stat().st_mode & 0o777 == 0o640
    assert "invalid choice: '644'" in report(site, "--mode", "644", status=2).stderr


def test_the_page_of_masked_data_holds_no_address_and_no_name(site: Site, conn: Connection) -> None:
    rows = [
        row._replace(email="eve@example.org", source="203.0.113.77", host="192.0.2.99", port=443) for row in INSIDE[:5]
    ]
    fill(conn, rows)
    report(site, "--mask")
    assert "eve@example.org" not in text(site)
    assert "203.0.113.77" not in text(site)
    assert "192.0.2.99" not in text(site)
    assert "203.0.113.0/24" in text(site)
    assert data(site)["users"][0][0].startswith("user ")


def test_names_with_characters_that_cannot_be_seen_are_shown_as_ask_logs_does(site: Site, conn: Connection) -> None:
    """Clients choose host names: an override of the writing direction would show this one as example.org."""
    hidden = {"email": "a\u2067lice", "host": "\u202egro.elpmaxe", "tag": "bl\rock", "node": "n\u20281"}
    fill(conn, [row._replace(**hidden, action="accepted", source="203.0.113.9") for row in INSIDE[:5]])
    report(site, "--node", hidden["node"])
    assert not UNPRINTABLE.search(text(site).replace("\n", ""))
    assert r"\u202egro.elpmaxe</th>" in text(site)
    (user,) = data(site)["users"]
    assert user[0] == r"a\u2067lice"
    assert {r"\u202egro.elpmaxe", r"bl\x0dock"} <= {*data(site)["names"]}
    assert r"of node <bdi>n\u20281</bdi>;" in text(site)


@pytest.mark.parametrize("rows", [None, []], ids=["no tables", "no rows"])
def test_an_empty_database_gives_a_page_that_says_so(site: Site, conn: Connection, rows: list[Row] | None) -> None:
    if rows is not None:
        fill(conn, rows)
    report(site)
    assert "There are no rows in these days" in text(site)


@pytest.mark.parametrize("zone", ["Pacific/Kiritimati", "Pacific/Pago_Pago"])
def test_where_these_days_have_no_rows_the_newest_day_that_has_some_is_named(
    site: Site, conn: Connection, zone: str
) -> None:
    at = datetime(2025, 11, 13, 10, 30, tzinfo=timezone.utc)
    fill(conn, [ROWS[0]._replace(at=at - timedelta(hours=n)) for n in (0, 9, 24)])
    conn.execute("CREATE TABLE odd PARTITION OF logs FOR VALUES FROM ('4714-11-24 00:00+00 BC') TO ('2020-01-01')")
    conn.execute("CREATE TABLE later PARTITION OF logs FOR VALUES FROM ('2400-01-01') TO ('294276-12-31')")
    partitions.Partitions(conn).ensure({"2025-11-14", str(datetime.now(timezone.utc).date())})
    site.set("parser", timezone=zone)
    said = report(site, "--until", "2025-12-31").stderr  # cron mails it
    assert "0 rows of 2025-12-29 to 2025-12-31" in said
    (day,) = re.findall("<code>--until ([0-9-]+)</code>", text(site))
    assert day == str(at.astimezone(ZoneInfo(zone)).date())
    assert report(site, "--until", day).stderr == ""
    assert "<code>--until" not in text(site)


@pytest.mark.parametrize("at", ["infinity", "tomorrow", "9999-12-31 10:00+00", "1969-12-31 10:00+00"])
def test_a_row_that_no_page_could_show_is_not_named_as_the_newest(site: Site, conn: Connection, at: str) -> None:
    fill(conn, [])
    conn.execute("CREATE TABLE others PARTITION OF logs FOR VALUES FROM (MINVALUE) TO ('2025-01-01')")
    conn.execute("CREATE TABLE later PARTITION OF logs FOR VALUES FROM ('2026-01-01') TO (MAXVALUE)")
    conn.execute('INSERT INTO logs ("timestamp", action) VALUES (%s, %s)', [at, "accepted"])
    report(site)
    assert "<code>--until" not in text(site)
    assert "There are no rows in these days." in text(site)


def test_without_a_server_no_page_is_written_and_the_command_that_helps_is_named(site: Site) -> None:
    site.away()
    done = report(site, status=1)
    assert "PostgreSQL is not available" in done.stderr
    assert "the server is down: nothing listens on 127.0.0.1, port 1; " in done.stderr
    assert not (site.folder / "report.html").exists()


def test_a_query_that_takes_too_long_ends(site: Site, filled: Connection) -> None:
    """Another session holds the table: nothing is asked of it any more when the time is over."""
    site.set("report", statement_timeout=1)
    with filled.transaction():
        filled.execute("LOCK TABLE logs")
        done = report(site, status=1)
    assert "statement timeout" in done.stderr
    assert "[report] statement_timeout" in done.stderr


def test_ended_while_it_asks_it_leaves_no_query_running(site: Site, filled: Connection) -> None:
    """By SIGTERM, as systemd and timeout end it: else the server would go on for nobody."""
    with filled.transaction():
        filled.execute("LOCK TABLE logs")
        command = site.command("--output", str(site.folder / "report.html"), script="report_logs")
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as run:
            wait_until(lambda: bool(sessions(site)))
            run.terminate()
            _, said = run.communicate(timeout=600)
        assert (run.returncode, "interrupted; no page was written" in said) == (1, True), said
        wait_until(lambda: not sessions(site))
    assert not (site.folder / "report.html").exists()


def test_what_nobody_expected_is_one_line(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("{no}\nsuch luck")

    monkeypatch.setattr(collect, "read", fail)
    said = report(site, status=1).stderr
    assert said.endswith("unexpected RuntimeError: {no}; such luck; no page was written; for the traceback: -v\n")
    assert said.count("\n") == 1


def test_what_is_doubtful_in_the_config_is_a_warning(site: Site) -> None:
    site.set("postgresql", password=site.database.get("password", "none"))
    site.config.chmod(0o644)
    assert "holds a password" in report(site).stderr


def sessions(site: Site) -> list[tuple[Any, ...]]:
    """Those of the script that wait for a lock."""
    return site.query(
        "SELECT pid FROM pg_stat_activity "
        "WHERE application_name = 'report_logs' AND datname = current_database() AND wait_event_type = 'Lock'"
    )


def test_a_folder_that_may_not_be_entered_is_reported(site: Site) -> None:
    cfg, closed = config.read(site.config), site.folder / "closed"
    closed.mkdir(mode=0)
    user = os.geteuid()
    os.seteuid(user or NOBODY)
    try:
        with pytest.raises(config.ConfigError, match="--output: expected a file, or a place for one, found no folder"):
            config.refuse_for_output(cfg, closed / "in" / "report.html")
    finally:
        os.seteuid(user)


@pytest.mark.usefixtures("filled")
def test_a_node_that_is_not_there_is_reported(site: Site) -> None:
    done = report(site, "--node", "n9{}", status=3)
    assert "expected one of the nodes n1, n2, found n9{}" in done.stderr


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--days", "0"),
        ("--days", "367"),
        ("--days", "x"),
        ("--until", "2025-02-30"),
        ("--until", "0001-01-01"),
        ("--until", "tomorrow"),
        ("--output", ""),
        ("--output", "-"),
    ],
)
def test_a_wrong_option_is_reported(site: Site, option: str, value: str) -> None:
    done = report(site, option, value, status=2)
    assert "expected" in done.stderr


@pytest.mark.parametrize("name", ["config.ini", "buffer.jsonl", "stats.jsonl", "access.log"])
def test_the_page_does_not_replace_one_of_our_files(site: Site, name: str) -> None:
    done = site.run("--output", str(site.folder / name), status=78, script="report_logs")
    assert "--output: expected a file of its own, found" in done.stderr
    assert (site.folder / "config.ini").stat().st_size


@pytest.mark.parametrize("name", ["nowhere/report.html", ".", "/dev/null", "pipe"])
def test_a_page_that_cannot_be_put_there_is_reported_before_anything_is_asked(site: Site, name: str) -> None:
    """As root, /dev/null would become a file."""
    os.mkfifo(site.folder / "pipe")
    site.away()
    done = site.run("--output", str(site.folder / name), status=78, script="report_logs")
    assert "--output: expected a file, or a place for one, found" in done.stderr
    assert Path("/dev/null").is_char_device()


def test_what_a_link_leads_to_is_replaced(site: Site, conn: Connection) -> None:
    del conn
    (site.folder / "real").mkdir()
    (site.folder / "report.html").symlink_to(site.folder / "real" / "page.html")
    report(site)
    assert (site.folder / "report.html").is_symlink()
    assert "Xray traffic" in (site.folder / "real" / "page.html").read_text()


def test_a_full_disk_leaves_the_old_page(site: Site) -> None:
    old = site.folder / "report.html"
    old.write_text("old")
    command = shlex.join([*site.command("--output", str(old), script="report_logs")])
    done = subprocess.run(
        ["/bin/bash", "-c", f"ulimit -f 1; trap '' XFSZ; {command}"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 3, done.stderr
    assert f"{old}: expected to write the page, found: File too large" in done.stderr
    assert old.read_text() == "old"
    assert [path.name for path in site.folder.iterdir() if "report.html" in path.name] == ["report.html"]


def test_without_its_packages_it_names_the_command_that_installs_them(
    site: Site, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "jinja2", None)
    monkeypatch.delitem(sys.modules, "xraylog.report.page")
    monkeypatch.delattr("xraylog.report.page")
    assert report_logs.main(["--config", str(site.config), "--output", str(site.folder / "report.html")]) == 3
    said = capsys.readouterr().err
    assert "expected the package jinja2, found none" in said
    assert "pip install -r" in said
    assert str(ROOT / "requirements-report.txt") in said


@pytest.mark.usefixtures("filled")
def test_progress_is_shown_on_request(site: Site) -> None:
    said = re.findall("asked for (.*): ", report(site, "-v").stderr)
    assert "traffic" in said
    assert len({*said}) == len(said)
    assert report(site, env={**os.environ, "PYTHONWARNINGS": "error"}).stderr == ""


def test_help_reads_well_on_80_columns(site: Site) -> None:
    done = site.run("--help", script="report_logs", env={**os.environ, "COLUMNS": "80"})
    assert max(map(len, done.stdout.splitlines())) <= 80


def test_rejected_rows_without_a_source_are_shown(site: Site, conn: Connection) -> None:
    """A source that xray hid, or a unix socket."""
    fill(conn, [ROWS[0]._replace(at=WINDOW.since, action="rejected", source=None, node="n1")] * 3)
    (source,) = read(site.database).sources
    assert (source.address, source.rows) == ("(no address)", 3)
    report(site)
    assert "Nobody was rejected" not in text(site)


@pytest.mark.usefixtures("filled")
def test_a_page_may_show_hours(site: Site) -> None:
    site.set("parser", timezone="UTC")
    report(site, "--since", "2025-11-16 06:00", "--until", "2025-11-16 18:00")
    since, until = (datetime(2025, 11, 16, hour, tzinfo=timezone.utc) for hour in (6, 18))
    assert f"{sum(since <= row.at < until for row in ROWS):,} rows" in text(site)
    done = report(site, "--since", "2025-11-17", "--until", "2025-11-16", status=2)
    assert "--since: expected up to 366 days before --until, found 2025-11-17" in done.stderr
    done = report(site, "--since", "soon", status=2)
    assert "--since or --until: expected 30m, 12h, 7d" in done.stderr


@pytest.mark.parametrize("until", ["2999-01-01", "0003-01-01", "1969-12-31"])
def test_a_day_that_can_have_no_rows_is_refused(site: Site, until: str) -> None:
    done = site.run("--until", until, script="report_logs", status=2)
    assert "--until: expected a day or moment" in done.stderr
    assert not (site.folder / "report.html").exists()


@pytest.mark.usefixtures("filled")
def test_an_unknown_node_is_reported_without_a_hint_that_could_not_fix_it(site: Site) -> None:
    said = report(site, "--node", "n\x1b[31m", status=3).stderr
    assert "\x1b" not in said
    assert "expected one of the nodes n1, n2, found" in said
    assert "--check" not in said
