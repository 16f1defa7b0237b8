"""The outcome of a run: counts, mode, exit status, statistics row, metrics, and the reason if it failed."""

from __future__ import annotations

import contextlib
import itertools
import os
import time
from collections.abc import Collection, Iterable, Iterator, Sequence
from datetime import datetime
from pathlib import Path

from loguru import logger

from xraylog import cli, file_advice, hints, safe_path
from xraylog.accesslog import discovery, logfile, offline_buffer
from xraylog.cli import Exit
from xraylog.config import Config
from xraylog.database import schema, session
from xraylog.database.positions import PositionConflict
from xraylog.ingest import log_checks, new_users, run_counts
from xraylog.ingest.source import Source
from xraylog.load_result import LoadResult
from xraylog.printed import STANDARD_OUTPUT
from xraylog.telemetry import prometheus, stats
from xraylog.telemetry.prometheus import Metrics

MIN_SUSPICIOUS = 20  # unparsed lines of a run without any row: it may be the wrong log


class Recorder:
    """Counts what a run stores. The totals are right however and whenever the run ends."""

    def __init__(self, cfg: Config, paths: Sequence[Path]) -> None:
        self.status = Exit.FAILED  # until `finish`
        self._cfg = cfg
        self._paths = paths
        self._metrics = Metrics(cfg.metrics_path, cfg.node, cfg.log_path, list(paths) == [cfg.log_path])
        self._started = datetime.now()  # noqa: DTZ005  # local time is what the row promises
        self._began, self._clock = time.time(), time.monotonic()
        self._seconds = 0.0
        self._mode = "online"
        self._totals = {"online": LoadResult(), "offline": LoadResult()}
        self._status_at_end = Exit.DONE
        self._owns_logs = True
        self._line_metrics: dict[prometheus.Series, float] = {}  # what the lines of this run are about
        self.caught_up = False  # whether the database has every line

    def begin(self) -> None:
        """Record in the metrics that a run has started: it may be killed."""
        self._metrics.begin(self._began)

    def add(self, results: Iterable[LoadResult]) -> None:
        """Add up results as they come: what is committed counts even if the next one raises."""
        for result in results:
            self._totals[self._mode] += result

    def go_offline(self, reason: Exception) -> None:
        """Log why this run continues without the database. Results that are added from now on are in the buffer."""
        self._mode = "offline"
        what_next = hints.joined(f"new lines go to {self._cfg.buffer_path}", hints.on(reason, self._cfg))
        if isinstance(reason, schema.Migrating):
            logger.warning("{}; {}", reason, what_next)
        elif isinstance(reason, session.Unavailable):
            logger.warning("PostgreSQL is not available: {}; {}", reason, what_next)
        else:
            logger.error("{}; {}", reason, what_next)
            self._status_at_end = Exit.OPERATOR

    def finish(self, sources: Collection[Source]) -> None:
        """Decide the exit status of a run that stored or buffered every line it could read."""
        observed = [source.observed for source in sources]
        self._line_metrics = run_counts.as_metrics(seen.counts for seen in observed if seen.counts)
        emails = list(itertools.chain.from_iterable(seen.sample.emails for seen in observed))
        # Only online: offline, every name counts as new.
        if self._mode == "online" and (warning := new_users.note(self._cfg, self._totals["online"], emails)):
            logger.warning("{}", warning)
        if not any(source.has_odd_times for source in sources):
            newest = max(total.newest for total in self._totals.values())
            log_checks.report_newest(self._cfg, describe(self._paths), newest)
        is_damaged = any(source.log.corruption for source in sources)
        is_incomplete = any(total.missing or total.older for total in self._totals.values())
        self.status = Exit.OPERATOR if is_damaged or is_incomplete else self._status_at_end
        for path in self._paths:
            folder = safe_path.without_links(path).parent  # if it is a link, of its target
            if discovery.is_live(path) and not os.path.isdir(folder):
                change = f"change [parser] logfile in {self._cfg.path}; or: {file_advice.make_folder(folder)}"
                logger.error("{}: expected the folder of an access log, found none; {}", folder, change)
                self.status = Exit.OPERATOR

    @contextlib.contextmanager
    def counting(self) -> Iterator[None]:
        """Set the exit status if an error ends the run early; then write the statistics row in any case."""
        try:
            yield
        except (logfile.Unusable, offline_buffer.Damaged):
            self.status = Exit.OPERATOR
            raise
        except logfile.Busy:  # the other run records itself
            self._owns_logs = False
            raise
        except PositionConflict as error:
            logger.error("{}; what is not stored stays where it is; the next run continues", error)
            self.status = Exit.BUSY
        except OSError as error:
            what, stays = f"{error.filename or 'disk'}: {error.strerror}", f"stays in {describe(self._paths)}"
            self.status = status_of(error)
            later = "the next run tries again" if self.status == Exit.FAILED else ""
            logger.error("{}", hints.joined(what, f"what is not stored {stays}", later, hints.on(error, self._cfg)))
        finally:
            if self._owns_logs:
                self._seconds = time.monotonic() - self._clock
                self._report()
                self.caught_up = self.status == Exit.DONE and self._mode == "online"

    def publish(self) -> None:
        """Write the metrics, unless another run is reading these logs."""
        if not self._owns_logs:
            return
        lines = prometheus.outcomes(self._totals["online"], self._totals["offline"])
        is_older = any(total.older for total in self._totals.values())
        newest = self._totals["online"].newest
        run = prometheus.EndedRun(
            self._began, self._seconds, self.status, self.caught_up, lines, is_older, newest, self._line_metrics
        )
        try:
            self._metrics.end(run, self._cfg.buffer_path)
        except prometheus.NotWritten as error:
            logger.error("{}", hints.joined(error, "committed rows are kept", hints.on(error, self._cfg)))
            self.status = self.status or Exit.OPERATOR

    def _report(self) -> None:
        """Log the totals in one line, and write the statistics row."""
        total = self._totals["online"] + self._totals["offline"]
        logger.info(
            "{} lines read = {} rows + {} unparsed + {} ignored{}",
            total.lines,
            total.rows,
            total.rejected,
            sum(total.ignored.values()),
            f" + {total.dropped} dropped by a trigger" if total.dropped else "",
        )
        if total.foreign >= MIN_SUSPICIOUS and not total.rows:
            mend = "pipe in what it prints, and nothing before each line"
            if discovery.STDIN not in self._paths:
                mend = f"change [parser] logfile in {self._cfg.path}"
            question = f"is {describe(self._paths)} its access log? If not, {mend}"
            logger.warning("not one of {} lines is xray's; {}", total.lines, question)
        if total.misdated >= MIN_SUSPICIOUS and not total.rows:
            logger.warning("{} of {} lines {}", total.misdated, total.lines, log_checks.describe_misdated(self._cfg))
        if self._cfg.stats_format:
            row = stats.row(self._started, self._mode, self._seconds, total)
            try:
                stats.write(row, self._cfg.stats_format, self._cfg.stats_path)
            except stats.ReaderLeft as error:
                begin = f"begin to read before a run, or name a file: [stats] output in {self._cfg.path}"
                logger.warning("{}; committed rows are kept; {}", error, begin)
            except stats.NotWritten as error:
                logger.error("{}", hints.joined(error, "committed rows are kept", hints.on(error, self._cfg)))
                self.status = self.status or Exit.OPERATOR
                return
        if not total.adds_up:
            logger.error("the counts do not add up: {} lines were read; please report this", total.lines)
            self.status = self.status or Exit.FAILED


