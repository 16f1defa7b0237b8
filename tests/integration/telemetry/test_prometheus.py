"""The metrics tell what runs came to, also failed ones; no failed run moves the time of the last success."""

from __future__ import annotations

import contextlib
import errno
import io
import itertools
import os
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from helpers import faults
from helpers.load_paths import LOAD_PATHS
from helpers.site import ROOT, Site, line, lines
from hypothesis import given
from hypothesis import strategies as st
from loguru import logger
from prometheus_client.parser import text_string_to_metric_families

from xraylog import atomic_file, config, safe_path
from xraylog.accesslog import discovery, lockfile
from xraylog.database import schema
from xraylog.database.session import Connection
from xraylog.telemetry import prometheus
from xraylog.telemetry.prometheus import EndedRun, Metrics

BAD = "2025/11/17 10:15:23 from nowhere accepted\n"
NAMES = {
    "xraylog_last_success_timestamp_seconds": "gauge",
    "xraylog_last_run_timestamp_seconds": "gauge",
    "xraylog_last_run_exit_status": "gauge",
    "xraylog_run_duration_seconds": "gauge",
    "xraylog_lines": "counter",  # the parser takes _total away
    "xraylog_rejected_lines": "counter",
    "xraylog_buffer_bytes": "gauge",
    "xraylog_log_bytes": "gauge",
    "xraylog_database_older_timestamp_seconds": "gauge",
    "xraylog_last_row_timestamp_seconds": "gauge",
    "xraylog_last_run_users": "gauge",
    "xraylog_last_run_addresses": "gauge",
    "xraylog_last_run_rows": "gauge",
    "xraylog_last_run_outbound_rows": "gauge",
}
NOTHING = {"rows": 0, "rejected": 0, "ignored": 0, "buffered": 0}


@pytest.fixture
def told(site: Site) -> Path:
    """The site's metrics file."""
    site.set("stats", prometheus="xraylog.prom")
    return site.folder / "xraylog.prom"


def families(path: Path) -> dict[str, Any]:
    """As Prometheus reads them."""
    return {family.name: family for family in text_string_to_metric_families(path.read_bytes().decode())}


def values(path: Path) -> dict[str, float]:
    """Of a file about one log, without `xraylog_`: `run_duration_seconds`, `lines_total rows`, …"""
    return {
        " ".join([sample.name.removeprefix("xraylog_"), *filter(None, [sample.labels.get("outcome")])]): sample.value
        for family in families(path).values()
        for sample in family.samples
    }


def counted(path: Path) -> dict[str, float]:
    found = values(path)
    assert found["rejected_lines_total"] == found["lines_total rejected"]
    return {outcome: found[f"lines_total {outcome}"] for outcome in NOTHING}


def times(path: Path) -> tuple[float, float]:
    """The last success and the last run."""
    found = values(path)
    return found["last_success_timestamp_seconds"], found["last_run_timestamp_seconds"]


# --- the file ------------------------------------------------------------------------------------------------


def test_a_good_run_tells_all(site: Site, told: Path) -> None:
    site.append(*lines(0, 4), BAD, "\n", line(5)[:30])
    before = time.time()
    assert site.main() == 0
    after = time.time()
    found = families(told)
    assert {name: family.type for name, family in found.items()} == NAMES
    assert all(family.documentation for family in found.values())
    for family in found.values():
        for sample in family.samples:
            assert sample.timestamp is None  # the textfile collector refuses files that have one
            labels = dict(sample.labels)
            assert (labels.pop("node"), labels.pop("log")) == ("n1", str(site.log))
            assert labels.keys() <= {"outcome", "action", "outbound"}
    assert counted(told) == {"rows": 4, "rejected": 1, "ignored": 1, "buffered": 0}
    success, began = times(told)
    assert before - 0.001 <= began <= success <= after + 0.001
    now = values(told)
    assert now["last_run_exit_status"] == now["buffer_bytes"] == 0
    assert now["log_bytes"] == site.log.stat().st_size >= 30
    assert 0 < now["run_duration_seconds"] <= after - before + 0.001


def gauges(path: Path, family: str) -> dict[str, float]:
    """The values of a family, by its own label."""
    return {
        " ".join(value for label, value in sample.labels.items() if label not in ("node", "log")): sample.value
        for sample in families(path)[f"xraylog_last_run_{family}"].samples
    }


