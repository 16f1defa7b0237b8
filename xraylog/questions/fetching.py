"""Fetch the rows of an answer: those of a long one in pieces, while it is printed, so that it takes little memory."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, TypeAlias

from xraylog.database.session import Connection

Row: TypeAlias = tuple[Any, ...]
Change: TypeAlias = Callable[[list[Row]], list[Row]]

PIECE = 2_000  # rows; an answer that has fewer is printed after its session has ended
_numbers = itertools.count(1)  # of cursors: several are open at once


class Rows:
    """The rows of a table. The first piece is there at once; the others are fetched while they are read, and only once.

    `sources`: statements that follow each other. `limit`: of the rows of each, None for no limit. `length`: of a piece,
    in rows; None: all rows are the first piece.
    """

    def __init__(self, sources: Iterable[Iterable[Row]], limit: int | None = None, length: int | None = None) -> None:
        self.is_cut = False  # whether the limit left out rows; certain once all rows have been read
        self._limit = limit
        self._length = length
        self._rows = itertools.chain.from_iterable(map(self._limited, sources))
        self._changes = list[Change]()
        self.first = list(itertools.islice(self._rows, length))
        self.is_whole = length is None or len(self.first) < length
        self._fetched = len(self.first)

    def __len__(self) -> int:
        """Return the number of rows that are fetched: all, once they have been read."""
        return self._fetched

    def __iter__(self) -> Iterator[Row]:
        """Yield each row."""
        yield from self.first
        while not self.is_whole and (piece := list(itertools.islice(self._rows, self._length))):
            self._fetched += len(piece)
            for change in self._changes:
                piece = change(piece)
            yield from piece

    def change(self, change: Change) -> None:
        """Change the rows of each piece. Their number must stay."""
        self.first = change(self.first)
        self._changes.append(change)

    def _limited(self, rows: Iterable[Row]) -> Iterator[Row]:
        for number, row in enumerate(rows):
            if number == self._limit:
                self.is_cut = True
                return
            yield row


def fetch(conn: Connection, text: str, values: Mapping[str, Any], length: int | None) -> Iterator[Row]:
    """Yield the rows of a statement; with a length of pieces, by a cursor of the server, in its transaction."""
    if length is None:
        yield from conn.execute(text, values).fetchall()
        return
    with conn.cursor(f"rows {next(_numbers)}") as cursor:
        cursor.itersize = length
        yield from cursor.execute(text, values)
