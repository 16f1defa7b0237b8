"""The nouns of the page: what is asked for, and what was found. Pure: no files, no database, no clock."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta, timezone
from zoneinfo import ZoneInfo

SLOT = timedelta(minutes=15)  # the hours of every zone begin with one
GAP = timedelta(hours=1)  # without any line, that is shown
A_DAY = timedelta(days=1)
GONE = timedelta(days=30)  # after which a node is taken as retired
MOST_DAYS_BY_HOUR = 62  # of two months, an hour is less than a pixel of a chart, and of a year a tenth of one


@dataclass(frozen=True, slots=True)
class Window:
    """The days that a page shows, in one zone."""

    zone: ZoneInfo
    first: date
    last: date  # included
    until: datetime  # not included: the end of the last day, or now

    @classmethod
    def of(cls, zone: ZoneInfo, days: int, last: date | None, now: datetime) -> Window:
        """Return the window of `days` days, up to `last` or today."""
        today = now.astimezone(zone).date()
        last = last or today
        end = _midnight(last + timedelta(days=1), zone)
        return cls(zone, last - timedelta(days=days - 1), last, min(end, now) if last == today else end)

    @property
    def since(self) -> datetime:
        """The first moment of the first day."""
        return _midnight(self.first, self.zone)

    @property
    def before(self) -> datetime:
        """The first moment of the period before, which is as long."""
        return self.since - (self.until - self.since)

    @property
    def days(self) -> list[date]:
        """Each of them."""
        return [self.first + timedelta(days=number) for number in range((self.last - self.first).days + 1)]

    @property
    def unit(self) -> str:
        """What the rows of a chart are counted by."""
        return "hour" if len(self.days) <= MOST_DAYS_BY_HOUR else "day"

    @property
    def midnights(self) -> list[datetime]:
        """When each of the days begins."""
        return [_midnight(day, self.zone) for day in self.days]


def _midnight(day: date, zone: ZoneInfo) -> datetime:
    """In UTC, in which durations can be computed."""
    return datetime.combine(day, time(), zone).astimezone(timezone.utc)


@dataclass(frozen=True, slots=True)
class Node:
    """One machine that fills the database."""

    name: str
    rows: int
    first: datetime | None  # of its rows in the window
    last: datetime | None
    rejected_lines: int  # in the window
    stored: datetime | None  # when a position moved last, or, once a day, a run found its log still there


@dataclass(frozen=True, slots=True)
class Gap:
    """A time without any line of a node."""

    node: str
    since: datetime
    until: datetime

    @property
    def length(self) -> timedelta:
        """How long it was."""
        return self.until - self.since


@dataclass(frozen=True, slots=True)
class Slot:
    """Rows of a quarter of an hour."""

    start: datetime
    node: str
    outbound: str | None
    is_rejected: bool
    rows: int


@dataclass(frozen=True, slots=True)
class User:
    """One account."""

    name: str
    rows: int
    addresses: int
    networks_24: int
    networks_48: int
    together: int  # the most addresses within any ten minutes
    first: datetime
    last: datetime
    by_day: Sequence[int]
    visited_from: Sequence[tuple[str, int]]  # addresses or networks, and rows: the most first
    went_to: Sequence[tuple[str, int]]


@dataclass(frozen=True, slots=True)
class Destination:
    """A host that users went to."""

    address: str
    rows: int
    rows_before: int  # in the period before
    users: int
    ports: Sequence[str]  # as in tcp/443
    visitors: Sequence[tuple[str, int]]


@dataclass(frozen=True, slots=True)
class Port:
    """A protocol and port of destinations."""

    protocol: str
    port: int
    rows: int


@dataclass(frozen=True, slots=True)
class Source:
    """Who was rejected."""

    address: str
    rows: int
    first: datetime
    last: datetime


@dataclass(frozen=True, slots=True)
class Findings:
    """All of it."""

    window: Window
    nodes: Sequence[Node] = ()
    gaps: Sequence[Gap] = ()
    slots: Sequence[Slot] = ()
    users: Sequence[User] = ()
    users_in_all: int = 0
    rows_of_users: int = 0  # of all of them
    top: Sequence[Destination] = ()
    rising: Sequence[Destination] = ()
    new: Sequence[Destination] = ()
    ports: Sequence[Port] = ()
    sources: Sequence[Source] = ()
    sources_in_all: int = 0
    destinations_in_all: int = 0
    before: datetime | None = None  # the first row with a destination of the period before
    begins_there: bool = False  # no row is older than the period before
    node: str | None = None  # the only one that is shown
    newest: datetime | None = None  # where there are no rows in the window: the newest one of all

    @property
    def rows(self) -> int:
        """Of the whole window."""
        return sum(node.rows for node in self.nodes)

    @property
    def has_part_before(self) -> bool:
        """Whether rows only begin late in the period before: what rises may only have been stored since then."""
        window, before = self.window, self.before
        return self.begins_there and before is not None and before - window.before > (window.until - window.since) / 10

    @property
    def rejected_lines(self) -> int:
        """Lines that were not understood, of all nodes."""
        return sum(node.rejected_lines for node in self.nodes)

    @property
    def silent(self) -> list[str]:
        """Nodes whose runs did something lately, and without any row in the last hour of the window."""
        end = self.window.until
        return [node.name for node in self.nodes if node.stored and GAP <= end - (node.last or node.stored) < GONE]

    @property
    def absent(self) -> list[str]:
        """Nodes without any row in the window whose runs did something since it began."""
        since = self.window.since
        return [node.name for node in self.nodes if not node.rows and node.stored and node.stored >= since]

    @property
    def interrupted(self) -> list[str]:
        """Nodes that had rows in the window, and then none for a day: no quiet night."""
        ours = {node.name for node in self.nodes if node.stored}
        long = {gap.node for gap in self.gaps if gap.length >= A_DAY and gap.since > self.window.since}
        return sorted(ours & long)