def test_the_last_run_tells_what_its_rows_were_about(site: Site, told: Path) -> None:
    site.append(*lines(0, 4), line(3), *[line(5).replace("[in >> out]", "[in >> block]")] * 2)
    site.append("2025/11/17 10:15:23 from 203.0.113.9:5 rejected  proxy/vless: invalid request user id\n")
    site.append("2025/11/17 10:15:23 from 203.0.113.8:5 rejected  Insecure encryption email: old\n")
    site.append("2025/11/17 10:15:23 from 203.0.113.7:5 accepted tcp:127.0.0.1:0 [api -> api]\n")
    assert site.main() == 0
    assert gauges(told, "users") == {"": 5}
    assert gauges(told, "addresses") == {"": 5}  # neither scanners' nor those that ask xray's API
    assert gauges(told, "rows") == {"accepted": 7, "rejected": 2, "api": 1}
    assert gauges(told, "outbound_rows") == {"out": 5, "block": 2, "api": 1}
    site.append(line(7))
    assert site.main() == 0
    assert gauges(told, "users") == {"": 1}
    assert gauges(told, "outbound_rows") == {"out": 1}


OF_CLIENTS = (
    "203.0.113.5", "203.0.113.6", "[2001:db8::5]", "203.0.*.*", "[2001:db8::/32]", "[64:ff9b::1]",
)  # fmt: skip
THE_SAME = ("[::ffff:203.0.113.5]", "[::ffff:203.0.0.0/112]")
NO_CLIENTS = ("0.9.9.9", "127.0.0.1", "127.8.8.8", "[::1]", "[::]", "[0:1::1]", "[::ffff:127.0.0.1]")


def test_addresses_are_those_of_clients_as_the_questions_count_them(site: Site, told: Path, conn: Connection) -> None:
    sources = (*OF_CLIENTS, *THE_SAME, *NO_CLIENTS)
    site.append(*(line(1).replace("203.0.113.2", source) for source in sources))
    assert site.main() == 0
    conn.execute((ROOT / "answers.sql").read_bytes())
    counted = conn.execute("SELECT count(*), count(DISTINCT client_address(source_ip)) FROM logs").fetchone()
    assert counted == (len(sources), len(OF_CLIENTS))
    assert gauges(told, "addresses") == {"": len(OF_CLIENTS)}


def test_of_many_outbound_tags_the_most_frequent_are_shown(site: Site, told: Path) -> None:
    for number in range(30):
        site.append(*[line(number).replace("[in >> out]", f"[in >> t{number}]")] * (1 + (number < 3)))
    assert site.main() == 0
    shown = gauges(told, "outbound_rows")
    assert len(shown) == prometheus.MAX_TAGS + 1
    assert {name: count for name, count in shown.items() if count == 2} == {"t0": 2, "t1": 2, "t2": 2}
    assert shown["other"] == 10


@pytest.mark.parametrize("load_path", LOAD_PATHS)
def test_lines_that_are_read_once_more_count_once(site: Site, told: Path, load_path: str, conn: Connection) -> None:
    """One row is refused: the batches after it are read again."""
    schema.ensure(conn)
    conn.execute("ALTER TABLE logs ADD CHECK (source_port <> 1031)")
    site.set("parser", batch_size=5)
    site.load_path = load_path
    site.append(*lines(0, 30))
    site.run()
    assert gauges(told, "rows")["accepted"] == 30
    assert gauges(told, "users") == {"": 30}


def test_the_file_may_be_read_by_others_and_is_alone(site: Site, told: Path) -> None:
    before = os.umask(0o077)
    try:
        site.append(line(1))
        assert site.main() == 0
    finally:
        os.umask(before)
    assert told.stat().st_mode & 0o777 == 0o644
    assert [path.name for path in site.folder.iterdir() if "prom" in path.name] == ["xraylog.prom"]


