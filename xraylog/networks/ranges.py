"""Parse the lines of a file of networks into ranges of addresses. Pure: no files, no database.

A line begins with a network (198.51.100.0/24), or with the first and the last address of a range, written as addresses
or as numbers. A country, a provider or both follow. A header names the columns; without one, they are recognised by the
values of the first line. The file is CSV or TSV.
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

BITS = {4: 32, 6: 128}  # of an address, by version of IP
FAMILY = {4: AF_INET, 6: AF_INET6}
MAPPED_PREFIX = 0xFFFF  # the first 96 bits of ::ffff:0.0.0.0/96, which is IPv4 written as IPv6
NUMBER = re.compile(r"[0-9]{1,39}")
COUNTRY = re.compile(r"[A-Za-z]{2}")
ASN = re.compile(r"(?:AS)?([0-9]{1,10})")
NO_COUNTRY = ("", "-", "None", "ZZ")  # what files write if the country is unknown
HEADERS: Mapping[str, tuple[str, ...]] = {  # names of each column in headers; the first one that a header has counts
    "network": ("network", "cidr"),
    "start": ("start", "start_ip", "range_start", "ip_range_start", "ip_from"),
    "end": ("end", "end_ip", "range_end", "ip_range_end", "ip_to"),
    "country": ("country_code", "country_iso_code", "country"),
    "asn": ("asn", "as_number", "autonomous_system_number"),
    "provider": ("provider", "as_name", "as_organization", "as_description", "autonomous_system_organization"),
}


class Unreadable(Exception):
    """A file cannot be read; the message says what was expected and found."""


class Info(NamedTuple):
    """The country and the provider of addresses, as far as they are known."""

    country: str | None
    asn: int | None
    provider: str | None


class Range(NamedTuple):
    """A range of addresses of one version of IP; addresses are numbers."""

    version: int
    first: int
    last: int
    info: Info

    def networks(self) -> Iterator[str]:
        """Yield the smallest number of networks that together are this range."""
        first, bits = self.first, BITS[self.version]
        while first <= self.last:
            aligned = (first & -first).bit_length() - 1 if first else bits
            host_bits = min(aligned, (self.last - first + 1).bit_length() - 1)
            yield f"{inet_ntop(FAMILY[self.version], first.to_bytes(bits // 8, 'big'))}/{bits - host_bits}"
            first += 1 << host_bits


@dataclass(frozen=True, slots=True)
class Layout:
    """Which column of a file has what."""

    columns: Mapping[str, int]  # by the keys of HEADERS, counted from 0
    width: int  # number of columns of each line
    has_header: bool

    @property
    def has_country(self) -> bool:
        """Return whether the file has countries."""
        return "country" in self.columns

    @property
    def has_provider(self) -> bool:
        """Return whether the file has providers."""
        return "provider" in self.columns or "asn" in self.columns

    def parse(self, fields: Sequence[str]) -> Range:
        """Return the range of a line, given its fields. Raises Unreadable."""
        if len(fields) != self.width:
            raise Unreadable(f"expected {self.width} columns as in the first line, found {len(fields)}")
        if "network" in self.columns:
            ends = parse_network(fields[self.columns["network"]])
        else:
            ends = parse_range(fields[self.columns["start"]], fields[self.columns["end"]])
        return Range(
            *_unmap(*ends), _parse_info(*(self._field(fields, name) for name in ("country", "asn", "provider")))
        )

    def _field(self, fields: Sequence[str], name: str) -> str:
        return fields[self.columns[name]] if name in self.columns else ""


# Many lines have the same country and provider: one object for all of them takes less memory.
@functools.lru_cache(maxsize=1 << 17)
def _parse_info(country: str, number: str, name: str) -> Info:
    """Return the country and the provider from the fields of a line. Raises Unreadable."""
    asn = _parse_asn(number)
    provider = " ".join(name.split()) or None
    if asn == 0:  # files use it for networks that are not routed
        asn = provider = None
    if asn is not None and provider is None:
        provider = f"AS{asn}"
    return Info(_parse_country(country), asn, provider)


def _unmap(version: int, first: int, last: int) -> tuple[int, int, int]:
    """Turn a range of IPv4 that is written as IPv6 (::ffff:203.0.113.5) into IPv4, which logs have then."""
    if version == 6 and first >> 32 == last >> 32 == MAPPED_PREFIX:
        return 4, first & 0xFFFFFFFF, last & 0xFFFFFFFF
    return version, first, last


def detect_layout(first: Sequence[str]) -> Layout:
    """Return which columns a file has, given its first line. Raises Unreadable."""
    if first and (NUMBER.fullmatch(first[0]) or _is_address(first[0].partition("/")[0])):
        return Layout(_detect_columns(first), len(first), has_header=False)
    given = [name.strip().lower() for name in first]
    columns = {
        column: given.index(found)
        for column, names in HEADERS.items()
        if (found := next((name for name in names if name in given), None)) is not None
    }
    if not ("network" in columns or {"start", "end"} <= columns.keys()):
        raise Unreadable(
            f"expected a network, an address, or a header as in start,end,country, found {_excerpt(first)}"
        )
    if not columns.keys() & {"country", "asn", "provider"}:
        raise Unreadable(f"expected a column country, asn or provider in the header, found {_excerpt(first)}")
    return Layout(columns, len(first), has_header=True)


def _detect_columns(first: Sequence[str]) -> dict[str, int]:
    """Return which columns a file without a header has, given its first line. Raises Unreadable."""
    columns = {"network": 0} if "/" in first[0] else {"start": 0, "end": 1}
    count = len(columns)  # of those for the addresses
    rest = first[count:]
    if rest and ASN.fullmatch(rest[0]):  # asn,provider; or asn,country,provider
        names = ("asn", "provider") if len(rest) == 2 else ("asn", "country", "provider")
        return {**columns, **{name: count + at for at, name in enumerate(names[: len(rest)])}}
    is_country = bool(rest) and (rest[0] in NO_COUNTRY or COUNTRY.fullmatch(rest[0]) is not None)
    if is_country and len(rest) == 3 and (not rest[1] or ASN.fullmatch(rest[1])):  # the columns of the table networks
        return {**columns, **{name: count + at for at, name in enumerate(("country", "asn", "provider"))}}
    if is_country and not (len(rest) > 1 and COUNTRY.fullmatch(rest[1])):  # a continent may come before the country
        return {**columns, "country": count}
    raise Unreadable(
        "expected a country, or the number of a provider, after the network, or a header as in start,end,country before"
        f" it, found {_excerpt(first)}"
    )


def parse_network(text: str) -> tuple[int, int, int]:
    """Return the version of IP, the first and the last address of a network. Raises Unreadable."""
    address, slash, length = text.partition("/")
    version, first = _parse_address(address)
    bits = BITS[version]
    if slash and not (length.isascii() and length.isdecimal() and len(length) <= 3 and int(length) <= bits):
        raise Unreadable(f"expected a network as in 198.51.100.0/24, found {text!r}")
    host_mask = (1 << bits - int(length)) - 1 if slash else 0
    if first & host_mask:
        raise Unreadable(f"expected the first address of a network, found {text!r}")
    return version, first, first + host_mask


def parse_range(first: str, last: str) -> tuple[int, int, int]:
    """Return the version of IP, the first and the last address of a range. Raises Unreadable."""
    (version, start), (other, end) = _parse_address(first), _parse_address(last)
    if NUMBER.fullmatch(first) and NUMBER.fullmatch(last):
        version = other  # a range of IPv6 may begin with a number as small as those of IPv4
    if version != other or start > end:
        raise Unreadable(f"expected the first and the last address of a range, found {first!r} and {last!r}")
    return version, start, end


def split_overlaps(found: Sequence[Range]) -> Sequence[Range]:
    """Return ranges of which no two with a country overlap, and no two with a provider, as the table needs them.

    The table is searched for the country and the provider separately. If both have the same range, it stays one range.
    """
    in_order = sorted(found, key=_start)
    if _are_disjoint(in_order):
        return in_order
    countries = disjoint([Range(*one[:3], Info(one.info.country, None, None)) for one in found if one.info.country])
    providers = disjoint([Range(*one[:3], Info(None, *one.info[1:])) for one in found if one.info.provider])
    country_of = {one[:3]: one.info.country for one in countries}
    rows = [Range(*one[:3], Info(country_of.pop(one[:3], None), *one.info[1:])) for one in providers]
    return sorted([*rows, *(one for one in countries if one[:3] in country_of)], key=_start)


def disjoint(found: Sequence[Range]) -> Sequence[Range]:
    """Return ranges without overlaps: an address belongs to the smallest range, of equally small ones to the last."""
    in_order = sorted(found, key=_start)
    if _are_disjoint(in_order):
        return in_order
    return [
        piece
        for version, group in itertools.groupby(in_order, key=lambda one: one.version)
        for piece in _pieces(version, list(group))
    ]


def _start(one: Range) -> tuple[int, int]:
    return one[:2]


def _are_disjoint(in_order: Sequence[Range]) -> bool:
    return all(one.version < other.version or one.last < other.first for one, other in itertools.pairwise(in_order))


def _pieces(version: int, found: Sequence[Range]) -> Iterator[Range]:
    """Yield disjoint ranges of one version of IP. `found` is sorted by first address, then by the order in the file."""
    ends = sorted({one.first for one in found} | {one.last + 1 for one in found})
    upcoming = iter([*enumerate(found), (0, None)])
    number, one = next(upcoming)
    smallest: list[tuple[int, int, Range]] = []  # a heap of the ranges that have started; some may have ended
    for begin, end in itertools.pairwise(ends):
        while one is not None and one.first <= begin:
            heapq.heappush(smallest, (one.last - one.first, -number, one))
            number, one = next(upcoming)
        while smallest and smallest[0][2].last < begin:
            heapq.heappop(smallest)
        if smallest:
            yield Range(version, begin, end - 1, smallest[0][2].info)


def _parse_address(text: str) -> tuple[int, int]:
    """Return the version of IP of an address, and the address as a number. Raises Unreadable."""
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
        _parse_address(text)
    except Unreadable:
        return False
    return True


def _parse_country(text: str) -> str | None:
    if text in NO_COUNTRY:
        return None
    if not COUNTRY.fullmatch(text):
        raise Unreadable(f"expected a country of two letters, found {text!r}")
    return text.upper()


def _parse_asn(text: str) -> int | None:
    if not text:
        return None
    found = ASN.fullmatch(text)
    if found is None or int(found[1]) >= 1 << 32:
        raise Unreadable(f"expected the number of an autonomous system as in 64496 or AS64496, found {text!r}")
    return int(found[1])


def _excerpt(fields: Sequence[str]) -> str:
    return repr(",".join(fields)[:80])
