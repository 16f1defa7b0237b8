"""The days and limits that a page is asked for, and what was found. No files, database or clock."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta, timezone
from zoneinfo import ZoneInfo

SLOT = timedelta(minutes=15)  # the hours of every zone begin with one
GAP = timedelta(hours=1)  # the shortest time without an accepted connection that is shown
ONE_DAY = timedelta(days=1)
NOT_LET_IN = ("rejected", "api")  # actions of rows that show no client: what xray refused, and calls of its own API
RETIRED_AFTER = timedelta(days=30)  # without a run, a node counts as retired
# The units of charts, the shortest first, and up to how many days each is at least 4 of a chart's 960 pixels wide. The
# last one has no limit: over a year a day has 2.6.
UNITS = {"hour": 10, "six hours": 60, "day": None}


@dataclass(frozen=True, slots=True)
class Window:
    """The days that a page shows, in one zone."""

    zone: ZoneInfo
    first: date
    last: date  # inclusive
    until: datetime  # exclusive: the end of the last day, or now

    @classmethod
    def of(cls, zone: ZoneInfo, days: int, last: date | None, now: datetime) -> Window:
        """Return the window of `days` days, up to `last` or today."""
        today = now.astimezone(zone).date()
        last = last or today
        end = _midnight(last + timedelta(days=1), zone)
        return cls(zone, last - timedelta(days=days - 1), last, min(end, now) if last == today else end)

    @property
    def since(self) -> datetime:
        """Return the first moment of the first day."""
        return _midnight(self.first, self.zone)

    @property
    def before(self) -> datetime:
        """Return the first moment of the period before, which is as long."""
        return self.since - (self.until - self.since)

    @property
    def days(self) -> list[date]:
        """Return each day."""
        return [self.first + timedelta(days=number) for number in range((self.last - self.first).days + 1)]

    @property
    def has_partial_day(self) -> bool:
        """Return whether the last day was not over when the window ends."""
        return self.until < _midnight(self.last + ONE_DAY, self.zone)

    @property
    def unit(self) -> str:
        """Return what the charts count rows by."""
        return next(unit for unit, most in UNITS.items() if most is None or len(self.days) <= most)

    @property
    def midnights(self) -> list[datetime]:
        """Return when each day begins."""
        return [_midnight(day, self.zone) for day in self.days]


def _midnight(day: date, zone: ZoneInfo) -> datetime:
    """Return when the day begins, in UTC: differences of local times are wrong where clocks change."""
    return datetime.combine(day, time(), zone).astimezone(timezone.utc)


@dataclass(frozen=True, slots=True)
class Thresholds:
    """How much the page shows: those with the most rows, up to these numbers."""

    max_users: int = 2_000  # a line each: a page of 1.3 MB (benchmarks/report.py)
    max_per_user: int = 100  # addresses, and destinations, of one user
    max_of_all_users: int = 12_000  # the same, of all users together: busy databases show fewer of each
    busy_rows: int = 100  # of users with more rows, destinations of a single row are left out: too many to sort
    max_destinations: int = 100
    max_changed: int = 25  # rising destinations, and new ones
    max_per_destination: int = 8  # visitors, and ports
    max_ports: int = 30
    max_sources: int = 100  # rejected


@dataclass(frozen=True, slots=True)
class Node:
    """One machine that fills the database."""

    name: str
    rows: int
    first: datetime | None  # of its accepted rows in the window
    last: datetime | None
    rejected_lines: int  # in the window
    stored: datetime | None  # when its position last moved, or (once a day) when a run last saw its log


@dataclass(frozen=True, slots=True)
class Gap:
    """A time without an accepted connection of a node. Scanners that knock meanwhile, and a panel's calls, are none."""

    node: str
    since: datetime
    until: datetime

    @property
    def length(self) -> timedelta:
        """Return how long it was."""
        return self.until - self.since


