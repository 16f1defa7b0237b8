"""Parse what a question is about: hosts, addresses, networks, patterns, ports, tags. Write notes about limits."""

from __future__ import annotations

import argparse
import re
import unicodedata
from collections.abc import Mapping, Sequence
from ipaddress import ip_address, ip_network, summarize_address_range
from typing import Any

NAMES = "A client that asked for a host name is stored under that name, not under its address."
MASKED = "Destinations that xray masked (198.51.*.*) are in no network, and are nobody's address."
MASKED_CLIENTS = "Clients that xray masked (203.0.*.*) are networks: ask for one that holds them, 203.0.0.0/16."
MAX_PORT = 65535
MAPPED_BITS = 96  # of ::ffff:198.51.100.0, before its IPv4 address
# A host has no blank, comma, slash or colon, and a user no place before it. A pattern may be one of IPv6 addresses.
NO_HOST = re.compile(r"[\s,/]|^[^*]*:[^*]*$|:[0-9]+$|[^*]@")
MAX_SHOWN = 5  # addresses in a note
IN_LETTERS = (
    "A pattern within a label of letters finds names that the log has in letters alone. Most clients ask for a name as "
    "the DNS has it, xn--…: give whole labels, as in *.bücher.example."
)
EXPECTED = "expected a host, an address, a network as in 198.51.100.0/24, or *.telegram.org"
EXPECTED_CLIENT = "expected an address, or a network as in 203.0.113.0/24"


def target(text: str) -> str:
    """Return the target in the form that answers.sql takes."""
    plain = text.strip()
    if found := address(plain.removeprefix("[").removesuffix("]")) or _network(re.sub(r"^\[(.*)\]", r"\1", plain)):
        return found
    if found := _range(plain, EXPECTED):
        return found
    if plain.startswith("[Masked ") or re.match("/[^/]", plain):  # of a unix socket: a path
        return plain
    plain = plain.removeprefix("[").removesuffix("]")
    if not plain.strip(".") or NO_HOST.search(plain) or not plain.isprintable():
        raise argparse.ArgumentTypeError(f"{EXPECTED}, and a port as --port; found {text!r}")
    return _as_in_dns(f"*{plain}" if plain.startswith(".") else plain)


def client(text: str) -> str:
    """Return the address or network in the form that answers.sql takes."""
    plain = re.sub(r"^\[(.*)\]", r"\1", text.strip())
    if found := address(plain) or _network(plain) or _range(plain, EXPECTED_CLIENT):
        return found
    raise argparse.ArgumentTypeError(f"{EXPECTED_CLIENT}, found {text!r}")


def address(text: str) -> str | None:
    """Return an address in its usual form, IPv4 if it is mapped, without a zone; None if it is not an address."""
    try:
        found = ip_address(text)
    except ValueError:
        return None
    return str(getattr(found, "ipv4_mapped", None) or found).partition("%")[0]


def _network(text: str) -> str | None:
    """Return a network without host bits, IPv4 if it is mapped; None if it is not a network."""
    try:
        found = ip_network(text, strict=False) if "/" in text else None
    except ValueError:
        found = None
    mapped = getattr(found.network_address, "ipv4_mapped", None) if found else None
    if found and mapped and found.prefixlen >= MAPPED_BITS:
        return f"{mapped}/{found.prefixlen - MAPPED_BITS}"
    return str(found) if found else None


def _range(text: str, expected: str) -> str | None:
    """Return a range such as WHOIS shows as a network; None if the text is not a range.

    `expected`: the beginning of the error for a range that is not a network.
    """
    ends = [address(each.strip()) for each in text.split("-")]
    if len(ends) != 2 or None in ends:  # its first and its last address
        return None
    try:
        networks = [str(each) for each in summarize_address_range(*(ip_address(end or "") for end in ends))]
    except (TypeError, ValueError):  # of IPv4 and IPv6, or the last one first
        raise argparse.ArgumentTypeError(f"{expected}, found {text!r}") from None
    if len(networks) > 1:
        shown = ", ".join(networks[:MAX_SHOWN]) + (", …" if len(networks) > MAX_SHOWN else "")
        raise argparse.ArgumentTypeError(f"expected a network of that range, as {shown}; found {text!r}")
    return networks[0]


