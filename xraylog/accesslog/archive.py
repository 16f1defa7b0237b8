"""Logs that are read and left as they are: compressed files, and what comes through a pipe.

Offsets and fingerprints are those of the text, never of the compressed bytes: a log that logrotate compressed after
it was stored is recognised, and its position holds.
"""

from __future__ import annotations

import contextlib
import os
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING, Protocol

from xraylog.accesslog.logfile import BLOCK_BYTES, Log, Unusable
from xraylog.records import HEAD_BYTES

if TYPE_CHECKING:
    from lzma import LZMADecompressor

GZIP, XZ = b"\x1f\x8b", b"\xfd7zXZ\0"  # RFC 1952, section 2.3.1; the .xz file format, section 2.1.1.1
OTHERS = {  # as file(1) knows them; read as text, such a file would become rejected lines, and be drained
    b"\x28\xb5\x2f\xfd": "zstd",
    **{bytes([0x50 + kind]) + b"\x2a\x4d\x18": "zstd or lz4" for kind in range(16)},  # a skippable frame first
    b"\x04\x22\x4d\x18": "lz4",
    b"\x02\x21\x4c\x18": "lz4",
    b"BZh": "bzip2",
    b"PK\x03\x04": "zip",
    b"\x5d\0\0": "lzma",
    b"LZIP": "lzip",
    b"\x89LZO\0": "lzop",
    b"7z\xbc\xaf\x27\x1c": "7z",
    b"\x1f\x9d": "compress",
    b"\x1f\xa0": "compress",
    b"Rar!": "rar",
}
MAGIC_BYTES = 6


class Text(Protocol):
    """What gzip and lzma open."""

    def read1(self, size: int, /) -> bytes:
        """Return some bytes, at most `size`; none at the end."""


class Archive(Log):
    """A compressed log. Its text is decompressed anew each time that it is read, a block at a time."""

    def __init__(self, path: Path, descriptor: int) -> None:
        """Take a descriptor of a file that can be read again from its beginning. Raises Unusable."""
        super().__init__(path, b"")
        self._fd = descriptor
        for _, piece in self._pieces(0):
            self._head += piece[: HEAD_BYTES - len(self._head)]
            if len(self._head) == HEAD_BYTES:
                break

    @property
    def is_empty(self) -> bool:
        """Whether there is no text in it, and nothing to say of it."""
        return not self._head and self.damage is None

    def _pieces(self, start: int) -> Iterator[tuple[int, bytes]]:
        """Yield the text from `start` on, as far as it is good. Sets `damage` where it is not, and `unended`."""
        with _decompressed(self.path, self._fd) as (text, errors):
            end = 0
            while True:
                try:
                    piece = text.read1(BLOCK_BYTES)
                except errors as error:
                    self.damage = f"damaged after byte {end} of its text: {error}"
                    return
                if not piece:
                    return
                begin, end = end, end + len(piece)
                self.unended = not piece.endswith(b"\n")
                if end > start:
                    yield max(begin, start), piece[max(0, start - begin) :]


class Piped(Log):
    """What came through a pipe, in a file without a name: it has to be read again where the database refuses a row."""

    def __init__(self, path: Path, descriptor: int) -> None:
        super().__init__(path, os.pread(descriptor, HEAD_BYTES, 0))
        self._fd = descriptor

    def _pieces(self, start: int) -> Iterator[tuple[int, bytes]]:
        while read := os.pread(self._fd, BLOCK_BYTES, start):
            yield start, read
            self.unended = not read.endswith(b"\n")
            start += len(read)


def compression(descriptor: int) -> bytes | None:
    """Return what a file is compressed with, by its first bytes, whatever its name is: GZIP, XZ or another's magic."""
    beginning = os.pread(descriptor, MAGIC_BYTES, 0)
    return next((magic for magic in (GZIP, XZ, *OTHERS) if beginning.startswith(magic)), None)


@contextlib.contextmanager
def spooled(descriptor: int, folder: Path | None) -> Iterator[int]:
    """Spool all that comes through a pipe to a nameless file; return its descriptor. Raises Unusable.

    `folder`: where; None: where temporary files are. The file goes when it is closed, or when the process ends.
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
            raise Unusable(
                f"-: expected to keep piped input in {where} while it is loaded, found: {error.strerror}"
            ) from error
        yield file.fileno()


@contextlib.contextmanager
def _decompressed(path: Path, descriptor: int) -> Iterator[tuple[Text, tuple[type[Exception], ...]]]:
    """Open the text at its beginning; return it with the exceptions that mean damage."""
    kind = compression(descriptor)
    with open(descriptor, "rb", closefd=False) as file:
        file.seek(0)
        if kind == GZIP:
            import gzip  # only where there is one: a run of a plain log need not import it

            with gzip.GzipFile(fileobj=file) as unzipped:
                yield unzipped, (EOFError, gzip.BadGzipFile, zlib.error)
        else:
            try:
                import lzma
            except ImportError as error:
                raise Unusable(f"{path}: expected lzma in this Python to read .xz, found none") from error
            yield _Streams(file, lzma.LZMADecompressor), (EOFError, lzma.LZMAError, _Padding)


class _Padding(Exception):
    """What is between two streams is not what may be there."""


class _Streams:
    """The text of an .xz file: streams that follow one another, with padding between them (its format, section 2).

    lzma.LZMAFile takes whatever follows the first stream for garbage when it is damaged, and says nothing.
    """

    def __init__(self, file: IO[bytes], make: Callable[[], LZMADecompressor]) -> None:
        self._file = file
        self._make = make
        self._stream = make()
        self._read = b""  # and not decompressed

    def read1(self, size: int, /) -> bytes:
        """Return some bytes, at most `size`; none at the end."""
        while not self._stream.eof or self._begin_next():
            more, self._read = self._read, b""
            if self._stream.needs_input and not more and not (more := self._file.read(BLOCK_BYTES)):
                raise EOFError("it ends within a stream")
            if text := self._stream.decompress(more, size):
                return text
        return b""

    def _begin_next(self) -> bool:
        """Whether there is another stream. Its decompressor says whether it is one."""
        rest, padding = self._stream.unused_data, 0
        while not (found := rest.lstrip(b"\0")):
            padding += len(rest)
            if not (rest := self._file.read(BLOCK_BYTES)):
                break
        padding += len(rest) - len(found)
        if padding % 4:
            raise _Padding(f"expected padding of whole words, found {padding} bytes")
        self._stream, self._read = self._make(), found
        return bool(found)
