"""Each batch of the buffer comes into the database once, in its order, wherever an import was stopped."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import re
from collections import Counter

import psycopg
import pytest
from helpers import mounts
from helpers.load_paths import LOAD_PATHS, ROW_BY_ROW
from helpers.site import Site, line, lines, users

from xraylog import atomic_file, config
from xraylog.accesslog import installation, logfile, offline_buffer
from xraylog.database import schema, session
from xraylog.database.positions import Position
from xraylog.ingest import buffer_import
from xraylog.ingest.confirmation import RunTarget
from xraylog.loading import attach, bulk
from xraylog.records import HEAD_BYTES


def test_the_buffer_keeps_the_order_over_many_runs(site: Site) -> None:
    site.away()
    with site.log.open("ab"):
        for start in range(0, 50, 10):
            site.append(*lines(start, start + 10))
            site.run()
    site.back()
    site.log.unlink()  # also when the log is missing
    site.run()
    assert [row[9] for row in site.rows()] == [f"u{n}" for n in range(50)]


@pytest.mark.parametrize("load_path", LOAD_PATHS)
def test_batches_that_follow_each_other_are_committed_as_those_of_a_log(
    site: Site, load_path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In one COPY and one transaction, unless row by row."""
    monkeypatch.setattr(bulk, "MAX_GROUP_S", 3600)
    monkeypatch.setattr(attach, "MAX_LOCK_S", 3600)
    site.set("parser", batch_size="10")
    site.load_path = load_path
    site.append(*lines(0, 45), "damaged\n")
    site.away()
    site.run()
    site.back()
    assert site.run_here() == 0
    assert [row[9] for row in site.rows()] == [f"u{n}" for n in range(45)]
    assert len(site.rejected()) == 1
    ((transactions,),) = site.query("SELECT count(DISTINCT xmin::text) FROM logs")
    assert transactions == (5 if load_path == ROW_BY_ROW else 1)


@pytest.mark.parametrize("load_path", LOAD_PATHS)
def test_a_row_that_the_database_refuses_costs_an_import_nothing_else(
    site: Site, load_path: str, conn: psycopg.Connection[tuple[int]]
) -> None:
    schema.ensure(conn)
    conn.execute("ALTER TABLE logs ADD CHECK (source_port <> 1049)")
    site.set("parser", batch_size="10")
    site.load_path = load_path
    site.append(*lines(0, 45))
    site.away()
    site.run()
    site.back()
    site.run()
    assert site.emails() == users(0, 45) - Counter(["u25"])
    assert [json.loads(record)["email"] for _, record in site.rejected()] == ["u25"]
    site.run()
    assert site.emails() == users(0, 45) - Counter(["u25"])


@pytest.mark.faults
def test_an_import_goes_on_where_it_was_stopped(site: Site) -> None:
    site.append(*lines(0, 300))
    site.set("parser", batch_size="50")
    site.away()
    site.run()
    site.back()
    site.append(line(300))
    step, imported = 0, 0
    while site.run_here(kill_at=(step := step + 7)) != 0:
        now = sum(site.emails().values())
        assert now % 50 == 0 or now == 301
        assert now >= imported
        imported = now
    assert site.emails() == users(0, 301)