def _as_in_dns(name: str) -> str:
    """Return a name as clients ask for it: bücher.example becomes xn--bcher-kva.example."""
    labels = unicodedata.normalize("NFKC", name.lower()).split(".")
    if name.isascii() or _has_part_of_letters(name):
        return name
    return ".".join(each if each.isascii() else f"xn--{each.encode('punycode').decode()}" for each in labels)


def _has_part_of_letters(name: str) -> bool:
    """Return whether a * is within a non-ASCII label: its xn--… form contains no part of its letters."""
    return any("*" in label and not label.isascii() for label in name.split("."))


def part_of_letters(target: str | None) -> list[str]:
    """Return the note about what such a pattern leaves out."""
    return [IN_LETTERS] if _has_part_of_letters(target or "") else []


def spelled(target: str | None) -> list[str]:
    """Return the patterns that match a name spelled in letters instead of xn--…, as few clients write it."""
    try:
        labels = [
            label[4:].encode().decode("punycode") if label.startswith("xn--") else label
            for label in (target or "").lower().rstrip(".").split(".")
        ]
    except UnicodeError:
        return []
    name = ".".join(labels)
    if name.isascii() or not name.isprintable():
        return []
    names = [name, name[2:]] if name.startswith("*.") else [name]
    return [pattern for each in names for pattern in (each, f"{each}.")]


def no_rows_of_target(values: Mapping[str, Any]) -> str:
    """Return the note for an answer without rows."""
    wanted, port = values.get("target"), values.get("port")
    if wanted is None:
        return f"no row has port {port} in this window"
    at_port = "" if port is None else f" with port {port}"
    if "*" in wanted or not address(wanted.partition("/")[0]):
        return f"no row names {wanted}{at_port} in this window: clients that asked for an address are stored under that"
    return (
        f"no row names {wanted}{at_port} in this window: clients that asked for a host name are stored under that name"
    )


def also_counted(found: Sequence[str]) -> list[str]:
    """Return the note that says which addresses are counted for a name."""
    if not found:
        return []
    shown = ", ".join(found[:MAX_SHOWN]) + (f" and {len(found) - MAX_SHOWN} more" if len(found) > MAX_SHOWN else "")
    return [f"Also counted, because DNS answers gave them this name: {shown}. They may have other names, too."]


def called(address: str, names: Sequence[str]) -> list[str]:
    """Return the note that says which names an address had, whose rows are not counted."""
    if not names:
        return []
    shown = f"{', '.join(names)} (five at most are shown)"
    return [f"DNS answers called {address} {shown}: clients that asked for a name are stored under that name."]


def no_rows_from_client(values: Mapping[str, Any]) -> str:
    """Return the note for an answer without rows."""
    return f"no row in this window is from {values['client']}"


def no_rows_of_user(values: Mapping[str, Any]) -> str | None:
    """Return the note for an answer without rows; None if it is about all users."""
    return None if values["alone"] is None else f"no accepted row of {values['alone']} in this window"


def no_rows_by_tag(values: Mapping[str, Any]) -> str:
    """Return the note for an answer without rows."""
    tag = values.get("tag")
    return (
        "no row in this window" if tag is None else f"no row went out by {tag} in this window; for all tags: outbound"
    )


def ports(text: str) -> str:
    """Return ports as answers.sql takes them: 22, or 6881-6889,51413."""
    spans = [re.fullmatch(r"([0-9]{1,5})(?:-([0-9]{1,5}))?", span.strip()) for span in text.split(",")]
    ends = [(int(span[1]), int(span[2] or span[1])) for span in spans if span]
    if len(ends) < len(spans) or not all(first <= last <= MAX_PORT for first, last in ends):
        raise argparse.ArgumentTypeError(f"expected ports as in 22 or 6881-6889,51413, found {text!r}")
    return ",".join(f"{first}-{last}" for first, last in ends)
