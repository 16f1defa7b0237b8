"""What a run counts and decides before it asks a server: sources with new lines, totals, mode and exit status."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import os
import re
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest

import parse_logs
from xraylog import config, hints
from xraylog.accesslog import discovery, drain, installation, logfile
from xraylog.accesslog.logfile import Busy, LogFile, Unusable
from xraylog.cli import Exit, Options
from xraylog.config import Config
from xraylog.database.positions import PositionConflict
from xraylog.database.session import Unavailable, Unsuitable
from xraylog.ingest import last_minutes, new_users, offline, outcome, reminders, source
from xraylog.ingest.offline import DistinctNames
from xraylog.ingest.source import Source
from xraylog.load_result import LoadResult
from xraylog.records import AccessRecord, Records

LINE = b"2025/11/17 10:15:23.123456 from 203.0.113.1:1024 accepted tcp:host.example:443 [in >> out] email: u1\n"


@pytest.fixture
def cfg(tmp_path: Path) -> Config:
    path = tmp_path / "config.ini"
    path.write_text(
        "[postgresql]\nhost = nowhere\ndbname = none\nuser = nobody\n"
        "[parser]\nlogfile = access.log\noffline_file = buffer.jsonl\ntimezone = UTC\n"
        "[stats]\nformat = json\noutput = stats.jsonl\nprometheus = xraylog.prom\n"
    )
    return config.read(path)


@pytest.fixture
def log(cfg: Config) -> Iterator[LogFile]:
    cfg.log_path.write_bytes(LINE * 3)
    with logfile.opened(cfg.log_path) as log:
        assert log is not None
        yield log


def options(*arguments: str) -> Options:
    return parse_logs.parse_options(arguments)


# --- sources ---------------------------------------------------------------------------------------------------------


def test_the_loader_gets_batches_from_an_offset_on(cfg: Config, log: LogFile) -> None:
    small = dataclasses.replace(cfg, batch_size=2)
    batches = list(Source(log, small, options()).batches(len(LINE)))
    assert [(batch.start, batch.end, len(batch.records)) for batch in batches] == [(len(LINE), 3 * len(LINE), 2)]


def test_a_log_that_is_drained_gets_no_second_mark(cfg: Config, log: LogFile) -> None:
    """It would name the mark as what the log was before, and not what the position knows."""
    source = Source(log, cfg, options())
    drained = source.drain(log.size)
    mark = log.read(0, logfile.MARK_BYTES)
    assert drained is not None
    for again in (source, Source(log, cfg, options())):
        assert again.drain(drained.offset) == drained
        assert log.read(0, logfile.MARK_BYTES) == mark


def test_a_log_that_is_drained_has_new_lines_for_again_only(cfg: Config, log: LogFile) -> None:
    assert Source(log, cfg, options()).has_new_lines
    drain.drain(log, log.size, cfg.truncate_above)
    assert not Source(log, cfg, options()).has_new_lines
    assert Source(log, cfg, options("--again")).has_new_lines


def test_again_ends_when_the_database_counts_from_the_start(cfg: Config, log: LogFile) -> None:
    """What follows an outage in the middle of such a run is stored after what was confirmed, and once."""
    this = Source(log, cfg, options("--again"))
    assert this.again
    assert this.origin.again
    this.progress.drain(0)
    assert not this.again
    assert not this.origin.again


def test_a_log_is_no_copy_of_itself(log: LogFile) -> None:
    head = log.fingerprints()[-1]
    assert discovery.begins_with(log.path, head)
    assert not discovery.begins_with(log.path, head, excluded=log)
    assert not discovery.begins_with(discovery.STDIN, head)


def test_a_machine_without_an_id_is_like_any_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(installation, "MACHINE_ID", tmp_path / "machine-id")
    assert installation.machine() == ""
    (tmp_path / "machine-id").write_text("uninitialized\n")
    assert installation.machine() == ""
    (tmp_path / "machine-id").write_text("0123456789abcdef\n")
    assert len(installation.machine()) == 32


def test_keep_leaves_the_lines(cfg: Config, log: LogFile) -> None:
    assert Source(log, cfg, options("--keep")).drain(log.size) is None
    assert cfg.log_path.read_bytes() == LINE * 3


def test_only_logs_that_may_have_new_lines_become_sources(cfg: Config, log: LogFile) -> None:
    missing = cfg.log_path.with_name("missing.log")
    assert [found.log for found in source.with_new_lines(cfg, options(), [cfg.log_path, missing], [log])] == [log]
    cfg.log_path.write_bytes(b"")
    assert source.with_new_lines(cfg, options(), [cfg.log_path], [log]) == []


# --- the repeated hour -----------------------------------------------------------------------------------------------

PASSES = b"".join(LINE.replace(b"2025/11/17 10:15", b"2025/10/26 02:%02d" % minute) for minute in (10, 50, 5, 40))


@pytest.fixture
def berlin(cfg: Config) -> Config:
    return dataclasses.replace(cfg, zone=ZoneInfo("Europe/Berlin"), batch_size=1)


def minutes(this: Source, offset: int) -> list[str]:
    return [minute[11:] for batch in this.batches(offset) for minute in batch.records.minutes]


def test_lines_after_an_outage_are_read_as_what_follows_those_before_it(berlin: Config) -> None:
    berlin.log_path.write_bytes(PASSES)
    with logfile.opened(berlin.log_path) as log:
        assert log is not None
        this = Source(log, berlin, options("--keep"))
        assert minutes(this, 0) == ["00:10", "00:50", "01:05", "01:40"]
        assert minutes(this, 3 * len(LINE)) == ["01:40"]
        this.remember(len(PASSES))
        berlin.log_path.write_bytes(PASSES + PASSES[-len(LINE) :])
        assert minutes(Source(log, berlin, options("--keep")), len(PASSES)) == ["01:40"]
        assert minutes(Source(log, berlin, options("--keep")), 2 * len(LINE)) == ["01:05", "01:40", "01:40"]


@pytest.mark.parametrize("value", [1, "", [], ["x"], [1, True, ""], ["x", True, ""], ["2025-10-26 00:50", 1, ""]])
def test_another_value_in_the_state_file_is_nothing_known(berlin: Config, log: LogFile, value: object) -> None:
    state = installation.Installation(last_minutes={str(log.path): value, "other": value})
    installation.write(berlin.buffer_path, state)
    assert last_minutes.before(berlin, log, 0) == ""
    last_minutes.remember(berlin, log, 0, "2025-10-26 00:50")
    assert last_minutes.before(berlin, log, 0) == "2025-10-26 00:50"
    assert last_minutes.before(berlin, log, len(LINE)) == ""
    assert installation.read(berlin.buffer_path).token == state.token


def test_in_a_zone_without_such_hours_the_state_file_is_not_read(
    cfg: Config, log: LogFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(installation, "read")
    assert last_minutes.before(cfg, log, 0) == ""
    last_minutes.remember(cfg, log, 0, "2025-10-26 00:50")


# --- names -----------------------------------------------------------------------------------------------------------


def test_a_name_is_new_once_in_each_table(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(offline, "MAX_NAMES", 3)
    names = DistinctNames()
    assert names.count_new({"users": ["a", "b"], "tags": ["a"]}) == {"users": 2, "tags": 1}
    assert names.count_new({"users": ["b", "c"], "tags": []}) == {"users": 1, "tags": 0}
    assert names.count_new({"users": ["d"]}) == {"users": 0}  # counted no further


def test_users_that_appear_as_fast_as_lines_are_a_warning_with_the_fields_and_no_name() -> None:
    emails = [f"alice{n % 5}@example.com sent to: h{n} up= {n}, tries={n} bob" for n in range(40)]
    warning = new_users.warning(1_000, 1_999, [*emails, "carol"])
    assert warning is not None
    assert "1000 new users in 1999 rows" in warning
    assert "here: to: * up=* tries=*;" in warning
    assert not re.search(r"alice|bob|carol|example|h1", warning)
    assert new_users.warning(1_000, 2_000, emails) is None
    assert new_users.warning(999, 999, emails) is None


def test_users_without_a_field_in_common_are_a_warning_too() -> None:
    warning = new_users.warning(1_000, 1_000, [f"user{n}: x" for n in range(40)])
    assert warning is not None
    assert "emails that change" in warning
    assert new_users.warning(1_000, 1_000, []) is not None


def total_of(users: int, rows: int) -> LoadResult:
    return LoadResult(lines=rows, rows=rows, new_names={"users": users})


def noted(cfg: Config, *runs: tuple[int, int]) -> list[str | None]:
    """What each of these runs says, of this many new users and rows."""
    return [new_users.note(cfg, total_of(*run), ["alice spent: 1"]) for run in runs]


def test_small_runs_add_up_to_a_warning_a_day(cfg: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    said = noted(cfg, (300, 300), (0, 0), (300, 310), (300, 300), (300, 300), (300, 300))
    assert [bool(warning) for warning in said] == [False, False, False, False, True, False]
    assert "1200 new users in 1210 rows" in str(said[4])
    assert "here: spent: *;" in str(said[4])
    now = time.time() + reminders.DAY_S
    monkeypatch.setattr(time, "time", lambda: now)
    assert noted(cfg, (0, 0)) == [None]
    assert "1800 new users" in str(noted(cfg, (300, 300)))


def test_a_run_with_few_new_users_forgets_those_before_it(cfg: Config) -> None:
    """Those of a new installation: its first runs know nobody."""
    assert noted(cfg, *[(900, 900), (100, 900)] * 3, (900, 900)) == [None] * 7
    assert installation.read(cfg.buffer_path).new_users == [900, 900]


@pytest.mark.parametrize("found", [["x", 5], [1], [1, 2, 3], [None, None]])
def test_another_count_in_the_state_file_is_none(cfg: Config, found: list[Any]) -> None:
    installation.write(cfg.buffer_path, installation.Installation(new_users=found))
    assert noted(cfg, (10, 10)) == [None]
    assert installation.read(cfg.buffer_path).new_users == [10, 10]


def test_a_sample_is_small() -> None:
    sample, records = new_users.EmailSample(), Records()
    for n in range(1_000):
        records.append(AccessRecord("2025-11-17 10:15:23+00", None, None, "accepted", email=f"u{n}"))
        sample.add(records)
    assert len(sample.emails) <= new_users.MAX_SAMPLE + new_users.SAMPLED_ROWS


# --- the outcome -----------------------------------------------------------------------------------------------------


def run_that_raises(cfg: Config, error: BaseException) -> tuple[outcome.Recorder, BaseException | None]:
    """Store one line, then raise; return the recorder, and what came out of it."""

    def results() -> Iterator[LoadResult]:
        yield LoadResult(lines=1, rows=1)
        raise error

    raised = None
    try:
        with outcome.recorded(cfg, [cfg.log_path]) as recorder, recorder.counting():
            recorder.begin()
            recorder.add(results())
    except BaseException as reached:  # that it comes through is what the caller asserts
        raised = reached
    return recorder, raised


@pytest.mark.parametrize(
    ("error", "status", "comes_through"),
    [
        (PositionConflict("access.log"), Exit.BUSY, False),
        (OSError(28, "No space left on device"), Exit.FAILED, False),
        (Unusable("access.log"), Exit.OPERATOR, True),
        (KeyboardInterrupt(), Exit.FAILED, True),
        (RuntimeError("a bug"), Exit.FAILED, True),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else "",
)
def test_what_was_stored_before_an_error_counts(
    cfg: Config, error: BaseException, status: Exit, comes_through: bool
) -> None:
    recorder, raised = run_that_raises(cfg, error)
    assert raised is (error if comes_through else None)
    assert recorder.status == status
    assert not recorder.caught_up
    assert cfg.stats_path is not None
    assert '"mode": "online"' in cfg.stats_path.read_text()
    assert '"processed": 1,' in cfg.stats_path.read_text()
    assert cfg.metrics_path is not None
    assert f'xraylog_last_run_exit_status{{node="{cfg.node}",log="{cfg.log_path}"}} {int(status)}\n' in (
        cfg.metrics_path.read_text()
    )


def test_the_other_run_records_itself(cfg: Config) -> None:
    def busy() -> Iterator[LoadResult]:
        raise Busy("access.log")
        yield

    with (
        pytest.raises(Busy),
        outcome.recorded(cfg, [cfg.log_path]) as recorder,
        recorder.counting(),
    ):
        recorder.add(busy())
    assert cfg.stats_path is not None
    assert not cfg.stats_path.exists()
    assert cfg.metrics_path is not None
    assert not cfg.metrics_path.exists()


@pytest.mark.parametrize(
    ("reason", "status"), [(Unavailable("away"), Exit.DONE), (Unsuitable("no rights"), Exit.OPERATOR)]
)
def test_a_run_without_the_database_is_done_when_its_lines_are_buffered(
    cfg: Config, reason: Exception, status: Exit
) -> None:
    with outcome.recorded(cfg, [cfg.log_path]) as recorder, recorder.counting():
        recorder.add([LoadResult(lines=1, rows=1)])
        recorder.go_offline(reason)
        recorder.add([LoadResult(lines=2, rows=2)])
        assert recorder.status == Exit.FAILED  # until every line is safe
        recorder.finish([])
    assert recorder.status == status
    assert not recorder.caught_up
    assert cfg.stats_path is not None
    assert '"mode": "offline"' in cfg.stats_path.read_text()
    assert cfg.metrics_path is not None
    assert 'outcome="rows"} 1\n' in cfg.metrics_path.read_text()
    assert 'outcome="buffered"} 2\n' in cfg.metrics_path.read_text()


def test_a_damaged_log_is_for_the_operator_though_all_else_is_stored(cfg: Config, log: LogFile) -> None:
    log.corruption = "damaged after byte 100"
    with outcome.recorded(cfg, [cfg.log_path]) as recorder, recorder.counting():
        recorder.finish([Source(log, cfg, options())])
    assert (recorder.status, recorder.caught_up) == (Exit.OPERATOR, False)


def test_a_retention_that_breaks_down_is_no_good_run_for_the_metrics(cfg: Config) -> None:
    """The lines are stored: the time of the last success says so, the exit status does not."""
    with contextlib.suppress(RuntimeError), outcome.recorded(cfg, [cfg.log_path]) as recorder:
        with recorder.counting():
            recorder.finish([])
        assert recorder.caught_up
        raise RuntimeError("retention")
    assert recorder.status == Exit.FAILED
    assert cfg.metrics_path is not None
    told = cfg.metrics_path.read_text()
    assert f'xraylog_last_run_exit_status{{node="{cfg.node}",log="{cfg.log_path}"}} 1\n' in told
    assert f'xraylog_last_success_timestamp_seconds{{node="{cfg.node}",log="{cfg.log_path}"}} 0\n' not in told


def test_statistics_that_cannot_be_written_cost_the_success(cfg: Config) -> None:
    full = dataclasses.replace(cfg, stats_path=Path("/dev/full"))
    with outcome.recorded(full, [cfg.log_path]) as recorder, recorder.counting():
        recorder.finish([])
    assert (recorder.status, recorder.caught_up) == (Exit.OPERATOR, False)


def test_a_log_that_is_none_is_shown(cfg: Config, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(tmp_path / "socket"))
    assert hints.on_log(tmp_path / "socket", None, cfg) == f"see: ls -ld {tmp_path}/socket"
    too_long = OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG))
    assert hints.on_log(tmp_path / "x", too_long, cfg) == f"see: namei -l {tmp_path}/x"


def test_an_error_that_nothing_is_known_about_leads_to_the_check(cfg: Config) -> None:
    assert hints.on(ValueError("?"), cfg).endswith(f"parse_logs.py --config {cfg.path} --check")