@dataclass(frozen=True, slots=True)
class Slot:
    """Rows of a quarter of an hour."""

    start: datetime
    node: str
    outbound: str | None
    action: str | None  # None in tables that were made by hand
    rows: int

    @property
    def is_accepted(self) -> bool:
        """Return whether clients were let in."""
        return self.action not in NOT_LET_IN

    @property
    def is_rejected(self) -> bool:
        """Return whether xray refused these connections."""
        return self.action == "rejected"


@dataclass(frozen=True, slots=True)
class User:
    """One account."""

    name: str
    rows: int
    addresses: int
    networks_24: int
    networks_48: int
    concurrent_addresses: int  # the most addresses within any ten minutes
    first: datetime
    last: datetime
    by_day: Sequence[int]
    visited_from: Sequence[tuple[str, int]]  # addresses or networks, and rows: the most first
    destinations: Sequence[tuple[str, int]]


@dataclass(frozen=True, slots=True)
class Destination:
    """A host that users went to."""

    address: str
    rows: int
    rows_before: int  # in the period before
    users: int
    ports: Sequence[str]  # as in tcp/443
    visitors: Sequence[tuple[str, int]]

    @property
    def gain(self) -> int:
        """Return how many more rows it has than in the period before."""
        return self.rows - self.rows_before


@dataclass(frozen=True, slots=True)
class Port:
    """A protocol and port of destinations."""

    protocol: str
    port: int
    rows: int


@dataclass(frozen=True, slots=True)
class Source:
    """An address or network whose connections were rejected."""

    address: str
    rows: int
    first: datetime
    last: datetime


@dataclass(frozen=True, slots=True)
class Findings:
    """Everything the page shows."""

    window: Window
    nodes: Sequence[Node] = ()
    gaps: Sequence[Gap] = ()
    slots: Sequence[Slot] = ()
    users: Sequence[User] = ()
    total_users: int = 0
    rows_with_user: int = 0  # of all users
    top: Sequence[Destination] = ()
    rising: Sequence[Destination] = ()
    new: Sequence[Destination] = ()
    ports: Sequence[Port] = ()
    sources: Sequence[Source] = ()
    total_sources: int = 0
    total_destinations: int = 0
    before: datetime | None = None  # the first row with a destination of the period before
    is_first_period: bool = False  # no row is older than the period before
    node: str | None = None  # the only one that is shown; None: all
    newest: datetime | None = None  # the newest row of all, if the window has none
    has_snapshot: bool = True  # all answers are of one moment

    @property
    def rows(self) -> int:
        """Return the rows of the whole window."""
        return sum(node.rows for node in self.nodes)

    @property
    def has_partial_period_before(self) -> bool:
        """Return whether rows begin late in the period before: what rises may only have been stored since then."""
        if not self.is_first_period or self.before is None:
            return False
        return self.before - self.window.before > (self.window.until - self.window.since) / 10

    @property
    def rejected_lines(self) -> int:
        """Return how many lines of all nodes are unparsed."""
        return sum(node.rejected_lines for node in self.nodes)

    @property
    def silent(self) -> list[str]:
        """Return the nodes whose runs did something lately, without an accepted row in the last hour of the window."""
        alive = [(node.name, node.last or node.stored) for node in self.nodes if node.stored]
        return [name for name, last in alive if last and GAP <= self.window.until - last < RETIRED_AFTER]

    @property
    def absent(self) -> list[str]:
        """Return the nodes without an accepted row in the window whose runs did something since it began."""
        since = self.window.since
        return [node.name for node in self.nodes if not node.last and node.stored and node.stored >= since]

    @property
    def interrupted(self) -> list[str]:
        """Return the nodes that let clients in, then none for a day: longer than a quiet night."""
        loaded = {node.name for node in self.nodes if node.stored}
        long = {gap.node for gap in self.gaps if gap.length >= ONE_DAY and gap.since > self.window.since}
        return sorted(loaded & long)
