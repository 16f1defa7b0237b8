"""Decide whether a server may ask for the password in cleartext: only if it has proven its identity.

While PostgreSQL is down, any local user can listen on its port, because 5432 needs no rights; and libpq would send the
password to whatever asks for it.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

REQUIRE_AUTH = 160000  # the first version of libpq that knows the keyword
PROVEN = ("verify-ca", "verify-full")


def refused(keywords: Mapping[str, str], libpq: int) -> dict[str, str]:
    """Return the keyword that makes libpq refuse to send the password in cleartext; nothing if that is wanted or safe.

    `libpq`: its version, as PQlibVersion returns it. A service file may set the host and sslmode, so it is left alone.
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
    """Return whether libpq takes this host for the folder of a socket; "" stands for its default folder."""
    return not host or host[0] in "/@"
