"""Encode records in COPY's binary format, which the server reads without parsing text (benchmarks/load.py has both).

The format is described on PostgreSQL's page on COPY, section "Binary Format": a row is its number of columns and, for
each column, a length and as many bytes, or the length -1 for NULL. The bytes are those that the receive function of the
column's type reads: a timestamptz is microseconds since 2000, an inet has a header of four bytes.
"""

from __future__ import annotations

import functools
import socket
import struct
from array import array
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime, timedelta, timezone
from typing import NamedTuple

from xraylog.database.ddl import REJECT_REASON
from xraylog.records import MINUTE, Ids, Records, Request, Route

# In this order the two columns that differ from row to row are next to each other.
COLUMNS = {  # of `logs`, with the type that our bytes are encoded for; `columns` returns those of an older `logs`
    "timestamp": "timestamp with time zone",
    "source_port": "integer",
    "source_ip": "inet",
    "action": "text",
    REJECT_REASON: "text",
    "protocol_id": "integer",
    "destination_id": "integer",
    "destination_port": "integer",
    "inbound_tag_id": "integer",
    "outbound_tag_id": "integer",
    "user_id": "integer",
    "node_id": "integer",
}
BEGIN = b"PGCOPY\n\xff\r\n\0" + struct.pack(">ii", 0, 0)  # of a COPY: no flags, no extension
END = struct.pack(">h", -1)  # of a COPY

CHUNK_ROWS = 4_000  # whose pieces stay in the processor's cache
TIMESTAMP_BYTES = 8
NULL = struct.pack(">i", -1)
INTEGER = struct.Struct(">ii")  # its length, and it
EPOCH = datetime(2000, 1, 1, tzinfo=timezone.utc)
SECONDS = 10  # characters of ":23.123456"
LANES = 2  # a timestamp and a port, 64 bits each


class TypesChanged(Exception):
    """An id does not fit any more: the type of its column was changed after this run had looked it up."""


def columns(has_reject_reason: bool) -> dict[str, str]:
    """Return the columns of a row, with the type that each is encoded for."""
    return {name: kind for name, kind in COLUMNS.items() if has_reject_reason or name != REJECT_REASON}


def rows(has_reject_reason: bool, records: Records, ids: Ids, node_id: int) -> bytes:
    """Return rows without BEGIN and END. `ids`: of every name in the records.

    Requests and routes repeat, so the bytes of their columns are made once for each. Within a chunk, the rows of one
    user are stored next to each other, so that an answer about the user reads fewer pages (benchmarks/pages.py).
    """
    addresses = {address: _inet(address) for address in set(records.source_ips)}
    requests = {request: _request(request, ids, has_reject_reason) for request in set(records.requests)}
    begin = struct.pack(">hi", len(columns(has_reject_reason)), TIMESTAMP_BYTES)  # of a row
    node = _integer(node_id) + begin  # each row ends with what the next one begins with
    routes = {route: _route(route, ids) + node for route in set(records.routes)}
    chunks = [
        _interleave(
            _times_and_ports(chunk),
            map(addresses.__getitem__, chunk.source_ips),
            map(requests.__getitem__, chunk.requests),
            map(routes.__getitem__, chunk.routes),
            count=len(chunk),
        )
        for chunk in map(Records.by_route, records.slices(CHUNK_ROWS))
    ]
    return b"".join([begin, *chunks])[: -len(begin)] if chunks else b""


def _interleave(*columns: Iterable[bytes], count: int) -> bytes:
    pieces = [b""] * (len(columns) * count)
    for number, column in enumerate(columns):
        pieces[number :: len(columns)] = column
    return b"".join(pieces)


def _integer(value: int | None) -> bytes:
    """Return an integer's bytes. Raises TypesChanged; where rows are sent in binary, ids were integers, and fit."""
    try:
        return NULL if value is None else INTEGER.pack(4, value)
    except struct.error as error:
        raise TypesChanged(str(error)) from error


_few = functools.lru_cache(maxsize=1 << 10)(_integer)  # of ports, protocols and tags: an adversary's log has few, too


def _inet(address: str | None) -> bytes:
    """Return an address or a network as inet: family, bits, is_cidr, number of bytes, bytes.

    The families are PGSQL_AF_INET and PGSQL_AF_INET6 of src/include/utils/inet.h, where a server's AF_INET is 2.
    """
    if address is None:
        return NULL
    host, _, bits = address.partition("/")
    is_v6 = ":" in host
    data = socket.inet_pton(socket.AF_INET6 if is_v6 else socket.AF_INET, host)
    return _inet_header(is_v6, int(bits or 8 * len(data)), len(data)) + data


