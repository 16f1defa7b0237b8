"""The lines of a log as batches, each line with its verdict: parsed, and compared with the lines around it.

A run that stores and one that only counts read alike.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

from xraylog.accesslog.logfile import Log, LogFile
from xraylog.accesslog.masking import Mask
from xraylog.accesslog.parser import Parser
from xraylog.accesslog.stray_days import StrayDays
from xraylog.config import Config
from xraylog.records import Batch


def batches(log: Log, offset: int, cfg: Config, now: datetime) -> Iterator[Batch]:
    """Yield batches of the lines from `offset` on. `now` is in UTC."""
    parser = Parser(cfg.zone, now, Mask(*cfg.mask_source))
    strays = StrayDays(cfg.stray_days, now.date())
    if isinstance(log, LogFile):  # an archive would have to be read from its beginning
        for batch in parser.batches(log.lines_before(offset), cfg.batch_size):
            strays.reject(batch)
    return map(strays.reject, parser.batches(log.blocks(offset), cfg.batch_size))
