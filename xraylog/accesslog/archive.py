"""Logs that are read but never changed: compressed files, and piped input.

Offsets and fingerprints are those of the text, never of the compressed bytes: a log that logrotate compressed after it
was stored is recognised, and its position holds.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import os
import shlex
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import IO, Protocol

from xraylog.accesslog.logfile import BLOCK_BYTES, Log, Unusable
from xraylog.records import HEAD_BYTES, TAIL_BYTES, tail_digest

# Magic numbers: RFC 1952, section 2.3.1; the .xz file format, section 2.1.1.1; bzip2 (a block size in ASCII follows);
# RFC 8878, section 3.1.1.
GZIP, XZ, BZIP2, ZSTD = b"\x1f\x8b", b"\xfd7zXZ\0", b"BZh", b"\x28\xb5\x2f\xfd"
# Formats that we refuse, by the magic numbers of file(1), each with a command that decompresses to standard output.
# Read as text, such a file would become unparsed lines, and be drained.
OTHERS = {
    **{bytes([0x50 + kind]) + b"\x2a\x4d\x18": ("zstd or lz4", "zstd -dc") for kind in range(16)},  # a skippable frame
    b"\x04\x22\x4d\x18": ("lz4", "lz4 -dc"),
    b"\x02\x21\x4c\x18": ("lz4", "lz4 -dc"),
    b"PK\x03\x04": ("zip", "unzip -p"),
    b"\x5d\0\0": ("lzma", "xz -dc"),
    b"LZIP": ("lzip", "lzip -dc"),
    b"\x89LZO\0": ("lzop", "lzop -dc"),
    b"7z\xbc\xaf\x27\x1c": ("7z", "7z x -so"),
    b"\x1f\x9d": ("compress", "gzip -dc"),
    b"\x1f\xa0": ("compress", "gzip -dc"),
    b"Rar!": ("rar", "unrar p -inul"),
}
MAGIC_BYTES = 6
# A file of xz or zstd says how much text its decompressor must keep in memory. This is what `xz -9` needs.
MAX_DICTIONARY = 64 << 20  # bytes
XZ_OVERHEAD = 2 << 20  # bytes that liblzma needs in addition
SPOOLED = ".piped"  # stands for the nameless file in messages


class Text(Protocol):
    """The text of a compressed file, read from its beginning."""

    def read1(self, size: int, /) -> bytes:
        """Return at most `size` bytes; none at the end."""


class Archive(Log):
    """A compressed log. Its text is decompressed again each time it is read, a block at a time."""

    def __init__(self, path: Path, descriptor: int) -> None:
        """Take the descriptor of a seekable file. Raises Unusable."""
        super().__init__(path, b"")
        self._fd = descriptor
        for _, piece in self._pieces(0):
            self._head += piece[: HEAD_BYTES - len(self._head)]
            if len(self._head) == HEAD_BYTES:
                break

    @property
    def is_empty(self) -> bool:
        """Return whether it has no text, and no damage to report."""
        return not self._head and self.corruption is None

    def _pieces(self, start: int) -> Iterator[tuple[int, bytes]]:
        """Yield the text from `start` on, as far as it is good. Sets `corruption` and `has_partial_last_line`."""
        with _decompressed(self.path, self._fd) as (text, errors):
            end = 0
            while True:
                try:
                    piece = text.read1(BLOCK_BYTES)
                except errors as error:
                    self.corruption = f"damaged after byte {end} of its text: {error}"
                    return
                if not piece:
                    return
                begin, end = end, end + len(piece)
                self.has_partial_last_line = not piece.endswith(b"\n")
                if end > start:
                    yield max(begin, start), piece[max(0, start - begin) :]


class Piped(Log):
    """Piped input in a file without a name, because it has to be read again if the database refuses a row."""

    def __init__(self, path: Path, descriptor: int) -> None:
        super().__init__(path, os.pread(descriptor, HEAD_BYTES, 0))
        self._fd = descriptor

    def tail(self, offset: int) -> bytes:
        """Return the digest of the text before `offset`."""
        start = max(0, offset - TAIL_BYTES)
        return tail_digest(self.read(start, offset - start))

    def read(self, start: int, length: int) -> bytes:
        """Return `length` bytes from `start` on, fewer at the end."""
        return os.pread(self._fd, length, start)

    def pieces(self, start: int) -> Iterator[tuple[int, bytes]]:
        """Yield offset and bytes of the text from `start` on."""
        while read := self.read(start, BLOCK_BYTES):
            yield start, read
            start += len(read)

    def _pieces(self, start: int) -> Iterator[tuple[int, bytes]]:
        for at, piece in self.pieces(start):
            yield at, piece
            self.has_partial_last_line = not piece.endswith(b"\n")


def compression_of(descriptor: int) -> bytes | None:
    """Return the magic number of a compressed file, whatever its name; None for text."""
    beginning = os.pread(descriptor, MAGIC_BYTES, 0)
    return next((magic for magic in (GZIP, XZ, BZIP2, ZSTD, *OTHERS) if beginning.startswith(magic)), None)


@contextlib.contextmanager
def spooled(descriptor: int, folder: Path | None) -> Iterator[int]:
    """Copy all piped input to a nameless file, and yield its descriptor. Raises Unusable.

    `folder`: where; None: the folder for temporary files. The file vanishes when it is closed, or when the process
    ends.
    """
    import tempfile  # only where something is piped in: its import takes 12 ms

    where = folder or Path(tempfile.gettempdir())
    with contextlib.ExitStack() as files:
        try:
            file = files.enter_context(tempfile.TemporaryFile(dir=where, buffering=0))
            while read := os.read(descriptor, BLOCK_BYTES):
                while read:
                    read = read[file.write(read) :]
        except OSError as error:
            said = f"-: expected to keep piped input in {where} while it is loaded, found: {error.strerror}"
            raise Unusable(said, where / SPOOLED) from error
        yield file.fileno()


def unreadable(magic: bytes | None) -> tuple[str, str] | None:
    """Return name and command of a compression that we cannot read; None if we can."""
    if magic == ZSTD and _zstd() is None:
        return "zstd", "zstd -dc"
    return OTHERS.get(magic) if magic is not None else None


def _zstd() -> ModuleType | None:
    """Return the standard library's module for zstd; None before Python 3.14, or if it was built without it."""
    try:
        return importlib.import_module("compression.zstd")
    except ImportError:
        return None