def status_of(error: OSError) -> Exit:
    """Return the exit status for an error of a file: a full disk may pass, wrong permissions need the operator."""
    is_for_operator = isinstance(error, (safe_path.Unsafe, PermissionError, IsADirectoryError))
    return Exit.OPERATOR if is_for_operator else Exit.FAILED


@contextlib.contextmanager
def recorded(cfg: Config, paths: Sequence[Path]) -> Iterator[Recorder]:
    """Yield a Recorder; at the end write the metrics in any case."""
    recorder = Recorder(cfg, paths)
    try:
        yield recorder
    except BaseException:
        recorder.status = recorder.status or Exit.FAILED
        raise
    finally:
        recorder.publish()


def explain(error: BaseException, cfg: Config, verbose: bool) -> Exit:
    """Log why a run could not be finished, with a command that helps; return its exit status."""
    if isinstance(error, logfile.Busy):
        logger.error("another run is at work: {}; nothing to do; {}", error, hints.holder(error, cfg))
        return Exit.BUSY
    if isinstance(error, (logfile.Unusable, offline_buffer.Damaged)):
        logger.error("{}", hints.joined(error, "nothing was read", hints.on(error, cfg)))
        return Exit.OPERATOR
    if isinstance(error, OSError) and error.filename == STANDARD_OUTPUT:
        logger.error("{}", hints.not_printed(error))
        return Exit.FAILED
    if isinstance(error, OSError):
        what = f"{error.filename or 'disk'}: {error.strerror}"
        logger.error("{}", hints.joined(what, "committed rows are kept", hints.on(error, cfg)))
        return status_of(error)
    if isinstance(error, KeyboardInterrupt):
        logger.error("interrupted; committed rows are kept; the next run resumes after them")
        return Exit.FAILED
    what = cli.unexpected(error)
    report = hints.command(cfg, "-v")
    logger.opt(exception=error if verbose else None).error(
        "{}; the next run tries again; for a report: {}", what, report
    )
    return Exit.FAILED


def describe(paths: Sequence[Path]) -> str:
    """Return the names of the logs for a message."""
    names = ["what was piped in" if path == discovery.STDIN else str(path) for path in paths]
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
