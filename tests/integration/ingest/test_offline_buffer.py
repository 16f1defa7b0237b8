"""A buffer that a crash has torn loses only what is still in the log; a damaged one stays for the operator."""

from __future__ import annotations

import os
import re
from collections import Counter
from pathlib import Path

import pytest
from helpers.load_paths import LOAD_PATHS
from helpers.site import Site, line, lines, users

from xraylog.accesslog import buffer_marks, offline_buffer
from xraylog.cli import Exit
from xraylog.records import Origin


def test_a_buffer_cut_anywhere_in_its_last_batch_loses_only_what_is_still_in_the_log(site: Site) -> None:
    site.away()
    site.append(*lines(0, 3))
    site.run("--keep")
    first = site.buffer.read_bytes()
    site.append(*lines(3, 5))
    site.run("--keep")
    whole = site.buffer.read_bytes()
    for cut in range(len(first), len(whole) + 1, 1):
        site.buffer.write_bytes(whole[:cut])
        with offline_buffer.opened(site.buffer) as aside:
            assert not aside.is_empty
            found = [stored.log_end for stored in aside.batches(lambda *_: False)]
        assert found == [sum(map(len, lines(0, n))) for n in ((3, 5) if cut == len(whole) else (3,))]
        assert site.buffer.read_bytes() == (whole if cut == len(whole) else first)
    site.buffer.write_bytes(whole[: len(whole) - 7])
    site.run("--keep")
    assert site.buffered() == users(0, 5)
    site.back()
    site.run()
    assert site.emails() == users(0, 5)


def test_a_buffer_cut_anywhere_in_its_first_batch_is_empty(site: Site) -> None:
    site.away()
    site.append(line(0))
    site.run("--keep")
    whole = site.buffer.read_bytes()
    for cut in range(len(whole)):
        site.buffer.write_bytes(whole[:cut])
        with offline_buffer.opened(site.buffer) as aside:
            assert aside.is_empty
    site.run()
    assert site.buffered() == users(0, 1)


