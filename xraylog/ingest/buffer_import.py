"""The batches of the offline buffer into the database, in their order; then the buffer is empty."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator
from pathlib import Path

from loguru import logger

from xraylog.accesslog import discovery, logfile
from xraylog.accesslog.offline_buffer import Buffer
from xraylog.database import positions, session
from xraylog.database.positions import Position, PositionUpdate
from xraylog.loading.loader import Target
from xraylog.records import LoadResult, Origin

PROGRESS_S = 10


def load(target: Target, buffer: Buffer) -> Iterator[LoadResult]:
    """Store the buffered batches in order, skip what the database has, then clear the buffer. Raises Damaged.

    Each batch moves the position of its log and that of the buffer with its rows. Yields after each commit.
    """
    if buffer.is_empty:
        return
    total, skipped, reported = LoadResult(), 0, time.monotonic()
    here = find_buffer(target, buffer)
    for stored in buffer.batches(here.offset):
        batch, there = stored.batch, find_origin(target, stored.origin)
        updates = [PositionUpdate(here, stored.end, buffer.file.fingerprint(stored.end))]
        end_of_log = stored.origin.fingerprint(batch.end)
        if not stored.origin.again:
            batch = batch.after(there.offset)
        if end_of_log and (batch.end > there.offset or stored.origin.again):
            updates.insert(0, PositionUpdate(there, batch.end, end_of_log))
        result, (*_, here) = target.loader(stored.origin.node).load(batch, *updates)
        total, skipped = total + result, skipped + stored.batch.lines - batch.stored
        if time.monotonic() - reported > PROGRESS_S:
            reported = time.monotonic()
            logger.info("{}: {} of {} bytes imported", buffer.path, stored.end, buffer.size)
        del batch, stored
        yield LoadResult(new_names=result.new_names, imported=result.rows, imported_rejected=result.rejected)
    buffer.clear(here.offset)  # its position stays: a copy of the buffer that is put back later is known
    logger.info(
        "{} imported: {} rows + {} rejected + {} stored before", buffer.path, total.rows, total.rejected, skipped
    )


def find_buffer(target: Target, buffer: Buffer) -> Position:
    """Return how far an earlier run imported the buffer."""
    node_id, source = target.node_id(buffer.node), logfile.path_text(buffer.path)
    with session.transaction(target.conn, positions.node_lock(buffer.node)):
        return positions.find(target.conn, node_id, source, buffer.file.fingerprints(), size=buffer.size)


def find_origin(target: Target, origin: Origin) -> Position:
    """Return how far the log of a buffered batch is stored.

    A copy of a log that is still there gets a row of its own.
    """
    node_id = target.node_id(origin.node)
    with session.transaction(target.conn, positions.node_lock(origin.node)):
        position = positions.find(target.conn, node_id, origin.source, origin.fingerprints, origin.previous_digest)
    head = origin.fingerprint(position.offset)
    if position.known_path != position.source and head and discovery.is_at(Path(position.known_path), head):
        return dataclasses.replace(position, id=None)
    return position
