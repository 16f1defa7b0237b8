"""Mask client addresses: keep only the first bits. Pure: no files, no database, no clock, no logging.

The source of a row is a known field, and becomes a network. In a line that is kept as bytes the source can be anywhere,
and can be cut off: so every address in it loses its last bits, also that of a destination, and anything that may be a
piece of one is left out.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_network

from xraylog.records import BadLine

# Match each run of address characters as a whole, so that the time is linear in the line's length. A timestamp looks
# like a piece of an IPv6 address, and may be one if hexadecimal digits and a dot or colon follow directly.
RUN = re.compile(rb"(?P<moment>\d{4}[/-]\d\d[/-]\d\d \d\d:\d\d:\d\d(?:\.\d{1,6})?(?![0-9A-Fa-f]*[.:]))|[0-9A-Fa-f.:]+")
HOLE = re.compile(rb"\0*")  # in the log, before the line
QUOTE = re.compile(r"(?<![a-z])['\"]")  # opens what a reason quotes
COLON = re.compile(rb":(?!:)|:::")  # before an address, as in tcp:1.2.3.4:5, and in what is left of tcp:1::
NUMBERS = re.compile(rb"[0-9.]+")
LEFT_OUT = b"[masked]"
MAX_ADDRESS_CHARACTERS = 39  # characters of an address


@dataclass(frozen=True, slots=True)
class Mask:
    """How many bits of an address are kept."""

    v4: int = 32
    v6: int = 128

    @property
    def hides(self) -> bool:
        """Return whether anything is masked at all."""
        return (self.v4, self.v6) != (32, 128)

    def source(self, address: str | None) -> str | None:
        """Return the network of a valid address; a larger network as it is; and without a mask, the address itself."""
        if address is None or not self.hides:
            return address
        network = ip_network(address, strict=False)
        kept = self._kept(network.network_address)
        if kept == network.max_prefixlen:
            return address
        return str(network.supernet(new_prefix=kept) if network.prefixlen > kept else network)

    def line(self, line: bytes) -> bytes:
        """Return a line with the last bits of every address set to zero, and pieces of addresses as `[masked]`."""
        if not self.hides:
            return line
        begin = HOLE.match(line).end()  # type: ignore[union-attr]  # it matches nothing, too
        first = RUN.match(line, begin)
        if first is None or not _may_be_cut(first):
            return _substitute(RUN, self._run, line, 0)
        return line[:begin] + LEFT_OUT + _substitute(RUN, self._run, line, first.end())

    def pieces(self, line: bytes) -> int:
        """Count the addresses, or pieces of one, that were masked in this line, or would be; none without a mask."""
        return sum(map(_is_piece, RUN.finditer(line))) + line.count(LEFT_OUT) if self.hides else 0

    def bad_line(self, bad: BadLine) -> BadLine:
        """Mask a line that will be kept, and the reason, which quotes it."""
        if not self.hides:
            return bad
        at = quote.end() if (quote := QUOTE.search(bad.reason)) else 0
        before, quoted = bad.reason[:at].encode(), bad.reason[at:].encode()
        first = RUN.match(quoted)
        is_beginning = first is not None and bad.line.lstrip(b"\0").startswith(first[0])
        reason = self.line(before) + self.line(quoted) if is_beginning else self.line(before + quoted)
        return BadLine(self.line(bad.line), reason.decode())

    def _kept(self, address: IPv4Address | IPv6Address) -> int:
        if isinstance(address, IPv4Address):
            return self.v4
        if address.ipv4_mapped is not None:
            return min(self.v6, 96 + self.v4)
        return self.v6 if address.sixtofour is None else min(self.v6, 16 + self.v4)  # 2002, then the IPv4 address

    def _run(self, found: re.Match[bytes]) -> bytes:
        run = found[0]
        if found["moment"]:
            return run
        before = b":" if COLON.match(run) else b""
        address = run[len(before) :]
        if address.count(b":") < 2:
            return _substitute(NUMBERS, self._numbers, run, 0)
        return before + (LEFT_OUT if b"." in address else self._left_of(address))

    def _numbers(self, found: re.Match[bytes]) -> bytes:
        numbers = found[0].strip(b".")
        return found[0].replace(numbers, self._left_of(numbers)) if b"." in numbers else found[0]

    def _left_of(self, text: bytes) -> bytes:
        """Not by networks: a client can write thousands of addresses into a line, and those take four times as long."""
        kind = IPv6Address if b":" in text else IPv4Address
        try:
            address = kind(text.decode()) if len(text) <= MAX_ADDRESS_CHARACTERS else None
        except ValueError:
            address = None
        if address is None or (isinstance(address, IPv6Address) and address.ipv4_mapped):
            return LEFT_OUT
        hidden = address.max_prefixlen - self._kept(address)
        return str(kind(int(address) >> hidden << hidden)).encode() if hidden else text


def _substitute(
    pattern: re.Pattern[bytes], replace: Callable[[re.Match[bytes]], bytes], text: bytes, start: int
) -> bytes:
    """Return the text from `start` on with every match replaced. Not by `sub`, which makes a list of all pieces: of
    16 MiB that can be 300.
    """
    replaced, done = bytearray(), start
    for found in pattern.finditer(text, start):
        replaced += text[done : found.start()]
        replaced += replace(found)
        done = found.end()
    replaced += text[done:]
    return bytes(replaced)


def _is_piece(found: re.Match[bytes]) -> bool:
    """Return whether `line` changes this run of characters, or leaves it for its last bits are zero already."""
    if found["moment"]:
        return False
    return found[0].count(b":") > 1 or any(b"." in numbers[0].strip(b".") for numbers in NUMBERS.finditer(found[0]))


def _may_be_cut(first: re.Match[bytes]) -> bool:
    """Return whether a line may begin with the rest of an IPv6 address: then its groups are not where they seem.

    A truncated IPv4 address is recognisable: it has fewer than four parts.
    """
    group, colon, _ = first[0].partition(b":")
    return bool(colon) and not first["moment"] and b"." not in group


UNMASKED = Mask()
