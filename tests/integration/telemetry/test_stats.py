"""Every run leaves one row that tells what it did, also a run that fails, and never at the cost of a line."""

from __future__ import annotations

import csv
import dataclasses
import json
import os
import re
import socket
import time
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from helpers.site import Site, line, lines, users
from hypothesis import given
from hypothesis import strategies as st

from xraylog.accesslog import parser
from xraylog.accesslog.logfile import LogFile
from xraylog.database.session import Connection
from xraylog.load_result import LoadResult
from xraylog.records import Batch
from xraylog.telemetry import stats

FIELDS = [
    "run_started_at",
    "mode",
    "duration_seconds",
    "processed",
    "failed",
    "rate_lines_per_second",
    "new_users",
    "new_endpoints",
    "new_protocols",
    "new_tags",
]
HEADER = ",".join(FIELDS) + "\n"
STARTED = datetime(2025, 11, 17, 13, 10, 1, 234567)  # noqa: DTZ001  # local time, as a run takes it
RESULT = LoadResult(
    lines=1027, rows=1024, rejected=3, new_names={"users": 2, "endpoints": 5, "protocols": 0, "tags": 1}
)
BAD = "2025/11/17 10:15:23 from nowhere accepted\n"


def csv_rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


# --- the row -------------------------------------------------------------------------------------------------


def test_a_json_row_is_the_example_of_the_issue(tmp_path: Path) -> None:
    """Except the rate: 1024 / 1.23 is 832.52 there, and here."""
    path = tmp_path / "stats.jsonl"
    stats.write(stats.row(STARTED, "online", 1.23, RESULT), "json", path)
    assert path.read_text() == (
        '{"run_started_at": "2025-11-17T13:10:01.234567", "mode": "online", "duration_seconds": 1.23, '
        '"processed": 1024, "failed": 3, "rate_lines_per_second": 832.52, "new_users": 2, "new_endpoints": 5, '
        '"new_protocols": 0, "new_tags": 1}\n'
    )


def test_a_csv_file_has_its_header_once(tmp_path: Path) -> None:
    path = tmp_path / "stats.csv"
    for _ in range(2):
        stats.write(stats.row(STARTED, "online", 1.2, RESULT), "csv", path)
    row = "2025-11-17T13:10:01.234567,online,1.20,1024,3,853.33,2,5,0,1\n"
    assert path.read_text() == HEADER + row + row


def test_an_empty_csv_file_gets_its_header(tmp_path: Path) -> None:
    path = tmp_path / "stats.csv"
    path.touch()
    stats.write(stats.row(STARTED, "online", 1.2, RESULT), "csv", path)
    assert path.read_text().startswith(HEADER)


def test_a_start_on_the_full_second_has_six_digits_too() -> None:
    row = stats.row(STARTED.replace(microsecond=0), "online", 1.0, RESULT)
    assert row["run_started_at"] == "2025-11-17T13:10:01.000000"


@given(st.floats(0.005, 1e6), st.integers(0, 10**9))
def test_the_rate_is_the_rows_own_processed_by_its_own_duration(seconds: float, rows: int) -> None:
    row = stats.row(STARTED, "online", seconds, LoadResult(lines=rows, rows=rows))
    duration, rate = row["duration_seconds"], row["rate_lines_per_second"]
    assert isinstance(duration, float)
    assert duration == round(duration, 2) == pytest.approx(seconds, abs=0.0051)
    assert rate == pytest.approx(rows / duration, abs=0.0051)
    assert rate == round(float(rate), 2)


def test_a_run_of_no_time_has_a_rate() -> None:
    assert stats.row(STARTED, "online", 0.001, LoadResult(lines=1, rows=1))["rate_lines_per_second"] == 1000.0
    assert stats.row(STARTED, "online", 0.0, LoadResult())["rate_lines_per_second"] == 0.0


def check_row(row: dict[str, Any], mode: str = "online") -> None:
    """What holds for every row of every run."""
    assert list(row) == FIELDS
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}", row["run_started_at"])
    assert row["mode"] == mode
    assert float(row["duration_seconds"]) >= 0
    if float(row["duration_seconds"]):
        rate = int(row["processed"]) / float(row["duration_seconds"])
        assert float(row["rate_lines_per_second"]) == pytest.approx(rate, abs=0.0051)


def test_a_run_writes_what_it_did(site: Site) -> None:
    """Names are new once: all of them in the first run, one user and one host in the second."""
    site.append(*lines(0, 4), BAD, "\n", line(3))
    assert site.main() == 0
    first = site.last_stats()
    site.append(line(3), line(4), BAD, BAD)
    assert site.main() == 0
    second = site.last_stats()
    for row in (first, second):
        check_row(row)
    assert [first[field] for field in FIELDS[3:5] + FIELDS[6:]] == [5, 1, 4, 4, 1, 2]
    assert [second[field] for field in FIELDS[3:5] + FIELDS[6:]] == [2, 2, 1, 1, 0, 0]
    assert len(site.stats.read_text().splitlines()) == 2


