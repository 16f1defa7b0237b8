"""One line of a file of networks in, its networks out. Pure: no files, no database.

Lines begin with a network (198.51.100.0/24), or with the first and the last address of a range, written as addresses
or as numbers. What follows is a country, a provider or both: a header names the columns; without one, the first line
tells them apart. CSV or TSV.
"""

from __future__ import annotations

import functools
import heapq
import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from socket import AF_INET, AF_INET6, inet_ntop, inet_pton
from typing import NamedTuple

BITS = {4: 32, 6: 128}  # by version of IP
FAMILY = {4: AF_INET, 6: AF_INET6}
MAPPED = 0xFFFF  # the first 96 bits of ::ffff:0.0.0.0/96
NUMBER = re.compile(r"[0-9]{1,39}")
COUNTRY = re.compile(r"[A-Za-z]{2}")
ASN = re.compile(r"(?:AS)?([0-9]{1,10})")
UNKNOWN = ("", "-", "None", "ZZ")  # instead of a country
NAMES: Mapping[str, tuple[str, ...]] = {  # what a header calls each column; the first of them that it has counts
    "network": ("network", "cidr"),
    "start": ("start", "start_ip", "range_start", "ip_range_start", "ip_from"),
    "end": ("end", "end_ip", "range_end", "ip_range_end", "ip_to"),
    "country": ("country_code", "country_iso_code", "country"),
    "asn": ("asn", "as_number", "autonomous_system_number"),
    "provider": ("provider", "as_name", "as_organization", "as_description", "autonomous_system_organization"),
}


class Unreadable(Exception):
    """A line is not as expected; the message says what was expected and found."""


class Known(NamedTuple):
    """What is known about some addresses."""

    country: str | None
    asn: int | None
    provider: str | None


class Range(NamedTuple):
    """Addresses of one version of IP, from the first to the last, as numbers."""

    version: int
    first: int
    last: int
    known: Known

    def networks(self) -> Iterator[str]:
        """Yield the fewest networks that are these addresses."""
        first, bits = self.first, BITS[self.version]
        while first <= self.last:
            aligned = (first & -first).bit_length() - 1 if first else bits
            host_bits = min(aligned, (self.last - first + 1).bit_length() - 1)
            yield f"{inet_ntop(FAMILY[self.version], first.to_bytes(bits // 8, 'big'))}/{bits - host_bits}"
            first += 1 << host_bits


@dataclass(frozen=True, slots=True)
class Layout:
    """In which column what is."""

    columns: Mapping[str, int]
    width: int  # of a line
    has_header: bool

    @property
    def has_country(self) -> bool:
        """Return whether the file is about countries."""
        return "country" in self.columns

    @property
    def has_provider(self) -> bool:
        """Return whether the file is about providers."""
        return "provider" in self.columns or "asn" in self.columns

    def range(self, fields: Sequence[str]) -> Range:
        """Return what a line says. Raises Unreadable."""
        if len(fields) != self.width:
            raise Unreadable(f"expected {self.width} columns as in the first line, found {len(fields)}")
        if "network" in self.columns:
            ends = one_network(fields[self.columns["network"]])
        else:
            ends = between(fields[self.columns["start"]], fields[self.columns["end"]])
        return Range(*_unmapped(*ends), _known(*(self._field(fields, name) for name in ("country", "asn", "provider"))))

    def _field(self, fields: Sequence[str], name: str) -> str:
        return fields[self.columns[name]] if name in self.columns else ""


# Many lines say the same: one object for all of them takes less memory.
@functools.lru_cache(maxsize=1 << 17)
def _known(country: str, number: str, name: str) -> Known:
    """Return what a line says about its addresses. Raises Unreadable."""
    asn = _asn(number)
    provider = " ".join(name.split()) or None
    if asn == 0:  # not routed
        asn = provider = None
    if asn is not None and provider is None:
        provider = f"AS{asn}"
    return Known(_country(country), asn, provider)


def _unmapped(version: int, first: int, last: int) -> tuple[int, int, int]:
    """Return a range as the answers have its addresses: IPv4 that is written as ::ffff:203.0.113.5 is IPv4."""
    if version == 6 and first >> 32 == last >> 32 == MAPPED:
        return 4, first & 0xFFFFFFFF, last & 0xFFFFFFFF
    return version, first, last


def layout(first: Sequence[str]) -> Layout:
    """Return what the first line tells about the columns. Raises Unreadable."""
    if first and (NUMBER.fullmatch(first[0]) or _is_address(first[0].partition("/")[0])):
        return Layout(_by_values(first), len(first), has_header=False)
    given = [name.strip().lower() for name in first]
    columns = {
        column: given.index(found)
        for column, names in NAMES.items()
        if (found := next((name for name in names if name in given), None)) is not None
    }
    if not ("network" in columns or {"start", "end"} <= columns.keys()):
        raise Unreadable(f"expected a network, an address, or a header as in start,end,country, found {_shown(first)}")
    if not columns.keys() & {"country", "asn", "provider"}:
        raise Unreadable(f"expected a column country, asn or provider in the header, found {_shown(first)}")
    return Layout(columns, len(first), has_header=True)


