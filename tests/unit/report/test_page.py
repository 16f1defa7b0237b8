"""The page puts first what an operator should look at."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from datetime import datetime, timedelta

import pytest
from helpers.report_data import (
    BERLIN,
    HOUR,
    LAST,
    NOON,
    WINDOW,
)

from xraylog.report import charts, page, run_history, traffic
from xraylog.report.model import Comparison, Destination, Findings, Gap, Node, Place, Reason, Slot, Source, User
from xraylog.report.window import Window


@pytest.fixture(autouse=True)
def _without_charts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Draw none: a page takes a second to draw them, and what this file is about is beside them."""
    monkeypatch.setattr(charts, "_svg", lambda label, *_: f'<svg aria-label="{label}"></svg>')


def notes(found: Findings, done: run_history.Runs, written: datetime) -> list[str]:
    listed = page.render(found, done, written, is_masked=False).partition('<ul class="notes">')[2].partition("</ul>")[0]
    return [re.sub("</?bdi>", "", note) for note in re.findall("<li>(.*)</li>", listed)]


def node(name: str, last: timedelta | None, stored: timedelta | None, rows: int = 7, rejected: int = 0) -> Node:
    """One whose last row, and last run that stored lines, are so long before noon."""
    first, end = (None, None) if last is None else (NOON - last, NOON - last)
    return Node(name, rows, first, end, rejected, None if stored is None else NOON - stored)


GOAL = Destination("host.example", 9, 3, 1, ["tcp/443"], [("u", 9)])


def test_what_an_operator_should_look_at_comes_first() -> None:
    window = Window.of(BERLIN, 1, None, NOON)
    good = node("n1", HOUR / 2, HOUR / 3)
    assert notes(Findings(window, [good]), run_history.Runs(known=True, count=3), NOON) == []
    assert "Nothing stands out" in page.render(Findings(window, [good]), run_history.Runs(), NOON, is_masked=False)
    bad = node("<b>", HOUR, HOUR, rejected=12)
    done = run_history.Runs(
        known=True, count=3, offline=2, buffer_bytes=1_500_000, unreadable=(run_history.STATISTICS,)
    )
    assert notes(Findings(window, [good, bad]), done, NOON) == [
        "Nobody was let in during the last hour: &lt;b&gt;",
        "Unknown, because it cannot be read: the statistics",
        "1.5 MB in the offline buffer: the next run that reaches PostgreSQL imports them.",
        "Runs that did not reach PostgreSQL: 2 of 3.",
        "Unparsed lines: 12. They are in rejected_lines, each with the reason.",
    ]
    assert notes(Findings(window), run_history.Runs(), NOON) == ["No rows in these days."]
    (note,) = notes(Findings(window, [good], has_snapshot=False), run_history.Runs(), NOON)
    assert note.startswith("Citus has no common snapshot: ")


@pytest.mark.parametrize(
    ("hours", "days", "is_named"),
    [(1, 1, True), (0.9, 1, False), (100, 7, True), (100, 1, False)],  # the last: its runs were before the window
)
def test_a_machine_whose_runs_have_stopped_is_named(hours: float, days: int, is_named: bool) -> None:
    """It is not known whether users were let in since then: cron may have stopped, and not xray."""
    last = NOON - timedelta(hours=hours)
    found = Findings(Window.of(BERLIN, days, None, NOON), [node("n1", HOUR / 2, HOUR / 3)])
    told = [note for note in notes(found, run_history.Runs(known=True, last=last), NOON) if "No run" in note]
    at = f"{last.astimezone(BERLIN):%Y-%m-%d %H:%M}"
    expected = f"No run of this machine since {at}: its lines from then on are not counted. Run parse_logs.py -v."
    assert told == [expected] * is_named


@pytest.mark.parametrize(("hours", "is_named"), [(1.4, False), (1.5, True)])
def test_a_run_is_missed_after_half_again_as_long_as_the_usual_pause(hours: float, is_named: bool) -> None:
    """With cron once an hour it is nearly an hour since the last run, shortly before the next one."""
    found = Findings(Window.of(BERLIN, 1, None, NOON), [node("n1", HOUR * hours, HOUR * hours)])
    done = run_history.Runs(known=True, last=NOON - HOUR * hours, pause=HOUR)
    assert [note.partition(" since")[0] for note in notes(found, done, NOON)] == ["No run of this machine"] * is_named