def test_each_write_is_a_new_file_in_the_old_ones_place(tmp_path: Path) -> None:
    """Whoever has the old one open reads it to its end."""
    path = tmp_path / "x.prom"
    told = Metrics(path, "n", tmp_path / "log")
    told.begin(time.time())
    with path.open() as reader:
        beginning = reader.read(20)
        before, inode = path.read_text(), path.stat().st_ino
        told.end(EndedRun(1, 2, 0, True, {**NOTHING, "rows": 7}), tmp_path / "buffer")
        assert path.stat().st_ino != inode
        assert beginning + reader.read() == before
    assert counted(path)["rows"] == 7


@given(
    node=st.text(st.characters(exclude_categories=["Cs"]), min_size=1),
    log=st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0/"), min_size=1),
)
def test_hostile_names_are_labels_like_any_other(tmp_path_factory: pytest.TempPathFactory, node: str, log: str) -> None:
    path = tmp_path_factory.getbasetemp() / "hostile.prom"
    path.unlink(missing_ok=True)
    tags = {(prometheus.OUTBOUND_ROWS, name): float(number) for number, name in enumerate((node, log, "other"))}
    seen = {(prometheus.USERS, ""): 1.0, (prometheus.ADDRESSES, ""): 1.0, (prometheus.ROWS, "accepted"): 3.0, **tags}
    metrics = Metrics(path, node, Path("/l") / log)
    for _ in range(2):
        metrics.end(EndedRun(1, 2, 0, True, {**NOTHING, "rows": 3}, line_metrics=seen), Path("/no buffer"))
    metrics.begin(3)  # which leaves what the last run saw
    found = families(path)
    shown = {sample.labels["outbound"]: sample.value for sample in found["xraylog_last_run_outbound_rows"].samples}
    assert shown == {name: number for (_, name), number in tags.items()}
    assert found.keys() == NAMES.keys()
    for family in found.values():
        for sample in family.samples:
            assert sample.labels["node"] == node
            assert sample.labels["log"] == str(Path("/l") / log)
    assert counted(path)["rows"] == 6


def test_a_name_is_escaped_as_the_format_says(tmp_path: Path) -> None:
    """And bytes that are not UTF-8 are written as escapes, for the file must be UTF-8."""
    path = tmp_path / "x.prom"
    log = Path(os.fsdecode(b"/l/\xff"))
    Metrics(path, 'a"b\\c\nd', log).end(EndedRun(1, 2, 0, True, NOTHING), tmp_path)
    assert r'xraylog_log_bytes{node="a\"b\\c\nd",log="/l/\\xff"} 0' in path.read_text().splitlines()
    assert values(path)["log_bytes"] == 0


def test_a_hostile_node_and_path_of_a_config_go_through_a_run(site: Site, told: Path) -> None:
    site.set("parser", node='x"} 1\\', logfile='a "c\\n}.log')
    site.append(*lines(0, 3), to=site.folder / 'a "c\\n}.log')
    assert site.main() == 0
    assert counted(told)["rows"] == 3
    (sample,) = families(told)["xraylog_log_bytes"].samples
    assert sample.labels == {"node": 'x"} 1\\', "log": str(site.folder / 'a "c\\n}.log')}


def test_the_document_shows_every_metric() -> None:
    page = (ROOT / "docs" / "metrics.md").read_text()
    for name, (kind, words) in prometheus.FAMILIES.items():
        assert f"# HELP {name} {words}\n# TYPE {name} {kind}\n{name}{{" in page


# --- counters ------------------------------------------------------------------------------------------------


def test_counters_add_up_over_runs_outages_and_imports(site: Site, told: Path, conn: Connection) -> None:
    """rows and rejected are what the tables have; the buffer's lines were counted when they were buffered, too."""
    site.append(*lines(0, 5), BAD)
    assert site.main() == 0
    site.append(*lines(5, 8))
    assert site.main() == 0
    assert counted(told) == {"rows": 8, "rejected": 1, "ignored": 0, "buffered": 0}

    site.away()
    site.append(*lines(8, 20), BAD, BAD, "#\n")
    assert site.main("-q") == 0
    assert counted(told) == {"rows": 8, "rejected": 1, "ignored": 1, "buffered": 14}
    assert values(told)["buffer_bytes"] == site.buffer.stat().st_size > 0

    site.back()
    site.append(*lines(20, 22))
    assert site.main() == 0
    # Ignored is also the mark that the run before left in the place of the lines.
    assert counted(told) == {"rows": 22, "rejected": 3, "ignored": 2, "buffered": 14}
    assert values(told)["buffer_bytes"] == 0
    for table, outcome in (("logs", "rows"), ("rejected_lines", "rejected")):
        assert conn.execute(f"SELECT count(*) FROM {table}").fetchone() == (counted(told)[outcome],)  # type: ignore[arg-type]


