"""Records to COPY text, and COPY text into a table. The ids of their names are known by then."""

from __future__ import annotations

import itertools
import operator
from collections.abc import Iterable

from psycopg.sql import SQL, Identifier

from xraylog.database.session import Connection
from xraylog.records import CHUNK_ROWS, UTC, Ids, Records, interleave

COPY = """
    COPY {} ("timestamp", source_ip, source_port, action, protocol_id, destination_id, destination_port,
             inbound_tag_id, outbound_tag_id, user_id, node_id)
    FROM STDIN
"""
NULL = "\\N"


def copy(conn: Connection, parts: Iterable[tuple[str, bytes]]) -> int:
    """Copy rows and return how many: each part is a table, `logs` or that of one day, and text for it.

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
    """Return rows in COPY's text format. `ids`: of every name in the records.

    Nothing needs escaping: names are ids here, and the parser has validated the rest. Requests and routes repeat
    themselves: the text of their columns is made once for each.
    """
    user, protocol, endpoint, tag = (
        {None: NULL, **ids[table]} for table in ("users", "protocols", "endpoints", "tags")
    )
    addresses = {address: f"{UTC}\t{NULL if address is None else address}\t" for address in set(records.source_ips)}
    requests = {
        request: f"\t{request.action}\t{protocol[request.protocol]}\t{endpoint[request.destination]}\t"
        f"{NULL if request.destination_port is None else request.destination_port}\t"
        for request in set(records.requests)
    }
    routes = {
        route: f"{tag[route.inbound_tag]}\t{tag[route.outbound_tag]}\t{user[route.email]}\t{node_id}\n"
        for route in set(records.routes)
    }
    return b"".join(
        interleave(
            some.minutes,
            some.seconds,
            map(addresses.__getitem__, some.source_ips),
            [NULL if port is None else port for port in some.source_ports],
            map(requests.__getitem__, some.requests),
            map(routes.__getitem__, some.routes),
            count=len(some),
        )
        for some in records.slices(CHUNK_ROWS)
    )
