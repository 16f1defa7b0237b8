"""Records to COPY data, and COPY data into a table. The ids of their names are known by then."""

from __future__ import annotations

import functools
import itertools
import operator
from collections.abc import Callable, Container, Iterable
from dataclasses import dataclass

from psycopg.sql import SQL, Identifier

from xraylog.database import schema
from xraylog.database.session import Connection
from xraylog.loading import binary_rows
from xraylog.records import CHUNK_ROWS, UTC, Ids, Records, interleave

COPY = "COPY {table} ({columns}) FROM STDIN WITH (FORMAT {format}, FREEZE {freeze})"
INSERT = "INSERT INTO logs ({columns}) VALUES ({values})"
NULL, TAB = "\\N", "\t"


@dataclass(frozen=True, slots=True)
class RowFormat:
    """One of COPY's formats: how a COPY begins and ends, and what makes its rows."""

    name: str
    columns: tuple[str, ...]
    begin: bytes
    end: bytes
    rows: Callable[[Records, Ids, int], bytes]


def copy(
    conn: Connection, parts: Iterable[tuple[str, bytes]], row_format: RowFormat, created: Container[str] = ()
) -> int:
    """Copy rows and return how many: each part is a table, `logs` or that of one day, and rows for it.

    One COPY as long as the table stays the same: the server has the next rows before it has stored the last.
    `created`: tables that this transaction created; their rows are frozen, which leaves nothing for a vacuum.
    """
    stored = 0
    columns = SQL(", ").join(map(Identifier, row_format.columns))
    for table, all_rows in itertools.groupby(parts, operator.itemgetter(0)):
        statement = SQL(COPY).format(
            table=Identifier(table), columns=columns, format=SQL(row_format.name), freeze=SQL(str(table in created))
        )
        with conn.cursor() as cursor:
            with cursor.copy(statement) as copy:
                if row_format.begin:
                    copy.write(row_format.begin)
                for _, rows in all_rows:
                    copy.write(rows)
                if row_format.end:
                    copy.write(row_format.end)
            stored += cursor.rowcount
    return stored


def insert(conn: Connection, row: bytes, text: RowFormat) -> int:
    """Insert one row of the text format by a statement of its own: of its error, Citus keeps more. Return how many."""
    values = [None if value == NULL else value for value in row.decode().rstrip("\n").split("\t")]
    columns = SQL(", ").join(map(Identifier, text.columns))
    statement = SQL(INSERT).format(columns=columns, values=SQL(", ").join([SQL("%s")] * len(values)))
    return conn.execute(statement, values).rowcount


def text_rows(has_reject_reason: bool, records: Records, ids: Ids, node_id: int) -> bytes:
    """Return rows in COPY's text format. `ids`: of every name in the records.

    Nothing needs escaping: names are ids here, and the parser has validated the rest. Requests and routes repeat
    themselves: the text of their columns is made once for each.
    """
    user, protocol, endpoint, tag = (
        {None: NULL, **ids[table]} for table in ("users", "protocols", "endpoints", "tags")
    )
    addresses = {address: f"{UTC}\t{NULL if address is None else address}\t" for address in set(records.source_ips)}
    requests = {
        request: f"\t{request.action}\t{f'{request.reject_reason}{TAB}' if has_reject_reason else ''}"
        f"{protocol[request.protocol]}\t{endpoint[request.destination]}\t"
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


TEXT_COLUMNS = (
    *("timestamp", "source_ip", "source_port", "action", schema.REJECT_REASON, "protocol_id", "destination_id"),
    *("destination_port", "inbound_tag_id", "outbound_tag_id", "user_id", "node_id"),
)


@functools.cache
def text(has_reject_reason: bool) -> RowFormat:
    """Return COPY's text format."""
    columns = tuple(name for name in TEXT_COLUMNS if has_reject_reason or name != schema.REJECT_REASON)
    return RowFormat("text", columns, b"", b"", functools.partial(text_rows, has_reject_reason))


@functools.cache
def binary(has_reject_reason: bool) -> RowFormat:
    """Return COPY's binary format."""
    columns = tuple(binary_rows.columns(has_reject_reason))
    rows = functools.partial(binary_rows.rows, has_reject_reason)
    return RowFormat("binary", columns, binary_rows.BEGIN, binary_rows.END, rows)
