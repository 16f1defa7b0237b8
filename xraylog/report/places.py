"""Look up country and provider of the addresses on the page, if the operator has loaded the table `networks`."""

from __future__ import annotations

from dataclasses import replace

from psycopg.sql import SQL

from xraylog.answers import statements
from xraylog.database import networks
from xraylog.report.model import Findings, Place
from xraylog.report.snapshot import Session
from xraylog.report.traffic import NO_SOURCE

MAX_LENGTH = 100  # of a name: a file may hold any text
# Addresses are returned as the page writes them; grouped, because most share their country and provider with others.
PLACES = """
    SELECT p.country, p.provider, array_agg(abbrev(p.address))
    FROM ({}) p
    WHERE p.country <> '' OR p.provider <> ''
    GROUP BY p.country, p.provider
"""


def add(session: Session, found: Findings) -> Findings:
    """Return the findings with country and provider of their addresses, or with a note why there are none."""
    shown = dict.fromkeys(address for user in found.users for address, _ in user.visited_from)
    shown |= dict.fromkeys(source.address for source in found.sources if source.address != NO_SOURCE)
    if not shown:
        return found
    is_readable, complaints = networks.TABLE.readable(session.conn)
    if not is_readable:
        return replace(found, complaints=[*found.complaints, *complaints])
    statement = statements.read(session.is_distributed)["places_of"]
    query = SQL(PLACES).format(SQL(statement.text))
    places: dict[str, Place] = {}
    for country, provider, addresses in session.query("countries and providers", query, addresses=[*shown]):
        places |= dict.fromkeys(addresses, Place(_cut(country), _cut(provider)))
    return replace(found, places=places)


def _cut(name: str | None) -> str | None:
    return None if not name else name if len(name) <= MAX_LENGTH else f"{name[:MAX_LENGTH]}…"
