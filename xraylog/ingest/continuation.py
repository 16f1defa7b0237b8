"""Piped text whose beginning is new: find the parts that are stored already, skip them, and log it.

A journal is piped as a whole each time, and drops its oldest lines, so its beginning changes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from loguru import logger

from xraylog import hints
from xraylog.accesslog import installation, known_text, logfile
from xraylog.accesslog.archive import Piped
from xraylog.accesslog.known_text import KnownText
from xraylog.accesslog.logfile import Log
from xraylog.accesslog.offline_buffer import Buffer
from xraylog.config import Config
from xraylog.database import positions
from xraylog.database.positions import Position, Range
from xraylog.database.session import Connection
from xraylog.records import Fingerprint

MAX_TEXTS = 50  # of the buffer, the latest


def find(conn: Connection, cfg: Config, log: Log, position: Position) -> Position:
    """Return where to continue in piped text: after the parts that the database has. Changes nothing."""
    if not isinstance(log, Piped):
        return position
    stored = positions.texts(conn, position.node_id, position.source)
    return skip_known_text(cfg, log, position, [KnownText(length, head, tail) for length, head, tail in stored])


def find_offline(cfg: Config, log: Log, buffer: Buffer, position: Position) -> Position:
    """Return where to continue in piped text: after the parts that the buffer or, by the state file, the database has.

    `position`: where to continue according to the beginning of the text. Raises OSError.
    """
    if not isinstance(log, Piped):
        return position
    source = logfile.path_text(log.path)
    logs = [known for known in installation.read(cfg.buffer_path).logs if known.source == source]
    stored = [
        KnownText(known.offset, Fingerprint(known.head_length, bytes.fromhex(known.head)), bytes.fromhex(known.tail))
        for known in logs
    ]
    return skip_known_text(cfg, log, position, [*buffer.texts(source)[:MAX_TEXTS], *stored])


def skip_known_text(cfg: Config, log: Piped, position: Position, known: Sequence[KnownText]) -> Position:
    """Return the position after these known texts; log which bytes are skipped, or that none are known."""
    spans = known_text.find(log, known, position.offset)
    found = position
    for begin, end in spans:
        if begin <= found.offset:
            found = replace(found, offset=max(found.offset, end))
        else:
            found = replace(found, later=(*found.later, Range(0, begin, end)))
    if found != position:
        skipped = [(0, found.offset), *((span.start, span.end) for span in found.later)]
        skipped_bytes = ", ".join(f"{begin} to {end}" for begin, end in skipped if begin < end)
        again = hints.command(cfg, "--again", "--logfile", "-")
        logger.warning(
            "{}: it does not begin as before; its bytes {} are stored already, and are skipped; "
            "to load them again, pipe it into: {}",
            log.path,
            skipped_bytes,
            again,
        )
    elif known and not position.offset:
        logger.warning(
            "{}: no part of it is known from what was piped in before: all of it is loaded as new; if a part of it was "
            "stored long ago, that part is stored twice; from now on it is known, and only --again loads it again",
            log.path,
        )
    return found