def test_lines_that_wait_for_the_next_run_are_no_silence() -> None:
    """With one run in six hours, of the last six nothing is known; it would stand out before each run."""
    window = Window.of(BERLIN, 4, None, NOON)
    rows = [Slot(NOON - HOUR * hour, "n1", "direct", "accepted", 100) for hour in range(5, 80)]
    for last, silence in ((5.9, []), (6.9, []), (7, ["Nobody was let in during the last hour: n1"])):
        of = node("n1", HOUR * last, HOUR * 5.5)
        found = Findings(window, [of], [Gap("n1", NOON - HOUR * last, NOON)], rows)
        assert notes(found, run_history.Runs(known=True, last=NOON - HOUR * 5.5, pause=HOUR * 6), NOON) == silence
        shown = page.render(found, run_history.Runs(pause=HOUR * 6), NOON, is_masked=False)
        assert ('id="gaps"' in shown) == bool(silence)


def test_a_silence_ends_where_the_lines_end_that_were_read() -> None:
    """A day of it would be: nobody was let in for a day or more."""
    window = Window.of(BERLIN, 4, None, NOON)
    found = Findings(window, [node("n1", HOUR * 30, HOUR * 12)], [Gap("n1", NOON - HOUR * 30, NOON)])
    shown = page.render(found, run_history.Runs(pause=HOUR * 12), NOON, is_masked=False)
    assert '<td data-value="18.0">18.0</td>' in shown


def test_of_days_that_are_over_no_run_is_missed() -> None:
    past = Window.of(BERLIN, 1, LAST, NOON + timedelta(days=9))
    done = run_history.Runs(known=True, last=past.since)
    assert notes(Findings(past, [node("n1", HOUR, HOUR)]), done, NOON + timedelta(days=9)) == []


@pytest.mark.parametrize(
    ("quiet", "is_silent"),
    [
        (node("n", HOUR, HOUR), True),
        (node("n", HOUR, HOUR * 0.9), True),  # its lines were not understood, or its run only found its log still there
        (node("n", HOUR * 0.9, HOUR), False),
        (node("n", None, HOUR * 10, rows=0), True),
        (node("n", None, HOUR * 0.9, rows=0), True),  # its runs go on: scanners knock, or no line is understood
        (node("n", HOUR, None), False),  # not one of our nodes: rows without one, or of a hand-made table
        (node("n", None, HOUR * 24 * 30, rows=0), False),  # retired
    ],
)
def test_a_node_is_silent_when_nothing_came_of_it_in_the_last_hour(quiet: Node, is_silent: bool) -> None:
    told = notes(
        Findings(Window.of(BERLIN, 1, None, NOON), [node("n1", HOUR / 2, HOUR / 3), quiet]), run_history.Runs(), NOON
    )
    assert told == ["Nobody was let in during the last hour: n"] * is_silent


def test_of_days_that_are_over_the_nodes_are_named_that_had_no_line_in_them() -> None:
    past = Window.of(BERLIN, 1, LAST, NOON + timedelta(days=9))
    nodes = [node("n1", HOUR, HOUR), node("n2", None, HOUR, rows=0), node("n3", None, HOUR * 24 * 9, rows=0)]
    told = notes(Findings(past, nodes), run_history.Runs(), NOON + timedelta(days=9))
    assert told == ["Nobody was let in during these days, but there were runs: n2"]


def test_a_node_that_let_nobody_in_since_midnight_is_not_yet_silent() -> None:
    window = Window.of(BERLIN, 1, None, WINDOW.since + HOUR * 0.9)
    quiet = Node("n", 0, None, None, 0, window.until)
    assert notes(Findings(window, [quiet]), run_history.Runs(), window.until) == ["No rows in these days."]


def test_a_day_without_lines_stands_out_and_a_quiet_night_does_not() -> None:
    window = Window.of(BERLIN, 8, None, NOON)
    nodes = [node("n1", HOUR / 2, HOUR / 3), node("n2", HOUR / 2, HOUR / 3), node("old", None, None, rows=0)]
    quiet = [
        Gap("n1", NOON - HOUR * 30, NOON - HOUR * 6.01),  # a night
        Gap("n1", window.since, window.since + HOUR * 30),  # it may have been new
        Gap("old", window.since, NOON),
        Gap(traffic.NO_NODE, NOON - HOUR * 30, NOON),  # of a table that was migrated
    ]
    assert notes(Findings(window, nodes, quiet), run_history.Runs(), NOON) == []
    gaps = [Gap(name, NOON - HOUR * 30, NOON - HOUR * 6) for name in ("n2", "n1", "n2")]
    assert notes(Findings(window, nodes, [*quiet, *gaps]), run_history.Runs(), NOON) == [
        "Nobody was let in for a day or more: n1, n2"
    ]


