"""Both sessions read one snapshot, only the days of the page, and write nothing."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import replace
from datetime import date, timedelta, timezone
from typing import Any

import psycopg
import pytest
from helpers import citus
from helpers.report_data import (
    INSERT,
    INSIDE,
    LET_IN,
    NOON,
    ROWS,
    UTC,
    WINDOW,
    read,
    report,
)
from helpers.site import Site, facts, wait_until

from xraylog.database import session as databases
from xraylog.database.session import Connection, Unavailable
from xraylog.report import collect, snapshot
from xraylog.report.collect import Scope
from xraylog.report.snapshot import Session
from xraylog.report.window import Window


def test_both_sessions_see_the_same_rows(filled: Connection, database: dict[str, str]) -> None:
    """A row that comes between two questions is in no answer."""
    said: list[str] = []

    def say(what: str, _: float) -> None:
        said.append(what)
        filled.execute(INSERT, INSIDE[0]._replace(email="alice", source="192.0.2.1"))

    found = collect.read(lambda: database_session(database), Scope(WINDOW), say)
    assert len(said) > 5
    assert found.rows == len(INSIDE)
    assert sum(sum(user.by_day) for user in found.users) == sum(user.rows for user in found.users)
    assert sum(user.rows for user in found.users) == sum(row.email is not None for row in LET_IN)


def database_session(keywords: dict[str, str]) -> AbstractContextManager[Connection]:
    return databases.connect(keywords)


def test_one_session_does_where_there_is_no_second_one(filled: Connection, database: dict[str, str]) -> None:
    sessions: list[Connection] = []

    def connect() -> AbstractContextManager[Connection]:
        if sessions:
            raise Unavailable("too many clients")
        sessions.append(filled)
        return database_session(database)

    assert collect.read(connect, Scope(WINDOW), lambda *_: None) == read(database)


ASLEEP = "SELECT count(*) FROM pg_stat_activity WHERE query = 'SELECT pg_sleep(600)'"


def open_pair(keywords: dict[str, str]) -> AbstractContextManager[tuple[Session, Session]]:
    return snapshot.open_pair(lambda: database_session(keywords), 0, lambda *_: None)


def test_what_is_reported_is_the_first_error_and_not_that_its_transaction_failed(database: dict[str, str]) -> None:
    with open_pair(database) as (one, _), snapshot.side_by_side(one, one) as ask:
        asked = [ask(Session.query, "the same", query) for query in ("SELECT 1 / 0", "SELECT 1", "SELECT 2")]
        assert [type(question.exception()) for question in asked] == [psycopg.errors.DivisionByZero] * 3


def test_an_interrupted_page_cancels_the_questions_of_both_sessions(site: Site, database: dict[str, str]) -> None:
    def interrupted(*_: object) -> None:
        with open_pair(database) as pair, snapshot.side_by_side(*pair) as ask:
            for _ in range(3):
                ask(Session.query, "the same", "SELECT pg_sleep(600)")
            wait_until(lambda: site.query(ASLEEP) == [(2,)])
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()


def test_where_citus_distributes_logs_the_page_is_the_same_and_says_that_it_has_no_snapshot(
    filled: Connection, database: dict[str, str]
) -> None:
    expected = read(database)
    citus.distribute(filled)
    assert read(database) == replace(expected, has_snapshot=False)


@pytest.mark.usefixtures("filled")
def test_only_the_days_of_the_window_and_of_the_period_before_are_read(
    database: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    window = Window.of(UTC, 1, date(2025, 11, 16), NOON + timedelta(days=9))
    plans: dict[str, str] = {}
    run = snapshot.Session.query

    def explained(self: snapshot.Session, what: str, query: Any, **values: Any) -> list[Any]:
        text = query if isinstance(query, str) else query.as_string(self.conn)
        rows = self.conn.execute(f"EXPLAIN {text}", {**self.values, **values}).fetchall()
        plans[what] = "\n".join(line for (line,) in rows)
        return run(self, what, query, **values)

    monkeypatch.setattr(snapshot.Session, "query", explained)
    read(database, window)
    days = {str(row.at.astimezone(timezone.utc).date()).replace("-", "_") for row in ROWS}
    of_logs = {what: {day for day in days if f"logs_{day}" in plan} for what, plan in plans.items()}
    assert of_logs.pop("older rows")  # is there one?
    assert of_logs.pop("destinations") == {"2025_11_15", "2025_11_16"}
    assert of_logs.pop("nodes before") == {"2025_11_15"}  # asked where a node let nobody in at first
    assert {what for what, read_days in of_logs.items() if read_days} == {
        "traffic",
        "users",
        "rejected sources",
        "visits",
        "destinations of users",
        "concurrent addresses, 2025-11-16",
        "outbound tags and ports",
        "destinations of tags",
        "today",
    }
    assert all(read_days <= {"2025_11_16"} for read_days in of_logs.values())
    assert len(days) > 4


def test_it_writes_nothing(site: Site, filled: Connection) -> None:
    before = facts(filled), site.query("SELECT count(*) FROM logs")
    with snapshot.open_pair(lambda: database_session(site.database), 0, lambda *_: None) as (first, second):
        for session in (first, second):
            with pytest.raises(psycopg.errors.ReadOnlySqlTransaction), session.conn.transaction():
                session.conn.execute("CREATE TABLE mine ()")
    report(site)
    assert before == (facts(filled), site.query("SELECT count(*) FROM logs"))
