"""Import the batches of the offline buffer into the database, in their order, then clear the buffer."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import itertools
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from loguru import logger

from xraylog import hints
from xraylog.accesslog import discovery, installation, logfile, offline_buffer
from xraylog.accesslog.logfile import Log
from xraylog.accesslog.offline_buffer import Buffer, BufferedBatch
from xraylog.config import Config
from xraylog.database import positions, session
from xraylog.database.positions import Position, PositionUpdate, TailAt
from xraylog.ingest import buffered_log, confirmation, log_checks
from xraylog.ingest.buffered_log import BufferedLog
from xraylog.ingest.confirmation import RunTarget
from xraylog.ingest.source import Gap, Source, position_update, tail_unless_overwritten
from xraylog.load_result import LoadResult
from xraylog.records import Batch, Fingerprint, Origin

PROGRESS_S = 10  # between two messages about progress
MAX_COVERED = 20  # remembered batches that another run imported


def load(cfg: Config, target: RunTarget, buffer: Buffer, sources: Sequence[Source]) -> Iterator[LoadResult]:
    """Store the buffered batches in order, skip what the database has, then clear the buffer. Raises Damaged.

    A database that was restored from a backup may lack lines before the first batch. If a log still has them, they are
    loaded first. Otherwise the log's position stays where it is, and what comes after the gap gets a position of its
    own: no position ever moves past lines that this database does not have.

    The transaction that stores a batch also moves the position of its log, and writes a row by which the batch is
    known. Consecutive batches of one log take the same load paths as the log itself. Yields after each commit.
    """
    if buffer.is_empty:
        return
    target.is_just_compared = False
    imported = Import(cfg, target, buffer)
    yield from imported.load_all(sources)
    imported.move_past_known([source for source in sources if not source.again])
    confirmation.confirm(cfg, target)
    # The database keeps the digests of the batches: if a copy of the buffer is put back later, nothing is stored twice.
    error = log_checks.remember_buffered(cfg, 0, "")
    if error is not None and error.errno not in hints.FULL:
        return  # a state file that still expects the buffer's lines would make the next run miss them
    buffer.clear(imported.end)
    if error is not None:  # now there is room
        log_checks.remember_buffered(cfg, 0, "")
    logger.info(
        "{} imported: {} rows + {} unparsed + {} stored before",
        buffer.path,
        imported.total.rows,
        imported.total.rejected,
        imported.skipped,
    )


class Import:
    """One import: how far it is in the buffer, and its totals."""

    def __init__(self, cfg: Config, target: RunTarget, buffer: Buffer) -> None:
        self.total, self.skipped, self.end = LoadResult(), 0, 0
        self._cfg, self._target, self._buffer = cfg, target, buffer
        self._node_id = target.node_id(buffer.node)
        self._batch_position = positions.batch_position(self._node_id, logfile.path_text(buffer.path))
        self._known_to = find_buffer(target, buffer, self._node_id).offset  # if an older version began to import it
        with session.transaction(target.conn):
            self._known = positions.imported_batches(target.conn, self._node_id)
        self._covered: list[BufferedBatch] = []  # batches imported by another run, merged by log
        self._reported = time.monotonic()

    def is_known(self, digest: bytes, end: int) -> bool:
        """Return whether a batch was imported before, from this buffer or from a copy of it."""
        return digest in self._known or end <= self._known_to

    def load_all(self, sources: Sequence[Source]) -> Iterator[LoadResult]:
        """Store the batches in order, each after the lines that are missing before it; yield after each commit."""
        while (stored := next(self._buffer.batches(self.is_known, self.end), None)) is not None:
            if (batch := stored.batch) is None:
                self.end = stored.end
                self._cover(stored)
                continue
            position = self._stored_position(stored, sources)
            if has_gap(position, stored):
                yield from load_gap(self._cfg, self._target, stored, position, sources)
                position = self._stored_position(stored, sources)
            place = position.after(stored.after)
            if buffered_log.can_begin(stored, place) and not (self._covered or has_own_node(stored, sources)):
                log = BufferedLog(self._buffer, self.is_known, self._batch_position, self.end, stored)
                del stored, batch  # before the next one is read: one in memory, not two
                yield from self._load_log(log, place)
            else:
                yield self._load_batch(stored, batch, position, sources)
                del stored, batch

    def _load_log(self, log: BufferedLog, place: Position) -> Iterator[LoadResult]:
        """Store consecutive batches of one log, as if they came from the log."""
        for result, position in self._target.loader(log.node).load_all(log, place):
            self.end = log.buffered_to(position.offset)
            yield self._counted(result)
        self._known |= log.digests

    def _load_batch(
        self, stored: BufferedBatch, batch: Batch, position: Position, sources: Sequence[Source]
    ) -> LoadResult:
        """Store those lines of a batch that the database lacks."""
        lines, end_of_log = batch.lines, stored.origin.fingerprint(stored.log_end)
        updates = [buffered_log.batch_update(self._batch_position, stored)]
        if not stored.origin.again:
            batch = batch.outside([(0, position.offset), *((found.start, found.end) for found in position.later)])
            position = position.after(stored.after)
        if end_of_log and (stored.log_end > position.offset or stored.origin.again):
            updates.insert(0, PositionUpdate(position, stored.log_end, end_of_log, stored.tail))
        result, _ = self._target.loader(stored.origin.node).load(batch, *updates)
        if has_own_node(stored, sources):
            self._cover(dataclasses.replace(stored, batch=None))
        self.end, self.skipped = stored.end, self.skipped + lines - batch.stored
        self._known.add(stored.digest)
        return self._counted(result)

    def _counted(self, result: LoadResult) -> LoadResult:
        """Add the result of a commit to the totals; return it as imported rows."""
        self.total += result
        if time.monotonic() - self._reported > PROGRESS_S:
            self._reported = time.monotonic()
            logger.info("{}: {} of {} bytes imported", self._buffer.path, self.end, self._buffer.size)
        return LoadResult(
            new_names=result.new_names,
            imported=result.rows,
            imported_rejected=result.rejected,
            newest=result.newest,
        )

    def move_past_known(self, sources: Sequence[Source]) -> None:
        """Move positions past lines that another run imported from a copy of the buffer: logs may still have them.

        These are the logs of this run and, on a copied machine, rotated logs that a later run may be given.
        """
        is_copied = installation.read(self._cfg.buffer_path).copied_at > 0
        for known in self._covered:
            head, end = known.origin.fingerprint(known.log_end), known.log_end
            if head is None:
                continue
            logs = [source.log for source in sources if begins_with(source.log, head, end)]
            origins = [offline_buffer.origin(known.origin.node, log) for log in logs if log.tail(end) == known.tail]
            if not logs and is_copied:
                origins = [known.origin]
            for origin, node in itertools.product(origins, {known.origin.node, self._own_node(known, sources)}):
                of_node = dataclasses.replace(known, origin=dataclasses.replace(origin, node=node))
                position = find_log(self._cfg, self._target, of_node, sources)
                if known.after <= position.offset < end:
                    move = positions.insert if is_copied and position.id is None else positions.move
                    with session.transaction(self._target.conn, positions.node_lock(node)):
                        move(self._target.conn, PositionUpdate(position, end, head, known.tail))

    def _own_node(self, known: BufferedBatch, sources: Sequence[Source]) -> str:
        """Return the node under which this installation continues the log of a batch that was copied along."""
        own = next((source.node for source in sources if has_own_node(known, [source])), None)
        return own or known.origin.node

    def _cover(self, known: BufferedBatch) -> None:
        """Remember a batch that another run imported, from a copy of this buffer on a copy of this machine."""
        last = self._covered[-1] if self._covered else None
        if known.origin.again:
            return
        if last is not None and last.log_end == known.after and buffered_log.is_one_log(last, known):
            known = dataclasses.replace(known, after=self._covered.pop().after)
        self._covered = [*self._covered, known][-MAX_COVERED:]

    def _stored_position(self, stored: BufferedBatch, sources: Sequence[Source]) -> Position:
        """Return how far the log of a batch is stored, counting what another run imported from a copy of the buffer."""
        position = find_log(self._cfg, self._target, stored, sources)
        for known in self._covered:
            head = known.origin.fingerprint(known.log_end)
            if known.after <= position.offset < known.log_end and head in stored.origin.fingerprints:
                position = dataclasses.replace(position, offset=known.log_end)
        return position


def has_own_node(stored: BufferedBatch, sources: Iterable[Source]) -> bool:
    """Return whether this machine is a copy that got a node name of its own after the batch was buffered."""
    return any(not source.cfg.node_is_set and source.node != stored.origin.node for source in sources)


def has_gap(position: Position, stored: BufferedBatch) -> bool:
    """Return whether the database lacks lines directly before this batch."""
    place = position.after(stored.after)
    return not stored.origin.again and place.id is None and place.stored_from > 0


def load_gap(
    cfg: Config, target: RunTarget, stored: BufferedBatch, position: Position, sources: Sequence[Source]
) -> Iterator[LoadResult]:
    """Load the lines that the database lacks before this batch if a log still has them; log which ones no log has."""
    origin, end = stored.origin, stored.after
    with opened(origin, end, [source.log for source in sources]) as log:
        if log is not None:
            yield from load_from(log, cfg, target, origin, position, end)
            position = find_log(cfg, target, stored, sources)
    if missing := position.gaps(end) if has_gap(position, stored) else []:
        logger.error(
            "{}, bytes {}: expected these lines in this database, or still in the log, found them in neither: the "
            "database is older than the log, or another one; the lines after them are loaded; if there is a copy: {}",
            origin.source,
            ", ".join(f"{first} to {last}" for first, last in missing),
            hints.command(cfg, "--keep", "--logfile", "COPY"),
        )
        yield LoadResult(missing=sum(last - first for first, last in missing))


def load_from(
    log: Log, cfg: Config, target: RunTarget, origin: Origin, position: Position, end: int
) -> Iterator[LoadResult]:
    """Load the lines before `end` that the database lacks from this log, and move the position there."""
    logger.warning(
        "{}: this database lacks lines before byte {}; they are loaded from {}", origin.source, end, log.path
    )
    gap = Gap(log, cfg, end, position.later)
    for result, reached in target.loader(origin.node).load_all(gap, position):
        position = reached
        yield result
    if position.offset < end and log.is_whole:  # the last bytes are blank
        with session.transaction(target.conn, positions.node_lock(origin.node)):
            positions.move(target.conn, position_update(log, position, end))


@contextlib.contextmanager
def opened(origin: Origin, size: int, logs: Iterable[Log]) -> Iterator[Log | None]:
    """Open the log that batches came from, if it still has its first `size` bytes; otherwise yield None.

    A log of this run is used as it is: it is locked, and a second descriptor would keep it from being truncated.
    """
    head = origin.fingerprint(size)
    ours = (log for log in logs if head is not None and begins_with(log, head, size))
    with contextlib.ExitStack() as files:
        log = next(ours, None)
        if log is None and head is not None:
            log = files.enter_context(discovery.copy_of(Path(origin.source), head, size))
        yield log


def begins_with(log: Log, head: Fingerprint, size: int) -> bool:
    """Return whether the log begins with the text of this fingerprint, and has at least `size` bytes."""
    return log.fingerprint(head.length) == head and (log.max_offset is None or log.max_offset >= size)


def find_buffer(target: RunTarget, buffer: Buffer, node_id: int) -> Position:
    """Return how far an older version imported the buffer. If a run died while committing, wait for its transaction."""
    origin = offline_buffer.origin(buffer.node, buffer.file)
    with session.transaction(target.conn, positions.node_lock(buffer.node)):
        return positions.find(target.conn, node_id, origin, size=buffer.size, owner=target.owner)


def find_log(cfg: Config, target: RunTarget, stored: BufferedBatch, sources: Iterable[Source]) -> Position:
    """Return how far the log of a buffered batch is stored.

    Positions of other installations count if the text is the same, as they do for a log. If the position found is that
    of another file that still exists, the log is a copy, and gets a row of its own.
    """
    origin = stored.origin
    node_id = target.node_id(origin.node)
    with session.transaction(target.conn, positions.node_lock(origin.node)):
        position = positions.find(
            target.conn,
            node_id,
            origin,
            size=positions.UNKNOWN_SIZE,
            owner=target.owner,
            tail_at=text_of(stored, [source.log for source in sources]),
            on_delete=functools.partial(confirmation.leave_receipt, cfg, target),
        )
    head = origin.fingerprint(position.offset)
    if position.known_path != position.source and head and discovery.begins_with(Path(position.known_path), head):
        return dataclasses.replace(position, id=None)
    return position


def text_of(stored: BufferedBatch, logs: Sequence[Log]) -> TailAt:
    """Return a function that digests the log's text before an offset: for the batch's end, or if a log still has it.

    Such a log has the text before the batch's end, too: another one may begin alike.
    """

    def tail_at(offset: int) -> bytes | None:
        if offset == stored.log_end:
            return stored.tail
        with opened(stored.origin, stored.log_end, logs) as log:
            if log is None or stored.tail not in (None, log.tail(stored.log_end)):
                return positions.NO_TEXT
            if log.max_offset is None and offset > stored.log_end:  # an archive may be shorter than the log was
                return positions.NO_TEXT
            return tail_unless_overwritten(log)(offset)

    return tail_at
