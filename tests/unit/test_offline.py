"""How far a log is in the buffer: its text decides, except where a drain that was cut short has overwritten it."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers.config import written

import parse_logs
from xraylog import config
from xraylog.accesslog import drain, file_system, logfile, offline_buffer
from xraylog.accesslog.logfile import LogFile
from xraylog.accesslog.offline_buffer import Buffer, BufferedBatch
from xraylog.config import Config
from xraylog.ingest import offline
from xraylog.ingest.source import Source

LINE = "2025/11/17 10:15:23 from 203.0.113.1:1024 accepted tcp:host.example:443 [in >> out] email: u{:03}\n"
LINES = "".join(map(LINE.format, range(100))).encode()  # two blocks, so that a drain can collapse the first


@pytest.fixture
def cfg(tmp_path: Path) -> Config:
    settings = "[postgresql]\nhost = nowhere\ndbname = none\nuser = nobody\n"
    return config.read(written(tmp_path, f"{settings}[parser]\nlogfile = access.log\noffline_file = buffer.jsonl\n"))


@pytest.fixture
def buffer(cfg: Config) -> Iterator[Buffer]:
    with offline_buffer.opened(cfg.buffer_path) as buffer:
        yield buffer


@contextlib.contextmanager
def log_of(path: Path, text: bytes) -> Iterator[LogFile]:
    path.write_bytes(text)
    with logfile.opened(path) as log:
        assert log is not None
        yield log


def spool(cfg: Config, buffer: Buffer, log: LogFile) -> list[BufferedBatch]:
    """Spool a log, leave its lines in it, and return what the buffer has."""
    assert any(offline.spool_all(buffer, [Source(log, cfg, parse_logs.parse_options(["--keep"]))]))
    return list(buffer.batches(lambda *_: False))


def cut_short(log: LogFile, monkeypatch: pytest.MonkeyPatch) -> None:
    """Drain the log; an error ends it before the head changes, when the text at the end is overwritten."""
    end, head, tail = log.size, log.fingerprint(log.size), log.tail(log.size)

    def fail(*_: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as patch:
        patch.setattr(file_system, "can_collapse", lambda _: True)
        patch.setattr(file_system, "collapse", fail)
        with pytest.raises(OSError, match="error"):
            drain.drain(log, end, 1 << 20)
    log.reread_head()
    assert (log.fingerprint(end), log.tail(end) == tail) == (head, False)


def test_a_log_with_the_text_of_the_buffer_is_known(cfg: Config, buffer: Buffer) -> None:
    with log_of(cfg.log_path, LINES) as log:
        (batch,) = spool(cfg, buffer, log)
        assert batch.tail == log.tail(log.size)
        assert buffer.spooled_to(log) == log.size


def test_a_log_that_only_begins_alike_is_not_known(cfg: Config, buffer: Buffer) -> None:
    with log_of(cfg.log_path, LINES) as log:
        spool(cfg, buffer, log)
    with log_of(cfg.log_path, LINES.replace(b"u099", b"u999")) as another:
        assert buffer.spooled_to(another) == 0


def test_a_log_whose_drain_was_cut_short_is_known_although_its_end_is_another(
    cfg: Config, buffer: Buffer, monkeypatch: pytest.MonkeyPatch
) -> None:
    with log_of(cfg.log_path, LINES) as log:
        spool(cfg, buffer, log)
        cut_short(log, monkeypatch)
        assert buffer.spooled_to(log) == log.size


def test_text_that_a_drain_has_overwritten_is_not_what_a_log_is_known_by(
    cfg: Config, buffer: Buffer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next drain overwrites more of it: a digest of it would fit no log."""
    with log_of(cfg.log_path, LINES) as log:
        cut_short(log, monkeypatch)
        (batch,) = spool(cfg, buffer, log)
        assert batch.tail is None
