"""ask_logs.py: one question a subcommand, for people and for machines."""

from __future__ import annotations

import csv
import io
import json
import os
import signal
import subprocess
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import psycopg
import pytest
from helpers.site import Site, line, lines
from psycopg.sql import SQL, Identifier

import ask_logs
from xraylog.database import deadline
from xraylog.questions import asking, catalog, names, present
from xraylog.questions.fetching import Rows

NOW = datetime(2025, 11, 17, tzinfo=timezone.utc)
SINCE = ("--since", "2025-11-17")
WHEN = (*SINCE, "--until", "2025-11-17")


@pytest.fixture
def asked(site: Site) -> Site:
    """A site with rows of one day, one of them of a name that would act in a spreadsheet and on a terminal."""
    site.append(*lines(0, 5), *[line(7)] * 3, line(8).replace("email: u8", "email: =cmd|\x1b[2J"))
    site.run()
    return site


@pytest.mark.parametrize("sign", "=+-@＝＋－＠")
def test_no_name_and_no_list_of_names_begins_a_formula_in_a_spreadsheet(sign: str) -> None:
    part = present.Part("users", ("email", "names", "rows"), Rows([[(f"{sign}cmd", [f"{sign}cmd", "b"], -1)]]))
    shown = "".join(present.as_csv(present.Answer("q", NOW, NOW, timezone.utc, [part])))
    assert list(csv.reader(io.StringIO(shown)))[1] == [f"'{sign}cmd", f"'{sign}cmd, b", "-1"]


def test_no_part_of_a_name_is_a_cell_where_semicolons_or_tabs_part_cells() -> None:
    """As in the spreadsheets of countries whose decimals have a comma."""
    names = ["a;=cmd", "b\tc", 'say "x"', "d,e", "plain", ""]
    part = present.Part("users", ("email", "rows"), Rows([[(name, 1) for name in names]]))
    shown = "".join(present.as_csv(present.Answer("q", NOW, NOW, timezone.utc, [part])))
    assert [cell for cell, _ in list(csv.reader(io.StringIO(shown)))[1:]] == [
        name.replace("\t", r"\x09") for name in names
    ]  # fmt: skip
    assert list(csv.reader(io.StringIO(shown), delimiter=";"))[1][0].startswith("a;=cmd")
    assert "\nplain,1\n" in shown


def ask(site: Site, *arguments: str, status: int = 0) -> str:
    done = site.run(*arguments, script="ask_logs", status=status)
    return done.stderr if status else done.stdout


def answer(site: Site, *arguments: str) -> Any:
    return json.loads(ask(site, *arguments, "--json"))


def test_the_menu_shows_each_question(asked: Site) -> None:
    shown = ask(asked, "--help")
    for question in catalog.QUESTIONS:
        assert f"\n    {question.name} " in shown


def test_a_table_states_its_window_and_has_aligned_columns(asked: Site) -> None:
    shown = ask(asked, "last-seen", "--since", "2025-11-17", "--limit", "2")
    assert shown == (
        "since 2025-11-17 00:00:00+00:00 (UTC)\n\n"
        "email         last                       source_ip\n"
        "------------  -------------------------  -----------\n"
        "=cmd|\\x1b[2J  2025-11-17 10:15:23+00:00  203.0.113.9\n"
        "u0            2025-11-17 10:15:23+00:00  203.0.113.1\n"
        "2 rows, and there are more: --limit\n\n"
        "Without a time: users who were not let in during the window, and names that the database does not know.\n\n"
        "Left out: rejected connections, though some name a user, whose client is too old.\n"
    )


def test_times_are_in_the_zone_of_the_log(asked: Site) -> None:
    asked.set("parser", timezone="Asia/Tehran")
    found = answer(asked, "traffic", "--since", "2025-11-17 13:00", "--until", "2025-11-17T11:00:00Z")
    assert found["since"] == "2025-11-17T13:00:00+03:30"
    assert found["until"] == "2025-11-17T14:30:00+03:30"
    assert [(row["begin"], row["rows"]) for row in found["periods"]] == [("2025-11-17T13:00:00+03:30", 9)]