def test_an_import_says_how_far_it_is(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    site.append(*lines(0, 100))
    site.set("parser", batch_size="20")
    site.away()
    site.run()
    size = site.buffer.stat().st_size
    site.back()
    assert buffer_import.PROGRESS_S == 10  # seconds
    monkeypatch.setattr(buffer_import, "PROGRESS_S", 0)
    assert site.run_here() == 0
    told = re.findall(rf"{site.buffer}: (\d+) of {size} bytes imported", site.output())
    assert [int(number) for number in told] == sorted(int(number) for number in told)
    assert len(told) == 5
    assert f"{site.buffer} imported: 100 rows + 0 unparsed + 0 stored before" in site.output()


@pytest.mark.parametrize("first", ["online", "offline"])
def test_again_offline_loads_again_once(site: Site, first: str) -> None:
    site.append(*lines(0, 10))
    if first == "offline":
        site.away()
    site.run("--keep")
    site.away()
    site.run("--keep", "--again")
    site.run("--keep")
    site.back()
    site.run()
    assert site.emails() == users(0, 10) + users(0, 10)


def test_ten_equal_lines_in_every_generation_are_ten_rows_each(site: Site) -> None:
    """Online, kept, offline, offline, online: the heads of the log look alike every time."""
    same = [line(1)] * 10
    site.append(*same)
    site.run("--keep")
    site.away()
    for _ in range(3):
        site.run()
        site.append(*same)
    site.back()
    site.run()
    site.append(*same)
    site.run()
    assert site.emails() == Counter({"u1": 50})


def test_a_node_that_was_renamed_meanwhile_keeps_its_lines_apart(site: Site) -> None:
    """Those of the buffer keep the name under which they were met, and the log that still has them adds only others."""
    site.away()
    site.append(*lines(0, 5))
    site.run("--keep")
    site.set("parser", node="new name")
    site.back()
    site.append(*lines(5, 8))
    site.run("--keep")
    assert [row[-1] for row in site.rows()] == ["n1"] * 5 + ["new name"] * 3
    assert site.emails() == users(0, 8)


@pytest.mark.parametrize("step", [60, 75, 90])
def test_a_buffer_half_imported_under_another_name_of_the_node(site: Site, step: int) -> None:
    site.set("parser", batch_size="10")
    site.away()
    for start in range(0, 90, 30):
        site.append(*lines(start, start + 30))
        site.run_here()
    site.back()
    site.run_here(kill_at=step)
    site.set("parser", node="renamed")
    site.run()
    assert site.emails() == users(0, 90)


def test_a_copy_with_more_lines_does_not_take_the_position_of_its_original_offline(site: Site) -> None:
    site.append(*lines(0, 100))
    site.run("--keep")
    copy = site.folder / "copy.log"
    copy.write_bytes(site.log.read_bytes())
    site.append(line(100), to=copy)
    site.away()
    site.run("--logfile", str(copy))
    site.append("half a line", to=copy)
    site.back()
    site.run("--logfile", str(copy))
    site.run("--keep")
    assert site.emails() == users(0, 101)


def test_an_imported_buffer_that_is_put_back_is_not_imported_again(site: Site) -> None:
    site.append(*lines(0, 100))
    site.away()
    site.run()
    copy = site.buffer.read_bytes()
    site.back()
    site.run()
    site.append(line(100))
    site.run()
    site.buffer.write_bytes(copy)
    site.run()
    assert site.emails() == users(0, 101)
    assert site.buffer.read_bytes() == b""


def test_lines_that_were_loaded_again_are_not_loaded_a_third_time_from_a_buffer_that_is_put_back(site: Site) -> None:
    site.append(*lines(0, 10))
    site.run("--keep")
    site.away()
    site.run("--keep", "--again")
    copy = site.buffer.read_bytes()
    site.back()
    site.run()
    site.buffer.write_bytes(copy)
    site.append(line(10))
    site.run()
    assert site.emails() == users(0, 10) + users(0, 11)


def test_an_import_that_finds_the_disk_full_makes_the_room_that_it_needs(site: Site) -> None:
    """What it remembers of the buffer is written once the buffer is empty."""
    with mounts.full(site.folder / "small") as small:
        filler = small / "filler"
        site.set("parser", offline_file=str(small / "buffer.jsonl"))
        filler.unlink()
        site.append(*lines(0, 20))
        site.away()
        site.run()
        buffered = json.loads((small / "buffer.jsonl.state").read_text())["buffered"]
        assert buffered == (small / "buffer.jsonl").stat().st_size
        with contextlib.suppress(OSError), filler.open("wb", buffering=0) as file:
            while True:
                file.write(bytes(4096))
        site.back()
        assert "No space left on device; the next run tries again; make room: df -h" in site.run().stderr
        assert site.emails() == users(0, 20)
        assert json.loads((small / "buffer.jsonl.state").read_text())["buffered"] == 0


def test_a_buffer_stays_if_the_state_file_cannot_forget_it(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its folder was closed to the user, and the next run said that lines were lost which it had imported."""
    site.append(*lines(0, 10))
    site.away()
    site.run()
    site.back()
    with monkeypatch.context() as closed:
        closed.setattr(atomic_file, "replace", refuse)
        for n in (10, 11):
            site.append(line(n))
            assert site.run().stderr.count("expected to replace it, found: Permission denied") == 1
            assert site.emails() == users(0, n + 1)
    site.append(line(12))
    assert site.run().stderr == ""
    assert site.emails() == users(0, 13)
    assert site.buffer.read_bytes() == b""


def refuse(*_: object, **__: object) -> None:
    raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))


@pytest.mark.parametrize("load_path", LOAD_PATHS)
@pytest.mark.parametrize("open_elsewhere", [False, True])
def test_an_older_copy_of_the_buffer_has_nothing_new(site: Site, load_path: str, open_elsewhere: bool) -> None:
    """The copy ends before the place up to which the buffer was imported, and its log was drained since."""
    site.load_path = load_path
    site.away()
    with site.log.open("ab") if open_elsewhere else contextlib.nullcontext():
        site.append(*lines(0, 10))
        site.run()
        copy = site.buffer.read_bytes()
        site.append(*lines(10, 15))
        site.run()
        whole = site.buffer.read_bytes()
        site.back()
        site.append(*lines(15, 20))
        site.run()
        for number, put_back in enumerate((copy, whole, copy), start=20):
            site.buffer.write_bytes(put_back)
            assert "nothing was changed" in site.run("--dry-run").stdout
            site.append(line(number))
            site.run()
            assert site.emails() == users(0, number + 1)


@pytest.mark.parametrize("is_stored", [True, False], ids=["stored", "buffered"])
@pytest.mark.parametrize("more", [5, 20], ids=["shorter", "longer"])
@pytest.mark.parametrize("load_path", LOAD_PATHS)
def test_another_log_that_begins_alike_loses_no_line_in_the_buffer(
    site: Site, load_path: str, is_stored: bool, more: int
) -> None:
    """A machine that is set back to a snapshot goes on with other lines after the same beginning."""
    site.load_path = load_path
    site.append(*lines(0, 60))
    if is_stored:
        site.run("--keep")
    site.away()
    site.run("--keep")
    os.truncate(site.log, sum(len(text) for text in lines(0, 50)))  # more than its fingerprint covers
    assert site.log.stat().st_size > HEAD_BYTES
    site.append(*lines(100, 100 + more))
    site.run("--keep")
    site.append(*lines(200, 210))
    site.run("--keep")
    site.back()
    site.run("--keep")
    twice = users(0, 60) + users(0, 50) + users(100, 100 + more) + users(200, 210)
    assert site.emails() == twice
    site.run()
    assert site.emails() == twice


@pytest.mark.parametrize("is_buffered", [True, False])
def test_a_log_that_was_recognised_without_its_state_is_known_when_it_comes_from_the_buffer(
    site: Site, is_buffered: bool
) -> None:
    """A new installation found the position of the old one, and did not know it any more once the log was drained."""
    site.append(*lines(0, 3))
    site.run("--keep")
    if is_buffered:
        site.away()
        site.run("--keep")
        site.back()
    site.state.unlink()
    site.run("--keep")
    site.append(*lines(3, 10))
    site.away()
    site.run()
    site.back()
    site.run()
    assert site.emails() == users(0, 10)


def test_a_gap_that_is_a_hole_moves_the_position_to_its_end(site: Site) -> None:
    """There is no line in it that would move the position."""
    hole = 16 << 20
    site.append("# a comment\n")
    os.truncate(site.log, hole)
    site.append(*lines(0, 5))
    cfg = config.read(site.config)
    with session.connect(cfg.connection) as conn, logfile.opened(site.log) as log:
        assert log is not None
        schema.ensure(conn)
        target = RunTarget(conn, contextlib.nullcontext)  # type: ignore[arg-type]  # no second session
        origin = offline_buffer.origin("n1", log)
        there = Position.start(target.node_id("n1"), origin.source)
        list(buffer_import.load_from(log, cfg, target, origin, there, hole))
    assert site.query("SELECT position FROM log_positions") == [(hole,)]


def test_an_older_copy_that_was_appended_to_adds_what_is_new(site: Site) -> None:
    """Put back while the database is away: what comes after it is new, and the first batches are known."""
    site.away()
    site.append(*lines(0, 10))
    site.run()
    copy = site.buffer.read_bytes()
    site.append(*lines(10, 20))
    site.run()
    site.back()
    site.run()
    site.buffer.write_bytes(copy)
    site.away()
    site.append(*lines(20, 40))
    site.run()
    site.back()
    site.run()
    assert site.emails() == users(0, 40)


def test_a_buffer_that_an_older_version_imported_in_part_goes_on_there(site: Site) -> None:
    """It kept one position for the whole buffer, known by the first bytes of the file."""
    site.away()
    ends = []
    for start in (0, 10, 20):
        site.append(*lines(start, start + 10))
        site.run()
        ends.append(site.buffer.stat().st_size)
    site.back()
    head = site.buffer.read_bytes()[: min(4096, ends[1])]
    copy = site.buffer.read_bytes()
    site.run()
    site.query("DELETE FROM logs")
    site.query("DELETE FROM log_positions")
    site.query(
        "INSERT INTO log_positions (node_id, source, position, head_length, head) "
        "SELECT id, %s, %s, %s, %s FROM nodes",
        str(site.buffer), ends[1], len(head), hashlib.sha256(head).digest(),
    )  # fmt: skip
    site.buffer.write_bytes(copy)
    installation.state_path(site.buffer).unlink()  # which an older version did not write
    site.run()
    assert site.emails() == users(20, 30)
