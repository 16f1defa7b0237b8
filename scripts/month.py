"""Generate the access logs of two nodes for a month, for pictures of the page. They are the same every time."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

NODES = ("fra1", "hel1")
DAYS = 30
WELL_KNOWN = (
    "www.google.com", "www.youtube.com", "i.ytimg.com", "fonts.gstatic.com", "mtalk.google.com", "web.whatsapp.com",
    "graph.facebook.com", "i.instagram.com", "api.telegram.org", "www.tiktok.com", "x.com", "www.netflix.com",
    "api.spotify.com", "discord.com", "github.com", "www.wikipedia.org", "www.amazon.de", "gateway.icloud.com",
    "outlook.office365.com", "store.steampowered.com",
)  # fmt: skip
ADVERTISING = ("googleads.g.doubleclick.net", "ib.adnxs.com", "ms.applovin.com", "t.appsflyer.com", "criteo.com")
FIRST = (
    "alice", "bob", "carol", "dave", "erin", "frank", "grace", "heidi", "ivan", "judy", "karl", "lena", "max", "nina",
    "olga", "pavel", "quinn", "rosa", "tanya", "zoe",
)  # fmt: skip
SYLLABLES = ("al", "be", "cor", "da", "el", "fi", "go", "ha", "jo", "ka", "lu", "mo", "ne", "or", "ra", "se", "zen")
WARP = ("www.netflix.com", "api.spotify.com")
REASONS = ("proxy/vless/encoding: invalid request user id", "proxy/trojan: not trojan protocol")
BARE = {  # addresses that clients asked for, and the host that the server's DNS gave each for
    "198.51.100.5": "mtalk.google.com", "198.51.100.6": "web.whatsapp.com", "198.51.100.7": "api.telegram.org",
}  # fmt: skip
NETWORKS = """\
network,country,asn,provider
203.0.0.0/18,DE,64496,Example Fibre
203.0.64.0/18,FI,64497,Example Cable
198.51.100.0/25,DE,64498,Example Mobile
198.51.100.128/25,SE,64499,Example Roaming
192.0.2.0/24,NL,64500,Example Hosting
"""
OUTAGE = (timedelta(days=18, hours=13, minutes=10), timedelta(days=18, hours=17, minutes=40))  # of the second node


@dataclass(frozen=True)
class Size:
    """How much happens in the month."""

    users: int = 120
    domains: int = 4_000
    lines: int = 150_000


def lines(end: datetime, size: Size) -> Iterator[tuple[str, str]]:
    """Yield the node and each line, ordered by time, up to `end`, in UTC."""
    start = end.replace(hour=0, minute=0, second=0, microsecond=0) - timedelta(days=DAYS - 1)
    for at, node, text in sorted(_events(start, end, size)):
        yield node, f"{at:%Y/%m/%d %H:%M:%S.%f} {text}\n"


def _events(start: datetime, end: datetime, size: Size) -> Iterator[tuple[datetime, str, str]]:
    chance = random.Random(30)  # noqa: S311  # no secret, and the same every time
    domains = [*WELL_KNOWN, *BARE, *ADVERTISING]
    domains += [f"{''.join(chance.choices(SYLLABLES, k=3))}.example" for _ in range(size.domains)]
    popular = [*itertools.accumulate(1 / (rank + 8) for rank in range(len(domains)))]
    users = [
        (f"{chance.choice(FIRST)}{number}", f"203.{number >> 8}.{number & 255}.{chance.randrange(1, 255)}")
        for number in range(size.users)
    ]
    active = [*itertools.accumulate(1 / (rank + 4) for rank in range(size.users))]
    hours = [*itertools.accumulate(0.1 + (1 + math.cos((hour - 20) * math.pi / 12)) ** 1.5 for hour in range(24))]
    made = 0
    while made < size.lines:
        name, home = chance.choices(users, cum_weights=active)[0]
        day = chance.choices(range(DAYS), range(30, 30 + DAYS))[0]
        hour = chance.choices(range(24), cum_weights=hours)[0]
        at = start + timedelta(days=day, hours=hour, seconds=chance.random() * 3600)
        node = NODES[len(name) % 2]
        source = home if chance.random() < 0.7 else f"198.51.100.{chance.randrange(1, 255)}"
        for _ in range(chance.randrange(3, 30)):
            at += timedelta(seconds=chance.expovariate(1 / 5))
            is_out = node == NODES[1] and OUTAGE[0] <= at - start < OUTAGE[1]
            if at < end and not is_out:
                made += 1
                yield at, node, _accepted(chance, source, chance.choices(domains, cum_weights=popular)[0], name)
    for day in range(DAYS):
        for (address, host), node in itertools.product(BARE.items(), NODES):
            yield start + timedelta(days=day), node, f"UDP:192.0.2.53:53 got answer: {host} -> [{address}] 8.4ms"
    for _ in range(size.lines // 80):
        at = start + chance.random() * (end - start)
        prober = f"192.0.2.{int(chance.paretovariate(0.7)) % 200 + 1}"
        source = f"{prober}:{chance.randrange(1024, 65535)}"
        yield at, chance.choice(NODES), f"from {source} rejected  {chance.choice(REASONS)}"


def _accepted(chance: random.Random, source: str, host: str, user: str) -> str:
    tag = "block" if host in ADVERTISING else "warp" if host in WARP else "direct"
    port = chance.choices((443, 80, 53, 5228, 6881), (85, 8, 3, 3, 1))[0]
    return f"from {source}:{chance.randrange(1024, 65535)} accepted tcp:{host}:{port} [in-443 >> {tag}] email: {user}"
