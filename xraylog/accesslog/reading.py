"""Read the lines of a log as batches: parse each line, and reject those dated far from the lines around them.

A run and --dry-run read in the same way.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from datetime import date, datetime

from xraylog.accesslog import lines
from xraylog.accesslog.logfile import Log, LogFile
from xraylog.accesslog.masking import Mask
from xraylog.accesslog.parser import Parser
from xraylog.accesslog.stray_days import StrayDays
from xraylog.config import Config
from xraylog.records import Batch


def batches(
    log: Log,
    parts: Sequence[tuple[int, int | None]],
    cfg: Config,
    now: datetime,
    last_minute: str = "",
    last_day: date | None = None,
) -> Iterator[Batch]:
    """Yield batches of the lines in these parts of the log: pairs of offsets, None for the end. `now` is in UTC.

    `last_minute`: the UTC minute of the line before the first part, "" if unknown. `last_day`: the latest day of the
    lines that have left the log.
    """
    parser = Parser(cfg.zone, now, Mask(*cfg.mask_source), cfg.api_tags)
    strays = StrayDays(cfg.stray_days, now.date())
    if last_day is not None:
        strays.learn(last_day)
    if isinstance(log, LogFile):  # an archive would have to be read from its beginning
        for batch in parser.batches(log.lines_before(parts[0][0] if parts else 0), cfg.batch_size):
            strays.reject(batch)
    parser.clock.last = last_minute or parser.clock.last
    blocks = itertools.chain.from_iterable(lines.before(log.blocks(start), end) for start, end in parts)
    return map(strays.reject, parser.batches(blocks, cfg.batch_size))