HOLE = 1 << 41  # bytes: to read them takes a quarter of an hour
AFTER_THE_HOLE = {
    "nothing": b"",
    "a mark that says its batch is the hole": b'\n{"mark": {"bytes": %d, "crc32": 1}}\n' % (HOLE // 2),
    "a mark with a hole in it": b'\n{"mark": ',
}


@pytest.mark.parametrize("after", AFTER_THE_HOLE)
def test_a_hole_in_the_buffer_is_neither_read_nor_kept(site: Site, after: str) -> None:
    """It takes no room on the disk, and who may write the buffer can make one of any size."""
    site.away()
    site.append(*lines(0, 3))
    site.run()
    whole = site.buffer.stat().st_size
    with site.buffer.open("r+b") as buffer:
        buffer.seek(whole + HOLE)
        buffer.write(AFTER_THE_HOLE[after])
        buffer.truncate(buffer.tell() + HOLE)
    site.run("--dry-run")
    site.run()
    assert site.buffer.stat().st_size == whole
    torn = site.folder / "buffer.jsonl.torn"
    assert not torn.exists() or torn.stat().st_size < 1 << 20
    site.back()
    site.run()
    assert site.emails() == users(0, 3)


def test_the_buffer_is_not_waited_for_if_a_pipe_takes_its_place(site: Site) -> None:
    """It is created with the first line in it; by then another user can have made a pipe of that name."""
    with offline_buffer.opened(site.buffer) as aside:
        os.mkfifo(site.buffer)
        with pytest.raises(OSError, match="No such device or address"):
            aside.put(offline_buffer.EncodedBatch(0, 0, 1, [b"x"], [], None), Origin("n1", "log", [], None, False))


@pytest.mark.parametrize("place", ["record", "mark"])
def test_a_last_batch_with_lost_blocks_is_cut_off(site: Site, place: str) -> None:
    """After a crash of the machine any block of an unsynced batch may be zeros, with its mark in place."""
    site.away()
    site.append(*lines(0, 3))
    site.run("--keep")
    first = site.buffer.read_bytes()
    site.append(*lines(3, 60))
    site.run("--keep")
    whole = bytearray(site.buffer.read_bytes())
    hole = len(first) + 700 if place == "record" else whole.rindex(b'"heads"')
    whole[hole : hole + 512] = bytes(len(whole[hole : hole + 512]))
    whole[-1:] = b"\n"
    site.buffer.write_bytes(bytes(whole))
    with offline_buffer.opened(site.buffer) as aside:
        assert not aside.is_empty
        assert aside.torn == Path(f"{site.buffer}.torn")
    assert site.buffer.read_bytes() == first


def test_a_damaged_batch_that_looks_torn_is_kept_beside_the_buffer(site: Site) -> None:
    """Drained and damaged later: its lines are nowhere else."""
    site.append(*lines(0, 100))
    site.away()
    site.run()
    damaged = site.buffer.read_bytes().replace(b'"u15"', b'"u1X"')
    site.buffer.write_bytes(damaged)
    site.back()
    done = site.run(status=Exit.OPERATOR)
    torn = Path(f"{site.buffer}.torn")
    found = f"{site.buffer} ended in a torn batch; it is now in {torn}: its lines had left the log, and are missing"
    assert f"{found}; see: less {torn}" in done.stderr
    assert torn.read_bytes() == damaged
    assert torn.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("cut", [1, 200, 5000], ids=["its line end", "in its mark", "in its lines"])
def test_a_batch_that_was_cut_after_it_was_drained_is_kept_beside_the_buffer(site: Site, cut: int) -> None:
    """An editor that leaves out the last line end is enough; what is left of the lines is nowhere else."""
    site.away()
    site.append(*lines(0, 3))
    site.run()
    first = site.buffer.read_bytes()
    site.append(*lines(3, 100))
    site.run()
    os.truncate(site.buffer, site.buffer.stat().st_size - cut)
    left = site.buffer.read_bytes().removeprefix(first)
    site.back()
    done = site.run(status=Exit.OPERATOR)
    torn = Path(f"{site.buffer}.torn")
    assert f"it is now in {torn}: its lines had left the log, and are missing; see: less {torn}" in done.stderr
    assert torn.read_bytes() == left
    assert site.emails() == users(0, 3)
    assert site.run().stderr == ""


def test_a_batch_that_a_crash_tore_comes_again_from_the_log(site: Site) -> None:
    site.append(*lines(0, 100))
    site.away()
    site.run("--keep")
    site.buffer.write_bytes(site.buffer.read_bytes().replace(b'"u15"', b'"u1X"'))
    site.back()
    told = site.run().stderr
    assert f"it is now in {site.buffer}.torn: if that was a crash, its lines are still in the log; otherwise " in told
    assert site.emails() == users(0, 100)


def test_more_than_one_damaged_batch_is_no_torn_end(site: Site) -> None:
    site.away()
    for start in range(0, 30, 10):
        site.append(*lines(start, start + 10))
        site.run()
    damaged = site.buffer.read_bytes().replace(b'"tcp"', b'"TCP"')
    site.buffer.write_bytes(damaged)
    site.append(line(40))
    assert "a checksum that does not fit" in site.run(status=3).stderr
    assert site.buffer.read_bytes() == damaged
    assert site.log.read_bytes().endswith(line(40).encode())


def test_a_damaged_mark_in_the_middle_does_not_stop_new_lines(site: Site) -> None:
    site.away()
    for start in range(0, 30, 10):
        site.append(*lines(start, start + 10))
        site.run("--keep")
    whole = site.buffer.read_bytes()
    marks = [match.start() for match in re.finditer(rb'{"mark"', whole)]
    site.buffer.write_bytes(whole[: marks[1] + 20] + bytes(20) + whole[marks[1] + 40 :])
    site.append(*lines(30, 35))
    site.run("--keep")
    buffered = re.findall(r'"email": "(\w+)"', site.buffer.read_text())
    assert Counter(buffered) == users(0, 35)
    site.back()
    assert "expected one of our batches" in site.run(status=3).stderr
    assert site.emails() == users(0, 10)
    broken = site.buffer.read_bytes()
    site.buffer.write_bytes(whole[: marks[1] + 40] + broken[marks[1] + 40 :])
    site.run()
    assert site.emails() == users(0, 35)


def test_a_first_batch_of_zeros_is_no_foreign_buffer(site: Site) -> None:
    site.append(*lines(0, 10))
    site.away()
    site.run("--keep")
    site.buffer.write_bytes(bytes(site.buffer.stat().st_size))
    site.run("--keep")
    assert site.buffered() == users(0, 10)


def test_marks_are_found_across_the_edges_of_windows(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    site.away()
    site.append(*lines(0, 5))
    site.run("--keep")
    size = site.buffer.stat().st_size
    for window in range(12, size + 20):
        monkeypatch.setattr(buffer_marks, "WINDOW_BYTES", window)
        with offline_buffer.opened(site.buffer) as aside:
            assert not aside.is_empty
    assert site.buffer.stat().st_size == size


def test_a_buffer_that_is_longer_than_what_was_imported_is_not_cleared(site: Site) -> None:
    site.away()
    site.append(*lines(0, 3))
    site.run()
    before = site.buffer.read_bytes()
    with offline_buffer.opened(site.buffer) as buffer:
        with pytest.raises(offline_buffer.Damaged, match=f"expected it to end at byte 7, found {len(before)}"):
            buffer.clear(7)
        assert site.buffer.read_bytes() == before
        buffer.clear(len(before))
    assert site.buffer.read_bytes() == b""


def test_a_file_that_is_no_buffer_is_left_alone(site: Site) -> None:
    site.buffer.write_text('{"precious": 1}\n')
    site.append(line(1))
    assert "expected our buffer" in site.run(status=3).stderr
    assert site.buffer.read_text() == '{"precious": 1}\n'
    assert site.log.read_bytes() == line(1).encode()


@pytest.mark.parametrize("load_path", LOAD_PATHS)
def test_what_is_before_the_damage_is_imported(site: Site, load_path: str) -> None:
    site.set("parser", batch_size="5")
    site.load_path = load_path
    site.away()
    site.append(*lines(0, 20))
    site.run()
    site.buffer.write_bytes(site.buffer.read_bytes().replace(b'"u12"', b'"uXX"'))
    site.back()
    for _ in range(2):
        assert "a checksum that does not fit" in site.run(status=3).stderr
        assert site.emails() == users(0, 10)
    site.buffer.write_bytes(site.buffer.read_bytes().replace(b'"uXX"', b'"u12"'))
    site.run()
    assert site.emails() == users(0, 20)


def test_a_buffer_damaged_in_its_middle_is_reported_and_new_lines_are_safe(site: Site) -> None:
    site.away()
    for start in (0, 5):
        site.append(*lines(start, start + 5))
        site.run()
    whole = site.buffer.read_bytes()
    site.buffer.write_bytes(whole.replace(b'"u2"', b'"uX"'))
    site.back()
    site.append(*lines(10, 12))
    assert "a checksum that does not fit" in site.run(status=3).stderr
    assert site.emails() == Counter()
    site.buffer.write_bytes(site.buffer.read_bytes().replace(b'"uX"', b'"u2"'))
    site.run()
    assert site.emails() == users(0, 12)


CUTS = ["inside the last batch", "between two batches", "to nothing", "taken away"]


def cut(site: Site, where: str) -> bytes:
    """Take a part of the buffer out of it, as another program or a person would; return what it was."""
    whole = site.buffer.read_bytes()
    between = whole.index(b"\n", whole.index(b'{"mark"')) + 1
    ends = {"inside the last batch": len(whole) - 100, "between two batches": between, "to nothing": 0}
    if where in ends:
        os.truncate(site.buffer, ends[where])
    else:
        site.buffer.unlink()
    return whole


@pytest.mark.parametrize("where", CUTS)
@pytest.mark.parametrize("is_back", [False, True])
def test_a_buffer_that_others_cut_is_an_error_once_and_a_copy_brings_the_lines(
    site: Site, where: str, is_back: bool
) -> None:
    site.away()
    for start in (0, 4):
        site.append(*lines(start, start + 4))
        site.run()
    whole = cut(site, where)
    found = f"{site.buffer}: expected the {len(whole)} bytes that a run left there, found "
    assert found in site.run("--check", status=3).stdout
    site.append(*lines(8, 12))
    if is_back:
        site.back()
    told = site.run(status=Exit.OPERATOR).stderr
    assert found in told
    assert "; the lines in the missing bytes had left the log, and are lost; if there is a copy: let a run " in told
    assert found not in site.run().stderr
    if not is_back:
        site.back()
        site.run()
    site.buffer.write_bytes(whole)
    site.run()
    assert site.emails() == users(0, 12)
    assert site.run().stderr == ""


def test_a_buffer_that_was_imported_is_not_taken_for_one_that_others_cut(site: Site) -> None:
    site.away()
    site.append(*lines(0, 4))
    site.run()
    site.back()
    assert site.run().stderr == ""
    site.away()
    site.append(*lines(4, 5))
    assert "expected the" not in site.run().stderr
    site.back()
    assert site.run().stderr == ""
    assert site.emails() == users(0, 5)


def test_lines_that_are_still_in_their_log_come_into_the_buffer_again(site: Site) -> None:
    site.away()
    site.append(*lines(0, 4))
    site.run("--keep")
    cut(site, "inside the last batch")
    assert "expected the" not in site.run("--keep").stderr
    site.back()
    assert site.run().stderr == ""
    assert site.emails() == users(0, 4)


DAMAGE: dict[str, tuple[bytes, bytes, str]] = {  # what of it becomes what, and what is found
    "a header that is no JSON": (b'"node"', b'"node', "expected our header in its first line, found another"),
    "a header without a node": (b'"node"', b'"mode"', "expected our header in its first line, found another"),
    "a header of zeros": (b'{"buffer": "', bytes(12), "expected our header in its first line, found "),
    "a hole in the first batch": (b'{"timestamp"', bytes(1 << 20), "expected "),
}


@pytest.mark.parametrize("what", DAMAGE)
def test_a_damaged_buffer_stays_as_it_is_and_new_lines_are_safe(site: Site, what: str) -> None:
    part, becomes, found = DAMAGE[what]
    site.away()
    for start in (0, 3):
        site.append(*lines(start, start + 3))
        site.run()
    site.back()
    damaged = site.buffer.read_bytes().replace(part, becomes, 1)
    site.buffer.write_bytes(damaged)
    assert found in site.run("--check", status=Exit.OPERATOR).stdout
    site.append(*lines(6, 9))
    told = site.run(status=Exit.OPERATOR).stderr
    assert found in told
    assert site.buffer.read_bytes().startswith(damaged)
    (way_out,) = re.findall(r"to continue with a new buffer: mv -T (\S+) (\S+)", told)
    os.rename(*way_out)
    site.append(*lines(9, 12))
    assert site.run().stderr == ""
    kept = Counter(re.findall(r'"email": "(\w+)"', Path(way_out[1]).read_text()))
    assert site.emails() + kept == users(0, 12)
    site.away()
    site.append(*lines(12, 13))
    site.run()
    site.buffer.unlink()  # what was moved away is no other buffer's excuse
    assert "expected the " in site.run(status=Exit.OPERATOR).stderr
