"""Parse the destination of a line into protocol, host and port. Pure: no files, no database, no clock, no logging.

xray writes `NETWORK:HOST:PORT`, or `unix:/PATH`; shadowsocks-2022 `HOST:PORT`; the HTTP inbound `//HOST:PORT` or a URL.
"""

from __future__ import annotations

import re
from ipaddress import IPv6Address
from typing import TypeAlias

from xraylog.accesslog import values
from xraylog.accesslog.values import LAST_PORT, PORT, ParseError

# What may precede a host and a colon. `unknown` is xray's word for a network that was not set
# (common/net/destination.go); the others are the networks of Go's net package, which forks write.
NETWORKS = frozenset(b"tcp udp unix unknown icmp icmp6 icmpv6 ip ip4 ip6 tcp4 tcp6 udp4 udp6 sctp".split())
MASKED_WHOLE = (b"[Masked IPv4]", b"[Masked IPv6]")
MASKED_ANYWHERE = re.compile(rb"\[Masked IPv[46]\]")
MASKED_BRACKET = re.compile(
    rb"\[(?=.{0,64}Masked IPv)(?:[0-9A-Fa-f:.*/]|\[Masked IPv4\]|Masked IPv6){1,64}(?:%[^\s\]]*)?\]"
)
IPV6_OR_MASKED = re.compile(rb"[0-9A-Fa-f:.*/]+")  # what brackets may contain, up to the zone
NOT_IN_A_HOST = re.compile(rb"[\s\[\]]")
MAX_ADDRESS_BYTES = 64  # more than any address has; the first 64 bytes of a longer text are no address either
PATH = re.compile(rb"[/?#]")
MASKED_AUTHORITY = re.compile(rb"[^/?#\[]*\[[0-9a-fA-F:]*/\d+[0-9.*]*(?:%[^\]/?#]*)?\]")
SCHEMES = {b"http": 80, b"https": 443, b"ftp": 21}  # with the default port
URL = re.compile(rb"([A-Za-z][A-Za-z0-9+.-]*)://")
AFTER_DESTINATION = re.compile(rb" *\Z| \[| {1,2}email:")
FIRST_WORD = re.compile(rb"(?:Masked IPv[46]|\S)+")

Destination: TypeAlias = "tuple[str | None, str | None, int | None]"  # protocol, host, port


def read(to: bytes) -> Destination:
    """Parse a destination. Raises ParseError."""
    if to.startswith((b"tcp:", b"udp:")):
        return to[:3].decode(), *_host_and_port(to[4:])
    if to.startswith(b"//"):
        return None, *_authority(to, 2, None)
    if scheme := URL.match(to):
        name = scheme[1].lower()
        protocol = name.decode() if name in SCHEMES else None
        return protocol, *_authority(to, scheme.end(), SCHEMES.get(name))
    if to.startswith(b"/") or to == b"*":  # allowTransparent: a request without a host
        return None, None, None
    network, _, rest = to.partition(b":")
    if network == b"unix" and rest.startswith((b"/", b"@")):
        return "unix", host(rest), None
    if network in NETWORKS and b":" in rest:
        return network.decode(), *_host_and_port(rest)
    return None, *_host_and_port(to)


def at_start(text: bytes) -> bytes | None:
    """Return the destination at the start of the text if it is complete and has a host; otherwise None."""
    word = FIRST_WORD.match(text)
    if word is None:
        return None
    try:
        return word[0] if read(word[0])[1] else None
    except ParseError:
        return None


def before_reason(rejected: bytes) -> tuple[bytes | None, bytes]:
    """Split the text after `rejected ` into its destination, if any, and the rest, which begins with a blank.

    xray writes the destination, a blank and a reason. So what follows two blanks should be a reason; if it looks like a
    destination, it is one only if nothing else, tags or an email follow: no reason of xray looks like that.
    """
    if (to := at_start(rejected)) is not None:
        return to, rejected[len(to) :]
    if not rejected.startswith(b" "):
        return None, b" " + rejected
    to = at_start(rejected[1:])
    if to is not None and AFTER_DESTINATION.match(rejected, 1 + len(to)):
        return to, rejected[1 + len(to) :]
    return None, rejected


def host(text: bytes) -> str | None:
    """Return a host as it is stored. Raises ParseError."""
    if text.startswith(b"[") and text.endswith(b"]") and text not in MASKED_WHOLE:
        text = _without_brackets(text)
    elif NOT_IN_A_HOST.search(text) and NOT_IN_A_HOST.search(MASKED_ANYWHERE.sub(b"", text)):
        raise ParseError(f"expected a host, found {values.excerpt(text)}")
    if not text:
        raise ParseError("expected a host, found none")
    return values.name("host", text)


def _without_brackets(text: bytes) -> bytes:
    """Return the IPv6 address in brackets, without its zone; it may be masked by maskAddress. Raises ParseError."""
    inside = text[1:-1].partition(b"%")[0]
    if inside and not IPV6_OR_MASKED.fullmatch(inside):
        if MASKED_BRACKET.fullmatch(text):
            return text
        raise ParseError(f"expected an address in brackets, found {values.excerpt(text)}")
    return inside


def _host_and_port(to: bytes) -> tuple[str | None, int | None]:
    name, colon, port = to.rpartition(b":")
    if not name or not colon:
        raise ParseError(f"expected a destination and port, found {values.excerpt(to)}")
    return host(_without_colon(name)), values.port(port)


def _without_colon(name: bytes) -> bytes:
    """Return a host; of an IPv6 address without brackets, drop the zone. Raises ParseError for any other colon."""
    if b":" not in name or name.startswith(b"["):
        return name
    if not _is_ipv6(name):
        raise ParseError(f"expected a host without a colon, found {values.excerpt(name)}")
    return name.partition(b"%")[0]


def _is_ipv6(text: bytes) -> bool:
    try:
        IPv6Address(text[:MAX_ADDRESS_BYTES].decode("ascii"))
    except ValueError:
        return False
    return True


def _authority(url: bytes, start: int, default_port: int | None) -> tuple[str | None, int | None]:
    """Return host and port of a URL, whose `//` ends at `start`. User, password, path and query are dropped."""
    authority = _without_path(url, start)
    authority = authority[authority.rfind(b"@") + 1 :]
    colon = authority.rfind(b":", authority.rfind(b"]") + 1)  # after the brackets of an IPv6 address
    name, port = (authority, b"") if colon < 0 else (_without_colon(authority[:colon]), authority[colon + 1 :])
    if not name:
        return None, None
    if not port:
        return host(name), default_port
    in_range = PORT.fullmatch(port) and int(port) <= LAST_PORT
    return host(name), int(port) if in_range else None


def _without_path(url: bytes, start: int) -> bytes:
    """Return the text from `start` to the first `/`, `?` or `#` that is not in a masked address, `[2001:db8::/32]`."""
    masked = MASKED_AUTHORITY.match(url, start)
    end = PATH.search(url, masked.end() if masked else start)
    return url[start : end.start() if end else None]