def test_a_node_that_is_silent_for_a_day_is_named_once() -> None:
    window = Window.of(BERLIN, 3, None, NOON)
    down = Findings(window, [node("n1", HOUR * 30, HOUR * 30)], [Gap("n1", NOON - HOUR * 30, NOON)])
    assert notes(down, run_history.Runs(), NOON) == ["Nobody was let in during the last hour: n1"]
    assert notes(down, run_history.Runs(), NOON + HOUR) == [
        "Nobody was let in for a day or more: n1"
    ]  # these days are over


@pytest.mark.parametrize("free_days", [3, 4])
def test_a_node_that_lets_nobody_in_as_on_most_days_at_that_time_does_not_stand_out(free_days: int) -> None:
    """The account of one person, who is at work before noon, but on three of the six days before at home."""
    window = Window.of(BERLIN, 8, None, NOON)
    evenings = [window.since + n * DAY + 20 * HOUR for n in range(7)]
    mornings = [window.since + n * DAY + 9 * HOUR for n in range(free_days)]
    slots = [Slot(at, "n1", "direct", "accepted", 70) for at in [*evenings, *mornings]]
    found = Findings(window, [node("n1", HOUR * 15, HOUR / 3)], [Gap("n1", NOON - HOUR * 15, NOON)], slots)
    assert bool(notes(found, run_history.Runs(), NOON)) == (free_days > 3)


def test_of_many_nodes_that_are_silent_some_are_named() -> None:
    nodes = [node(f"n{n}", HOUR, HOUR) for n in range(11)]
    (told,) = notes(Findings(Window.of(BERLIN, 1, None, NOON), nodes), run_history.Runs(), NOON)
    assert told.endswith("n8, n9 and others")


PAST = Window.of(BERLIN, 8, LAST, NOON + timedelta(days=9))
DAY = timedelta(days=1)


