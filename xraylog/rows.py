"""Records to rows, and rows into a table by COPY. The ids of their names are known by then."""

from __future__ import annotations

import itertools
import operator
from collections.abc import Iterable

from psycopg.sql import SQL, Identifier

from xraylog.database import Connection
from xraylog.records import UTC, Ids, Records

COPY = """
    COPY {} ("timestamp", source_ip, source_port, action, protocol_id, destination_id, destination_port,
             inbound_tag_id, outbound_tag_id, user_id, node_id)
    FROM STDIN
"""
NULL = "\\N"


def copy(conn: Connection, parts: Iterable[tuple[str, bytes]]) -> int:
    """Copy rows: each part a table, `logs` or that of one day, and text for it. Returns how many they were.

    One COPY as long as the table stays the same: the server has the next rows before it has stored the last.
    """
    stored = 0
    for table, texts in itertools.groupby(parts, operator.itemgetter(0)):
        with conn.cursor() as cursor:
            with cursor.copy(SQL(COPY).format(Identifier(table))) as copy:
                for _, text in texts:
                    copy.write(text)
            stored += cursor.rowcount
    return stored


def copy_text(records: Records, ids: Ids, node_id: int) -> bytes:
    """Rows in COPY's text format. `ids`: of every name in the records.

    Nothing needs escaping: names are ids here, the rest the parser has validated. Requests and routes repeat
    themselves: their columns are put together once for each.
    """
    user, protocol, endpoint, tag = ids["users"], ids["protocols"], ids["endpoints"], ids["tags"]
    requests = {
        request: _columns(
            request.action,
            request.protocol and protocol[request.protocol],
            request.destination and endpoint[request.destination],
            request.destination_port,
        )
        for request in set(records.requests)
    }
    routes = {
        route: _columns(
            route.inbound_tag and tag[route.inbound_tag],
            route.outbound_tag and tag[route.outbound_tag],
            route.email and user[route.email],
            node_id,
        )
        for route in set(records.routes)
    }
    columns = zip(
        records.minutes,
        records.seconds,
        [NULL if address is None else address for address in records.source_ips],
        [NULL if port is None else port for port in records.source_ports],
        map(requests.__getitem__, records.requests),
        map(routes.__getitem__, records.routes),
        strict=True,
    )
    return "".join(
        [
            f"{minute}{seconds}{UTC}\t{address}\t{port}\t{request}\t{route}\n"
            for minute, seconds, address, port, request, route in columns
        ]
    ).encode()


def _columns(*values: str | int | None) -> str:
    return "\t".join(NULL if value is None else str(value) for value in values)
