"""Encode records and bad lines as lines of the offline buffer, and decode them.

A bad line can have 16 MiB, so it is written and read in parts. Pure: no files, no database, no clock, no logging.
"""

from __future__ import annotations

import base64
import binascii
import functools
import itertools
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

from xraylog.accesslog.masking import Mask
from xraylog.records import (
    CHUNK_ROWS,
    MAX_LINE_BYTES,
    UTC,
    AccessRecord,
    BadLine,
    Batch,
    LongLine,
    Records,
    Request,
    Route,
    cut,
    interleave,
    intern_request,
    intern_route,
)

RECORD = b'{"timestamp": '
BEGIN, END = b'{"line": "', b'", "reason": '
ENCODED_BYTES = -(-MAX_LINE_BYTES // 3) * 4  # as base64
KEPT_BYTES = len(BEGIN) + ENCODED_BYTES + (1 << 16)  # kept of a line of the buffer: we write no longer ones
TAIL_BYTES = 1 << 16  # the end of a line, with its reason and offset
PIECE_BYTES = 3 << 14  # encoded at a time; a multiple of 3, so that there is no padding within a line

# A record as `encoded_parts` writes it, or any other line. Inside a value, each quote follows a backslash, so a key is
# never found there.
LINE = re.compile(
    r'(?:\{"timestamp": "(.{16})([^+\n]+)\+00", "source_ip": ([^,\n]+), "source_port": ([^,\n]+), ("action": .+), '
    r'("inbound_tag": .+), "offset": ([0-9]+)\}|.*)\n'
)

LongBadLine: TypeAlias = "tuple[int, BadLine] | None"  # with its offset in the log; None: a long line of another kind

encode = json.JSONEncoder(ensure_ascii=False).encode


class BufferedLines(NamedTuple):
    """The decoded content of lines of the buffer."""

    records: Records
    bad_lines: list[tuple[int, BadLine]]  # each with the number of its line in the buffer
    offsets: list[int]  # of each line in the log, in bytes


def read(text: bytes, long_lines: Mapping[int, LongBadLine], mask: Mask) -> BufferedLines:
    """Decode lines of the buffer. `long_lines`: those that are empty in `text`, by their number.

    The records come first; values that repeat in them are decoded once. Raises ValueError, KeyError and TypeError for
    lines that we did not write.
    """
    # A flat list: for each line the text before it, which is empty, and its groups. This is faster than tuples.
    pieces = LINE.split(text.decode())
    columns = [pieces[group :: LINE.groups + 1] for group in range(1, LINE.groups + 1)]
    total = len(columns[0])
    count = columns[0].index(None) if None in columns[0] else total
    minutes, seconds, addresses, ports, requests, routes, offsets = (column[:count] for column in columns)
    address_of = {text: mask.source(json.loads(text)) for text in set(addresses)}
    request_of = {text: intern_request(**json.loads(f"{{{text}}}")) for text in set(requests)}
    route_of = {text: intern_route(**json.loads(f"{{{text}}}")) for text in set(routes)}
    records = Records(
        minutes,
        seconds,
        list(map(address_of.__getitem__, addresses)),
        [None if port == "null" else port for port in ports],
        list(map(request_of.__getitem__, requests)),
        list(map(route_of.__getitem__, routes)),
    )
    lines = text.split(b"\n")[count:-1] if count < total else []
    others = _read_one_by_one([long_lines.get(count + number, line) for number, line in enumerate(lines)], mask)
    records.extend(others.records)
    bad_lines = [(count + number, bad) for number, bad in others.bad_lines]
    return BufferedLines(records, bad_lines, [*map(int, offsets), *others.offsets])


def _read_one_by_one(lines: Sequence[bytes | LongBadLine], mask: Mask) -> BufferedLines:
    found = BufferedLines(Records(), [], [])
    for number, line in enumerate(lines):
        if line is None:
            raise ValueError("a long line that we did not write")
        if not isinstance(line, bytes):
            found.offsets.append(line[0])
            found.bad_lines.append((number, mask.bad_line(line[1])))
            continue
        values = json.loads(line)
        found.offsets.append(values.pop("offset"))
        if "line" in values:
            bad = BadLine(base64.b64decode(values["line"]), values["reason"])
            found.bad_lines.append((number, mask.bad_line(bad)))
        else:
            found.records.append(masked_record(values, mask))
    return found


def record(line: bytes, mask: Mask) -> AccessRecord | None:
    """Return the record in a line of the buffer; None if the line holds no record."""
    if not line.startswith(RECORD):
        return None
    values = json.loads(line)
    del values["offset"]
    return masked_record(values, mask)


def masked_record(values: dict[str, Any], mask: Mask) -> AccessRecord:
    """Return the record with these values, its source masked: it may be from before the mask was configured."""
    return AccessRecord(**{**values, "source_ip": mask.source(values["source_ip"])})


def reasons(batch: Batch) -> list[tuple[str, int]]:
    """Return the reasons of the rejected records as runs, in their order: each reason, and how many in a row have it.

    They are stored in the mark and not in the lines, because older versions ignore unknown keys only in a mark.
    """
    found = (request.reject_reason for request in batch.records.requests if request.action == "rejected")
    return [(reason, len([*run])) for reason, run in itertools.groupby(found)]


def set_reasons(records: Records, found: Sequence[tuple[str, int]]) -> None:
    """Set the reasons of the rejected records to these runs from `reasons`; older versions have stored none."""
    if not found:
        return
    each = itertools.chain.from_iterable(itertools.repeat(reason, count) for reason, count in found)
    rejected = [number for number, request in enumerate(records.requests) if request.action == "rejected"]
    for number, reason in zip(rejected, each, strict=True):
        request = records.requests[number]
        records.requests[number] = intern_request(
            request.action, request.protocol, request.destination, request.destination_port, reason
        )


def encoded_parts(batch: Batch) -> Iterator[bytes]:
    """Yield the lines of the buffer for a batch, in parts: its records, then its bad lines.

    Values that repeat are encoded once.
    """
    records = batch.records
    minutes = {minute: f'{{"timestamp": "{minute}' for minute in set(records.minutes)}
    addresses = {
        address: f'{UTC}", "source_ip": {encode(address)}, "source_port": ' for address in set(records.source_ips)
    }
    requests = {request: f", {_request(request)}, " for request in set(records.requests)}
    routes = {route: f'{_route(route)}, "offset": ' for route in set(records.routes)}
    for number, chunk in enumerate(records.slices(CHUNK_ROWS)):
        yield interleave(
            map(minutes.__getitem__, chunk.minutes),
            chunk.seconds,
            map(addresses.__getitem__, chunk.source_ips),
            ["null" if port is None else port for port in chunk.source_ports],
            map(requests.__getitem__, chunk.requests),
            map(routes.__getitem__, chunk.routes),
            map(str, batch.offsets[number * CHUNK_ROWS : (number + 1) * CHUNK_ROWS]),
            ["}\n"] * len(chunk),
            count=len(chunk),
        )
    for offset, bad in batch.bad_lines:
        yield from _bad_line(offset, bad)


@functools.lru_cache(maxsize=1 << 13)  # the parser returns the same object for a request that it has seen before
def _request(request: Request) -> str:
    return (
        f'"action": {encode(request.action)}, "protocol": {encode(request.protocol)}, '
        f'"destination": {encode(request.destination)}, "destination_port": {encode(request.destination_port)}'
    )


@functools.lru_cache(maxsize=1 << 13)
def _route(route: Route) -> str:
    return (
        f'"inbound_tag": {encode(route.inbound_tag)}, "outbound_tag": {encode(route.outbound_tag)}, '
        f'"email": {encode(route.email)}'
    )


def _bad_line(offset: int, bad: BadLine) -> Iterator[bytes]:
    """Yield a bad line as a line of the buffer, in parts."""
    yield BEGIN
    for start in range(0, len(bad.line), PIECE_BYTES):
        yield binascii.b2a_base64(bad.line[start : start + PIECE_BYTES], newline=False)
    yield f'", "reason": {encode(bad.reason)}, "offset": {offset}}}\n'.encode()


def read_long(line: LongLine, tail: bytes) -> tuple[int, BadLine]:
    """Decode a long line of the buffer into offset and bad line. `tail`: its last TAIL_BYTES. Raises ValueError.

    Earlier versions wrote lines of any length; of these, too, only MAX_LINE_BYTES are kept.
    """
    end = tail.rfind(END)  # a quote in the reason has a backslash before it
    if not line.beginning.startswith(BEGIN) or end < 0:
        raise ValueError("a long line that we did not write")
    values = json.loads(BEGIN + tail[end:])
    encoded = line.length - len(tail) + end - len(BEGIN)
    kept = memoryview(line.beginning)[len(BEGIN) : len(BEGIN) + min(encoded, ENCODED_BYTES)]
    padding = tail[:end][-2:].count(b"=")
    bad = BadLine(binascii.a2b_base64(kept), values["reason"])
    return values["offset"], cut(bad, encoded // 4 * 3 - padding)
