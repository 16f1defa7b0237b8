"""Encode records as COPY data, and send it to a table. The ids of their names must be known."""

from __future__ import annotations

import functools
import itertools
import operator
from collections.abc import Callable, Container, Iterable
from dataclasses import dataclass

from psycopg.sql import SQL, Identifier

from xraylog.database import ddl
from xraylog.database.session import Connection
from xraylog.loading import binary_rows
from xraylog.records import CHUNK_ROWS, UTC, Ids, Records, interleave

COPY = "COPY {table} ({columns}) FROM STDIN WITH (FORMAT {format}, FREEZE {freeze})"
INSERT = "INSERT INTO logs ({columns}) VALUES ({values})"
NULL, TAB = "\\N", "\t"


@dataclass(frozen=True, slots=True)
class RowFormat:
    """One of the formats of COPY: what a COPY begins and ends with, and the function that encodes rows."""

    name: str
    columns: tuple[str, ...]
    begin: bytes
    end: bytes
    rows: Callable[[Records, Ids, int], bytes]


def copy(
    conn: Connection, parts: Iterable[tuple[str, bytes]], row_format: RowFormat, created: Container[str] = ()
) -> int:
    """Copy rows, and return how many were stored. Each part is a table, `logs` or that of one day, and encoded rows.

    Consecutive parts of one table share a COPY, so the server gets more rows before it has stored the last. `created`:
    tables that this transaction created; their rows are frozen, which saves a vacuum.
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
    """Insert one row, given in text format, with a statement of its own: Citus reports more about its errors."""
    values = [None if value == NULL else value for value in row.decode().rstrip("\n").split("\t")]
    columns = SQL(", ").join(map(Identifier, text.columns))
    statement = SQL(INSERT).format(columns=columns, values=SQL(", ").join([SQL("%s")] * len(values)))
    return conn.execute(statement, values).rowcount


def text_rows(has_reject_reason: bool, records: Records, ids: Ids, node_id: int) -> bytes:
    """Return the records in COPY's text format. `ids`: of every name in them.

    Nothing needs escaping: names are ids here, and the parser has validated the rest. Requests and routes repeat, so
    the text of their columns is made once for each.
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
            chunk.minutes,
            chunk.seconds,
            map(addresses.__getitem__, chunk.source_ips),
            [NULL if port is None else port for port in chunk.source_ports],
            map(requests.__getitem__, chunk.requests),
            map(routes.__getitem__, chunk.routes),
            count=len(chunk),
        )
        for chunk in records.slices(CHUNK_ROWS)
    )


TEXT_COLUMNS = (
    *("timestamp", "source_ip", "source_port", "action", ddl.REJECT_REASON, "protocol_id", "destination_id"),
    *("destination_port", "inbound_tag_id", "outbound_tag_id", "user_id", "node_id"),
)


@functools.cache
def text(has_reject_reason: bool) -> RowFormat:
    """Return the RowFormat of COPY's text format."""
    columns = tuple(name for name in TEXT_COLUMNS if has_reject_reason or name != ddl.REJECT_REASON)
    return RowFormat("text", columns, b"", b"", functools.partial(text_rows, has_reject_reason))


@functools.cache
def binary(has_reject_reason: bool) -> RowFormat:
    """Return the RowFormat of COPY's binary format."""
    columns = tuple(binary_rows.columns(has_reject_reason))
    rows = functools.partial(binary_rows.rows, has_reject_reason)
    return RowFormat("binary", columns, binary_rows.BEGIN, binary_rows.END, rows)
