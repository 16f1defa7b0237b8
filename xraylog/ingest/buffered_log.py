"""Consecutive batches of one log in the offline buffer: they are loaded together, like the log itself."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator

from xraylog.accesslog.offline_buffer import Buffer, BufferedBatch, Damaged
from xraylog.database.positions import Position, PositionUpdate
from xraylog.records import Batch, Fingerprint


class BufferedLog:
    """Batches that follow one another both in the buffer and in their log. A BatchSource with the log's offsets."""

    def __init__(
        self,
        buffer: Buffer,
        is_known: Callable[[bytes, int], bool],
        imported: Position,
        begin: int,
        first: BufferedBatch,
    ) -> None:
        """Begin with the batch `first`, which was read at the offset `begin` of the buffer.

        `imported`: the position whose rows mark batches as imported (`positions.batch_position`).
        """
        self.node = first.origin.node
        self._buffer = buffer
        self._is_known = is_known
        self._imported = imported
        self._begin = begin
        self._first = [first]  # emptied when it is yielded: one batch in memory, not two
        self._read: list[BufferedBatch] = []  # the batches that were yielded, without their lines

    def batches(self, offset: int) -> Iterator[Batch]:
        """Yield the batches from `offset` on, up to one of another log, an imported one, or a damaged one."""
        self._read = [stored for stored in self._read if stored.log_end <= offset]
        with contextlib.suppress(Damaged):  # the import reads it again, and reports it
            for stored in self._stored():
                if stored.batch is None or (self._read and not follows(self._read[-1], stored)):
                    return
                self._read.append(dataclasses.replace(stored, batch=None))
                yield stored.batch
                del stored  # before the next one is read

    def _stored(self) -> Iterator[BufferedBatch]:
        begin = self.buffered_to()
        if self._first:
            begin = self._first[0].end
            yield self._first.pop()
        yield from self._buffer.batches(self._is_known, begin)

    def position_updates(self, position: Position, offset: int) -> list[PositionUpdate]:
        """Return the updates that move the log's position to `offset`, and mark each batch up to there as imported."""
        moved = [stored for stored in self._read if position.offset < stored.log_end <= offset]
        heads = [(head, last.tail) for last in moved[-1:] if (head := last.origin.fingerprint(offset))]
        log = [PositionUpdate(position, offset, head, tail) for head, tail in heads]
        return [*log, *(batch_update(self._imported, stored) for stored in moved)]

    def buffered_to(self, offset: int | None = None) -> int:
        """Return the offset in the buffer after the last yielded batch that ends at or before `offset` in the log."""
        ends = (stored.end for stored in self._read if offset is None or stored.log_end <= offset)
        return max(ends, default=self._begin)

    @property
    def digests(self) -> set[bytes]:
        """The digests by which the yielded batches are known."""
        return {stored.digest for stored in self._read}


def batch_update(imported: Position, stored: BufferedBatch) -> PositionUpdate:
    """Return the update that marks a batch as imported, in the transaction of its rows."""
    return PositionUpdate(imported, stored.end, Fingerprint(0, stored.digest))


def can_begin(stored: BufferedBatch, place: Position) -> bool:
    """Return whether the database has nothing of this batch, nor of anything after it in its log."""
    has_later = any(found.end > place.offset for found in place.later)
    return stored.batch is not None and place.offset <= stored.batch.start and _moves(stored) and not has_later


def follows(last: BufferedBatch, stored: BufferedBatch) -> bool:
    """Return whether a batch continues the log where the last one ended."""
    return stored.after == last.log_end and is_one_log(last, stored) and _moves(stored)


def is_one_log(one: BufferedBatch, later: BufferedBatch) -> bool:
    """Return whether two batches are from one log."""
    is_one_node = one.origin.node == later.origin.node
    return is_one_node and one.origin.fingerprint(one.log_end) in later.origin.fingerprints


def _moves(stored: BufferedBatch) -> bool:
    """Return whether storing the batch moves the log's position to its end."""
    return not stored.origin.again and stored.origin.fingerprint(stored.log_end) is not None
