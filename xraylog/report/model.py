"""Define the limits of a page, and the data that it shows. No files, database or clock."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from xraylog.report.window import A_WEEK, ONE_DAY, Window

GAP = timedelta(hours=1)  # the shortest time without an accepted connection that is shown
NOT_LET_IN = ("rejected", "api")  # actions of rows without a client that was let in; "api": calls of xray's own API
ONLINE = timedelta(minutes=10)  # a user who was let in within this time counts as online
NO_TAG = "(no tag)"
NO_PROTOCOL = "(none)"  # a line can contain a host and port without a protocol
PORT_GROUPS: Mapping[str, Sequence[int]] = {
    "web": (80, 443, 8080, 8443),
    "DNS": (53, 853, 5353),
    "mail": (25, 110, 143, 465, 587, 993, 995, 2525),
    "messengers and push": (5222, 5223, 5228, 5229, 5230),
    "remote access": (22, 23, 3389, 5900),
    "BitTorrent": (*range(6881, 6890), 51413),
}  # all others: "other"
BLOCKING = ("block", "blackhole", "reject", "deny")  # how the tags of outbounds that block usually begin
MAX_HOLES = 5  # one in five days of the period before may be empty: nobody connected, or the machine was down
RETIRED_AFTER = timedelta(days=30)  # without a run, a node counts as retired


def goes_nowhere(tag: str) -> bool:
    """Return whether the name of an outbound tag suggests that it blocks."""
    return tag.lower().startswith(BLOCKING)


@dataclass(frozen=True, slots=True)
class Thresholds:
    """How many entries the page shows at most in each list; those with the most rows come first."""

    max_users: int = 2_000  # this gives a page of 1.0 MB (benchmarks/report.py)
    max_per_user: int = 100  # addresses, and destinations, of one user
    max_of_all_users: int = 12_000  # addresses, and destinations, of all users together: then fewer of each user
    busy_rows: int = 100  # for users with more rows, destinations with a single row are left out: too many to sort
    max_destinations: int = 100
    max_changed: int = 25  # rising destinations, and as many new ones
    max_per_destination: int = 8  # visitors, and ports
    max_ports: int = 30
    max_sources: int = 100  # addresses of rejected connections
    max_per_tag: int = 50  # destinations of each outbound tag


@dataclass(frozen=True, slots=True)
class Node:
    """A machine whose log is in the database."""

    name: str
    rows: int
    first: datetime | None  # of its accepted rows in the window
    last: datetime | None
    rejected_lines: int  # in the window
    stored: datetime | None  # when its position was last updated: by a run with new lines, or else once a day
    was_active: bool = False  # whether it let a client in during the period before the window, or the day before


@dataclass(frozen=True, slots=True)
class Comparison:
    """Counts of the last day up to the end of the window, and of the same hours a week before."""

    rows: int = 0  # accepted
    rejected: int = 0
    users: int = 0
    online: int = 0
    rows_before: int = 0
    rejected_before: int = 0
    users_before: int = 0

    @property
    def has_before(self) -> bool:
        """Return whether any rows of these hours a week before are stored; without them, no comparison is possible."""
        return bool(self.rows_before or self.rejected_before)

    def with_counts(self, is_today: bool, rows: int, rejected: int, users: int, online: int) -> Comparison:
        """Return a copy with the counts of one of the two days."""
        if is_today:
            return replace(self, rows=rows, rejected=rejected, users=users, online=online)
        return replace(self, rows_before=rows, rejected_before=rejected, users_before=users)


@dataclass(frozen=True, slots=True)
class Gap:
    """A time without accepted connections on a node. There may be rejected ones, as of scanners, and API calls."""

    node: str
    since: datetime
    until: datetime

    @property
    def length(self) -> timedelta:
        """Return how long it was."""
        return self.until - self.since


@dataclass(frozen=True, slots=True)
class Slot:
    """A count of rows within a quarter of an hour with the same node, outbound tag and action."""

    start: datetime
    node: str
    outbound: str | None
    action: str | None  # None in tables that were made by hand
    rows: int

    @property
    def is_accepted(self) -> bool:
        """Return whether these are connections that xray accepted."""
        return self.action not in NOT_LET_IN

    @property
    def is_rejected(self) -> bool:
        """Return whether xray refused these connections."""
        return self.action == "rejected"


@dataclass(frozen=True, slots=True)
class User:
    """An account, as the email in the log names it, with its counts."""

    name: str
    rows: int
    addresses: int
    networks_24: int
    networks_48: int
    concurrent_addresses: int  # the largest number of addresses within any ten minutes
    first: datetime
    last: datetime
    by_day: Sequence[int]
    visited_from: Sequence[tuple[str, int]]  # addresses or networks with their rows, the most rows first
    destinations: Sequence[tuple[str, int]]
    tags: Mapping[str, int] = field(default_factory=dict)  # rows by outbound tag
    ports: Mapping[str, int] = field(default_factory=dict)  # rows by group of ports


@dataclass(frozen=True, slots=True)
class Destination:
    """A host to which users connected."""

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
    """A protocol and port to which users connected."""

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
    reasons: Sequence[tuple[str, int]] = ()  # with their rows, the most rows first


@dataclass(frozen=True, slots=True)
class Reason:
    """A reason for which connections were rejected, with its counts."""

    name: str
    rows: int
    sources: int  # without those whose address is unknown


@dataclass(frozen=True, slots=True)
class Place:
    """The country and the provider of an address, from files that the operator has loaded."""

    country: str | None = None
    provider: str | None = None


@dataclass(frozen=True, slots=True)
class Findings:
    """All the data that the page shows, except for the runs."""

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
    reasons: Sequence[Reason] = ()  # of all rejected connections, the most rows first
    total_destinations: int = 0
    before: datetime | None = None  # the first row with a destination in the period before
    is_first_period: bool = False  # no row is older than the period before
    missing_before: tuple[int, int] = (0, 0)  # how many parts of the period before lack destinations, and of how many
    node: str | None = None  # the page shows only this one; None: all nodes
    today: Mapping[str | None, Comparison] = field(default_factory=dict)  # by node; None: all nodes together
    activity: Sequence[tuple[datetime, int]] = ()  # hours, each with a bit mask: bit n is set if `users[n]` was let in
    tags: Mapping[str, int] = field(default_factory=dict)  # accepted rows by outbound tag, with or without a user
    port_groups: Mapping[str, int] = field(default_factory=dict)
    tag_destinations: Mapping[str, Sequence[tuple[str, int]]] = field(
        default_factory=dict
    )  # destinations by outbound tag
    newest: datetime | None = None  # the time of the newest row, if the window has no rows
    has_snapshot: bool = True  # whether all queries saw the same state of the database
    places: Mapping[str, Place] = field(default_factory=dict)  # by address of a user, or of a source
    names: Mapping[str, Sequence[str]] = field(default_factory=dict)  # DNS names of destinations that are addresses
    complaints: Sequence[str] = ()  # notes on tables that this role may not read
    read_until: datetime | None = (
        None  # later lines may wait in a log for its next run; None: those of the window do not
    )

    @property
    def rows(self) -> int:
        """Return the rows of the whole window."""
        return sum(node.rows for node in self.nodes)

    @property
    def has_partial_period_before(self) -> bool:
        """Return whether the first rows are late in the period before, so that any destination may seem to rise."""
        if not self.is_first_period or self.before is None:
            return False
        return self.before - self.window.before > (self.window.until - self.window.since) / 10

    @property
    def has_holes_before(self) -> bool:
        """Return whether too much of the period before is missing, so that any destination may seem to rise."""
        missing, parts = self.missing_before
        return missing * MAX_HOLES > parts

    @property
    def can_compare(self) -> bool:
        """Return whether destinations can be compared with those of the period before."""
        return self.before is not None and not (self.has_partial_period_before or self.has_holes_before)

    @property
    def rejected_lines(self) -> int:
        """Return how many lines of all nodes are unparsed."""
        return sum(node.rejected_lines for node in self.nodes)

    @property
    def known_until(self) -> datetime:
        """Return when a node without rows can have been silent at the latest."""
        return min(self.window.until, self.read_until or self.window.until)

    def without_unread(self, read_until: datetime) -> Findings:
        """Return the same without what is only a lack of lines that wait for the next run."""
        found = replace(self, read_until=read_until)
        ends = [replace(gap, until=min(gap.until, found.known_until)) for gap in self.gaps]
        return replace(found, gaps=[gap for gap in ends if gap.length >= GAP])

    @property
    def silent(self) -> list[str]:
        """Return the nodes that still have runs, but no accepted rows in the last hour of which lines are known."""
        until, since = self.known_until, self.window.since
        alive = [node for node in self.nodes if node.stored and until - node.stored < RETIRED_AFTER]
        return [node.name for node in alive if until - (node.last or since) >= GAP]

    @property
    def absent(self) -> list[str]:
        """Return the nodes that had runs since the window began, but no accepted rows in it."""
        since = self.window.since
        return [node.name for node in self.nodes if not node.last and node.stored and node.stored >= since]

    @property
    def interrupted(self) -> list[str]:
        """Return the nodes that let clients in, and then none for a day or more, which no quiet night explains."""
        loaded = {node.name for node in self.nodes if node.stored and node.last}
        long = {gap.node for gap in self.gaps if gap.length >= ONE_DAY and not self.is_before_first(gap)}
        return sorted(loaded & long)

    def is_before_first(self, gap: Gap) -> bool:
        """Return whether the node may have started only after this gap: there are no accepted rows before it."""
        if gap.since > self.window.since:
            return False
        known = {node.name for node in self.nodes if node.was_active or (node.first and node.first < gap.until)}
        # Of a long page, the same hours a week before are inside, and may be later than this gap.
        has_rows = self.window.until - A_WEEK <= gap.since and self.today.get(gap.node, Comparison()).rows_before
        return gap.node not in known and not has_rows
