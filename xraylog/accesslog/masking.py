"""Mask client addresses: keep only the first bits. Pure: no files, no database, no clock, no logging.

The source of a row is a known field, and becomes a network. In a line that is kept as bytes, the source can be anywhere
and can be cut off. So every address in it loses its last bits, even that of a destination, and anything that may be a
part of an address becomes `[masked]`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_network

from xraylog.records import BadLine

# Match each run of address characters as a whole, so that the time is linear in the line's length. A timestamp looks
# like a part of an IPv6 address, and may be one if hexadecimal digits and a dot or colon follow directly.
RUN = re.compile(rb"(?P<moment>\d{4}[/-]\d\d[/-]\d\d \d\d:\d\d:\d\d(?:\.\d{1,6})?(?![0-9A-Fa-f]*[.:]))|[0-9A-Fa-f.:]+")
HOLE = re.compile(rb"\0*")  # NUL bytes before a line, from a hole in the log
QUOTE = re.compile(r"(?<![a-z])['\"]")  # opens what a reason quotes
COLON = re.compile(rb":(?!:)|:::")  # before an address, as in tcp:1.2.3.4:5, and in the masked form of tcp:1::
NUMBERS = re.compile(rb"[0-9.]+")
MASKED = b"[masked]"
MAX_ADDRESS_CHARACTERS = 39  # in an IPv6 address


@dataclass(frozen=True, slots=True)
class Mask:
    """Masks addresses. The fields say how many bits of an address are kept."""

    v4: int = 32
    v6: int = 128

    @property
    def hides(self) -> bool:
        """Return whether anything is masked at all."""
        return (self.v4, self.v6) != (32, 128)

    def source(self, address: str | None) -> str | None:
        """Return the network of an address, which must be valid. A larger network is returned unchanged."""
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
        begin = HOLE.match(line).end()  # type: ignore[union-attr]  # it always matches, if only an empty text
        first = RUN.match(line, begin)
        if first is None or not _may_be_cut(first):
            return _substitute(RUN, self._mask_run, line, 0)
        return line[:begin] + MASKED + _substitute(RUN, self._mask_run, line, first.end())

    def count_pieces(self, line: bytes) -> int:
        """Count the addresses and parts of addresses in a line, masked already or not; 0 if nothing is masked."""
        return sum(map(_is_piece, RUN.finditer(line))) + line.count(MASKED) if self.hides else 0

    def bad_line(self, bad: BadLine) -> BadLine:
        """Mask a line that will be kept, and its reason, which may quote it."""
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
        return self.v6 if address.sixtofour is None else min(self.v6, 16 + self.v4)  # 2002: and the IPv4 address

    def _mask_run(self, found: re.Match[bytes]) -> bytes:
        run = found[0]
        if found["moment"]:
            return run
        before = b":" if COLON.match(run) else b""
        address = run[len(before) :]
        if address.count(b":") < 2:
            return _substitute(NUMBERS, self._mask_numbers, run, 0)
        return before + (MASKED if b"." in address else self._masked(address))

    def _mask_numbers(self, found: re.Match[bytes]) -> bytes:
        numbers = found[0].strip(b".")
        return found[0].replace(numbers, self._masked(numbers)) if b"." in numbers else found[0]

    def _masked(self, text: bytes) -> bytes:
        """Return a single address with its last bits set to zero; `[masked]` if it is invalid or an IPv4-mapped one.

        Without ip_network, which takes four times as long: a client can write thousands of addresses into a line.
        """
        kind = IPv6Address if b":" in text else IPv4Address
        try:
            address = kind(text.decode()) if len(text) <= MAX_ADDRESS_CHARACTERS else None
        except ValueError:
            address = None
        if address is None or (isinstance(address, IPv6Address) and address.ipv4_mapped):
            return MASKED
        hidden = address.max_prefixlen - self._kept(address)
        return str(kind(int(address) >> hidden << hidden)).encode() if hidden else text


def _substitute(
    pattern: re.Pattern[bytes], replace: Callable[[re.Match[bytes]], bytes], text: bytes, start: int
) -> bytes:
    """Return the text from `start` on with every match replaced.

    Pattern.sub would build a list of all the pieces, which can take 300 MiB for a line of 16 MiB.
    """
    replaced, done = bytearray(), start
    for found in pattern.finditer(text, start):
        replaced += text[done : found.start()]
        replaced += replace(found)
        done = found.end()
    replaced += text[done:]
    return bytes(replaced)


def _is_piece(found: re.Match[bytes]) -> bool:
    """Return whether this run of characters is an address or a part of one, which `line` masks."""
    if found["moment"]:
        return False
    return found[0].count(b":") > 1 or any(b"." in numbers[0].strip(b".") for numbers in NUMBERS.finditer(found[0]))


def _may_be_cut(first: re.Match[bytes]) -> bool:
    """Return whether a line may begin with the end of an IPv6 address: nobody knows which of its bits these are.

    A truncated IPv4 address is recognisable: it has fewer than four parts.
    """
    group, colon, _ = first[0].partition(b":")
    return bool(colon) and not first["moment"] and b"." not in group


UNMASKED = Mask()
