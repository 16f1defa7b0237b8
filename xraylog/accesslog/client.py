"""FROM, the client that connected: its address, or what maskAddress has left of it, and its port. Pure."""

from __future__ import annotations

import re
from ipaddress import IPv4Address, IPv6Address
from typing import TypeAlias

from xraylog.accesslog import values
from xraylog.accesslog.destination import MASKED_WHOLE, MAX_ADDRESS_BYTES, NETWORKS
from xraylog.accesslog.values import PORT, ParseError

OCTET = rb"(?:25[0-5]|2[0-4]\d|1\d\d|[1-9]?\d)"
V4 = re.compile(rb"(?:" + OCTET + rb"\.){3}" + OCTET)  # what IPv4Address reads, for a tenth of its time
MASKED_V4 = re.compile(rb"\d{1,3}(?:\.\d{1,3}){0,2}(?:\.\*){1,3}")
# maskAddress leaves this of an address that has an IPv4 part, or a zone: each of its expressions matches some of it.
MASKED_MAPPED = re.compile(rb"(::ffff:)(" + MASKED_V4.pattern + rb")", re.IGNORECASE)
MASKED_TWICE = re.compile(
    rb"(?=.{0,64}Masked IPv|[0-9A-Fa-f]{0,4}:.{0,64}(?:\*|/\d{1,3}\.))"
    rb"(?:[0-9A-Fa-f:.*/]|\[Masked IPv4\]|Masked IPv6){1,64}"
)

Peer: TypeAlias = "tuple[str | None, int | None]"  # the client's address and port


def read(source: bytes) -> Peer:
    """Return what FROM means: address and port; both None where the peer has no address. Raises ParseError."""
    if not source or source == b"unknown:" or source.startswith((b"@", b"unix:")):  # unknown: none was set
        return None, None
    source = _without_network(source)
    address, colon, port = source.rpartition(b":")
    if not colon:
        raise ParseError(f"expected a source address and port, found {values.excerpt(source)}")
    return address_of(address), values.port(port)


def without_port(address: bytes) -> str | None:
    """Return the address of `from ADDRESS`. Raises ParseError for what means something else without its port."""
    address = address.removeprefix(b"from ")
    if address.startswith((b"@", b"unix:")):
        raise ParseError("expected an address")
    return address_of(_without_network(address))


def _without_network(source: bytes) -> bytes:
    network, colon, address = source.partition(b":")
    return address if colon and network in NETWORKS else source


def address_of(address: bytes) -> str | None:
    """Return an address as inet reads it. maskAddress (app/log/log.go) leaves a network, or nothing of it."""
    if V4.fullmatch(address):
        return address.decode()
    if address in MASKED_WHOLE:
        return None
    if MASKED_V4.fullmatch(address) and address.count(b".") == 3:
        return f"{_ip(IPv4Address, address.replace(b'*', b'0'))}/{32 - 8 * address.count(b'*')}"
    if not address.startswith(b"[") or not address.endswith(b"]"):
        return _ip(IPv4Address, address)
    address = address[1:-1].partition(b"%")[0]
    if MASKED_MAPPED.fullmatch(address):
        return f"{_ip(IPv6Address, address.replace(b'*', b'0'))}/{128 - 8 * address.count(b'*')}"
    if MASKED_TWICE.fullmatch(address):
        return None
    address, slash, prefix = address.partition(b"/")
    if address == b":::":  # what was left of ::1 before v26.1.23
        return None
    if slash and address.endswith(b":::"):  # and of fd00::1, whose second group is zero
        address = address[:-1]
    if not slash:
        return _ip(IPv6Address, address)
    if not (PORT.fullmatch(prefix) and int(prefix) <= 128):
        raise ParseError(f"expected a prefix length up to 128, found {values.excerpt(prefix)}")
    return f"{_ip(IPv6Address, address)}/{int(prefix)}"


def _ip(kind: type[IPv4Address | IPv6Address], address: bytes) -> str:
    try:
        text = address[:MAX_ADDRESS_BYTES].decode("ascii")
        kind(text)
    except ValueError:
        raise ParseError(f"expected a source address, found {values.excerpt(address)}") from None
    return text
