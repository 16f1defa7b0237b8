"""Read a file of networks, plain or compressed with gzip."""

from __future__ import annotations

import codecs
import csv
import functools
import gzip
import itertools
import re
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

from xraylog.networks import ranges
from xraylog.networks.ranges import Known, Range, Unreadable

__all__ = ["NetworkFile", "Unreadable", "read", "read_all"]

GZIP = b"\x1f\x8b"
NULL = r"\N"
ROWS_AT_ONCE = 10_000
TOO_LONG = "field larger than field limit"  # as csv says it
QUOTED = re.compile(r'"((?:[^"]|"")*)"')  # a field of a TSV, most of which quote nothing


@dataclass(frozen=True, slots=True)
class NetworkFile:
    """What a file says, checked line by line."""

    path: Path
    lines: int
    has_country: bool
    has_provider: bool
    versions: frozenset[int]  # of IP
    found: Sequence[Range]  # of which no two are about the same

    def rows(self) -> Iterator[str]:
        """Yield the rows as COPY reads them, some at a time: network, country, asn, provider."""
        rows = (f"{network}{_columns(one.known)}" for one in self.found for network in one.networks())
        while some := "".join(itertools.islice(rows, ROWS_AT_ONCE)):
            yield some

    @property
    def about(self) -> set[str]:
        """Return what it replaces, in words."""
        kinds = (("countries", self.has_country), ("providers", self.has_provider))
        return {f"{kind} of IPv{version}" for kind, is_there in kinds if is_there for version in self.versions}


def read_all(paths: Iterable[Path]) -> list[NetworkFile]:
    """Return what each file says. Raises Unreadable, also for two that are about the same."""
    found: list[NetworkFile] = []
    for path in paths:
        file = read(path)
        for other in found:
            about = file.about & other.about
            if about:
                raise Unreadable(
                    f"{path}: expected one file of the {min(about)}, found another, {other.path}; load one of them"
                )
        found.append(file)
    return found


def read(path: Path) -> NetworkFile:
    """Return what a file says. Raises Unreadable, with the name of the file, and the line."""
    try:
        with path.open("rb") as file:
            is_gzip = file.read(len(GZIP)) == GZIP
        with gzip.open(path) if is_gzip else path.open("rb") as text:
            return _read(path, cast(BinaryIO, text))
    except (OSError, EOFError, zlib.error) as error:
        said = getattr(error, "strerror", None) or error
        raise Unreadable(f"{path}: expected a file with a network on each line, found: {said}") from error


def _read(path: Path, file: BinaryIO) -> NetworkFile:
    first = next(filter(None, (line.removeprefix(codecs.BOM_UTF8).strip(b"\r\n") for line in file)), b"")
    file.seek(0)
    has_tabs = b"\t" in first
    reader = (
        csv.reader(_texts(file), delimiter="\t", quoting=csv.QUOTE_NONE)
        if has_tabs
        else csv.reader(_texts(file), strict=True)
    )
    found: list[Range] = []
    lines, layout = 0, None
    try:
        for raw in reader:
            if not raw:
                continue
            fields = [_field(field) for field in raw] if has_tabs else raw
            if layout is None:
                layout = ranges.layout(fields)
                if layout.has_header:
                    continue
            one = layout.range(fields)
            lines += 1
            if one.known.country or one.known.provider:
                found.append(one)
    except (Unreadable, csv.Error, UnicodeDecodeError) as error:
        line = reader.line_num + isinstance(error, UnicodeError)  # the reader did not get that one
        raise Unreadable(f"{path}, line {line}: {_said(error)}") from error
    if layout is None or not found:
        raise Unreadable(f"{path}: expected networks with a country or a provider, found none")
    versions = frozenset(one.version for one in found)
    return NetworkFile(path, lines, layout.has_country, layout.has_provider, versions, ranges.independent(found))


def _said(error: Exception) -> str:
    said = str(error)
    if isinstance(error, UnicodeDecodeError):
        said = f"expected UTF-8, found {error.object[error.start]:#x}"
    elif isinstance(error, csv.Error) and said.startswith(TOO_LONG):
        said = f"expected fields of at most {csv.field_size_limit()} characters, found a longer one"
    elif isinstance(error, csv.Error):
        said = f'expected CSV, in which "" is a quote inside of quotes, found: {error}'
    return said


def _field(text: str) -> str:
    """Return what a field of a TSV says: without quotes around it; nothing for the null of PostgreSQL's COPY."""
    if found := QUOTED.fullmatch(text):
        return found[1].replace('""', '"')
    return "" if text == NULL else text


def _texts(file: BinaryIO) -> Iterator[str]:
    """Yield the lines, without a byte order mark."""
    for number, line in enumerate(file):
        yield line.decode("utf-8" if number else "utf-8-sig")


@functools.lru_cache(maxsize=4096)
def _columns(known: Known) -> str:
    """Return the rest of a row as COPY reads it. A name has no blanks but single ones."""
    asn = NULL if known.asn is None else known.asn
    provider = NULL if known.provider is None else known.provider.replace("\\", "\\\\").replace("\0", "")
    return f"\t{known.country or NULL}\t{asn}\t{provider}\n"
