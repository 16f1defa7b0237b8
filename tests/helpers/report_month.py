"""Generate the findings for a page of a month, without a database."""

from __future__ import annotations

from datetime import date, datetime, timedelta, timezone

from helpers.report_data import BERLIN
from xraylog.report.model import Destination, Findings, Node, Place, Reason, Slot, Source, User
from xraylog.report.window import Window

NOW = datetime(2025, 11, 17, 12, 20, tzinfo=timezone.utc)
WINDOW = Window.of(BERLIN, 30, date(2025, 11, 17), NOW)
BARE = "192.0.2.77"  # a destination without a name
SHARES = {"direct": 70, "block": 18, "warp": 12}  # rows of each piece of the day


def slots() -> list[Slot]:
    """Return rows for each hour, more in the evening; one tag is rare, and the share of each tag varies."""
    hours = range((WINDOW.until - WINDOW.since) // timedelta(hours=1))
    starts = [WINDOW.since + timedelta(hours=number) for number in hours]
    return [
        Slot(start, "n1", tag, "accepted", rows * (1 + start.hour % 12) // (1 + start.day % 3))
        for start in starts
        for tag, rows in SHARES.items()
    ]


def user(number: int) -> User:
    by_day = [(number + day) % 7 * 10 for day in range(30)]
    from_ = [(f"203.0.113.{place}", 9 - place) for place in range(6)]
    to = [*((f"host{place}.example", 9 - place) for place in range(6)), (BARE, 3)]
    uses = {"tags": {"direct": 70, "block": 18}, "ports": {"web": 80, "DNS": 8}}
    return User(f"user{number}", sum(by_day), 20, 1, 0, 2, WINDOW.since, NOW, by_day, from_, to, **uses)


GOALS = [
    Destination(f"host{place}.example", 90 - place, 30, 74, ["tcp/443"], [(f"user{n}", 9 - n) for n in range(8)])
    for place in range(12)
]
GOALS.append(Destination(BARE, 70, 20, 40, ["tcp/443"], [("user1", 9)]))
SOURCES = [
    Source(f"198.51.100.{place}", 90 - place, WINDOW.since, NOW, [("invalid user", 80 - place), ("timeout", 10)])
    for place in range(12)
]
PLACES = {
    **{f"203.0.113.{place}": Place("DE", "Example Telecom AG") for place in range(4)},
    "203.0.113.4": Place("NL", "A hosting company with a rather long name, Ltd."),
    **{source.address: Place("ZA", None) for source in SOURCES[:3]},
}
FOUND = Findings(
    WINDOW,
    [Node("n1", sum(slot.rows for slot in slots()), WINDOW.since, NOW, 0, NOW)],
    slots=slots(),
    users=[user(number) for number in range(40)],
    total_users=40,
    top=GOALS,
    rising=GOALS[:3],
    tags={"direct": 2800, "block": 720},
    port_groups={"web": 3200, "DNS": 320},
    tag_destinations={"block": [("host3.example", 700), (BARE, 20)]},
    names={BARE: ["cdn.example", "www.a-shop-with-a-rather-long-name.example"]},
    activity=[(WINDOW.since + timedelta(hours=hour), 1 << hour % 40) for hour in range(700)],
    total_destinations=500,
    before=WINDOW.before,
    sources=SOURCES,
    total_sources=12,
    places=PLACES,
    reasons=[Reason("invalid user", 894, 12), Reason("timeout", 120, 12)],
)
