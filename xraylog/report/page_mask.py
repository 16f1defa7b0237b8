"""Mask a page before it is passed on: networks instead of addresses, numbers instead of users and nodes. Pure."""

from __future__ import annotations

import contextlib
import re
from dataclasses import dataclass
from ipaddress import ip_network

from xraylog.accesslog import masking

# A host name as in DNS: its last label begins with a letter, and is no hexadecimal number.
NAME = re.compile(r"(?:[0-9A-Za-z_-]+\.)*(?!0[xX])[A-Za-z][0-9A-Za-z-]*\.?", re.ASCII)
# Addresses as names of customer lines, and of services like nip.io, spell them. Other names that look like it are
# hidden, too.
ADDRESS_WITHIN = re.compile(
    r"""(?<![0-9]) [0-9]{1,3} [._x-]+ (?:[a-z]{1,8}-?)? [0-9]{1,3} (?:[._x-]+ [0-9]{1,3}){2} (?![0-9])  # 203.red-0-1-9
    | (?<![0-9]) (?:25[0-5] | 2[0-4][0-9] | [01][0-9]{2}){4} (?![0-9])  # 203000113009
    | (?<![0-9a-z]) (?:
        (?:(?:0x)? | [a-z]{1,4} (?=[0-9]*[a-f])) (?=[a-f]*[0-9]) (?:[0-9a-f]{8} | [0-9a-f]{32}) (?![0-9a-z])  # cb007109
        | (?:[0-9a-f]{1,4}[_-]){3} [0-9a-f]{1,4} (?![0-9a-z])  # 2001-db8-85a3-8d3
        | (?:[0-9a-f]{1,4} (?:[_-][0-9a-f]{1,4})+ | (?=[a-f]*[0-9]) [0-9a-f]{4}) (?:--|__)  # 2001-db8--9
        | (?:--|__) [0-9a-f]{1,4} (?:[_-][0-9a-f]{1,4})+ (?![0-9a-z])  # --ffff-cb00-7109
        | (?:[0-9a-f][._-]){12}  # 1.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa
    )""",
    re.ASCII | re.IGNORECASE | re.VERBOSE,
)
HIDDEN = "(an address)"


@dataclass(frozen=True, slots=True)
class PageMask:
    """Whether a page shows networks in place of addresses, and numbers in place of users and nodes."""

    hides: bool = False

    @property
    def bits(self) -> dict[str, int]:
        """Return how many bits of an address are shown, as values for the queries."""
        return {"bits_4": 24 if self.hides else 32, "bits_6": 48 if self.hides else 128}

    def user(self, user_id: int | None, email: str | None) -> str | None:
        """Return the user's name, or its id, which is the same in every page of one database."""
        return f"user {user_id}" if self.hides and user_id is not None else email

    def node(self, node_id: int | None, name: str) -> str:
        """Return the node's name, or its id: the name may be its address."""
        return f"node {node_id}" if self.hides and node_id is not None else name

    def destination(self, address: str | None) -> str:
        """Return a host name, or a masked address, even if it is part of a name: it may be where a client lives."""
        if address is None or not self.hides:
            return address or "(none)"
        with contextlib.suppress(ValueError):
            return str(masking.Mask(24, 48).source(str(ip_network(address.strip("[]"), strict=False))))
        return address if NAME.fullmatch(address) and not ADDRESS_WITHIN.search(address) else HIDDEN
