"""What a run learns from the lines of a log besides their rows: counts, some emails, the names in DNS answers."""

from __future__ import annotations

from datetime import datetime, timezone

from xraylog.accesslog.dns_answers import DnsAnswers
from xraylog.accesslog.grammar import AHEAD, EARLIEST
from xraylog.config import Config
from xraylog.ingest.new_users import EmailSample
from xraylog.ingest.run_counts import RunCounts
from xraylog.records import Batch


class Observations:
    """Looks at each batch that is read to be stored."""

    def __init__(self, cfg: Config) -> None:
        self.sample = EmailSample()
        self.counts = RunCounts() if cfg.metrics_path else None
        self.dns = DnsAnswers(cfg.zone, EARLIEST, datetime.now(timezone.utc) + AHEAD) if cfg.dns_answers else None
        self._counted_to = 0

    def add(self, batch: Batch) -> None:
        """Look at one more batch."""
        self.sample.add(batch.records)
        if self.counts and batch.start >= self._counted_to:  # part of the log may be read twice
            self.counts.add(batch.records)
            self._counted_to = batch.end
        if self.dns is not None:
            self.dns.add(batch)
