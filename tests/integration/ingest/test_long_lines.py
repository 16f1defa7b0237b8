"""A line without an end, or nearly so, takes no memory: its beginning is kept, and its rest is counted."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import os
import resource
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from helpers.site import Site, line, users
from helpers.zstandard import IN_PYTHON, zstd

from xraylog.database.session import Connection
from xraylog.records import MAX_LINE_BYTES

MOST = 150 << 20  # bytes of address space
MAPPED = 24 << 20  # bytes of it that are no memory: parts of libraries that are never used, stacks of threads
LENGTH = 200 << 20  # of the line
LONG = 2 << 20  # of a path; its line is read alone
CUT = f"(its first {MAX_LINE_BYTES} of {LENGTH} bytes)"
KEPT = """
    SELECT line_offset, reason, octet_length(line), substr(line, 1, 2), substr(line, octet_length(line), 1)
    FROM rejected_lines
    ORDER BY id
"""


def run(site: Site, *arguments: str, most: int = MOST, **options: Any) -> None:
    """One run in a process that gets no more memory than that."""
    environment = {**os.environ, "MALLOC_ARENA_MAX": "1"}  # each thread's arena reserves 64 MiB that it never uses

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (most, most))

    site.run(*arguments, preexec_fn=limit, env=environment, **options)


def write_endless(path: Path) -> None:
    """A short line, a long one, most of which is a hole, and a line after it."""
    with path.open("wb") as file:
        file.write(line(1).encode() + b"xy")
        file.seek(LENGTH - 3, os.SEEK_CUR)
        file.write(b"z\n" + line(2).encode())


def kept(conn: Connection) -> list[tuple[object, ...]]:
    return conn.execute(KEPT).fetchall()


STORED = [(len(line(1)), f"expected a timestamp first, found none {CUT}", MAX_LINE_BYTES, b"xy", b"\0")]


@pytest.mark.parametrize("masked", [False, True])
def test_an_endless_line_is_kept_in_part_online(site: Site, conn: Connection, masked: bool) -> None:
    if masked:
        site.set("privacy", mask_source="24/64")
    write_endless(site.log)
    run(site, "--keep")
    assert kept(conn) == STORED
    site.append(line(3))
    run(site)
    assert kept(conn) == STORED
    assert site.emails() == users(1, 4)


def test_an_endless_line_is_kept_in_part_offline_and_at_import(site: Site, conn: Connection) -> None:
    site.run()
    write_endless(site.log)
    site.away()
    run(site)
    site.append(line(3))
    run(site)
    site.back()
    run(site)
    assert kept(conn) == STORED
    assert site.emails() == users(1, 4)


def test_a_line_that_has_no_end_yet_waits_for_it(site: Site, conn: Connection) -> None:
    write_endless(site.log)
    with site.log.open("r+b") as file:
        file.truncate(len(line(1)) + LENGTH)
    run(site)
    assert site.emails() == users(1, 2)
    site.append(b"\n", line(2))
    run(site)
    assert site.emails() == users(1, 3)
    ((_, reason, length, *_),) = kept(conn)
    assert (length, str(reason).endswith(CUT)) == (MAX_LINE_BYTES, True)


PIECE = 1 << 20
FORMATS: dict[str, Callable[[bytes], bytes]] = {
    "gz": gzip.compress,
    "bz2": bz2.compress,
    "xz": lzma.compress,
    "zst": zstd.compress,
}


@pytest.mark.parametrize("suffix", FORMATS)
def test_an_endless_line_of_an_archive_is_kept_in_part(site: Site, conn: Connection, suffix: str) -> None:
    """Streams may follow one another: here they are the same one, many times. The whole file has a few KiB."""
    if suffix == "zst" and not IN_PYTHON:
        pytest.skip("this Python reads no zstd")
    compress = FORMATS[suffix]
    streams = [line(1).encode() + b"xy" + b"\0" * (PIECE - 3), *[b"\0" * PIECE] * (LENGTH // PIECE - 1), b"z\n"]
    made = {text: compress(text) for text in set(streams)}
    archive = site.folder / f"access.log.1.{suffix}"
    archive.write_bytes(b"".join(made[text] for text in streams) + compress(line(2).encode()))
    run(site, "--logfile", str(archive))
    assert kept(conn) == STORED
    assert site.emails() == users(1, 3)


def test_an_endless_line_of_a_pipe_is_kept_in_part(site: Site, conn: Connection) -> None:
    write_endless(site.folder / "piped")
    with (site.folder / "piped").open("rb") as file:
        run(site, "--logfile", "-", stdin=file)
    assert kept(conn) == STORED
    assert site.emails() == users(1, 3)


def long_fields() -> tuple[bytes, ...]:
    """As much of a line as is kept, in each field that its grammar copies or decodes."""
    begin, long = b"2025/11/17 10:15:23 from 203.0.113.1:5 accepted ", MAX_LINE_BYTES - 200
    return (
        begin + b"http://h.example/" + b"z" * long + b" [a >> b] email: path\n",
        begin + b"tcp:h:443 [" + b" " * long + b"a >> b] email: tag\n",
        begin + b"tcp:h:443 [a >> b] email: " + b"e" * long + "\N{GRINNING FACE}\n".encode(),
    )


@pytest.mark.parametrize("masked", [False, True])
def test_lines_that_are_just_kept_whole_are_read_one_at_a_time(site: Site, conn: Connection, masked: bool) -> None:
    if masked:
        site.set("privacy", mask_source="24/64")
    site.run()
    texts = long_fields()
    site.append(*texts, line(2))
    site.away()
    run(site, most=MOST + MAPPED)
    site.back()
    run(site, most=MOST + MAPPED)
    assert site.emails() == Counter(["path", "tag", "u2"])
    ((_, reason, length, *_),) = kept(conn)
    assert (length, str(reason)[:35]) == (len(texts[-1]) - 1, "expected at most 255 characters in ")


@pytest.mark.parametrize("spooled", [False, True], ids=["from the log", "from the buffer"])
def test_a_long_line_whose_row_the_database_refuses_is_kept_whole(site: Site, spooled: bool) -> None:
    """Of the buffer, which has the row and not the line, what the row says is kept."""
    site.run()
    site.query("ALTER TABLE logs ADD CHECK (destination_port <> 8800)")
    begin, end = "2025/11/17 10:15:23 from 203.0.113.1:5 accepted http://h.example:8800/", " [a >> b] email: path\n"
    site.append(*(f"{begin}{letter * LONG}{end}" for letter in "xy"), line(2))
    if spooled:
        site.away()
        site.run()
        site.back()
    site.run()
    found = [text for _, text in site.rejected()]
    if spooled:
        assert [json.loads(text)["offset"] for text in found] == [0, len(begin) + LONG + len(end)]
        assert {json.loads(text)["destination_port"] for text in found} == {8800}
    else:
        assert found == [f"{begin}{letter * LONG}{end}".encode().rstrip() for letter in "xy"]
    assert site.emails() == users(2, 3)