def test_nothing_of_a_client_acts_on_a_terminal_or_in_a_spreadsheet(asked: Site) -> None:
    shown = ask(asked, "last-seen", *SINCE, "--csv")
    assert "\x1b" not in shown
    assert {row["email"] for row in csv.DictReader(io.StringIO(shown))} >= {"'=cmd|\\x1b[2J", "u7"}
    assert "\x1b" not in ask(asked, "last-seen", *SINCE, "--json")
    assert "=cmd|\x1b[2J" in {row["email"] for row in answer(asked, "last-seen", *SINCE)["users"]}


def test_a_name_that_looks_like_a_password_is_shown_as_it_is(site: Site) -> None:
    """It is the name of a user, by which the operator asks."""
    name = "password=secret123 x"
    site.append(line(7).replace("email: u7", f"email: {name}"))
    site.run()
    for form in ((), ("--csv",), ("--json",)):
        assert name in ask(site, "last-seen", *SINCE, *form)
    assert answer(site, "user", name, *WHEN)["total"][0]["rows"] == 1


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
@pytest.mark.parametrize("form", [(), ("--csv",)], ids=["table", "csv"])
def test_names_are_escapes_where_the_encoding_lacks_their_letters(
    site: Site, encoding: str, form: tuple[str, ...]
) -> None:
    site.append(line(7).replace("email: u7", "email: юзер"), line(8))
    site.run()
    done = subprocess.run(
        site.command("last-seen", *SINCE, *form, script="ask_logs"),
        env={**os.environ, "PYTHONIOENCODING": encoding}, capture_output=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0
    assert "\\u044e\\u0437\\u0435\\u0440" in done.stdout.decode("ascii")
    assert "u8" in done.stdout.decode("ascii")


def test_what_is_not_utf_8_is_an_error_of_the_command_line(asked: Site) -> None:
    for question in (["user"], ["outbound"], ["reached"], ["traffic", "--node"], ["traffic", "--since"]):
        done = subprocess.run(
            [os.fsencode(word) for word in asked.command(*question, script="ask_logs")] + [b"a\xff"],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 2
        assert done.stderr.endswith("found 'a\\udcff'\n")


def test_one_user_and_those_of_a_pattern(asked: Site) -> None:
    found = answer(asked, "user", "u7", *WHEN)
    assert [(row["destination"], row["port"], row["rows"]) for row in found["destinations"]] == [
        ("host7.example", 443, 3)
    ]
    several = answer(asked, "user", "u*", *WHEN)
    assert [(row["user"], row["rows"]) for row in several["destinations"]] == [
        *((f"u{n}", 1) for n in range(5)),
        ("u7", 3),
    ]
    shown = ask(asked, "user", "u*", *WHEN, "--csv", "--only", "destinations")
    assert [row["user"] for row in csv.DictReader(io.StringIO(shown))] == [f"u{n}" for n in (0, 1, 2, 3, 4, 7)]


def test_a_user_whose_name_has_a_star_is_no_pattern(asked: Site) -> None:
    asked.append(line(7, "2025/11/17 11:00:00").replace("email: u7", "email: u*"))
    asked.run()
    assert [row["rows"] for row in answer(asked, "user", "u*", *WHEN)["total"]] == [1]


def test_a_pattern_that_fits_many_users_says_which_are_shown(asked: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    for most, note in ((6, False), (5, True)):
        monkeypatch.setattr(names, "MAX_USERS", most)
        found = answer(asked, "user", "u*", *WHEN)
        assert len(found["destinations"]) == most
        assert any(f"The first {most} users whose names fit are shown" in text for text in found["notes"]) == note
        assert found["is_cut"] == note


def test_csv_leaves_no_note_out(asked: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """They go to standard error, as the window does: the table is for a machine."""
    monkeypatch.setattr(names, "MAX_USERS", 5)
    done = asked.run("user", "u*", *WHEN, "--only", "total", "--csv", "--limit", "0", script="ask_logs")
    assert len(done.stdout.splitlines()) == 1 + 5
    assert "\nThe first 5 users whose names fit are shown; " in done.stderr
    for question in (["reached", "nobody.example", "--only", "users"], ["traffic"], ["new"]):
        done = asked.run(*question, *WHEN, "--csv", script="ask_logs")
        notes = answer(asked, *question, *WHEN)["notes"]
        assert notes
        assert done.stderr.splitlines()[1:] == notes
        assert not any(note in done.stdout for note in notes)


def test_only_a_table_is_cut_unasked(asked: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ask_logs, "DEFAULT_LIMIT", 2)
    assert "2 rows, and there are more: --limit" in ask(asked, "last-seen", *SINCE)
    assert len(answer(asked, "last-seen", *SINCE)["users"]) == 7
    assert len(ask(asked, "last-seen", *SINCE, "--csv").splitlines()) == 1 + 7
    cut = asked.run("last-seen", *SINCE, "--csv", "--limit", "3", script="ask_logs")
    assert len(cut.stdout.splitlines()) == 1 + 3
    assert "there are more: --limit" in cut.stderr


@pytest.mark.parametrize(
    "question",
    [
        ("last-seen", "--since", "0001-01-01"),
        ("traffic", "--until", "0001-01-02"),
        ("traffic", "--since", "9999-12-30"),
    ],
)
def test_a_window_at_the_end_of_time_is_an_answer_or_an_error_of_one_line(
    asked: Site, question: tuple[str, ...]
) -> None:
    asked.set("parser", timezone="America/New_York")
    command = asked.command(*question, script="ask_logs")
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode in (0, 2)
    assert "Traceback" not in done.stderr


def test_what_nobody_expected_is_one_line(asked: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("no\nsuch luck")

    monkeypatch.setattr(asking, "ask", fail)
    said = ask(asked, "traffic", status=1)
    assert said.endswith("unexpected RuntimeError: no; such luck; for the traceback: -v before the question\n")
    assert said.count("\n") == 1


def test_an_interrupted_question_is_one_line(asked: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(asking, "ask", interrupt)
    assert ask(asked, "traffic", status=1) == "interrupted\n"


def test_a_config_that_cannot_be_used_is_no_question(asked: Site) -> None:
    asked.set("parser", timezone="Mars/Phobos")
    assert "[parser] timezone: expected" in ask(asked, "traffic", status=78)


def test_an_answer_that_cannot_be_written_is_an_error_of_one_line(asked: Site) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            asked.command("traffic", *WHEN, script="ask_logs"),
            stdout=full, stderr=subprocess.PIPE, text=True, check=False,
        )  # fmt: skip
    assert done.returncode == 3
    assert "standard output: No space left on device; not all was printed; " in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_name_that_is_none_is_an_error_that_shows_similar_ones(asked: Site) -> None:
    assert "'u0', 'u1'" in ask(asked, "user", "u", status=3)
    assert "there are 'u7'\n" in ask(asked, "user", " U7 ", status=3)
    assert "expected one of 'n1', found 'n9'" in ask(asked, "traffic", *WHEN, "--node", "n9", status=3)


def test_an_empty_window_after_the_newest_row_says_so(asked: Site) -> None:
    for question in ("online", "traffic", "ports", "sharing", "new", "rejected", "user u7", "user u*", "last-seen"):
        notes = answer(asked, *question.split(), "--since", "2025-11-18")["notes"]
        assert notes[0].startswith("The newest row is from 2025-11-17 10:15:23+00:00, before this window")
    assert "newest" not in ask(asked, "traffic", "--since", "2025-11-16", "--until", "2025-11-16")
    asked.query("DELETE FROM logs")
    for question in ("online", "new"):
        notes = answer(asked, question, "--since", "2025-11-17")["notes"]
        assert (notes[0], notes.count(notes[0])) == ("The database has no row.", 1)


def test_one_node_is_counted_alone(asked: Site) -> None:
    asked.set("parser", node="n2")
    asked.append(*lines(20, 23))
    asked.run()
    for node, rows in ("n1", 9), ("n2", 3):
        found = answer(asked, "traffic", *WHEN, "--node", node)
        assert found["periods"][0]["rows"] == rows
        assert f"Counted: rows of node '{node}' alone." in found["notes"]
    assert "alone" not in ask(asked, "traffic", *WHEN)


def test_a_node_that_stopped_while_others_go_on_is_named(asked: Site) -> None:
    asked.set("parser", node="n2")
    asked.append(line(20).replace("2025/11/17", "2025/11/18"))
    asked.run()
    stopped = "Node 'n1' has no row since then, others have; on that machine: parse_logs.py --check"
    assert answer(asked, "online", "--since", "2025-11-18", "--node", "n1")["notes"][0] == stopped
    for node, since in ("n2", "2025-11-18"), ("n1", "2025-11-17"):
        assert stopped not in ask(asked, "rejected", "--since", since, "--node", node)


def test_csv_is_one_table(asked: Site) -> None:
    assert "expected --only destinations" in ask(asked, "user", "u7", "--csv", status=2)
    shown = ask(asked, "user", "u7", *WHEN, "--csv", "--only", "destinations")
    assert shown.splitlines()[0] == "destination,port,rows,first,last"
    assert len(shown.splitlines()) == 2


@pytest.mark.parametrize("moment", ["17.11.2025", "2025-13-01", "5y", "2025-11-17 25:00", ""])
def test_what_is_no_moment_is_an_error_that_shows_one(asked: Site, moment: str) -> None:
    assert "2025-11-17 10:15" in ask(asked, "traffic", f"--since={moment}", status=2)


def test_a_window_that_ends_before_it_begins_is_an_error(asked: Site) -> None:
    assert "--since before --until" in ask(asked, "traffic", "--since", "1h", "--until", "2h", status=2)
    typed = ask(asked, "traffic", "--since", "2025-11-17", "--until", "2025-11-16 10:15", status=2)
    assert "found 2025-11-17 00:00:00+00:00 and 2025-11-16 10:15:00+00:00" in typed
    ahead = ask(asked, "traffic", "--since", "2190-01-01", status=2)
    assert "expected --since before --until (default: now), found 2190-01-01 00:00:00+00:00 and 20" in ahead


def test_a_part_of_another_form_of_the_question_is_an_error_that_names_those_of_this_one(asked: Site) -> None:
    wrong = {
        ("online", "--only", "periods"): "expected users, found periods, which goes with --by",
        ("online", "--by", "hour", "--only", "users"): "expected periods, found users, which goes without --by",
        ("outbound", "--only", "users"): "expected outbounds, found users, which goes with TAG",
        ("outbound", "x", "--only", "outbounds"): "expected users or destinations, found outbounds, which goes without",
        ("ports", "22", "--only", "ports"): "expected users, found ports, which goes without PORTS",
    }
    for typed, expected in wrong.items():
        assert f"argument --only: {expected}" in ask(asked, *typed, status=2)


@pytest.fixture
def reader(asked: Site) -> Iterator[dict[str, str]]:
    """The keywords of a role that may read and do nothing else."""
    name = f"reader_of_{asked.database['dbname']}"
    with psycopg.connect(**asked.database, autocommit=True) as conn:  # type: ignore[arg-type]
        conn.execute(SQL("CREATE ROLE {} LOGIN PASSWORD 'only for this test'").format(Identifier(name)))
        conn.execute(SQL("GRANT SELECT ON ALL TABLES IN SCHEMA public TO {}").format(Identifier(name)))
        yield {"user": name, "password": "only for this test"}
        conn.execute(SQL("DROP OWNED BY {}").format(Identifier(name)))
        conn.execute(SQL("DROP ROLE {}").format(Identifier(name)))


def test_a_server_that_freezes_during_a_question_is_given_up(asked: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its kernel still answers, so that no timer of TCP ends."""
    pid, find_node = asked.log.with_name("pid"), names.find_node

    def freeze(conn: Any, name: str | None) -> int | None:
        pid.write_text(str(conn.pgconn.backend_pid))
        os.kill(conn.pgconn.backend_pid, signal.SIGSTOP)
        return find_node(conn, name)

    asked.set("report", statement_timeout="1")
    monkeypatch.setattr(deadline, "SILENCE_S", -0.9)
    monkeypatch.setattr(names, "find_node", freeze)
    try:
        said = ask(asked, "traffic", *WHEN, "--node", "n1", status=1)
    finally:
        os.kill(int(pid.read_text()), signal.SIGCONT)
    assert f"no answer for 0.1 s from the server's process {pid.read_text()}" in said
    assert "Traceback" not in said


def test_settings_of_the_role_change_no_answer(asked: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = answer(asked, "reached", "*.example", *WHEN)
    settings = {"standard_conforming_strings": "off", "backslash_quote": "off", "DateStyle": "German"}
    monkeypatch.setenv("PGOPTIONS", " ".join(f"-c {name}={value}" for name, value in settings.items()))
    assert answer(asked, "reached", "*.example", *WHEN) == expected


def test_a_role_that_may_only_read_is_enough(asked: Site, reader: dict[str, str]) -> None:
    asked.set("postgresql", **reader)
    assert answer(asked, "traffic", *WHEN)["periods"][0]["rows"] == 9
