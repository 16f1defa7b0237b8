"""Whether a server may ask for the password as it is: only one that has proven who it is.

While PostgreSQL is down, any local user can listen on its port: 5432 needs no rights. libpq answers whatever it asks.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

REQUIRE_AUTH = 160000  # the libpq that knows the keyword
PROVEN = ("verify-ca", "verify-full")


def refused(keywords: Mapping[str, str], libpq: int) -> dict[str, str]:
    """Return the keyword with which libpq refuses to send the password as it is; none where that is meant, or safe.

    `libpq`: its version, as PQlibVersion has it. A service may name the host, and how it is to be proven: it decides.
    """
    is_decided = any(_value(keywords, key) for key in ("require_auth", "service"))
    is_proven = _value(keywords, "sslmode") in PROVEN
    hosts = (_value(keywords, "host") or _value(keywords, "hostaddr")).split(",")
    if is_decided or is_proven or all(_is_socket(host) for host in hosts) or libpq < REQUIRE_AUTH:
        return {}
    return {"require_auth": "!password"}


def _value(keywords: Mapping[str, str], key: str) -> str:
    return keywords.get(key) or os.environ.get(f"PG{key.upper().replace('_', '')}", "")


def _is_socket(host: str) -> bool:
    """Return whether libpq takes it for a socket's folder, or, without one, its own."""
    return not host or host[0] in "/@"