def test_a_run_that_fails_half_way_counts_both_halves(site: Site, told: Path, conn: Connection) -> None:
    site.append(line(0))
    assert site.main() == 0
    conn.execute("ALTER TABLE logs ADD CONSTRAINT only_443 CHECK (destination_port = 443)")
    site.set("parser", batch_size="100")
    site.append(*lines(1, 101), *(text.replace(":443 ", ":444 ") for text in lines(101, 201)))
    assert site.main("-q") == 3
    assert counted(told) == {"rows": 101, "rejected": 0, "ignored": 0, "buffered": 100}
    assert values(told)["last_run_exit_status"] == 3


def test_a_log_from_the_command_line_adds_to_the_counters_and_is_no_last_run(site: Site, told: Path) -> None:
    """Otherwise a rotated log, or an empty one while the database is away, would look like a good run of cron's."""
    site.append(line(0))
    assert site.main() == 0
    before = times(told)
    old = site.folder / "access.log.1"
    site.append(*lines(1, 4), to=old)
    assert site.main("--logfile", str(old)) == 0
    site.away()
    assert site.main("--logfile", str(old)) == 0
    assert times(told) == before
    assert counted(told)["rows"] == 4
    assert {sample.labels["log"] for family in families(told).values() for sample in family.samples} == {str(site.log)}


def test_counters_of_a_lost_file_begin_again(site: Site, told: Path) -> None:
    site.append(line(0))
    assert site.main() == 0
    told.unlink()
    site.append(*lines(1, 3))
    assert site.main() == 0
    assert counted(told)["rows"] == 2


@pytest.mark.parametrize(
    "damage",
    [
        b"",
        b"\0" * 500,
        b"\xff\xfe\n",
        b"xraylog_lines_total{",
        b'xraylog_lines_total{node="n1",log="LOG",outcome="rows"} nan\n',
        b'xraylog_lines_total{node="n1",log="LOG",outcome="rows"} -3\n',
        b'xraylog_lines_total{node="n1",log="LOG",outcome="rows"} many\n',
        b'xraylog_lines_total{node="n1",log="LOG",outcome="rows"} 12',  # of 1234, perhaps
        b'xraylog_lines_total{node="another",log="LOG",outcome="rows"} 5\n',
        b"x" * (1 << 20),
    ],
)
def test_a_damaged_file_is_replaced(site: Site, told: Path, damage: bytes) -> None:
    told.write_bytes(damage.replace(b"LOG", os.fsencode(site.log)))
    site.append(*lines(0, 2))
    assert site.main() == 0
    assert counted(told)["rows"] == 2
    assert families(told).keys() == NAMES.keys()


# --- the last success ----------------------------------------------------------------------------------------


@pytest.fixture
def succeeded(site: Site, told: Path) -> tuple[float, float]:
    """A good run was there, and the log has lines again; the times that it left."""
    site.append(line(0))
    assert site.main() == 0
    site.append(*lines(1, 4))
    logger.remove()
    return times(told)


def check_failed(told: Path, before: tuple[float, float]) -> None:
    after = times(told)
    assert after[0] == before[0]
    assert after[1] > before[1]


def test_a_run_without_a_database_is_no_success(site: Site, told: Path, succeeded: tuple[float, float]) -> None:
    """It ends with status 0, for no line is lost: but the database does not have them."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        site.set("postgresql", port=str(bound.getsockname()[1]))
        assert site.main("-q") == 0
        check_failed(told, succeeded)
        assert values(told)["last_run_exit_status"] == 0
        again = times(told)
        assert site.main("-q") == 0  # the log is drained; the buffer is not
        check_failed(told, again)
    site.back()
    assert site.main() == 0
    assert times(told)[0] > succeeded[0]


def test_a_run_that_the_database_refuses_is_no_success(site: Site, told: Path, succeeded: tuple[float, float]) -> None:
    site.set("postgresql", dbname="no such database")
    assert site.main("-q") == 3
    check_failed(told, succeeded)
    assert values(told)["last_run_exit_status"] == 3


@pytest.mark.parametrize("number", [1, 2, 3])
def test_a_run_on_a_full_disk_is_no_success(
    site: Site, told: Path, succeeded: tuple[float, float], number: int
) -> None:
    """The buffer's disk; the metrics may be on another."""
    site.away()
    assert site.run_here(inside=faults.disk_error(number, errno.ENOSPC, site.folder / "steps")) == 1
    check_failed(told, succeeded)


