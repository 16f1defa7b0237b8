"""Stored lines leave the log while others append to it, and a log is always recognised for what it is."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import gzip
import itertools
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers import mounts
from hypothesis import given
from hypothesis import strategies as st

from xraylog.accesslog import archive, drain, file_system, logfile
from xraylog.accesslog.logfile import BLOCK_BYTES, HEAD_BYTES, MARK, MARK_BYTES, LogFile

LIMIT = 1 << 40  # truncate_above that no test's log reaches


@contextlib.contextmanager
def opened(path: Path) -> Iterator[LogFile]:
    with logfile.opened(path) as log:
        assert log is not None
        yield log


@contextlib.contextmanager
def held_open(path: Path) -> Iterator[int]:
    """The file, open for appending as xray has it: no lease is granted meanwhile."""
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND)
    yield descriptor
    os.close(descriptor)


@pytest.fixture
def log_path(tmp_path: Path) -> Path:
    return tmp_path / "access.log"


@pytest.fixture
def shm_path() -> Iterator[Path]:
    """A file on tmpfs, which cannot collapse."""
    path = Path(f"/dev/shm/xraylog-test-{os.getpid()}.log")  # noqa: S108  # the one tmpfs that is always there
    yield path
    path.unlink(missing_ok=True)


def read_all(path: Path, start: int = 0) -> bytes:
    with opened(path) as log:
        return b"".join(text for _, text in log.blocks(start))


# --- reading


@given(texts=st.lists(st.binary(max_size=30), max_size=20), start=st.integers(0, 20))
def test_only_complete_lines_are_read(tmp_path_factory: pytest.TempPathFactory, texts: list[bytes], start: int) -> None:
    data = b"\n".join(texts)
    path = tmp_path_factory.mktemp("log") / "access.log"
    path.write_bytes(data)
    start = min(start, len(data))
    complete = data[start : data.rfind(b"\n") + 1]
    found = read_all(path, start)
    assert found.strip(b"\0\n") == complete.strip(b"\0\n")  # holes and blanks round the lines may be left out
    assert len(found) <= len(complete)


def test_a_line_longer_than_a_block_is_one_line(log_path: Path) -> None:
    long = b"x" * (3 * BLOCK_BYTES + 7) + b"\n"
    log_path.write_bytes(b"a\n" + long + b"b\n" + b"no end yet")
    with opened(log_path) as log:
        blocks = list(log.blocks(0))
    assert b"".join(text for _, text in blocks) == b"a\n" + long + b"b\n"
    ends = [start + len(text) for start, text in blocks]
    assert [start for start, _ in blocks] == [0, *ends[:-1]]


def test_a_hole_is_passed_over_however_large(log_path: Path) -> None:
    """A writer without O_APPEND goes on at its old offset after a truncation (docs/architecture.md#draining)."""
    size = 64 * BLOCK_BYTES + 5
    with log_path.open("wb") as file:
        file.truncate(size)
        file.seek(size)
        file.write(b"line\n")
    with opened(log_path) as log:
        ((start, text),) = log.blocks(0)
    assert start + len(text) == size + 5
    assert text.lstrip(b"\0") == b"line\n"
    assert len(text) <= BLOCK_BYTES + 5


def test_blanks_that_a_drain_left_are_passed_over_a_block_at_a_time(log_path: Path) -> None:
    log_path.write_bytes(b"# a mark\n" + b"\n" * (8 * BLOCK_BYTES) + b"line\n")
    with opened(log_path) as log:
        blocks = list(log.blocks(0))
    assert len(blocks) == 2
    assert blocks[-1][1].strip() == b"line"
    assert blocks[-1][0] + len(blocks[-1][1]) == log_path.stat().st_size


def test_a_hole_after_lines_is_skipped_too(log_path: Path) -> None:
    with log_path.open("wb") as file:
        file.write(b"first\n")
        file.seek(20 * BLOCK_BYTES + 7)
        file.write(b"line\n")
    with opened(log_path) as log:
        blocks = list(log.blocks(0))
    assert [text.strip(b"\0") for _, text in blocks] == [b"first\n", b"line\n"]
    assert blocks[-1][0] + len(blocks[-1][1]) == 20 * BLOCK_BYTES + 12
    assert all(len(text) <= BLOCK_BYTES + 12 for _, text in blocks)


@pytest.mark.parametrize("change", ["truncate", "replace the head", "cut"])
def test_a_log_that_is_changed_while_it_is_read_is_noticed(log_path: Path, change: str) -> None:
    line = b"%07d\n"
    log_path.write_bytes(b"".join(line % n for n in range(BLOCK_BYTES // 4)))
    with opened(log_path) as log:
        blocks = log.blocks(0)
        _, first = next(blocks)
        match change:
            case "truncate":
                os.truncate(log_path, 0)
            case "replace the head":
                with log_path.open("r+b") as file:
                    file.write(b"another\n")
            case "cut":
                os.truncate(log_path, BLOCK_BYTES)
        rest = b"".join(text for _, text in blocks)
        assert log.replaced
        assert first + rest == b"".join(line % n for n in range(BLOCK_BYTES // 8))
        with pytest.raises(drain.Replaced):
            drain.drain(log, BLOCK_BYTES * 2, LIMIT)


@pytest.mark.parametrize("kind", ["folder", "fifo"])
def test_what_is_no_regular_file_is_refused(tmp_path: Path, kind: str) -> None:
    path = tmp_path / kind
    path.mkdir() if kind == "folder" else os.mkfifo(path)
    with pytest.raises(logfile.Unusable, match=str(path)), logfile.opened(path):
        pass


def test_a_missing_log_is_none(log_path: Path) -> None:
    with logfile.opened(log_path) as log:
        assert log is None


# --- identity


@given(texts=st.lists(st.binary(max_size=200).map(lambda b: b.replace(b"\n", b" ")), min_size=1, max_size=60))
def test_a_position_at_any_line_end_is_found_again_after_the_file_grew(
    tmp_path_factory: pytest.TempPathFactory, texts: list[bytes]
) -> None:
    path = tmp_path_factory.mktemp("log") / "access.log"
    data = b"".join(text + b"\n" for text in texts)
    for end in (at + 1 for at, byte in enumerate(data) if byte == 10):
        path.write_bytes(data[:end])
        with opened(path) as log:
            fingerprint = log.fingerprint(end)
        path.write_bytes(data)
        with opened(path) as log:
            assert fingerprint in log.fingerprints()
            assert log.fingerprint(end) == fingerprint


def test_files_that_differ_in_their_first_bytes_have_no_fingerprint_in_common(tmp_path: Path) -> None:
    found = []
    for name in ("a", "b"):
        (tmp_path / name).write_bytes(name.encode() + b" line\n" * 2000)
        with opened(tmp_path / name) as log:
            found.append(set(log.fingerprints()))
    assert found[0]
    assert not found[0] & found[1]


# --- draining


def is_blank(text: bytes) -> bool:
    """Nothing in it that the parser would not skip."""
    return text.endswith(b"\n") and all(line[:1] in (b"", b"#") for line in text.split(b"\n"))


LENGTHS = [64, 65, 4095, 4096, 4097, 4159, 4160, 4161, 8191, 8192, 8193, 8256, 12288, 100_000]


def numbered(length: int) -> bytes:
    """Return different lines, `length` bytes in total."""
    data = b"".join(b"line %06d\n" % n for n in range(length // 12 + 1))[: length - 1]
    return data.replace(b"\n", b"\n") + b"\n"


@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("later", [b"", b"new\n", b"half a li"])
def test_draining_an_open_log_leaves_a_mark_and_what_came_later(log_path: Path, length: int, later: bytes) -> None:
    log_path.write_bytes(numbered(length) + later)
    with held_open(log_path) as writer, opened(log_path) as log:
        old, known = set(log.fingerprints()), log.fingerprint(length)
        drained = drain.drain(log, length, LIMIT)
        assert not drained.unsupported
        assert not drain.truncate_if_drained(log, drained.offset, LIMIT)
        os.write(writer, b"appended\n")
        text = log_path.read_bytes()
        assert text[drained.offset :] == later + b"appended\n"
        assert MARK.match(text)
        assert is_blank(text[: drained.offset])
        assert log.previous_digest == known.digest[:14]
        assert drained.offset < HEAD_BYTES + MARK_BYTES
        assert drained.fingerprint in log.fingerprints()
        assert drained.fingerprint not in old


@pytest.mark.parametrize("length", LENGTHS)
def test_a_log_that_nobody_else_has_open_ends_up_empty(log_path: Path, length: int) -> None:
    log_path.write_bytes(numbered(length))
    with opened(log_path) as log:
        drained = drain.drain(log, length, LIMIT)
        assert drain.truncate_if_drained(log, drained.offset, LIMIT)
    assert log_path.read_bytes() == b""


def test_a_log_that_grew_is_not_emptied(log_path: Path) -> None:
    log_path.write_bytes(numbered(5000) + b"later\n")
    with opened(log_path) as log:
        drained = drain.drain(log, 5000, LIMIT)
        assert not drain.truncate_if_drained(log, drained.offset, LIMIT)
    assert log_path.read_bytes().endswith(b"\nlater\n")


def test_equal_logs_have_different_heads_once_they_are_drained(tmp_path: Path) -> None:
    """Heads of nothing but line feeds looked alike: 256 of 1,024 lines were stored (docs/architecture.md#draining)."""
    heads = set()
    for name in "abc":
        path = tmp_path / name
        path.write_bytes(numbered(4096))
        with held_open(path), opened(path) as log:
            heads.add(drain.drain(log, 4096, LIMIT).fingerprint)
    assert len(heads) == 3


def test_a_few_bytes_are_left_as_they_are(log_path: Path) -> None:
    log_path.write_bytes(b"\n" * (MARK_BYTES - 1))
    with opened(log_path) as log:
        assert drain.drain(log, MARK_BYTES - 1, LIMIT).offset == MARK_BYTES - 1
        assert not drain.truncate_if_drained(log, MARK_BYTES - 1, LIMIT)
    assert log_path.read_bytes() == b"\n" * (MARK_BYTES - 1)


def test_a_log_with_nothing_but_our_mark_is_distinguished_from_one_with_a_line(log_path: Path) -> None:
    log_path.write_bytes(numbered(4100))
    with held_open(log_path) as writer:
        with opened(log_path) as log:
            assert not log.is_drained()
            drain.drain(log, 4100, LIMIT)
        with opened(log_path) as log:
            assert log.is_drained()
        os.write(writer, b"x")
        with opened(log_path) as log:
            assert not log.is_drained()


@pytest.mark.parametrize("length", [HEAD_BYTES + 64, HEAD_BYTES + 1500, 5 * HEAD_BYTES, 3 * BLOCK_BYTES + 100])
@pytest.mark.parametrize("written", [0, 1, 500, HEAD_BYTES - 1])
def test_a_drain_that_is_cut_short_leaves_no_other_log(
    log_path: Path, monkeypatch: pytest.MonkeyPatch, length: int, written: int
) -> None:
    """Until its head changes, it has the old position: its text before that must not look like another log's."""
    pwrite = os.pwrite
    for step in itertools.count():
        log_path.write_bytes(numbered(length))
        writes = iter(range(step))

        def cut_short(descriptor: int, data: bytes, at: int, left: Iterator[int] = writes) -> int:
            if next(left, None) is not None:
                return pwrite(descriptor, data, at)
            pwrite(descriptor, data[:written], at)
            raise OSError(errno.EIO, os.strerror(errno.EIO))

        with held_open(log_path), opened(log_path) as log, monkeypatch.context() as patch:
            before = log.fingerprint(length), log.tail(length)
            patch.setattr(os, "pwrite", cut_short)
            try:
                drain.drain(log, length, LIMIT)
            except OSError:
                log.reread_head()
            else:
                break
            assert (
                log.fingerprint(length) != before[0]
                or log.tail(length) == before[1]
                or drain.was_cut_short(log, length)
            )
    assert step > 1


def test_no_line_of_a_log_is_taken_for_what_a_drain_left(log_path: Path) -> None:
    log_path.write_bytes(numbered(2 * BLOCK_BYTES))
    with opened(log_path) as log:
        assert not any(drain.was_cut_short(log, end) for end in (1, 100, HEAD_BYTES, BLOCK_BYTES, 2 * BLOCK_BYTES))


def test_a_head_changes_in_one_write_within_a_page(log_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed between two writes, the file has its old head or a mark with nothing but blanks after it."""
    length, states = HEAD_BYTES + 63, []
    log_path.write_bytes(numbered(length))
    before = log_path.read_bytes()
    pwrite = os.pwrite

    def spy(descriptor: int, data: bytes, at: int) -> int:
        assert at // HEAD_BYTES == (at + len(data) - 1) // HEAD_BYTES or at > 0
        written = pwrite(descriptor, data, at)
        states.append(log_path.read_bytes())
        return written

    monkeypatch.setattr(os, "pwrite", spy)
    with held_open(log_path), opened(log_path) as log:
        drain.drain(log, length, LIMIT)
    *blanked, drained = states
    assert {state[:HEAD_BYTES] for state in blanked} == {before[:HEAD_BYTES]}
    assert MARK.match(drained)
    assert is_blank(drained)


def test_a_lease_is_not_granted_while_another_process_has_the_log_open(log_path: Path) -> None:
    log_path.write_bytes(b"a line\n")
    with opened(log_path) as log:
        assert drain.is_exclusive(log)
        reader = log_path.open()
        with subprocess.Popen(
            [sys.executable, "-c", "input()"], stdin=subprocess.PIPE, pass_fds=[reader.fileno()]
        ) as other:
            reader.close()
            assert not drain.is_exclusive(log)
            other.communicate(b"\n")
        assert drain.is_exclusive(log)


def test_who_waits_for_a_lease_does_not_kill_us(log_path: Path) -> None:
    """The kernel sends SIGIO when another process opens a leased file; its default is to end the process."""
    log_path.write_bytes(numbered(100))
    with opened(log_path) as log, drain._lease(log) as alone:
        assert alone
        code = f"import os; os.close(os.open({str(log_path)!r}, os.O_WRONLY | os.O_NONBLOCK))"
        refused = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False, timeout=30)
        assert b"BlockingIOError" in refused.stderr  # it did meet the lease


def test_a_read_only_log_is_read_and_left(log_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log_path.write_bytes(numbered(5000))
    real_open = os.open

    def refusing(path: Path, flags: int, *mode: int, **options: int) -> int:
        if flags & os.O_RDWR:
            raise PermissionError(13, "Permission denied")
        return real_open(path, flags, *mode, **options)

    monkeypatch.setattr(os, "open", refusing)  # root may write everything
    with opened(log_path) as log:
        assert not log.writable
        assert b"".join(text for _, text in log.blocks(0)) == numbered(5000)
        log.sync()
        assert drain.drain(log, 5000, LIMIT).offset == 5000
    assert log_path.read_bytes() == numbered(5000)


# --- where the file system cannot collapse


def test_an_open_log_on_tmpfs_keeps_its_lines(shm_path: Path) -> None:
    shm_path.write_bytes(numbered(100_000))
    with held_open(shm_path), opened(shm_path) as log:
        assert not drain.supports_collapse(log)
        drained = drain.drain(log, 100_000, LIMIT)
        assert drained.unsupported
        assert drained.offset == 100_000
    assert shm_path.read_bytes() == numbered(100_000)


def test_an_open_log_on_tmpfs_is_truncated_when_it_is_large_and_has_not_grown(shm_path: Path) -> None:
    shm_path.write_bytes(numbered(100_000))
    with held_open(shm_path) as writer, opened(shm_path) as log:
        drained = drain.drain(log, 100_000, 99_999)
        assert not drained.unsupported
        os.write(writer, b"later\n")
        assert not drain.truncate_if_drained(log, drained.offset, 99_999)
        assert shm_path.read_bytes().endswith(b"\nlater\n")
        drained = drain.drain(log, 100_006, 99_999)
        assert drain.truncate_if_drained(log, drained.offset, 99_999)
    assert shm_path.read_bytes() == b""


def test_a_closed_log_on_tmpfs_ends_up_empty(shm_path: Path) -> None:
    shm_path.write_bytes(numbered(100_000))
    with opened(shm_path) as log:
        drained = drain.drain(log, 100_000, LIMIT)
        assert is_blank(shm_path.read_bytes())
        assert drain.truncate_if_drained(log, drained.offset, LIMIT)
    assert shm_path.read_bytes() == b""


def test_a_hole_stays_one_when_the_log_is_drained(shm_path: Path) -> None:
    """A writer without O_APPEND leaves it; line feeds in it would fill a tmpfs, and xray's own writes would fail."""
    hole = 300 << 20
    with shm_path.open("wb") as writer, opened(shm_path) as log:
        writer.seek(hole)
        writer.write(numbered(200_000))
        writer.flush()
        drained = drain.drain(log, hole + 200_000, 199_999)
        assert not drained.unsupported
        assert log.stat.st_blocks * 512 < 1 << 20
        assert MARK.match(log.read(0, MARK_BYTES))
        assert is_blank(log.read(hole, 200_000))
        assert drain.truncate_if_drained(log, drained.offset, 199_999)
    assert shm_path.read_bytes() == b""


def test_a_writer_without_o_append_reaches_a_steady_size_on_tmpfs(shm_path: Path) -> None:
    """`xray > access.log`: after a truncation the file is as long as before, and nearly all of it is a hole."""
    limit, found, truncated, position = 300_000, b"", [], 0
    with shm_path.open("wb", buffering=0) as writer:
        for number in range(12):
            writer.write(b"line %d\n" % number + numbered(100_000))
            with opened(shm_path) as log:
                text = b"".join(text for _, text in log.blocks(position))
                found += text.replace(b"\0", b"")
                position = log.size
                drained = drain.drain(log, position, limit)
                if not drained.unsupported and drain.truncate_if_drained(log, drained.offset, limit):
                    truncated.append(number)
                    position = 0
                assert log.stat.st_blocks * 512 < limit + 200_000
    assert truncated == [2, 5, 8, 11]  # not in every run: each has the moment in which a line can be lost
    assert found == b"".join(b"line %d\n" % number + numbered(100_000) for number in range(12))


def test_a_hole_larger_than_any_disk_is_not_read(shm_path: Path) -> None:
    hole = 1 << 42
    with shm_path.open("wb") as writer:
        writer.write(b"a\n")
        writer.truncate(hole)
        writer.seek(hole)
        writer.write(b"b\n")
    with opened(shm_path) as log:
        blocks = list(log.blocks(0))
    assert [text.strip(b"\0") for _, text in blocks] == [b"a\n", b"b\n"]
    assert blocks[-1][0] + len(blocks[-1][1]) == hole + 2


@pytest.mark.parametrize(
    ("kind", "block", "collapses"), [("ext4", 1024, True), ("ext4", 2048, True), ("ext3", 1024, False)]
)
def test_a_file_system_with_small_blocks_says_whether_it_can_collapse(
    tmp_path: Path, kind: str, block: int, collapses: bool
) -> None:
    """Their largest file is smaller than that of ext4 with blocks of 4 KiB."""
    with mounts.image(tmp_path, kind, block) as folder:
        path = folder / "access.log"
        path.write_bytes(numbered(100_000))
        with held_open(path) as writer, opened(path) as log:
            assert drain.supports_collapse(log) == collapses
            drained = drain.drain(log, 100_000, LIMIT)
            assert drained.unsupported != collapses
            os.write(writer, b"later\n")
            assert log.read(drained.offset, 100) == b"later\n"
            assert (log.size < 10_000) == collapses
        assert file_system.name(path) == kind
        assert file_system.name(tmp_path) != "this file system"


@pytest.mark.parametrize(
    ("largest", "error", "collapses"), [(1 << 42, 22, True), (1 << 42, 95, False), (1 << 31, 95, False), (1, 22, False)]
)
def test_past_the_largest_file_less_is_asked_for(
    log_path: Path, monkeypatch: pytest.MonkeyPatch, largest: int, error: int, collapses: bool
) -> None:
    def collapse(_: int, length: int) -> None:
        raise OSError(27 if length > largest else error, "")

    monkeypatch.setattr(file_system, "collapse", collapse)
    log_path.write_bytes(numbered(100))
    with opened(log_path) as log:
        assert file_system.can_collapse(log.descriptor) == collapses


@pytest.mark.parametrize("error", [22, 5])
def test_a_log_whose_blocks_cannot_be_taken_out_keeps_its_length(
    log_path: Path, monkeypatch: pytest.MonkeyPatch, error: int
) -> None:
    """Where no block size fits, it is known by its old beginning. Another error is the disk's: it is raised."""

    def collapse(_: int, length: int) -> None:
        raise OSError(error, f"not {length} bytes")

    monkeypatch.setattr(file_system, "can_collapse", lambda _: True)
    monkeypatch.setattr(file_system, "collapse", collapse)
    length = 3 * logfile.LARGE_BLOCK
    log_path.write_bytes(numbered(length))
    ends = contextlib.nullcontext() if error == 22 else pytest.raises(OSError, match=r"not [0-9]+ bytes")
    with held_open(log_path), opened(log_path) as log, ends:
        assert drain.drain(log, length, LIMIT) == drain.Drained(length, log.fingerprint(length))
    assert log_path.stat().st_size == length
    assert log_path.read_bytes()[:HEAD_BYTES] == numbered(length)[:HEAD_BYTES]


def test_a_file_system_without_locks_of_its_own_is_no_obstacle(log_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The lock file beside the log keeps other runs off."""

    def flock(*_: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", flock)
    log_path.write_bytes(numbered(100))
    with opened(log_path) as log:
        assert log.size == 100


@pytest.mark.parametrize("offset", [1, 64, 5_000, 100_000])
def test_a_compressed_log_is_known_by_the_same_bytes_as_its_text(log_path: Path, tmp_path: Path, offset: int) -> None:
    """So a position in a log holds for the file that rotation made of it."""
    log_path.write_bytes(numbered(100_000))
    packed = tmp_path / "access.log.1.gz"
    packed.write_bytes(gzip.compress(log_path.read_bytes()))
    with opened(log_path) as log, packed.open("rb") as file:
        archived = archive.Archive(packed, file.fileno())
        assert archived.tail(offset) == log.tail(offset)
        assert archived.fingerprint(offset) == log.fingerprint(offset)


def test_a_block_size_that_does_not_fit_is_tried_larger(log_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """ext4 with bigalloc refuses 4096 with EINVAL; so does this stand-in."""
    real = file_system.collapse
    asked = []

    def bigalloc(descriptor: int, length: int) -> None:
        asked.append(length)
        if length % logfile.LARGE_BLOCK:
            raise OSError(22, "Invalid argument")
        real(descriptor, length)

    monkeypatch.setattr(file_system, "collapse", bigalloc)
    length = 3 * logfile.LARGE_BLOCK + 5000
    log_path.write_bytes(numbered(length))
    with held_open(log_path), opened(log_path) as log:
        drained = drain.drain(log, length, LIMIT)
    assert asked[-1] == 3 * logfile.LARGE_BLOCK
    assert drained.offset == 5000
    assert is_blank(log_path.read_bytes())


def test_a_line_of_the_buffer_is_read_however_long_it_is(log_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logfile, "LARGE_BLOCK", 16)
    log_path.write_bytes(b"first\n" + b"x" * 50 + b"\n" + b"y" * 20 + b"\0" * 20)
    with opened(log_path) as log:
        assert log.line_at(0) == b"first\n"
        assert log.line_at(6) == b"x" * 50 + b"\n"
        assert log.line_at(57) == b"y" * 16  # it has no end, but a hole
