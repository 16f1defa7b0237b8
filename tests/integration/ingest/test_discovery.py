"""Old logs, compressed or piped in, are read to their end, left as they are, and stored once."""

from __future__ import annotations

import bz2
import errno
import functools
import gzip
import io
import itertools
import lzma
import os
import random
import shlex
import subprocess
import sys
import tempfile
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from helpers.load_paths import ATTACH, KEYS_IN_BULK, ROW_BY_ROW
from helpers.site import Site, day, line, lines, users
from helpers.zstandard import IN_PYTHON, zstd
from hypothesis import example, given, settings
from hypothesis import strategies as st

from xraylog.accesslog import archive, discovery, logfile
from xraylog.accesslog.logfile import BLOCK_BYTES
from xraylog.cli import Exit

Pack = Callable[[bytes], bytes]


def members(text: bytes) -> bytes:
    """Two gzip files, one after the other, cut in the middle of a line."""
    middle = len(text) // 2
    return gzip.compress(text[:middle]) + gzip.compress(text[middle:])


def in_two(pack: Pack) -> Pack:
    """Two streams, one after the other, cut in the middle of a line."""
    return lambda text: pack(text[: len(text) // 2]) + pack(text[len(text) // 2 :])


# zstd's own program writes checksums, its module by default none; small blocks of bzip2 are lost one by one.
STREAMS: dict[str, Pack] = {
    "xz": lzma.compress,
    "bz2": functools.partial(bz2.compress, compresslevel=1),
    "zst": functools.partial(zstd.compress, options={zstd.CompressionParameter.checksum_flag: 1}),
}
PACKS = {
    "gz": gzip.compress,
    "gz of two members": members,
    **STREAMS,
    **{f"{name} of two streams": in_two(pack) for name, pack in STREAMS.items()},
}
ONE_PACK = pytest.mark.parametrize("pack", [gzip.compress, *STREAMS.values()], ids=["gz", *STREAMS])
# Those that a process of its own can read, too: before Python 3.14 the tests alone have zstd.
OWN_PROCESS = [name for name in PACKS if "zst" not in name or IN_PYTHON]
ANY_PACK = pytest.mark.parametrize("pack", PACKS.values(), ids=PACKS)


def text(first: int, end: int, at: str = "2025/11/17 10:15:23.123456") -> bytes:
    return "".join(lines(first, end, at)).encode()


def packed(site: Site, name: str, data: bytes) -> str:
    """A file in the site's folder; its path."""
    path = site.folder / name
    path.write_bytes(data)
    return str(path)


def load(site: Site, *names: str, status: int = 0) -> None:
    """One run of these logs in a forked child. An option may stand among them."""
    arguments = itertools.chain.from_iterable([name] if name[:2] == "--" else ["--logfile", name] for name in names)
    assert site.run_here(*arguments) == status, site.output()[-2000:]


def positions(site: Site) -> list[tuple[str, int]]:
    """Of logs, without what the database counts and what it imported from a buffer."""
    found = site.query("SELECT source, position FROM log_positions WHERE stored_from = 0")
    return [(Path(source).name, at) for source, at in found]


def read_all(data: bytes, start: int = 0) -> list[tuple[int, bytes]]:
    with tempfile.TemporaryFile() as file:
        file.write(data)
        file.flush()
        return list(archive.Archive(Path("a.gz"), file.fileno()).blocks(start))


# --- compressed logs


@ANY_PACK
def test_a_compressed_log_is_loaded_once_and_stays(site: Site, pack: Pack) -> None:
    """Whatever its name is: what it is, its first bytes say."""
    data = text(0, 200)
    name = packed(site, "access.log.2", pack(data))
    before = Path(name).stat()
    for _ in range(2):
        load(site, name)
        assert site.emails() == users(0, 200)
        assert positions(site) == [("access.log.2", len(data))]
    after = Path(name).stat()
    assert (after.st_mtime_ns, after.st_size) == (before.st_mtime_ns, before.st_size)
    assert not list(site.folder.glob("*.2.lock"))  # it is never changed: it needs no lock
    load(site, name, "--again")
    load(site, name)
    assert site.emails() == users(0, 200) + users(0, 200)
    assert positions(site) == [("access.log.2", len(data))]


@ONE_PACK
@pytest.mark.parametrize("stored", [0, 40, 200])
def test_of_a_log_that_is_compressed_after_it_was_stored_the_rest_is_added(site: Site, pack: Pack, stored: int) -> None:
    site.append(text(0, stored))
    assert site.run_here("--keep") == 0
    site.append(text(stored, 200))
    name = packed(site, "access.log.1.gz", pack(site.log.read_bytes()))
    site.log.unlink()
    load(site, name)
    assert site.emails() == users(0, 200)


def test_a_log_that_was_drained_before_it_was_rotated_and_compressed_goes_on(site: Site) -> None:
    with site.log.open("ab"):  # as xray has it: the drained log keeps its mark
        site.append(text(0, 100))
        assert site.run_here() == 0
    site.append(text(100, 130))
    name = packed(site, "access.log.1.gz", gzip.compress(site.log.read_bytes()))
    load(site, name)
    assert site.emails() == users(0, 130)


def test_a_copy_with_fewer_lines_than_are_stored_adds_nothing(site: Site) -> None:
    site.append(text(0, 100))
    assert site.run_here("--keep") == 0
    load(site, packed(site, "early.gz", gzip.compress(text(0, 60))))
    site.append(text(100, 110))
    assert site.run_here() == 0
    assert site.emails() == users(0, 110)


@pytest.mark.parametrize("pack", [PACKS[name] for name in OWN_PROCESS], ids=OWN_PROCESS)
def test_an_empty_archive_is_a_quiet_success_without_a_connection(site: Site, pack: Pack) -> None:
    name = packed(site, "access.log.1.gz", pack(b""))
    site.away()
    assert site.run("--logfile", name).stderr == ""


@ONE_PACK
def test_a_last_line_without_its_end_waits_and_is_reported(site: Site, pack: Pack) -> None:
    """Half a line of a copy that was made while xray wrote: the whole one comes with the next copy."""
    name = packed(site, "access.log.1.gz", pack(text(0, 10) + line(10).encode()[:40]))
    load(site, name)
    assert site.output().count("its last line is incomplete, and is left out") == 1
    assert site.emails() == users(0, 10)
    load(site, packed(site, "access.log.1.gz", pack(text(0, 12))))
    assert site.emails() == users(0, 12)
    assert site.rejected() == []


@ONE_PACK
@pytest.mark.parametrize("away", [False, True], ids=["online", "offline"])
def test_of_an_archive_that_was_cut_the_lines_before_the_cut_are_stored(site: Site, pack: Pack, away: bool) -> None:
    """The error names file and byte, exit 3; the same file again adds nothing, and a whole one the rest."""
    whole = pack(text(0, 4_000))
    name = packed(site, "access.log.1.gz", whole[: len(whole) * 3 // 4])
    good = packed(site, "good.gz", gzip.compress(text(30_000, 30_010)))
    if away:
        site.away()
    load(site, name, good, status=3)
    assert site.output().count(f"{name}: damaged after byte ") == 1
    site.back()
    load(site, name, good, status=3)
    stored = site.emails() - users(30_000, 30_010)
    count = stored.total()
    assert 0 < count < 4_000
    assert stored == users(0, count)
    assert f"its lines up to byte {len(text(0, count))} are stored" in site.output()
    load(site, packed(site, "access.log.1.gz", whole))
    assert site.emails() == users(0, 4_000) + users(30_000, 30_010)


@ONE_PACK
def test_an_archive_with_other_bytes_in_its_middle_is_reported(site: Site, pack: Pack) -> None:
    """What the damage made of a line before it was noticed may be rejected."""
    data = pack(text(0, 8_000))
    middle = len(data) * 3 // 4
    name = packed(site, "access.log.1.gz", data[:middle] + b"\xff" * 64 + data[middle + 64 :])
    stored = []
    for _ in range(2):
        load(site, name, status=3)
        stored.append((site.emails(), site.rejected()))
    assert stored[0] == stored[1]
    assert users(0, 1_000) <= stored[0][0]
    assert f"{name}: damaged after byte " in site.output()


def test_an_archive_that_ends_in_its_header_is_damaged(site: Site) -> None:
    name = packed(site, "access.log.1.gz", gzip.compress(text(0, 10))[:12])
    assert f"{name}: damaged after byte 0 of its text" in site.run("--logfile", name, status=3).stderr


@pytest.mark.parametrize("pack", STREAMS.values(), ids=STREAMS)
@pytest.mark.parametrize("at", [0, 8, 60, -1])
def test_damage_in_a_later_stream_is_reported(site: Site, at: int, pack: Pack) -> None:
    """The file objects of the standard library take it for garbage after the end."""
    first, second = pack(text(0, 100)), bytearray(pack(text(100, 200)))
    second[at] ^= 0xFF
    name = packed(site, "old.xz", first + bytes(second))
    load(site, name, status=3)
    assert "old.xz: damaged after byte" in site.output()
    assert site.emails().items() >= users(0, 100).items()


@pytest.mark.parametrize("away", [False, True], ids=["online", "offline"])
def test_padding_between_streams_is_no_end(site: Site, away: bool) -> None:
    pieces = [lzma.compress(text(0, 100)), bytes(4), lzma.compress(text(100, 200)), bytes(8)]
    if away:
        site.away()
    load(site, packed(site, "old.xz", b"".join(pieces)))
    assert (site.buffered() if away else site.emails()) == users(0, 200)


def test_padding_that_is_no_whole_word_is_damage(site: Site) -> None:
    load(site, packed(site, "old.xz", lzma.compress(text(0, 100)) + bytes(3)), status=3)
    assert site.emails() == users(0, 100)


OTHERS = [
    (b"\x50\x2a\x4d\x18\x04\0\0\0", "zstd or lz4"),
    (lzma.compress(b"text", lzma.FORMAT_ALONE), "lzma"),
    (b"LZIP\x01", "lzip"),
    (b"\x1f\x9d\x90", "compress"),
    (b"7z\xbc\xaf\x27\x1c", "7z"),
]


@pytest.mark.parametrize(("magic", "what"), OTHERS)
def test_what_is_compressed_otherwise_is_refused_and_stays(site: Site, magic: bytes, what: str) -> None:
    """Read as text every line of it would be unparsed, and it would be emptied."""
    name = packed(site, "access.log.1.zst", magic + random.Random(0).randbytes(1000))
    good = packed(site, "access.log.2", text(0, 10))
    said = site.run("--logfile", good, "--logfile", name, status=3).stderr
    assert f"{name}: expected text, gzip, xz, bzip2 or, from Python 3.14 on, zstd, found {what}; " in said
    assert Path(good).read_bytes() == text(0, 10)
    assert Path(name).stat().st_size == 1000 + len(magic)


@pytest.mark.parametrize(("name", "module", "program"), [("bz2", "bz2", "bzip2"), ("xz", "lzma", "xz")])
def test_a_python_that_was_built_without_a_library_names_the_command_that_loads_it(
    site: Site, monkeypatch: pytest.MonkeyPatch, name: str, module: str, program: str
) -> None:
    path = packed(site, f"access.log.1.{name}", STREAMS[name](text(0, 10)))
    monkeypatch.setitem(sys.modules, module, None)
    said = site.run("--logfile", path, status=3).stderr
    assert f"{path}: expected the module {module} in this Python to read it, found none; " in said
    mend = f"{program} -dc {path} | {' '.join(site.command('--logfile', '-'))}"
    assert mend in said
    subprocess.run(["/bin/sh", "-c", mend], check=True)
    assert site.emails() == users(0, 10)


def test_zstd_is_refused_where_python_does_not_have_it_and_the_command_that_is_named_loads_it(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = packed(site, "access.log.1.zst", zstd.compress(text(0, 10)))
    monkeypatch.setitem(sys.modules, "compression.zstd", None)
    said = site.run("--logfile", name, status=3).stderr
    piped = " ".join(site.command("--logfile", "-"))
    assert f"found zstd; nothing was read; what to do: zstd -dc {name} | {piped}\n" in said


def packed_with_a_dictionary(kind: str, data: bytes, bits: int) -> bytes:
    """With one of this size, whatever the length of the text."""
    if kind == "xz":
        return lzma.compress(data, filters=[{"id": lzma.FILTER_LZMA2, "preset": 0, "dict_size": 1 << bits}])
    packer = zstd.ZstdCompressor(options={zstd.CompressionParameter.window_log: bits})
    return packer.compress(data) + packer.flush()


@pytest.mark.parametrize("command", ["xz -dc", "zstd -dc --memory=2GiB"])
@pytest.mark.parametrize("before", [0, 60])
def test_a_dictionary_that_takes_too_much_memory_is_refused_with_the_command_that_loads_it(
    site: Site, monkeypatch: pytest.MonkeyPatch, command: str, before: int
) -> None:
    """Also that of a later stream: the command adds the lines that are not stored."""
    kind = command.partition(" ")[0].replace("zstd", "zst")
    first = packed_with_a_dictionary(kind, text(0, before), bits=16) if before else b""
    name = packed(site, f"old.{kind}", first + packed_with_a_dictionary(kind, text(before, before + 5), bits=22))
    with monkeypatch.context() as patch:
        patch.setattr(archive, "MAX_DICTIONARY", 1 << 20)
        said = site.run("--logfile", name, status=3).stderr
    assert f"{name}: expected a dictionary of at most 1 MiB, found a larger one" in said
    assert f"{command} {name} | {' '.join(site.command('--logfile', '-'))}" in said
    site.run("--logfile", "-", input=text(0, before + 5).decode())
    load(site, name)
    assert site.emails() == users(0, before + 5)


def test_what_xz_makes_at_its_best_is_read(site: Site) -> None:
    load(site, packed(site, "old.xz", packed_with_a_dictionary("xz", text(0, 5), bits=26)))
    assert site.emails() == users(0, 5)


def in_lines(text: bytes) -> list[bytes]:
    """Without blank lines, and without the NULs before a line: a hole is passed over a piece at a time."""
    return [line.lstrip(b"\0") for line in text.split(b"\n") if line.strip(b"\0")]


@ANY_PACK
@example(data=b"\x01\n\x00\x00\x01\n", start=0)
@settings(deadline=None)
@given(data=st.lists(st.binary(max_size=30), max_size=20).map(b"\n".join), start=st.integers(0, 300))
def test_the_text_of_an_archive_is_read_like_that_of_a_file(pack: Pack, data: bytes, start: int) -> None:
    start = min(start, len(data))
    found = read_all(pack(data), start)
    assert in_lines(b"".join(block for _, block in found)) == in_lines(data[start : data.rfind(b"\n") + 1])
    for at, block in found:
        assert data[at : at + len(block)] == block


@pytest.mark.parametrize("opened", [gzip.open, lzma.open, bz2.open, zstd.open], ids=["gz", *STREAMS])
def test_a_large_archive_is_read_a_block_at_a_time(opened: Callable[..., io.BufferedWriter], tmp_path: Path) -> None:
    """24 MiB of text, of which hardly more than a block is in memory, beside the 8 MiB that xz looks back."""
    path = tmp_path / "large"
    some = line(1).encode() * 10_000
    with opened(path, "wb") as file:
        for _ in range((24 << 20) // len(some)):
            file.write(some)
    with discovery.opened([path], None) as (log,):
        tracemalloc.start()
        length = sum(len(block) for _, block in log.blocks(0))
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert length == (24 << 20) // len(some) * len(some)
    assert peak < (8 << 20) + 12 * BLOCK_BYTES


# --- several logs


def test_a_pattern_stands_for_rotated_logs_in_the_order_of_their_names(site: Site) -> None:
    """Neither for locks, nor for folders, nor for our own files."""
    site.set("parser", offline_file="access.log.buffer")
    site.set("stats", output="access.log.stats")
    site.append(text(0, 10))
    packed(site, "access.log.2.gz", gzip.compress(text(20, 30)))
    packed(site, "access.log.3.xz", lzma.compress(text(30, 40)))
    (site.folder / "access.log.1").write_bytes(text(10, 20))
    (site.folder / "access.log.d").mkdir()
    for _ in range(2):
        load(site, str(site.folder / "access.log*"))
        assert [row[9] for row in site.rows()] == [f"u{n}" for n in [*range(20, 40), *range(20)]]
    assert site.rejected() == []
    assert site.log.read_bytes() == (site.folder / "access.log.1").read_bytes() == b""


def test_one_row_of_statistics_adds_up_over_all_logs(site: Site) -> None:
    for number in range(3):
        packed(site, f"{number}.log", text(number * 10, number * 10 + 10) + b"damaged\n")
    load(site, str(site.folder / "?.log"))
    assert len(site.stats.read_text().splitlines()) == 1
    assert [site.last_stats()[key] for key in ("processed", "failed", "new_users")] == [30, 3, 30]


def test_a_file_that_is_given_twice_is_loaded_once_also_with_again(site: Site) -> None:
    name = packed(site, "access.log.1.gz", gzip.compress(text(0, 10)))
    other = site.folder / "other.gz"
    other.symlink_to(name)
    for arguments in ([], ["--again"]):
        load(site, name, str(other), name, str(site.folder / "*.gz"), *arguments)
    assert site.emails() == users(0, 10) + users(0, 10)


@pytest.mark.parametrize("away", [False, True], ids=["online", "offline"])
def test_a_log_beside_its_compressed_twin_is_loaded_once(site: Site, away: bool) -> None:
    """While logrotate compresses it, both are there."""
    plain = packed(site, "access.log.1", text(0, 100))
    twin = packed(site, "access.log.1.gz", gzip.compress(text(0, 100)))
    if away:
        site.away()
    load(site, plain, twin)
    site.back()
    load(site, plain, twin)
    assert site.emails() == users(0, 100)


def test_a_pattern_that_no_file_fits_is_reported(site: Site) -> None:
    site.append(text(0, 10))
    said = site.run("--logfile", "nowhere.*.gz", cwd=site.folder).stderr
    assert "nowhere.*.gz: expected a log, found none" in said
    assert site.emails() == users(0, 0)
    assert not list(site.folder.glob("nowhere*"))


def test_a_name_that_is_a_files_is_no_pattern(site: Site) -> None:
    load(site, packed(site, "access[1].log", text(0, 10)), packed(site, "access1.log", text(10, 20)))
    assert site.emails() == users(0, 20)


def test_one_that_cannot_be_read_leaves_all_others_alone(site: Site) -> None:
    name = packed(site, "access.log.1", text(0, 10))
    said = site.run("--logfile", name, "--logfile", str(site.folder), status=3).stderr
    assert f"{site.folder}: expected" in said
    assert Path(name).read_bytes() == text(0, 10)


def test_a_database_that_fails_between_logs_has_the_rest_buffered(site: Site) -> None:
    names = [packed(site, f"{n}.gz", gzip.compress(text(n * 300, n * 300 + 300))) for n in range(4)]
    site.set("parser", batch_size="100")
    load(site, names[0])
    site.query("ALTER TABLE logs ADD CONSTRAINT small CHECK (source_port < 1024 + 700) NOT VALID")
    load(site, *names, status=3)
    assert site.emails() == users(0, 700)
    assert site.buffered() == users(700, 1200)
    load(site, *names, status=3)  # what the database has of the first ones is buffered, too, and known at the import
    assert site.buffered() == users(0, 600) + users(700, 1200)
    load(site, *names, status=3)
    assert site.buffered() == users(0, 600) + users(700, 1200)
    site.query("ALTER TABLE logs DROP CONSTRAINT small")
    load(site, *names)
    assert site.emails() == users(0, 1200)
    assert site.buffer.read_bytes() == b""


@ONE_PACK
@pytest.mark.parametrize("load_path", [KEYS_IN_BULK, ATTACH])
def test_a_row_that_the_database_refuses_does_not_keep_the_others_out(site: Site, pack: Pack, load_path: str) -> None:
    """Batches that were refused together are read again, from the middle of the archive."""
    load(site, packed(site, "first.gz", gzip.compress(text(0, 30))))
    site.query("ALTER TABLE logs ADD CHECK (source_port <> 1024 + 177)")
    site.set("parser", batch_size="20")
    site.load_path = load_path
    name = packed(site, "access.log.1.gz", pack(text(30, 300) + text(300, 400, "2025/11/18 10:15:23.123456")))
    load(site, name)
    load(site, name)
    assert site.emails() == users(0, 400) - users(177, 178)
    assert [rejected for _, rejected in site.rejected()] == [line(177).encode().rstrip()]


# --- standard input


def test_what_is_piped_in_is_loaded_once_and_goes_on_when_more_of_it_is_piped(site: Site) -> None:
    for first, count in ((0, 100), (0, 100), (0, 150), (0, 60)):
        assert site.run("--logfile", "-", input=text(first, count).decode()).stderr == ""
    assert "no part of it is known" in site.run("--logfile", "-", input=text(500, 510).decode()).stderr
    assert site.emails() == users(0, 150) + users(500, 510)
    assert {source for source, _ in positions(site)} == {"-"}
    assert {path.name for path in site.folder.iterdir()} == {
        "buffer.jsonl.lock",
        "buffer.jsonl.state",
        "config.ini",
        "stats.jsonl",
    }
    site.run("--logfile", "-", "--again", input=text(500, 510).decode())
    assert site.emails() == users(0, 150) + users(500, 510) + users(500, 510)


def test_a_real_pipe_beside_files(site: Site) -> None:
    old = packed(site, "access.log.1", text(0, 10))
    command = " ".join(site.command("--logfile", old, "--logfile", "-"))
    piped = packed(site, "piped.log", text(10, 20))
    assert os.waitstatus_to_exitcode(os.system(f"cat {piped} | {command}")) == 0  # noqa: S605  # our own paths
    assert site.emails() == users(0, 20)
    assert Path(piped).read_bytes() == text(10, 20)


def test_what_is_piped_in_may_be_compressed(site: Site) -> None:
    name = packed(site, "access.log.1.gz", gzip.compress(text(0, 10)))
    for _ in range(2):
        with open(name) as file:
            site.run("--logfile", "-", stdin=file)
    assert site.emails() == users(0, 10)


def test_a_piped_line_without_its_end_is_left_out_and_said(site: Site) -> None:
    said = site.run("--logfile", "-", input=text(0, 3).decode() + "half").stderr
    assert "-: its last line is incomplete, and is left out" in said
    assert site.emails() == users(0, 3)


def test_nothing_piped_in_is_a_quiet_success(site: Site) -> None:
    site.away()
    assert site.run("--logfile", "-", input="").stderr == ""


def test_a_closed_standard_input_is_reported(site: Site) -> None:
    done = site.run("--logfile", "-", status=3, preexec_fn=lambda: os.close(0), stdin=None)
    assert "expected piped input, found standard input closed" in done.stderr


def test_no_room_for_piped_input_is_reported(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(**_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(tempfile, "TemporaryFile", full)
    load(site, "-", status=3)
    assert f"expected to keep piped input in {site.folder} while it is loaded, found: No space left" in site.output()


def test_a_refused_row_of_piped_input(site: Site) -> None:
    load(site, packed(site, "first.gz", gzip.compress(text(0, 30))))
    site.query("ALTER TABLE logs ADD CHECK (source_port <> 1024 + 77)")
    site.set("parser", batch_size="20")
    site.load_path = KEYS_IN_BULK
    site.run("--logfile", "-", input=text(30, 200).decode())
    assert site.emails() == users(0, 200) - users(77, 78)
    assert [rejected for _, rejected in site.rejected()] == [line(77).encode().rstrip()]


# --- the database away, and kills


def test_what_was_buffered_while_the_database_was_away_is_imported_once(site: Site) -> None:
    name = packed(site, "access.log.1.gz", gzip.compress(text(0, 100)))
    site.away()
    for _ in range(2):
        load(site, name)
        site.run("--logfile", "-", input=text(100, 150).decode())
        assert site.buffered() == users(0, 150)
    site.back()
    load(site, name)
    site.run("--logfile", "-", input=text(100, 150).decode())
    assert site.emails() == users(0, 150)
    assert site.buffer.read_bytes() == b""


@pytest.mark.faults
@pytest.mark.parametrize(
    ("away", "load_path"),
    [(False, ROW_BY_ROW), (False, KEYS_IN_BULK), (True, ROW_BY_ROW)],
    ids=[ROW_BY_ROW, KEYS_IN_BULK, "offline"],
)
def test_killed_anywhere_and_run_again_every_line_of_an_archive_is_stored_once(
    site: Site, away: bool, load_path: str
) -> None:
    """Two archives, in batches of 25 lines."""
    site.run_here()
    site.set("parser", batch_size="25")
    site.load_path = load_path
    expected = users(0, 0)
    for step in itertools.count(1, 4 if away else 17):
        first = step * 1000
        names = [
            packed(site, f"{step}.gz", gzip.compress(text(first, first + 60, day(step)))),
            packed(site, f"{step}.xz", lzma.compress(text(first + 60, first + 90, day(step)))),
        ]
        expected += users(first, first + 90)
        if away:
            site.away()
        status = site.run_here(*itertools.chain.from_iterable(("--logfile", name) for name in names), kill_at=step)
        assert status in (0, -9), site.output()[-2000:]
        site.back()
        load(site, *names)
        assert site.emails() == expected, site.steps()[-1:]
        if status == 0:
            break
    assert step > (10 if away else 30)


@pytest.mark.faults
def test_piped_input_of_a_run_that_was_killed_is_piped_again(site: Site) -> None:
    """It resumes after what was stored: as often as one likes."""
    site.set("parser", batch_size="25")
    with tempfile.TemporaryFile() as file:
        file.write(text(0, 100))
        for step in itertools.count(12, 9):
            file.seek(0)
            saved = os.dup(0)
            os.dup2(file.fileno(), 0)
            try:
                status = site.run_here("--logfile", "-", kill_at=step)
            finally:
                os.dup2(saved, 0)
                os.close(saved)
            assert site.emails() <= users(0, 100)
            if status == 0:
                break
    assert site.emails() == users(0, 100)


def test_a_file_without_a_name_leaves_no_lock(site: Site) -> None:
    """As bash makes one for a here-document."""
    with tempfile.TemporaryFile(dir=site.folder) as file:
        file.write(text(0, 3))
        file.seek(0)
        site.run("--logfile", "/dev/stdin", stdin=file)
    assert site.emails() == users(0, 3)
    assert [name for name in os.listdir(site.folder) if "deleted" in name] == []


# --- which files are meant


def test_names_become_paths_each_file_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("b.gz", "a.gz", "a.gz.lock", "own"):
        (tmp_path / name).touch()
    found, unmatched = discovery.named(
        ["-", "x*", "*", "./a.gz", "missing", "-"], lambda path: path == tmp_path / "own" or path.suffix == ".lock"
    )
    assert found == [Path("-"), tmp_path / "a.gz", tmp_path / "b.gz", tmp_path / "missing"]
    assert unmatched == ["x*"]


def test_a_log_with_the_same_bytes_is_recognised_packed_or_not(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(text(0, 100))
    (tmp_path / "b").write_bytes(lzma.compress(text(0, 100)))
    with discovery.opened([tmp_path / "a", tmp_path / "b"], None) as (one, other):
        assert isinstance(other, logfile.LogFile)  # that which is drained comes last
        assert one.fingerprints() == other.fingerprints()
        assert one.fingerprint(5000) == other.fingerprint(5000)


# --- two runs at once --------------------------------------------------------------------------------------


def other_site(site: Site, name: str) -> Site:
    """Another config for the same node and database, with a folder, and so a lock, of its own."""
    folder = site.folder / name
    folder.mkdir()
    return Site(folder, site.database)


def both_at_once(one: Site, other: Site, *arguments: str, **options: Any) -> list[int]:
    """Two runs that start together; their exit statuses."""
    runs = [subprocess.Popen(of.command(*arguments), stderr=subprocess.PIPE, **options) for of in (one, other)]
    said = [run.communicate(timeout=600)[1] for run in runs]
    assert not any(b"Traceback" in text for text in said), said
    return sorted(run.returncode for run in runs)


@pytest.mark.parametrize("pack", [PACKS[name] for name in OWN_PROCESS], ids=OWN_PROCESS)
def test_of_two_runs_that_load_one_archive_one_stores_it(site: Site, pack: Pack) -> None:
    """They have no lock in common but that on the archive itself."""
    load(site, packed(site, "first.log", text(0, 1)))
    name = packed(site, "old", pack(text(1, 10_000)))
    other = other_site(site, "other")
    assert both_at_once(site, other, "--logfile", name)[0] == 0
    assert site.query("SELECT count(*) FROM logs") == [(10_000,)]


@pytest.mark.parametrize("count", [30, 30_000])
def test_of_two_runs_that_load_copies_one_stores_them(site: Site, count: int) -> None:
    """Of copies there is no lock in common at all: what the other run has started with is seen in the database."""
    site.run()
    other = other_site(site, "other")
    packed(site, "access.log", text(0, count))
    other.log.write_bytes(text(0, count))
    statuses = both_at_once(site, other, "--keep")
    assert statuses[0] == 0
    assert site.query("SELECT count(*) FROM logs") == [(count,)]


def test_of_two_runs_that_read_one_text_from_a_pipe_one_stores_it(site: Site) -> None:
    load(site, packed(site, "first.log", text(0, 1)))
    name, other = packed(site, "text", text(1, 30_000)), other_site(site, "other")
    command = " ".join(map(shlex.quote, site.command("--logfile", "-")))
    second = " ".join(map(shlex.quote, other.command("--logfile", "-")))
    subprocess.run(["/bin/bash", "-c", f"{command} < {name} & {second} < {name}; wait"], check=False, timeout=600)
    assert site.query("SELECT count(*) FROM logs") == [(30_000,)]


def test_two_names_of_one_log_are_not_drained_at_once(site: Site) -> None:
    """Hard links have lock files of their own."""
    other = other_site(site, "other")
    site.set("stats", prometheus="xraylog.prom")
    site.append(*lines(0, 5))
    os.link(site.log, other.log)
    with logfile.opened(other.log):
        assert site.run_here() == 75
    assert not site.stats.exists()  # it was no run, and tells nothing
    assert not (site.folder / "xraylog.prom").exists()
    assert "access.log is held by another process" in site.output()
    assert site.run_here() == 0
    assert site.emails() == users(0, 5)


# --- what is not xray's ------------------------------------------------------------------------------------


def test_a_pattern_leaves_alone_what_belongs_to_our_own_files(site: Site) -> None:
    site.set("logging", file="ours.log")
    site.append(*lines(0, 5), to=site.folder / "access.log.1")
    alone = ["ours.log", "ours.log.1", "buffer.jsonl.torn", "buffer.jsonl.damaged", "other.log.lock"]
    for name in alone:
        (site.folder / name).write_text("ours\n")
    load(site, str(site.folder / "*"))
    assert site.emails() == users(0, 5)
    for name in alone[1:]:
        assert (site.folder / name).read_text() == "ours\n", name


@pytest.mark.parametrize("name", ["buffer.jsonl.lock", "buffer.jsonl.torn", "access.log.lock", "ours.log.3"])
def test_what_belongs_to_our_own_files_is_no_log(site: Site, name: str) -> None:
    site.set("logging", file="ours.log")
    (site.folder / name).write_text("ours\n")
    load(site, str(site.folder / name), status=78)
    assert (site.folder / name).read_text() == "ours\n"


def test_files_without_any_line_end_do_not_keep_the_next_ones_out(site: Site) -> None:
    """No line of theirs is stored: they have no position, and none to move."""
    packed(site, "a.log", b"1234")
    packed(site, "b.log", b"5678")
    packed(site, "c.log", text(0, 5))
    for _ in range(2):
        load(site, str(site.folder / "[abc].log"))
        assert site.emails() == users(0, 5)
    assert (site.folder / "a.log").read_bytes() == b"1234"


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, lzma.compress])
def test_an_archive_in_the_place_of_the_configured_log_is_refused(site: Site, pack: Callable[[bytes], bytes]) -> None:
    """A few KiB can take hours to decompress, again and again; whoever writes the log could put them there."""
    site.log.write_bytes(pack("".join(lines(0, 5)).encode()))
    told = f"expected xray's log as text, found an archive, {site.log}; to load it: --logfile"
    for option in ([], ["--check"], ["--dry-run"]):
        assert told in site.run(*option, status=Exit.CONFIGURATION).stderr
    site.run("--logfile", str(site.log))
    assert site.emails() == users(0, 5)
