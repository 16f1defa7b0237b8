"""Maintenance: create partitions ahead, drop expired days, parse unparsed lines again. Reads no log."""

from __future__ import annotations

import functools
from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import datetime, timedelta, timezone
from typing import TypeAlias

from loguru import logger

from xraylog import hints
from xraylog.accesslog import buffer_lines, stray_days
from xraylog.accesslog.grammar import Grammar
from xraylog.accesslog.masking import Mask
from xraylog.cli import Exit
from xraylog.config import Config
from xraylog.database import dead_sessions, reject_reason, schema, session
from xraylog.database.partitions import Partitions
from xraylog.database.session import Connection
from xraylog.load_result import LoadResult
from xraylog.loading import rejects
from xraylog.loading.loader import Target
from xraylog.maintenance import replay, retention
from xraylog.maintenance.replay import Parse
from xraylog.records import AccessRecord, BadLine, Ignored

ParseLine: TypeAlias = Callable[[bytes], AccessRecord | BadLine | Ignored]


def _connected(cfg: Config, node: str | None = None) -> AbstractContextManager[Connection]:
    return session.connect(cfg.connection, answer_timeout_s=cfg.answer_timeout_s, node=node)


def make_partitions(cfg: Config, days: int) -> Exit:
    """Create the partitions of today and the next `days` days; return the exit status. Takes no file lock."""
    today = datetime.now(timezone.utc).date()
    try:
        with _connected(cfg) as conn:
            tables = schema.ensure(conn)
            for warning in filter(None, (*tables.warnings, reject_reason.add(conn, tables))):
                logger.warning("{}", warning)
            made = Partitions(conn).ensure(str(today + timedelta(days=step)) for step in range(days + 1))
    except session.Unavailable as reason:
        what = f"PostgreSQL is not available: {reason}"
        logger.error("{}", hints.joined(what, "partitions may be missing: try again later", hints.on(reason, cfg)))
        return Exit.FAILED
    except session.Unsuitable as reason:
        logger.error("{}", hints.joined(reason, hints.on(reason, cfg)))
        return Exit.OPERATOR
    logger.info("partitions created: {}", ", ".join(made) or "none, all exist")
    return Exit.DONE


def drop_old(cfg: Config) -> Exit:
    """Drop what is older than [retention] days; return the exit status. All lines are stored by now."""
    try:
        with _connected(cfg) as conn:
            for done in retention.enforce(conn, cfg.keep_days or 0, datetime.now(timezone.utc), cfg.prune_names):
                logger.info("{}", done)
    except session.Unavailable as reason:
        later = "a later run drops what is old"
        logger.warning("{}", hints.joined(f"retention: {reason}", later, hints.on(reason, cfg)))
    except session.Unsuitable as reason:
        kept = "what was not dropped is still there, and the lines of this run are stored"
        logger.error("{}", hints.joined(f"retention: {reason}", kept, hints.on(reason, cfg)))
        return Exit.OPERATOR
    return Exit.DONE


def replay_rejected(cfg: Config) -> Exit:
    """Parse this node's unparsed lines again; lines that are records now move into `logs`. Return the exit status."""
    total, status, mask = LoadResult(), Exit.DONE, Mask(*cfg.mask_source)
    try:
        with _connected(cfg, cfg.node) as conn:
            for ended in dead_sessions.end(conn, cfg.node, cfg.answer_timeout_s):
                logger.warning("{}", ended)
            tables = schema.ensure(conn)
            if missing := reject_reason.add(conn, tables):
                logger.warning("{}", missing)
            found = replay.pending(conn, tables, cfg.node)
            if found.others:
                logger.info(
                    "{} unparsed lines of other nodes are left alone; replay them with their own configs", found.others
                )
            target = Target(conn, functools.partial(_connected, cfg, cfg.node), has_reject_reason=not missing)
            grammar = Grammar(cfg.zone, datetime.now(timezone.utc), mask, cfg.api_tags)
            parse = parse_rejected(reject_masked(grammar.parse_alone, mask), cfg.stray_days, mask)
            for result, stays in replay.replay(target, cfg.node, found, parse, cfg.batch_size):
                total += result
                for row_id, reason in stays:
                    logger.debug("unparsed line {}: {}", row_id, reason)
    except (session.Unavailable, session.Unsuitable) as reason:
        kept = "what was not moved stays in rejected_lines"
        logger.error("{}", hints.joined(reason, kept, hints.on(reason, cfg)))
        status = Exit.FAILED if isinstance(reason, session.Unavailable) else Exit.OPERATOR
    logger.info(
        "{} unparsed lines read = {} rows + {} ignored + {} still unparsed",
        total.lines,
        total.rows,
        sum(total.ignored.values()),
        total.rejected,
    )
    if not total.adds_up:
        logger.error("the counts do not add up: {} lines were read; please report this", total.lines)
        return status or Exit.FAILED
    return status


def parse_rejected(parse: ParseLine, far: int, mask: Mask) -> Parse:
    """Return a parser for unparsed lines that also considers why each was rejected.

    A line stays if its date was more than `far` days from the lines around it, because these are not available any
    more. A line that had no room for its day may have come from the offline buffer, and is a record already; a client
    who writes such a line into the log gets another reason for it.
    """

    def parse_kept(line: bytes, reason: str) -> AccessRecord | BadLine | Ignored:
        if stray_days.distance_in(reason) > far:
            return BadLine(line, reason)
        buffered = buffer_lines.record(line, mask) if reason.startswith(rejects.NO_ROOM) else None
        return buffered or parse(line)

    return parse_kept


def reject_masked(parse: ParseLine, mask: Mask) -> ParseLine:
    """Return a parser for lines that were masked when they were kept: only what xray itself wrote may become a record.

    Any address in a kept line may be masked. That of the source does not matter, because it is masked in a record, too;
    a destination, user or tag that looks like an address must not become a record.
    """

    def parse_kept(line: bytes) -> AccessRecord | BadLine | Ignored:
        said = parse(line)
        if isinstance(said, AccessRecord) and mask.count_pieces(line) > (said.source_ip is not None):
            return BadLine(line, "expected the line as xray wrote it, found addresses that may have been masked in it")
        return said

    return parse_kept
