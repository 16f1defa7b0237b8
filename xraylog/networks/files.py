"""Read files of networks, plain or compressed with gzip."""

from __future__ import annotations

import codecs
import contextlib
import csv
import functools
import gzip
import itertools
import os
import re
import shutil
import tempfile
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

from xraylog.networks import ranges
from xraylog.networks.ranges import Info, Range, Unreadable

__all__ = ["NetworkFile", "Unreadable", "read", "read_all"]

GZIP = b"\x1f\x8b"
NULL = r"\N"
CHUNK_ROWS = 10_000
TOO_LONG = "field larger than field limit"  # in the message of csv
QUOTED = re.compile(r'"((?:[^"]|"")*)"')  # a field in a TSV; most TSV files quote nothing


@dataclass(frozen=True, slots=True)
class NetworkFile:
    """The content of a file, all lines of which have been checked."""

    path: Path
    lines: int
    has_country: bool
    has_provider: bool
    versions: frozenset[int]  # of IP
    ranges: Sequence[Range]  # without overlaps

    def rows(self) -> Iterator[str]:
        """Yield chunks of rows as COPY reads them: network, country, asn, provider."""
        rows = (f"{network}{_copy_columns(one.info)}" for one in self.ranges for network in one.networks())
        while chunk := "".join(itertools.islice(rows, CHUNK_ROWS)):
            yield chunk

    @property
    def contents(self) -> set[str]:
        """Return in words what the file has, which a load replaces in the table."""
        kinds = (("countries", self.has_country), ("providers", self.has_provider))
        return {f"{kind} of IPv{version}" for kind, has_kind in kinds if has_kind for version in self.versions}


def read_all(paths: Iterable[Path]) -> list[NetworkFile]:
    """Return the content of each file. Raises Unreadable, also if two files have the same contents."""
    found: list[NetworkFile] = []
    for path in paths:
        file = read(path)
        for other in found:
            common = file.contents & other.contents
            if common:
                raise Unreadable(
                    f"{path}: expected one file of the {min(common)}, found another, {other.path}; load one of them"
                )
        found.append(file)
    return found


def read(path: Path) -> NetworkFile:
    """Return the content of a file. Raises Unreadable, with the name of the file and the line."""
    try:
        with _opened(path) as file:
            is_gzip = file.read(len(GZIP)) == GZIP
            file.seek(0)
            return _read(path, cast(BinaryIO, gzip.open(file)) if is_gzip else file)
    except (OSError, EOFError, zlib.error) as error:
        reason = getattr(error, "strerror", None) or error
        raise Unreadable(f"{path}: expected a file with a network on each line, found: {reason}") from error


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    """Open a file. What comes from a pipe is copied first, because it is read twice. Raises OSError and Unreadable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)  # a pipe may never be opened for writing
    with open(descriptor, "rb") as file:
        if file.seekable():
            yield file
            return
        os.set_blocking(descriptor, True)
        with tempfile.TemporaryFile() as copy:
            shutil.copyfileobj(file, copy)
            if not copy.tell():
                raise Unreadable(f"{path}: expected a file with a network on each line, found a pipe without a writer")
            copy.seek(0)
            yield copy


def _read(path: Path, file: BinaryIO) -> NetworkFile:
    first = next(filter(None, (line.removeprefix(codecs.BOM_UTF8).strip(b"\r\n") for line in file)), b"")
    file.seek(0)
    has_tabs = b"\t" in first
    reader = (
        csv.reader(_decoded(file), delimiter="\t", quoting=csv.QUOTE_NONE)
        if has_tabs
        else csv.reader(_decoded(file), strict=True)
    )
    found: list[Range] = []
    lines, layout = 0, None
    try:
        for raw in reader:
            if not raw:
                continue
            fields = [_unquote(field) for field in raw] if has_tabs else raw
            if layout is None:
                layout = ranges.detect_layout(fields)
                if layout.has_header:
                    continue
            parsed = layout.parse(fields)
            lines += 1
            if parsed.info.country or parsed.info.provider:
                found.append(parsed)
    except (Unreadable, csv.Error, UnicodeDecodeError) as error:
        line = reader.line_num + isinstance(error, UnicodeError)  # csv does not count a line that could not be decoded
        raise Unreadable(f"{path}, line {line}: {_complaint(error)}") from error
    if layout is None or not found:
        raise Unreadable(f"{path}: expected networks with a country or a provider, found none")
    versions = frozenset(one.version for one in found)
    return NetworkFile(path, lines, layout.has_country, layout.has_provider, versions, ranges.split_overlaps(found))


def _complaint(error: Exception) -> str:
    """Return what is wrong with a line, in words."""
    if isinstance(error, UnicodeDecodeError):
        return f"expected UTF-8, found {error.object[error.start]:#x}"
    if isinstance(error, csv.Error) and str(error).startswith(TOO_LONG):
        return f"expected fields of at most {csv.field_size_limit()} characters, found a longer one"
    if isinstance(error, csv.Error):
        return f'expected CSV, in which "" is a quote inside of quotes, found: {error}'
    return str(error)


def _unquote(text: str) -> str:
    """Return the value of a field of a TSV: without quotes around it; "" for the null of PostgreSQL's COPY."""
    if found := QUOTED.fullmatch(text):
        return found[1].replace('""', '"')
    return "" if text == NULL else text


def _decoded(file: BinaryIO) -> Iterator[str]:
    """Yield the decoded lines, without a byte order mark."""
    for number, line in enumerate(file):
        yield line.decode("utf-8" if number else "utf-8-sig")


@functools.lru_cache(maxsize=4096)
def _copy_columns(info: Info) -> str:
    """Return the columns after the network as COPY reads them. All blanks in a provider are single spaces by now."""
    asn = NULL if info.asn is None else info.asn
    provider = NULL if info.provider is None else info.provider.replace("\\", "\\\\").replace("\0", "")
    return f"\t{info.country or NULL}\t{asn}\t{provider}\n"