def test_a_log_that_cannot_be_read_is_no_success(site: Site, told: Path, succeeded: tuple[float, float]) -> None:
    site.log.unlink()
    site.log.mkdir()
    assert site.main("-q") == 3
    check_failed(told, succeeded)
    assert values(told)["last_run_exit_status"] == 3


def test_statistics_that_cannot_be_written_are_no_success(
    site: Site, told: Path, succeeded: tuple[float, float]
) -> None:
    site.set("stats", output="/dev/full")
    assert site.main("-q") == 3
    check_failed(told, succeeded)
    assert counted(told)["rows"] == 4


def test_another_run_at_work_tells_nothing(site: Site, told: Path, succeeded: tuple[float, float]) -> None:
    with lockfile.locked(*discovery.lock_paths([site.log], config.read(site.config))):
        site.run(status=75)
    assert times(told) == succeeded


def test_an_empty_log_is_a_success_and_the_database_is_not_asked(site: Site, told: Path) -> None:
    """Nothing waits anywhere: the database has every line."""
    site.away()
    assert site.main() == 0
    assert times(told)[0] > 0
    assert counted(told) == NOTHING


def test_before_the_first_success_its_time_is_0(site: Site, told: Path) -> None:
    """So that an alert on its age fires; on a series that is missing it would not."""
    site.append(line(1))
    site.away()
    assert site.main("-q") == 0
    assert times(told)[0] == 0


@pytest.mark.faults
def test_a_killed_run_moves_the_last_run_alone(site: Site, told: Path) -> None:
    """At every fourth step: each of them leaves a whole file, and those before the first write the old one."""
    site.append(line(0))
    assert site.main() == 0
    logger.remove()
    success, moved = times(told)[0], []
    for step in range(2, 400, 4):
        before, text = times(told)[1], told.read_text()
        site.append(line(step))
        status = site.run_here(kill_at=step)
        if status == 0:
            break
        assert status == -signal.SIGKILL
        assert families(told).keys() == NAMES.keys()
        assert times(told)[0] == success, step
        moved.append(times(told)[1] > before)
        assert moved[-1] or told.read_text() == text
    assert moved == sorted(moved)  # never, and from one step on always
    assert moved.count(True) > 5
    assert times(told)[0] > success


def left_of(told: Path) -> list[Path]:
    """What is there of metrics that have not taken the old ones' place."""
    return list(told.parent.glob(f".{told.name}.*"))


@pytest.mark.parametrize("number", [1, 2], ids=["as it begins", "as it ends"])
def test_a_run_killed_while_it_tells_leaves_the_whole_file_and_the_next_one_cleans_up(
    site: Site, told: Path, number: int
) -> None:
    """The new file is written, and has not yet taken the old one's place."""

    @contextlib.contextmanager
    def killed() -> Iterator[None]:
        replace, calls = os.replace, itertools.count(1)

        def kill(source: str, target: str, **options: int) -> None:
            if target == told.name and next(calls) == number:
                os.kill(os.getpid(), signal.SIGKILL)
            replace(source, target, **options)

        os.replace = kill  # type: ignore[assignment]  # in a child that ends here
        yield

    site.append(line(0))
    assert site.main() == 0
    logger.remove()
    before = times(told)
    site.append(line(1))
    assert site.run_here(inside=killed()) == -signal.SIGKILL
    (beside,) = left_of(told)
    assert families(told).keys() == NAMES.keys()
    assert times(told)[0] == before[0]
    assert (times(told)[1] > before[1]) == (number == 2)
    assert site.main() == 0
    assert left_of(told) == [beside]  # for all it knows, another run is writing it
    os.utime(beside, (0, 0))
    assert site.main() == 0
    assert left_of(told) == []
    assert times(told)[0] > before[0]
    assert len(site.rows()) == 2