def _by_values(first: Sequence[str]) -> dict[str, int]:
    """Return the columns of a file without a header. Raises Unreadable."""
    columns = {"network": 0} if "/" in first[0] else {"start": 0, "end": 1}
    begin = len(columns)
    rest = first[begin:]
    if rest and ASN.fullmatch(rest[0]):  # asn,provider; or asn,country,provider
        names = ("asn", "provider") if len(rest) == 2 else ("asn", "country", "provider")
        return {**columns, **{name: begin + at for at, name in enumerate(names[: len(rest)])}}
    is_country = bool(rest) and (rest[0] in UNKNOWN or COUNTRY.fullmatch(rest[0]) is not None)
    if is_country and len(rest) == 3 and (not rest[1] or ASN.fullmatch(rest[1])):  # as the table networks has them
        return {**columns, **{name: begin + at for at, name in enumerate(("country", "asn", "provider"))}}
    if is_country and not (len(rest) > 1 and COUNTRY.fullmatch(rest[1])):  # a continent may come before the country
        return {**columns, "country": begin}
    raise Unreadable(
        "expected a country, or the number of a provider, after the network, or a header as in start,end,country before"
        f" it, found {_shown(first)}"
    )


def one_network(text: str) -> tuple[int, int, int]:
    """Return the version of IP, the first and the last address. Raises Unreadable."""
    address, slash, length = text.partition("/")
    version, first = _number(address)
    bits = BITS[version]
    if slash and not (length.isascii() and length.isdecimal() and len(length) <= 3 and int(length) <= bits):
        raise Unreadable(f"expected a network as in 198.51.100.0/24, found {text!r}")
    others = (1 << bits - int(length)) - 1 if slash else 0
    if first & others:
        raise Unreadable(f"expected the first address of a network, found {text!r}")
    return version, first, first + others


def between(first: str, last: str) -> tuple[int, int, int]:
    """Return the version of IP, the first and the last address. Raises Unreadable."""
    (version, start), (other, end) = _number(first), _number(last)
    if NUMBER.fullmatch(first) and NUMBER.fullmatch(last):
        version = other  # a small number may begin a range of IPv6
    if version != other or start > end:
        raise Unreadable(f"expected the first and the last address of a range, found {first!r} and {last!r}")
    return version, start, end


def independent(found: Sequence[Range]) -> Sequence[Range]:
    """Return ranges of which no two with a country have an address in common, and no two with a provider.

    Each is looked up by itself; a country and a provider of the same range stay together.
    """
    in_order = sorted(found, key=_place)
    if _are_apart(in_order):
        return in_order
    countries = disjoint([Range(*one[:3], Known(one.known.country, None, None)) for one in found if one.known.country])
    providers = disjoint([Range(*one[:3], Known(None, *one.known[1:])) for one in found if one.known.provider])
    country_of = {one[:3]: one.known.country for one in countries}
    rows = [Range(*one[:3], Known(country_of.pop(one[:3], None), *one.known[1:])) for one in providers]
    return sorted([*rows, *(one for one in countries if one[:3] in country_of)], key=_place)


def disjoint(found: Sequence[Range]) -> Sequence[Range]:
    """Return ranges of which no two have an address in common: the smallest that has one counts, then the later one."""
    in_order = sorted(found, key=_place)
    if _are_apart(in_order):
        return in_order
    return [
        piece
        for version, some in itertools.groupby(in_order, key=lambda one: one.version)
        for piece in _pieces(version, list(some))
    ]


def _place(one: Range) -> tuple[int, int]:
    return one[:2]


def _are_apart(in_order: Sequence[Range]) -> bool:
    return all(one.version < other.version or one.last < other.first for one, other in itertools.pairwise(in_order))


def _pieces(version: int, found: Sequence[Range]) -> Iterator[Range]:
    """Yield disjoint ranges of one version. `found`: in the order of their first addresses, then of their lines."""
    ends = sorted({one.first for one in found} | {one.last + 1 for one in found})
    coming = iter([*enumerate(found), (0, None)])
    number, one = next(coming)
    smallest: list[tuple[int, int, Range]] = []  # a heap of those that began; some may have ended
    for begin, end in itertools.pairwise(ends):
        while one is not None and one.first <= begin:
            heapq.heappush(smallest, (one.last - one.first, -number, one))
            number, one = next(coming)
        while smallest and smallest[0][2].last < begin:
            heapq.heappop(smallest)
        if smallest:
            yield Range(version, begin, end - 1, smallest[0][2].known)


def _number(text: str) -> tuple[int, int]:
    """Return the version of IP of an address, and the number that it is. Raises Unreadable."""
    if NUMBER.fullmatch(text):
        number = int(text)
        if number < 1 << 128:
            return 4 if number < 1 << 32 else 6, number
    else:
        version = 6 if ":" in text else 4
        try:
            return version, int.from_bytes(inet_pton(FAMILY[version], text), "big")
        except (OSError, ValueError):
            pass
    raise Unreadable(f"expected an address, found {text!r}")


def _is_address(text: str) -> bool:
    try:
        _number(text)
    except Unreadable:
        return False
    return True


def _country(text: str) -> str | None:
    if text in UNKNOWN:
        return None
    if not COUNTRY.fullmatch(text):
        raise Unreadable(f"expected a country of two letters, found {text!r}")
    return text.upper()


def _asn(text: str) -> int | None:
    if not text:
        return None
    found = ASN.fullmatch(text)
    if found is None or int(found[1]) >= 1 << 32:
        raise Unreadable(f"expected the number of an autonomous system as in 64496 or AS64496, found {text!r}")
    return int(found[1])


def _shown(fields: Sequence[str]) -> str:
    return repr(",".join(fields)[:80])
