"""Generate the log for the benchmarks: the same lines every time, as repetitive as real logs."""

from __future__ import annotations

import random
from collections.abc import Iterator
from datetime import datetime, timedelta

USERS, SOURCES, ENDPOINTS = 200, 2_000, 20_000
DAYS = 2
LINE = "{at:%Y/%m/%d %H:%M:%S.%f} from {source}:{port} accepted {to} [{tags}] email: {email}\n"


def lines(count: int, endpoints: int = ENDPOINTS, users: int = USERS, days: float = DAYS) -> Iterator[str]:
    """Yield lines of xray 24, spread evenly over `days` from 2025-10-01 on. A few hosts get most of the traffic."""
    chance = random.Random(7)
    sources = [f"{chance.randrange(1, 224)}.{chance.randrange(256)}.{chance.randrange(256)}.7" for _ in range(SOURCES)]
    sources[::20] = [f"[2001:db8:{n:x}::7]" for n in range(len(sources[::20]))]
    at, step = datetime(2025, 10, 1), timedelta(days=days) / count  # noqa: DTZ001  # xray's local time has no zone
    for _ in range(count):
        host = int(chance.paretovariate(0.6)) % endpoints
        user = chance.randrange(users)
        network = "udp" if chance.random() < 0.2 else "tcp"
        yield LINE.format(
            at=at,
            source=sources[user * 7 % SOURCES + chance.randrange(3)] if user else sources[0],
            port=chance.randrange(1024, 65536),
            to=f"{network}:host{host}.example.com:443",
            tags=f"in-{user % 3} {'->' if host % 5 else '>>'} {'direct' if host % 7 else 'warp'}",
            email=f"{user}@example.com",
        )
        at += step
