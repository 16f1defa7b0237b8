"""What the scripts of the page show, as JSON: lists, with every name once. Pure."""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from xraylog.report import figures
from xraylog.report.figures import InZone
from xraylog.report.model import Destination, Findings, Place, User, goes_nowhere

MAX_OF_NODES = 20_000  # nodes times days


class Names:
    """Each name once, and its number."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}

    def number(self, name: str) -> int:
        """Return the number of a name."""
        return self._numbers.setdefault(name, len(self._numbers))

    def pairs(self, counts: Iterable[tuple[str, int]]) -> list[tuple[int, int]]:
        """Return names with their rows, as numbers."""
        return [(self.number(name), rows) for name, rows in counts]

    @property
    def all(self) -> list[str]:
        """Return the names in the order of their numbers."""
        return [*self._numbers]


class Places:
    """Each pair of a country and a provider once, and its number."""

    def __init__(self, by_address: Mapping[str, Place]) -> None:
        self._by_address = by_address
        self._numbers: dict[Place, int] = {}

    def entry(self, address: str, rows: int) -> tuple[str | int, ...]:
        """Return an address with its rows, and the number of its place, if it is known."""
        place = self._by_address.get(address)
        return (
            (address, rows) if place is None else (address, rows, self._numbers.setdefault(place, len(self._numbers)))
        )

    def all(self, names: Names) -> list[list[int | None]]:
        """Return country and provider of each place, in the order of their numbers; None: unknown."""
        return [
            [None if name is None else names.number(name) for name in (place.country, place.provider)]
            for place in self._numbers
        ]


def of(found: Findings, zones: Sequence[InZone], is_masked: bool, refresh_s: int) -> dict[str, Any]:
    """Return all of it."""
    names = Names()
    places = Places(found.places)
    users = [_user(user, names, places) for user in found.users]
    goals = {name: names.pairs(found.tag_destinations.get(name, ())) for name in found.tags}
    destinations = {names.number(goal.address): _destination(goal) for goal in (*found.top, *found.rising, *found.new)}
    return {
        "zone": found.window.zone.key,
        "masked": is_masked,
        "oneNode": found.node is not None,
        "refresh": refresh_s,
        "partial": found.window.has_partial_day,
        "partialFirst": found.window.has_partial_first_day,
        "since": found.window.since.timestamp(),
        "until": found.window.until.timestamp(),
        "totalUsers": found.total_users,
        "totalSources": found.total_sources,
        "days": [str(day) for day in found.window.days],
        "users": users,
        "places": places.all(names),
        "goals": goals,
        "destinations": destinations,
        "totalDestinations": found.total_destinations,
        "called": _called(found, names),
        "nodes": _nodes(found),
        "gaps": [(gap.node, int(gap.since.timestamp()), int(gap.until.timestamp())) for gap in found.gaps[:1000]],
        "charts": figures.numbers(zones),
        "weeks": {zone.side: [[round(rows, 1) for rows in day] for day in zone.week] for zone in zones},
        "names": names.all,  # the last one: all others have named theirs
    }


def _nodes(found: Findings) -> list[list[Any]]:
    """Return each node with its rows of each day; without them where they would fill the page."""
    days = found.window.days if len(found.nodes) * len(found.window.days) <= MAX_OF_NODES else ()
    rows = Counter[tuple[str, int]]()
    midnights = found.window.midnights
    for slot in found.slots:
        rows[slot.node, max(0, bisect_right(midnights, slot.start) - 1)] += slot.rows
    return [
        [node.name, node.rows, node.rejected_lines, node.last and int(node.last.timestamp()),
         [rows[node.name, day] for day in range(len(days))]]
        for node in found.nodes
    ]  # fmt: skip


def by_blocking(tags: Mapping[str, int]) -> list[str]:
    """Return the outbound tags, those first that go nowhere, then those with the most rows."""
    return sorted(tags, key=lambda tag: (not goes_nowhere(tag), -tags[tag], tag))


def _user(user: User, names: Names, places: Places) -> list[Any]:
    return [
        user.name,
        user.rows,
        user.concurrent_addresses,
        user.addresses,
        user.networks_24,
        user.networks_48,
        int(user.first.timestamp()),
        int(user.last.timestamp()),
        user.by_day,
        [places.entry(address, rows) for address, rows in user.visited_from],
        names.pairs(user.destinations),
        names.pairs(_most_first(user.tags)),
        names.pairs(_most_first(user.ports)),
    ]


def _called(found: Findings, names: Names) -> dict[int, list[int]]:
    """Return the names of each address that the page has as a destination."""
    addresses = [name for name in names.all if name in found.names]
    return {names.number(address): [*map(names.number, found.names[address])] for address in addresses}


def _destination(goal: Destination) -> list[Any]:
    return [goal.rows, goal.rows_before, goal.users, goal.ports, goal.visitors]


def _most_first(counts: Mapping[str, int]) -> list[tuple[str, int]]:
    return sorted(counts.items(), key=lambda of: (-of[1], of[0]))