@functools.lru_cache(maxsize=1 << 8)
def _inet_header(is_v6: bool, bits: int, length: int) -> bytes:
    return struct.pack(">iBBBB", 4 + length, 3 if is_v6 else 2, bits, 0, length)


@functools.lru_cache(maxsize=1 << 8)
def _texts(*values: str) -> bytes:
    found = [value.encode() for value in values]
    return b"".join(struct.pack(">i", len(data)) + data for data in found)


def _request(request: Request, ids: Ids, has_reject_reason: bool) -> bytes:
    texts = _texts(request.action, request.reject_reason) if has_reject_reason else _texts(request.action)
    return b"".join(
        (
            texts,
            _few(_id(ids["protocols"], request.protocol)),
            _integer(_id(ids["endpoints"], request.destination)),
            _few(request.destination_port),
        )
    )


def _route(route: Route, ids: Ids) -> bytes:
    inbound, outbound = (_few(_id(ids["tags"], tag)) for tag in (route.inbound_tag, route.outbound_tag))
    return inbound + outbound + _integer(_id(ids["users"], route.email))


def _id(ids: Mapping[str, int], name: str | None) -> int | None:
    return None if name is None else ids[name]


# --- timestamps and ports -----------------------------------------------------------------------------------------


class Lanes(NamedTuple):
    """Constants for `count` numbers of 64 bits in one integer."""

    digits: int  # 4 bits of each byte
    pairs: int  # of digits: the lower byte of two
    fours: int
    eights: int
    pieces: Callable[[bytes], tuple[bytes, ...]]  # 16 bytes each


@functools.lru_cache(maxsize=16)  # of the last chunk of each batch
def _lanes(count: int) -> Lanes:
    digits, pairs, fours, eights = (
        int.from_bytes(mask * (8 * count // len(mask)), "big")
        for mask in (b"\x0f", b"\0\xff", b"\0\0\xff\xff", b"\0\0\0\0\xff\xff\xff\xff")
    )
    return Lanes(digits, pairs, fours, eights, struct.Struct("16s" * (count // LANES)).unpack)


def _times_and_ports(chunk: Records) -> Sequence[bytes]:
    """Return a piece for each row: timestamp and port, each but the first length included.

    All decimal numbers of a chunk are read at once, as one integer in which each has 64 bits, eight digits: first every
    two neighbours become a number from 0 to 99, then two of these one from 0 to 9999, then all eight.
    """
    count, ports = len(chunk), chunk.source_ports
    has_nulls = None in ports
    padded = ("%8s" * count % tuple("0" if port is None else port for port in ports) if has_nulls
              else "%8s" * count % tuple(ports))  # fmt: skip
    digits = array("q", bytes(8 * LANES * count))
    digits[0::LANES] = array("q", _second_digits(chunk.seconds))
    digits[1::LANES] = array("q", padded.encode())
    masks = _lanes(LANES * count)
    number = int.from_bytes(digits.tobytes(), "big") & masks.digits  # 0 of a blank, too
    number = (number >> 8 & masks.pairs) * 10 + (number & masks.pairs)
    number = (number >> 16 & masks.fours) * 100 + (number & masks.fours)
    number = (number >> 32 & masks.eights) * 10_000 + (number & masks.eights)
    number += int.from_bytes(_minutes(chunk.minutes), "big")
    pieces = masks.pieces(number.to_bytes(8 * LANES * count, "big"))
    if has_nulls:
        return [piece if port is not None else piece[:8] + NULL for piece, port in zip(pieces, ports, strict=True)]
    return pieces


def _second_digits(seconds: list[str]) -> bytes:
    """Return eight digits for each: seconds and microseconds."""
    text = "".join(seconds)
    if len(text) != SECONDS * len(seconds) or text.count(".") != len(seconds):  # xray wrote no fraction before 2025
        text = "".join(f"{second if '.' in second else second + '.':0<{SECONDS}}" for second in seconds)
    return text.encode().translate(None, b":.")


def _minutes(minutes: list[str]) -> bytes:
    """Return what is added to each second, and to each port: the minute, and the length of the port."""
    if minutes.count(minutes[0]) == len(minutes):  # as a rule
        return _minute(minutes[0]) * len(minutes)
    added = {minute: _minute(minute) for minute in set(minutes)}
    return b"".join(map(added.__getitem__, minutes))


@functools.lru_cache(maxsize=1 << 12)
def _minute(minute: str) -> bytes:
    passed = datetime.strptime(minute[:MINUTE] + "+0000", "%Y-%m-%d %H:%M%z") - EPOCH
    return struct.pack(">qii", passed // timedelta(microseconds=1), 4, 0)