# --- what cannot be written ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("output", "reason"), [("missing/x.prom", "No such file or directory"), ("folder.prom", "Is a directory")]
)
def test_metrics_that_cannot_be_written_cost_no_line(
    site: Site, capsys: pytest.CaptureFixture[str], output: str, reason: str
) -> None:
    (site.folder / "folder.prom").mkdir()
    site.set("stats", prometheus=output)
    site.append(*lines(0, 3))
    assert site.main() == 3
    (said,) = capsys.readouterr().err.splitlines()
    assert f"ERROR   {site.folder / output}: expected to replace the metrics, found: {reason}; committed rows " in said
    folder = site.folder / "missing"
    mend = f"install -d -o root -m 700 {folder}" if output.startswith("missing") else f"ls -la {site.folder / output}"
    assert said.endswith(mend.replace("root", safe_path.user_name(os.geteuid())))
    assert len(site.rows()) == 3
    assert site.log.read_bytes() == b""


def test_a_full_disk_leaves_the_metrics_as_they_were(
    site: Site, told: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The old file stays, with its last success; what is half written goes."""
    site.append(line(0))
    assert site.main() == 0
    before = told.read_text()

    class Full(io.BufferedWriter):
        def write(self, _: Any) -> int:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    site.append(line(1))
    with monkeypatch.context() as patch:
        opened = os.fdopen

        def open_full(descriptor: int, mode: str = "r", **options: Any) -> Any:
            return Full(io.FileIO(descriptor, "w")) if mode == "wb" else opened(descriptor, mode, **options)

        patch.setattr(atomic_file.os, "fdopen", open_full)
        assert site.main() == 3
    said = capsys.readouterr().err
    assert "No space left on device; committed rows are kept; make room: df -h" in said
    assert told.read_text() == before
    assert left_of(told) == []
    assert len(site.rows()) == 2


def test_a_name_that_node_exporter_does_not_read_is_a_complaint(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    site.set("stats", prometheus="xraylog.txt")
    assert site.main() == 78
    expected = "[stats] prometheus: expected a file FILE.prom, for node_exporter reads no other, found 'xraylog.txt'"
    assert capsys.readouterr().err == f"{site.config}: {expected}\n"


def test_the_metrics_are_no_log(site: Site, told: Path, capsys: pytest.CaptureFixture[str]) -> None:
    told.write_text("# ours\n")
    assert site.main("--logfile", str(told)) == 78
    assert f"expected xray's log, found the metrics, {told}" in capsys.readouterr().err
    assert told.read_text() == "# ours\n"


def test_check_says_whether_the_metrics_can_be_replaced(
    site: Site, told: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    site.append(line(1))
    assert site.main("--check") == 0
    assert f"✓ metrics: {told} can be replaced\n" in capsys.readouterr().out
    assert not told.exists()
    site.set("stats", prometheus="missing/x.prom")
    assert site.main("--check") == 3
    missing = site.folder / "missing"
    told_of = f"✗ metrics: {missing}/x.prom cannot be replaced: No such file or directory; "
    (said,) = (text for text in capsys.readouterr().out.splitlines() if text.startswith(told_of))
    assert f"if another one is meant, change [stats] prometheus in {site.config}; what to do: " in said
    assert said.endswith(f"-m 700 {missing}")


@pytest.mark.parametrize("load_path", LOAD_PATHS)
def test_the_time_of_the_newest_row_goes_on_with_rows_alone(site: Site, told: Path, load_path: str) -> None:
    """Also with those that come out of the buffer; not with older ones, and not with runs that store nothing."""
    site.load_path = load_path
    of = [line(n, f"2025/11/17 10:{n}:59.5") for n in (10, 30, 20)]
    assert newest(site, told) == 0
    site.append(of[0])
    assert newest(site, told) == 1763374200
    site.away()
    site.append(of[1])
    assert newest(site, told) == 1763374200
    site.back()
    assert newest(site, told) == 1763375400
    site.append(of[2], BAD)
    assert newest(site, told) == 1763375400


def newest(site: Site, told: Path) -> float:
    """Return the metric after a run."""
    site.run()
    (sample,) = families(told)["xraylog_last_row_timestamp_seconds"].samples
    return float(sample.value)
