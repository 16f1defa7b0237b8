"""Count users, addresses and rows by country and by provider, as far as their addresses are on the page. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from xraylog.report.model import Findings, Place

MAX_SHOWN = 100  # of each table


@dataclass(frozen=True, slots=True)
class Origin:
    """A country or a provider, with its counts on this page."""

    name: str
    users: int
    addresses: int  # networks, if the page is masked
    rows: int


@dataclass(frozen=True, slots=True)
class Origins:
    """The countries and providers on the page, in each list those with the most rows first."""

    addresses: int  # of users on this page
    countries: Sequence[Origin]
    providers: Sequence[Origin]

    @property
    def with_country(self) -> int:
        """Return how many addresses have a country."""
        return sum(origin.addresses for origin in self.countries)

    @property
    def with_provider(self) -> int:
        """Return how many addresses have a provider."""
        return sum(origin.addresses for origin in self.providers)


def of(found: Findings) -> Origins:
    """Return the countries and providers of the users on the page."""
    shown = {address for user in found.users for address, _ in user.visited_from} if found.places else ()
    return Origins(
        len(shown), _counted(found, lambda place: place.country), _counted(found, lambda place: place.provider)
    )


def _counted(found: Findings, key: Callable[[Place], str | None]) -> list[Origin]:
    users, addresses = defaultdict[str, set[int]](set), defaultdict[str, set[str]](set)
    rows = defaultdict[str, int](int)
    for number, user in enumerate(found.users if found.places else ()):
        for address, count in user.visited_from:
            name = key(found.places.get(address, Place()))
            if name:
                users[name].add(number)
                addresses[name].add(address)
                rows[name] += count
    counted = [Origin(name, len(users[name]), len(addresses[name]), rows[name]) for name in rows]
    return sorted(counted, key=lambda origin: (-origin.rows, origin.name))