def busy(window: Window, *out: tuple[datetime, datetime], rows: int = 7) -> tuple[list[Slot], list[Gap]]:
    """Rows of each quarter, of which xray refused those of some times, and the gaps that these are."""
    quarters = [window.since + n * HOUR / 4 for n in range((window.until - window.since) // (HOUR / 4))]
    slots = [
        Slot(at, "n1", "direct", "rejected" if any(since <= at < until for since, until in out) else "accepted", rows)
        for at in quarters
    ]
    return slots, [Gap("n1", *times) for times in out]


def stalled(window: Window, *out: tuple[datetime, datetime], rows: int = 7, was_active: bool = False) -> list[str]:
    """What the page says first of a node that let nobody in at these times, when its days are over."""
    slots, gaps = busy(window, *out, rows=rows)
    quiet = replace(node("n1", HOUR / 2, HOUR / 3), was_active=was_active)
    return notes(Findings(window, [quiet], gaps, slots), run_history.Runs(), NOON + timedelta(days=9))


AFTERNOON = (NOON - 3 * DAY, NOON - 3 * DAY + 4.5 * HOUR)
STALLED = "Nobody was let in, at a time at which other days have connections: n1 from 2025-11-14 13:00 to 17:30"


def test_a_node_that_stopped_letting_clients_in_stands_out_although_scanners_knocked() -> None:
    """Four and a half hours of one afternoon, of eight."""
    assert stalled(PAST, AFTERNOON) == [STALLED]
    assert stalled(PAST, AFTERNOON, rows=1) == []


def test_a_node_that_is_new_or_was_out_for_days_is_compared_with_its_other_days() -> None:
    new = (PAST.since, PAST.since + 3 * DAY)
    assert stalled(PAST, new, AFTERNOON) == [STALLED]
    assert stalled(PAST, (PAST.since + HOUR, PAST.since + 3 * DAY), AFTERNOON) == [
        "Nobody was let in for a day or more: n1",
        STALLED,
    ]


def test_a_node_that_is_new_did_not_stop_before() -> None:
    morning = (PAST.since, PAST.since + 10 * HOUR)
    assert stalled(PAST, morning) == []
    assert stalled(PAST, morning, was_active=True) == [
        "Nobody was let in, at a time at which other days have connections: n1 from 2025-11-10 00:00 to 10:00"
    ]
    assert stalled(PAST, (PAST.since, PAST.since + 3 * DAY), was_active=True) == [
        "Nobody was let in for a day or more: n1"
    ]


@pytest.mark.parametrize(("days", "is_named"), [(30, False), (7, True)])
def test_rows_of_a_week_before_show_that_a_node_is_old_if_they_are_from_before_the_page(
    days: int, is_named: bool
) -> None:
    """Of a month, they are from after the beginning of a new node: the page had it let nobody in for days."""
    window = Window.of(BERLIN, days, None, NOON)
    began = window.since + 3 * DAY
    nodes = [Node("n1", 7, began, NOON - HOUR / 2, 0, NOON - HOUR / 3)]
    today = {"n1": Comparison(rows=7, rows_before=5)}
    found = Findings(window, nodes, [Gap("n1", window.since, began)], today=today)
    assert notes(found, run_history.Runs(), NOON) == ["Nobody was let in for a day or more: n1"] * is_named


@pytest.mark.parametrize("days", [1, 2])
def test_a_page_of_too_few_days_to_compare_with_does_not_say_that_nothing_stands_out(days: int) -> None:
    window = Window.of(BERLIN, days, LAST, NOON + timedelta(days=9))
    afternoon = (NOON - HOUR, NOON + 3.5 * HOUR)
    said = "Nobody was let in, and there are too few other days to say whether that is usual: n1 from 2025-11-17 "
    assert stalled(window, afternoon) == [f"{said}12:00 to 16:30"]
    assert stalled(window) == []


def test_the_page_of_a_first_period_that_began_late_warns_of_it() -> None:
    for late, is_marked in ((timedelta(hours=7), False), (timedelta(hours=8), True)):  # a tenth of 3 days: 7.2 hours
        found = Findings(WINDOW, [node("n1", HOUR, HOUR)], slots=[Slot(WINDOW.since, "n1", None, "accepted", 7)],
                         before=WINDOW.before + late, is_first_period=True)  # fmt: skip
        shown = page.render(replace(found, rising=[GOAL], new=[GOAL]), run_history.Runs(), NOON, is_masked=False)
        assert ("Rows with a destination only begin at" in shown) == is_marked == found.has_partial_period_before
        assert ("<h3>Rising</h3>" in shown, "<h3>New</h3>" in shown) == (not is_marked, not is_marked)


@pytest.mark.parametrize(("missing", "is_marked"), [((1, 7), False), ((2, 7), True), ((6, 30), False), ((0, 0), False)])
def test_nothing_rises_where_much_of_the_period_before_is_missing(missing: tuple[int, int], is_marked: bool) -> None:
    found = Findings(WINDOW, [node("n1", HOUR, HOUR)], slots=[Slot(WINDOW.since, "n1", None, "accepted", 7)],
                     before=WINDOW.before, missing_before=missing, rising=[GOAL], new=[GOAL])  # fmt: skip
    shown = page.render(found, run_history.Runs(), NOON, is_masked=False)
    assert ("<h3>Rising</h3>" in shown, "<h3>New</h3>" in shown) == (not is_marked, not is_marked)
    assert ("Of the 7 days before, 2 have no rows with a destination: nothing is shown" in shown) == is_marked


def test_without_rows_of_a_week_before_nothing_is_compared_with_them() -> None:
    window = Window.of(BERLIN, 1, None, NOON)
    found = Findings(
        window, [node("n1", HOUR / 2, HOUR / 3)], today={None: Comparison(5, 1, 2), "n1": Comparison(5, 1, 2)}
    )
    shown = page.render(found, run_history.Runs(), NOON, is_masked=False)
    assert shown.count("no rows of a week before to compare with") == 3
    nodes = shown.partition('<table id="nodes"')[2].partition("</table>")[0]
    assert nodes.count('<td data-value="">–</td>') == 2
    stored = {name: replace(of, rejected_before=4) for name, of in found.today.items()}
    shown = page.render(replace(found, today=stored), run_history.Runs(), NOON, is_masked=False)
    assert "no rows of a week before" not in shown.partition("<script")[0]
    assert shown.count("none a week before") == 2


def test_a_page_that_begins_within_today_says_from_when_on_it_counts() -> None:
    window = Window(BERLIN, NOON - 3 * HOUR, NOON)
    found = Findings(window, [node("n1", HOUR / 2, HOUR / 3)])
    assert "<dt>users today, from 10:00 on</dt>" in page.render(found, run_history.Runs(), NOON, is_masked=False)


def test_a_page_of_more_than_two_months_has_days_and_no_hours() -> None:
    window = Window.of(BERLIN, 63, LAST, NOON)
    found = Findings(window, [node("n1", HOUR, HOUR)], slots=[Slot(NOON - HOUR, "n1", "direct", "accepted", 7)])
    text = page.render(found, run_history.Runs(), NOON, is_masked=False)
    assert "<h3>Rows per day, by outbound tag</h3>" in text
    assert "per hour" not in text


@pytest.mark.parametrize("sign", ["x", "é", "<", "🙂"])
def test_a_page_that_would_be_too_large_shows_fewer_users_and_says_so(sign: str) -> None:
    """Long names, and a year of days: a client chooses the first, and the command line the second."""
    window = Window.of(BERLIN, 366, LAST, NOON)
    users = [
        User(
            f"{n} {sign * 245}", 9, 1, 1, 0, 1, NOON, NOON, [number % 1000 for number in range(366)],
            [("203.0.113.1", 5)], [(f"{n} {sign * 245}", 4)],
        )
        for n in range(1300)
    ]  # fmt: skip
    found = Findings(window, [node("n1", HOUR / 2, HOUR / 3)], users=users, total_users=1_000_000)
    text = page.render(found, run_history.Runs(), NOON, is_masked=False)
    shown = re.findall(r"The ([\d,]+) with the most rows, of 1,000,000.", text)
    data = json.loads(text.partition('id="data">')[2].partition("</script>")[0])
    assert shown == [f"{len(data['users']):,}"]
    assert [name for name, *_ in data["users"]] == [user.name for user in users[: len(data["users"])]]
    size = len(text.encode())
    assert page.MAX_BYTES * 0.99 < size <= page.MAX_BYTES
    assert "Active users are those of the 1,300 users with the most rows" in text  # the chart counts all of them


def test_a_page_of_many_long_providers_is_not_too_large() -> None:
    """Each address is of another one: those of users that are left out are left out, too."""
    addresses = [f"10.0.{n // 250}.{n % 250}" for n in range(12_000)]
    users = [
        User(f"u{n}", 9, 6, 1, 0, 1, NOON, NOON, [9, 0, 0], [(of, 5) for of in addresses[n * 6 : n * 6 + 6]], [])
        for n in range(2000)
    ]
    known = {of: Place("DE", f"{of} {'<' * 200}") for of in addresses}
    found = Findings(WINDOW, [node("n1", HOUR / 2, HOUR / 3)], users=users, total_users=2000, places=known,
                     slots=[Slot(NOON, "n1", None, "accepted", 7)])  # fmt: skip
    text = page.render(found, run_history.Runs(), NOON, is_masked=False)
    data = json.loads(text.partition('id="data">')[2].partition("</script>")[0])
    shown = len(data["users"])
    assert 0 < shown < 2000
    assert len(data["places"]) == shown * 6
    assert f"by the {shown * 6:,} addresses of users on this page" in text
    assert "Providers, the 100 with the most rows of " in text
    assert page.MAX_BYTES * 0.9 < len(text.encode()) <= page.MAX_BYTES


def test_a_source_names_its_reasons_the_most_frequent_first() -> None:
    one, other = [("invalid user", 1200), ("timeout", 3)], [("other", 7)]
    sources = [Source(f"203.0.113.{n}", 9, NOON, NOON, of) for n, of in enumerate((one, other))]
    found = Findings(
        Window.of(BERLIN, 1, None, NOON), [node("n1", HOUR / 2, HOUR / 3)], sources=sources,
        slots=[Slot(NOON - HOUR, "n1", None, "rejected", 7)],
        reasons=[Reason("invalid user", 1200, 1), Reason("other", 7, 1), Reason("timeout", 3, 1)],
    )  # fmt: skip
    text = page.render(found, run_history.Runs(), NOON, is_masked=False)
    rows = text.partition('<table id="sources"')[2].partition("</table>")[0]
    assert re.findall('<td class="name left">(.*?)</td>', rows) == ["invalid user 1,200, timeout 3", "other"]
    assert '<table id="reasons"' in text
    text = page.render(replace(found, reasons=()), run_history.Runs(), NOON, is_masked=False)
    assert '<table id="reasons"' not in text
    assert ">why<" not in text


def test_a_page_that_is_not_too_large_shows_all_users() -> None:
    users = [User(f"u{n}", 9, 1, 1, 0, 1, NOON, NOON, [9, 0, 0], [], []) for n in range(2000)]
    found = Findings(WINDOW, [node("n1", HOUR / 2, HOUR / 3)], users=users, total_users=2000)
    text = page.render(found, run_history.Runs(), NOON, is_masked=False)
    assert "u1999" in text
    assert "with the most rows" not in text.partition("<script")[0]


def test_a_good_run_is_a_sign_of_one_also_if_it_stored_nothing() -> None:
    window = Window.of(BERLIN, 1, None, NOON)
    empty = page.render(Findings(window), run_history.Runs(last_good=NOON - HOUR), NOON, is_masked=False)
    assert "last good run" in empty
    assert "last sign of a run" not in empty
    assert "last sign of a run</dt><dd>unknown" in page.render(
        Findings(window), run_history.Runs(), NOON, is_masked=False
    )
