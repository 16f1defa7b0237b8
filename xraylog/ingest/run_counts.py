"""Counts of a run's rows for the metrics: users, addresses, actions, outbound tags. Pure.

Only a run that writes metrics counts, because it costs time for each row.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from ipaddress import IPv4Network, IPv6Network, ip_network
from itertools import compress

from xraylog.records import Records
from xraylog.telemetry import prometheus
from xraylog.telemetry.prometheus import Series

MAX_DISTINCT = 500_000  # names whose hashes are kept: an adversary's log must not fill the memory
MAX_TAGS = 1_000  # distinct ones that are counted; a client that forges lines chooses tags, too
ACCEPTED = "accepted"
OTHER = "other"
# As client_address in answers.sql: mapped addresses are IPv4; those of unix sockets and proxies are no clients.
MAPPED = IPv6Network("::ffff:0.0.0.0/96")
NO_CLIENTS = (IPv4Network("0.0.0.0/8"), IPv4Network("127.0.0.0/8"), IPv6Network("::/16"))
MAY_BE_NO_CLIENT = ("0", "127.", ":")  # how these and the mapped ones begin: most others need no closer look


class RunCounts:
    """Counts rows as they are read."""

    def __init__(self) -> None:
        self.actions: Counter[str] = Counter()
        self.outbound_tags: Counter[str] = Counter()
        self._users: set[int] = set()
        self._addresses: set[int] = set()

    @property
    def users(self) -> int:
        """The number of distinct users that were let in, up to MAX_DISTINCT."""
        return len(self._users)

    @property
    def addresses(self) -> int:
        """The number of distinct addresses of clients that were let in, up to MAX_DISTINCT."""
        return len(self._addresses)

    def add(self, records: Records) -> None:
        """Count these rows. Only a client that was let in is a user's: scanners have addresses, too."""
        requests = Counter(records.requests)
        for request, count in requests.items():
            self.actions[request.action] += count
        let_in = [*map({request for request in requests if request.action == ACCEPTED}.__contains__, records.requests)]
        routes = Counter(records.routes)
        for route, count in routes.items():
            if route.outbound_tag is not None:
                is_counted = route.outbound_tag in self.outbound_tags or len(self.outbound_tags) < MAX_TAGS
                self.outbound_tags[route.outbound_tag if is_counted else OTHER] += count
        _add(self._users, {route.email for route in set(compress(records.routes, let_in))})
        sources = set(compress(records.source_ips, let_in))
        _add(self._addresses, {client_address(source) for source in sources if source is not None})

    def merge(self, other: RunCounts) -> None:
        """Add the counts of another log."""
        self.actions += other.actions
        self.outbound_tags += other.outbound_tags
        self._users |= other._users
        self._addresses |= other._addresses

    def most_frequent_tags(self, count: int) -> dict[str, int]:
        """Return the rows of the `count` most frequent outbound tags, and under OTHER those of the rest, if any."""
        tags = Counter(self.outbound_tags)
        rest = tags.pop(OTHER, 0)
        most = dict(sorted(tags.items(), key=lambda item: (-item[1], item[0]))[:count])
        rest += tags.total() - sum(most.values())
        return {**most, **({OTHER: rest} if rest else {})}


def as_metrics(counts: Iterable[RunCounts]) -> dict[Series, float]:
    """Return the counts of all logs of a run as metrics."""
    total = RunCounts()
    for log_counts in counts:
        total.merge(log_counts)
    tags = total.most_frequent_tags(prometheus.MAX_TAGS)
    return {
        (prometheus.USERS, ""): total.users,
        (prometheus.ADDRESSES, ""): total.addresses,
        **{(prometheus.ROWS, action): total.actions[action] for action in prometheus.ACTIONS},
        **{(prometheus.OUTBOUND_ROWS, tag): count for tag, count in tags.items()},
    }


def client_address(source: str) -> str | None:
    """Return the address of a client, or its network if it is masked; None if it is not a client's."""
    if not source.startswith(MAY_BE_NO_CLIENT):
        return source
    found = ip_network(source, strict=False)
    if isinstance(found, IPv6Network) and found.subnet_of(MAPPED):
        mapped = int(found.network_address) - int(MAPPED.network_address)
        found = IPv4Network((mapped, found.prefixlen - MAPPED.prefixlen))
    if any(type(found) is type(none) and found.subnet_of(none) for none in NO_CLIENTS):  # type: ignore[arg-type]
        return None
    return str(found.network_address) if found.prefixlen == found.max_prefixlen else str(found)


def _add(known: set[int], names: set[str | None]) -> None:
    if len(known) < MAX_DISTINCT:
        known.update(hash(name) for name in names if name is not None)