def test_a_run_writes_csv(site: Site) -> None:
    site.set("stats", format="csv", output="stats.csv")
    for n in (1, 2):
        site.append(line(n))
        assert site.main() == 0
    assert (site.folder / "stats.csv").read_text().count("run_started_at") == 1
    rows = csv_rows(site.folder / "stats.csv")
    assert [row["processed"] for row in rows] == ["1", "1"]
    for row in rows:
        check_row(row)
        assert re.fullmatch(r"\d+\.\d\d", row["duration_seconds"])
        assert re.fullmatch(r"\d+\.\d\d", row["rate_lines_per_second"])


def test_the_start_is_local_time_whatever_the_zone_of_the_log(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """14 hours ahead, where no other zone of the test is."""
    monkeypatch.setenv("TZ", "Pacific/Kiritimati")
    time.tzset()
    try:
        before = datetime.now()  # noqa: DTZ005
        assert site.main() == 0
        after = datetime.now()  # noqa: DTZ005
    finally:
        monkeypatch.undo()
        time.tzset()
    assert before <= datetime.fromisoformat(site.last_stats()["run_started_at"]) <= after


@pytest.mark.parametrize("log", [None, b""], ids=["missing", "empty"])
def test_a_run_without_lines_is_a_row_of_zeros(site: Site, log: bytes | None) -> None:
    if log is not None:
        site.append(log)
    assert site.main() == 0
    check_row(site.last_stats())
    assert [site.last_stats()[field] for field in FIELDS[3:]] == [0, 0, 0.0, 0, 0, 0, 0]


# --- where it goes -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["", None])
def test_without_a_format_there_are_no_statistics(
    site: Site, capsys: pytest.CaptureFixture[str], form: str | None
) -> None:
    site.settings["stats"].pop("format")
    site.set("stats", **({} if form is None else {"format": form}))
    site.append(line(1))
    assert site.main() == 0
    assert not site.stats.exists()
    assert capsys.readouterr().out == ""
    assert site.emails() == users(1, 2)


@pytest.mark.parametrize("output", ["", None])
def test_a_format_without_an_output_goes_to_stdout(
    site: Site, capsys: pytest.CaptureFixture[str], output: str | None
) -> None:
    site.settings["stats"] = {"format": "json"} if output is None else {"format": "json", "output": output}
    site.write_config()
    site.append(line(1))
    before = set(os.listdir(site.folder))
    assert site.main() == 0
    row = json.loads(capsys.readouterr().out)
    check_row(row)
    assert row["processed"] == 1
    assert set(os.listdir(site.folder)) - before == {"access.log.lock", "buffer.jsonl.lock", "buffer.jsonl.state"}


def test_csv_on_stdout_is_the_row(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    site.settings["stats"] = {"format": "csv"}
    site.write_config()
    site.append(line(1))
    assert site.main() == 0
    (row,) = csv.reader(capsys.readouterr().out.splitlines())
    check_row(dict(zip(FIELDS, row, strict=True)))


@pytest.mark.parametrize("form", ["json", "csv"])
def test_a_torn_last_line_does_not_swallow_the_next_row(site: Site, form: str) -> None:
    """The disk was full, or the machine went down, in the middle of the last row."""
    torn = {"json": '{"run_started_at": "2025-11-17T13:10', "csv": HEADER + "2025-11-17T13:10"}[form]
    site.set("stats", format=form)
    site.stats.write_text(torn)
    site.append(line(1))
    assert site.main() == 0
    assert site.stats.read_text().startswith(torn + "\n")
    last = site.last_stats() if form == "json" else csv_rows(site.stats)[-1]
    check_row(last)


# --- runs that fail ------------------------------------------------------------------------------------------


def test_a_run_without_a_server_counts_what_it_buffered(site: Site) -> None:
    site.append(*lines(0, 3), BAD, line(2))
    with socket.socket() as bound:  # without listen: nobody else gets the port, and it refuses
        bound.bind(("127.0.0.1", 0))
        site.set("postgresql", port=str(bound.getsockname()[1]))
        assert site.main("-q") == 0
    check_row(site.last_stats(), "offline")
    row = site.last_stats()
    assert [row[field] for field in FIELDS[3:5] + FIELDS[6:]] == [4, 1, 3, 3, 1, 2]


def test_a_run_that_the_server_refuses_counts_what_it_buffered(site: Site) -> None:
    site.set("postgresql", dbname="no such database")
    site.append(*lines(0, 3))
    assert site.main("-q") == 3
    check_row(site.last_stats(), "offline")
    assert site.last_stats()["processed"] == 3


def test_a_run_that_fails_half_way_counts_both_halves(site: Site, conn: Connection) -> None:
    """From the second batch on, the table refuses every row."""
    site.append(line(0))
    assert site.main() == 0
    conn.execute("ALTER TABLE logs ADD CONSTRAINT only_443 CHECK (destination_port = 443)")
    site.set("parser", batch_size="100")
    site.append(*lines(1, 101), *(text.replace(":443 ", ":444 ") for text in lines(101, 201)))
    assert site.main("-q") == 3
    row = site.last_stats()
    check_row(row, "offline")
    assert len(site.stats.read_text().splitlines()) == 2
    assert [row[field] for field in FIELDS[3:5]] == [200, 0]
    assert row["new_users"] == 200
    assert site.emails() == users(0, 101)


@pytest.mark.parametrize("failure", [OSError, RuntimeError, KeyboardInterrupt])
def test_whatever_ends_a_run_its_row_tells_what_was_done(
    site: Site, monkeypatch: pytest.MonkeyPatch, failure: type[BaseException]
) -> None:
    """Before the second batch is stored; what was committed stays."""
    sync, calls = LogFile.sync, iter((False, True))

    def fail_later(log: LogFile) -> None:
        sync(log)
        if next(calls):
            raise failure

    monkeypatch.setattr(LogFile, "sync", fail_later)
    site.set("parser", batch_size="2")
    site.append(*lines(0, 5))
    assert site.main("-q") == 1
    assert site.emails() == users(0, 2)
    row = site.last_stats()
    check_row(row)
    assert [row[field] for field in FIELDS[3:5] + FIELDS[6:]] == [2, 0, 2, 2, 1, 2]


@pytest.mark.parametrize("found", ["a,b,c\n1,2,3\n", HEADER.replace(",mode", "") + "1\n", "run_started_at", "\n"])
def test_a_csv_file_with_another_header_is_left_alone_and_reported(
    site: Site, capsys: pytest.CaptureFixture[str], found: str
) -> None:
    site.set("stats", format="csv", output="stats.csv")
    path = site.folder / "stats.csv"
    path.write_text(found)
    site.append(*lines(0, 3))
    assert site.main() == 3
    told = capsys.readouterr().err
    assert "ERROR" in told
    assert f"{path}: expected the header '{HEADER.strip()}', found '{found.splitlines()[0]}'" in told
    assert path.read_text() == found
    assert site.emails() == users(0, 3)
    assert site.log.read_bytes() == b""


@pytest.mark.parametrize("form", ["json", "csv"])
@pytest.mark.parametrize(
    ("output", "reason"),
    [("missing/stats", "No such file or directory"), (".", "Is a directory"), ("/dev/full", "No space left on device")],
)
def test_statistics_that_cannot_be_written_cost_no_line(
    site: Site, capsys: pytest.CaptureFixture[str], form: str, output: str, reason: str
) -> None:
    """Neither root nor anybody else can write these. The row is in the message."""
    site.set("stats", format=form, output=output)
    site.append(*lines(0, 3))
    assert site.main() == 3
    told = capsys.readouterr().err
    assert "ERROR" in told
    assert f"{(site.folder / output).resolve()}: " in told
    assert reason in told
    assert '"processed": 3' in told
    assert site.emails() == users(0, 3)
    assert site.log.read_bytes() == b""


# --- the line that adds up -----------------------------------------------------------------------------------

SUM = re.compile(r"INFO +(\d+) lines read = (\d+) rows \+ (\d+) unparsed \+ (\d+) ignored\n")


@pytest.mark.parametrize("batch_size", ["1", "3", "20000"])
def test_the_last_line_of_a_run_adds_up(site: Site, capsys: pytest.CaptureFixture[str], batch_size: str) -> None:
    site.set("parser", batch_size=batch_size)
    site.append(*lines(0, 5), BAD, "\n", "# our own\n", BAD, line(5), b"\xff\n")
    assert site.main("-v") == 0
    told = capsys.readouterr().err
    (found,) = SUM.finditer(told)
    assert [int(number) for number in found.groups()] == [11, 6, 3, 2]
    assert told.endswith(found[0])
    assert (len(site.rows()), len(site.rejected())) == (6, 3)


def test_a_sum_that_does_not_add_up_is_an_error(
    site: Site, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The lines are counted twice, on the bytes and by the parser: here one of the two has lost a line."""
    real = parser._BatchBuilder.take

    def one_more(gathering: parser._BatchBuilder) -> Batch:
        batch = real(gathering)
        return dataclasses.replace(batch, lines=batch.lines + 1)

    monkeypatch.setattr(parser._BatchBuilder, "take", one_more)
    site.append(*lines(0, 3))
    assert site.main("-v") == 1
    told = capsys.readouterr().err
    assert SUM.search(told)[0].endswith("4 lines read = 3 rows + 0 unparsed + 0 ignored\n")  # type: ignore[index]
    assert "ERROR" in told
    assert site.last_stats()["processed"] == 3
