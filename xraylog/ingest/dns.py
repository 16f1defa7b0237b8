"""Store the names that a log's DNS answers give to addresses. After its lines, and without ever delaying them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import psycopg
from loguru import logger

from xraylog.accesslog.dns_answers import MAX_FOUND
from xraylog.database import dns_names, session
from xraylog.database.session import Unavailable, Unsuitable
from xraylog.ingest.source import Source
from xraylog.loading.loader import Target


def store(target: Target, source: Source) -> None:
    """Store the names. A failure is only a warning: no line depends on them, and later answers bring them again."""
    answers = source.observed.dns
    if answers is None or not answers.found:
        return

    def ids_of(names: Sequence[str]) -> Mapping[str, int]:
        return target.references.resolve({"endpoints": names}).ids["endpoints"]

    try:
        node = source.node, target.node_id(source.node)
        stored = dns_names.store(target.conn, node, answers.found, ids_of)
    except (psycopg.Error, Unavailable, Unsuitable) as error:
        said = session.message(error) if isinstance(error, psycopg.Error) else error
        logger.warning("{}: the names of its DNS answers are not stored: {}", source.log.path, said)
        return
    full = f"; those after the first {MAX_FOUND:,} of a run are left out" if answers.is_full else ""
    logger.debug("{}: {} new names of addresses from its DNS answers{}", source.log.path, stored, full)
