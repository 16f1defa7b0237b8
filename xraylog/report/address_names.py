"""Add the names of bare destination addresses, if runs store DNS answers (`dns_names`)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from ipaddress import ip_address

from xraylog.answers import statements
from xraylog.database import dns_names
from xraylog.report.model import Findings
from xraylog.report.page_mask import PageMask
from xraylog.report.snapshot import Session

MAX_CHARACTERS = 200_000  # of all names: a client can forge answers, and the page has a limit


def add(session: Session, found: Findings, mask: PageMask) -> Findings:
    """Return the findings with the names of their addresses, or with the reason why there are none.

    A masked page gets none, because its addresses are networks.
    """
    bare = [address for address in dict.fromkeys(_destinations(found)) if _is_bare(address)]
    if mask.hides or not bare:
        return found
    is_readable, complaints = dns_names.TABLE.readable(session.conn)
    if not is_readable:
        return replace(found, complaints=[*found.complaints, *complaints])
    statement = statements.read(session.is_distributed)["names_of"]
    rows = session.query("names of addresses", statement.text, addresses=bare)
    of_address: dict[str, list[str] | None] = dict(rows)
    names, left = dict[str, list[str]](), MAX_CHARACTERS
    for address in bare:  # the most visited ones first
        if of := of_address[address]:
            left -= sum(map(len, of))
            if left < 0:
                break
            names[address] = of
    return replace(found, names=names)


def _destinations(found: Findings) -> Iterator[str]:
    for goal in (*found.top, *found.rising, *found.new):
        yield goal.address
    for goals in (*found.tag_destinations.values(), *(user.destinations for user in found.users)):
        for address, _ in goals:
            yield address


def _is_bare(address: str) -> bool:
    try:
        ip_address(address)
    except ValueError:
        return False
    return True
