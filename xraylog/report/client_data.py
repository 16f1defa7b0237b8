"""Build the data for the scripts of the page, to be written as JSON: lists, in which names are numbers. Pure."""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from xraylog.report import figures
from xraylog.report.figures import InZone
from xraylog.report.model import Destination, Findings, Place, User, goes_nowhere
from xraylog.report.window import WEEK

MAX_NODE_DAYS = 20_000  # number of nodes times number of days; with more, the rows of each day are left out


class Names:
    """Numbers names, so that the page contains each name only once."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}

    def number(self, name: str) -> int:
        """Return the number of a name; a new name gets the next one."""
        return self._numbers.setdefault(name, len(self._numbers))

    def pairs(self, counts: Iterable[tuple[str, int]]) -> list[tuple[int, int]]:
        """Return pairs of name and rows with the names replaced by their numbers."""
        return [(self.number(name), rows) for name, rows in counts]

    @property
    def all(self) -> list[str]:
        """Return the names in the order of their numbers."""
        return [*self._numbers]


class Places:
    """Numbers pairs of a country and a provider, so that the page contains each pair only once."""

    def __init__(self, by_address: Mapping[str, Place]) -> None:
        self._by_address = by_address
        self._numbers: dict[Place, int] = {}

    def entry(self, address: str, rows: int) -> tuple[str | int, ...]:
        """Return an address, its rows and, if known, the number of its country and provider."""
        place = self._by_address.get(address)
        return (
            (address, rows) if place is None else (address, rows, self._numbers.setdefault(place, len(self._numbers)))
        )

    def all(self, names: Names) -> list[list[int | None]]:
        """Return country and provider of each pair, in the order of their numbers; None for an unknown one."""
        return [
            [None if name is None else names.number(name) for name in (place.country, place.provider)]
            for place in self._numbers
        ]


def of(found: Findings, zones: Sequence[InZone], is_masked: bool, refresh_s: int) -> dict[str, Any]:
    """Return all the data, as a dict that can be written as JSON. page.js names the columns of its lists."""
    names = Names()
    places = Places(found.places)
    users = [_user(user, names, places) for user in found.users]
    tag_destinations = {name: names.pairs(found.tag_destinations.get(name, ())) for name in found.tags}
    destinations = {
        names.number(destination.address): _destination(destination)
        for destination in (*found.top, *found.rising, *found.new)
    }
    return {
        "zone": found.window.zone.key,
        "masked": is_masked,
        "oneNode": found.node is not None,
        "refresh": refresh_s,
        "byWeek": found.window.unit == WEEK,
        "partial": found.window.has_partial_day,
        "partialFirst": found.window.has_partial_first_day,
        "since": found.window.since.timestamp(),
        "until": found.window.until.timestamp(),
        "totalUsers": found.total_users,
        "totalSources": found.total_sources,
        "days": [str(day) for day in found.window.days],
        "users": users,
        "places": places.all(names),
        "goals": tag_destinations,
        "destinations": destinations,
        "totalDestinations": found.total_destinations,
        "called": _names_of_addresses(found, names),
        "nodes": _nodes(found),
        "gaps": [(gap.node, int(gap.since.timestamp()), int(gap.until.timestamp())) for gap in found.gaps[:1000]],
        "charts": figures.numbers(zones),
        "weeks": {zone.side: [[round(rows, 1) for rows in day] for day in zone.week] for zone in zones},
        "names": names.all,  # must be the last one, because the others above add names
    }


def _nodes(found: Findings) -> list[list[Any]]:
    """Return each node with its rows of each day; without these if there are too many nodes and days."""
    days = found.window.days if len(found.nodes) * len(found.window.days) <= MAX_NODE_DAYS else ()
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
    """Return the outbound tags, sorted: first those that block, then those with the most rows."""
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


def _names_of_addresses(found: Findings, names: Names) -> dict[int, list[int]]:
    """Return the DNS names of each address that is a destination on the page, all as numbers of names."""
    addresses = [name for name in names.all if name in found.names]
    return {names.number(address): [*map(names.number, found.names[address])] for address in addresses}


def _destination(destination: Destination) -> list[Any]:
    return [destination.rows, destination.rows_before, destination.users, destination.ports, destination.visitors]


def _most_first(counts: Mapping[str, int]) -> list[tuple[str, int]]:
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))