@contextlib.contextmanager
def _decompressed(path: Path, descriptor: int) -> Iterator[tuple[Text, tuple[type[Exception], ...]]]:
    """Yield the text, from its beginning, and the exceptions that mean that it is damaged. Raises Unusable.

    The modules are imported only if needed: a run on a plain log needs none of them.
    """
    kind = compression_of(descriptor)
    with open(descriptor, "rb", closefd=False) as file:
        file.seek(0)
        if kind == GZIP:
            import gzip

            with gzip.GzipFile(fileobj=file) as unzipped:
                yield unzipped, (EOFError, gzip.BadGzipFile, zlib.error)
        else:
            yield _streams(path, kind, file), (EOFError, Damaged)


def _streams(path: Path, kind: bytes | None, file: IO[bytes]) -> Streams:
    """Return the text of an .xz, .bz2 or .zst file. Raises Unusable if this Python was built without the library."""
    if kind == ZSTD and (zstd := _zstd()) is not None:
        most = {zstd.DecompressionParameter.window_log_max: MAX_DICTIONARY.bit_length() - 1}
        make = functools.partial(zstd.ZstdDecompressor, options=most)
        return Streams(
            file, make, zstd.ZstdError, too_large("requires too much memory", path, "zstd -dc --memory=2GiB")
        )
    try:
        if kind == BZIP2:
            import bz2

            return Streams(file, bz2.BZ2Decompressor, OSError)
        import lzma

        make = functools.partial(lzma.LZMADecompressor, memlimit=MAX_DICTIONARY + XZ_OVERHEAD)
        return Streams(file, make, lzma.LZMAError, too_large("Memory usage limit", path, "xz -dc"), padding=4)
    except ImportError as error:
        printer = f"{'bzip2' if kind == BZIP2 else 'xz'} -dc {shlex.quote(str(path))}"
        said = f"{path}: expected the module {error.name} in this Python to read it, found none"
        raise Unusable(said, path, printer) from error


def too_large(said: str, path: Path, command: str) -> Callable[[Exception], None]:
    """Return a function that raises Unusable if the decompressor's error means that it needs too much memory."""

    def check(error: Exception) -> None:
        if said in str(error):
            most = f"a dictionary of at most {MAX_DICTIONARY >> 20} MiB"
            printer = f"{command} {shlex.quote(str(path))}"
            raise Unusable(f"{path}: expected {most}, found a larger one", path, printer) from error

    return check


class Damaged(Exception):
    """The compressed bytes are not what their format allows."""


class Decompressor(Protocol):
    """What lzma, bz2 and compression.zstd have in common: a decompressor of one stream."""

    @property
    def eof(self) -> bool:
        """Return whether the stream is at its end."""

    @property
    def needs_input(self) -> bool:
        """Return whether `decompress` has to be given more bytes."""

    @property
    def unused_data(self) -> bytes:
        """What came after the end of the stream."""

    def decompress(self, data: bytes, max_length: int) -> bytes:
        """Return at most `max_length` bytes of text."""


class Streams:
    """The text of concatenated streams, which the formats allow.

    The file objects of Python's modules take a damaged stream, except the first, for trailing garbage, and ignore it.
    `check` raises Unusable for an error that is not damage. `padding`: NULs may follow a stream, in multiples of this
    number (.xz file format, section 2.2).
    """

    def __init__(
        self,
        file: IO[bytes],
        make: Callable[[], Decompressor],
        error: type[Exception],
        check: Callable[[Exception], None] = lambda _: None,
        padding: int = 0,
    ) -> None:
        self._file = file
        self._make = make
        self._error = error
        self._check = check
        self._padding = padding
        self._stream = make()
        self._read = b""  # not yet decompressed

    def read1(self, size: int, /) -> bytes:
        """Return at most `size` bytes; none at the end. Raises EOFError and Damaged."""
        while not self._stream.eof or self._begin_next():
            more, self._read = self._read, b""
            if self._stream.needs_input and not more and not (more := self._file.read(BLOCK_BYTES)):
                raise EOFError("it ends within a stream")
            try:
                text = self._stream.decompress(more, size)
            except self._error as error:  # only the decompressor raises it, not the disk
                self._check(error)
                raise Damaged(str(error)) from error
            if text:
                return text
        return b""

    def _begin_next(self) -> bool:
        """Return whether more bytes follow; the next decompressor checks whether they are a stream."""
        rest = self._stream.unused_data or self._file.read(BLOCK_BYTES)
        padding = 0
        while self._padding and not rest.strip(b"\0") and rest:
            padding += len(rest)
            rest = self._file.read(BLOCK_BYTES)
        if self._padding:
            found = rest.lstrip(b"\0")
            padding += len(rest) - len(found)
            if padding % self._padding:
                raise Damaged(f"expected padding in multiples of {self._padding}, found {padding} bytes")
            rest = found
        self._stream, self._read = self._make(), rest
        return bool(rest)
