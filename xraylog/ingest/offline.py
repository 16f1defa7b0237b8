"""Spool the new lines of a log to the offline buffer while the database is unavailable, then drain the log."""

from __future__ import annotations

import contextlib
import dataclasses
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence

from loguru import logger

from xraylog.accesslog import drain, installation, logfile, offline_buffer
from xraylog.accesslog.logfile import Log
from xraylog.accesslog.masking import Mask
from xraylog.accesslog.offline_buffer import Buffer, EncodedBatch
from xraylog.config import Config
from xraylog.database.positions import Position
from xraylog.ingest import continuation, log_checks
from xraylog.ingest.source import Source, tail_of
from xraylog.load_result import LoadResult
from xraylog.prefetch import Prefetcher

MAX_NAMES = 500_000  # of a table: an adversary's log must not fill the memory


class DistinctNames:
    """Counts the distinct names of a run for each reference table, up to MAX_NAMES each. Keeps only their hashes."""

    def __init__(self) -> None:
        self._seen: dict[str, set[int]] = {}

    def count_new(self, names: Mapping[str, Iterable[str]]) -> dict[str, int]:
        """Return how many of these names have not been seen before, by table."""
        new = {}
        for table, found in names.items():
            seen = self._seen.setdefault(table, set())
            before = len(seen)
            if before < MAX_NAMES:
                seen.update(map(hash, found))
            new[table] = len(seen) - before
        return new


def opened(cfg: Config) -> contextlib.AbstractContextManager[Buffer]:
    """Open the buffer. Raises Damaged and Unusable."""
    drained = installation.read(cfg.buffer_path, warn=False).buffered
    return offline_buffer.opened(cfg.buffer_path, Mask(*cfg.mask_source), drained=drained)


def report_missing_lines(cfg: Config, buffer: Buffer) -> Iterator[LoadResult]:
    """Log that the buffer has lost lines since a run left it, and yield that result; warn of a torn last batch."""
    missing = log_checks.missing_buffer_bytes(cfg, buffer)
    if buffer.torn:
        kept = f"{buffer.path} ended in a torn batch; it is now in {buffer.torn}"
        see = shlex.join(["less", str(buffer.torn)])
        if missing:
            logger.error("{}: its lines had left the log, and are missing; see: {}", kept, see)
        else:
            logger.warning("{}: if that was a crash, its lines are still in the log; otherwise see: {}", kept, see)
    if missing:
        logger.error("{}", "; ".join(log_checks.describe_missing_buffer_bytes(cfg, buffer.size, missing)))
        yield LoadResult(missing=missing)
    if installation.read(cfg.buffer_path, warn=False).buffered > buffer.size:
        log_checks.remember_buffered(cfg, buffer.size, buffer.last_batch)


def spool_all(buffer: Buffer, sources: Sequence[Source]) -> Iterator[LoadResult]:
    """Spool the lines of these logs that neither the buffer nor the database surely has. Yields after each batch."""
    names = DistinctNames()
    if sources:
        remember_node(sources[0].cfg)
    for source in sources:
        yield from spool(buffer, source, names)


def remember_node(cfg: Config) -> None:
    """Write this host's name to the state file as the node, if no database has ever answered: later runs keep it."""
    with contextlib.suppress(OSError):  # a run with a database reports it
        known = installation.read(cfg.buffer_path)
        if known.is_new and not known.node and not cfg.node_is_set:
            installation.begin(cfg, known)


def resume_piped_text(buffer: Buffer, source: Source, spooled_to: int) -> bool:
    """Set `source` to continue after the known parts of piped text, if its beginning is new; return whether it did."""
    path = logfile.path_text(source.log.path)
    begin = dataclasses.replace(Position.start(0, path), offset=spooled_to)
    found = continuation.find_offline(source.cfg, source.log, buffer, begin)
    if found == begin:
        return False
    source.progress.begin(found)
    return True


def has_lines_of_another_database(buffer: Buffer, source: Source) -> bool:
    """Return whether the log has lines that are neither in the buffer nor confirmed by the database in this run.

    Another database had stored them when the buffer got the lines after them, and they were left in the log.
    """
    begin, end = source.progress.confirmed_to, buffer.spooled_from(source.log.fingerprints())
    return source.is_drainable and begin < end and any(source.batches_between(begin, end))


def spool(buffer: Buffer, source: Source, names: DistinctNames) -> Iterator[LoadResult]:
    """Append the new lines of one log to the buffer, and those that are not confirmed; then drain the log."""
    spooled_to = 0 if source.again else max(source.safe_to, buffer.spooled_to(source.log))
    is_continued = not (source.again or source.progress.is_known) and resume_piped_text(buffer, source, spooled_to)
    if is_continued:
        spooled_to = source.progress.stored_to
    with Prefetcher(encoded(source, spooled_to, is_continued, names)) as prefetched:
        for batch, result in prefetched:
            source.log.sync()
            buffer.put(batch, source.origin)
            spooled_to = batch.end
            del batch
            yield result
    source.remember(drain_spooled(buffer, source, spooled_to))


def encoded(
    source: Source, offset: int, is_continued: bool, names: DistinctNames
) -> Iterator[tuple[EncodedBatch, LoadResult]]:
    """Yield the batches from `offset` on for the buffer, each with what it counts for: first those not confirmed."""
    log = source.log
    after = 0 if is_continued or log.is_blank(offset) else offset
    for batch in source.unconfirmed_batches(offset):
        encoded_batch, after = offline_buffer.encode_batch(batch, after, _tail_of(log, batch.end)), batch.end
        del batch
        yield encoded_batch, LoadResult()  # these lines were counted when they were stored
    for batch in source.batches(max(offset, source.progress.stored_to)):
        result = LoadResult.of(batch, len(batch.records), len(batch.bad_lines), names.count_new(batch.records.names()))
        encoded_batch, after = offline_buffer.encode_batch(batch, after, _tail_of(log, batch.end)), batch.end
        del batch  # before the next one is read: one in memory, not two
        yield encoded_batch, result


def drain_spooled(buffer: Buffer, source: Source, spooled_to: int) -> int:
    """Drain a log whose lines before `spooled_to` are in the buffer; return where these end in it now."""
    if has_lines_of_another_database(buffer, source):
        logger.info("{}: its lines stay: a database had the first ones, and has not answered", source.log.path)
        return spooled_to
    if (drained := source.drain(spooled_to)) is None:
        return spooled_to
    log_checks.remember_buffered(source.cfg, buffer.size, buffer.last_batch)
    source.truncate(drained.offset, leave=logfile.MARK_BYTES)
    return drained.offset


def _tail_of(log: Log, offset: int) -> bytes | None:
    """Return the digest of the text before `offset`; None if a drain that was cut short has overwritten some of it."""
    return None if drain.was_cut_short(log, offset) else tail_of(log, offset)
