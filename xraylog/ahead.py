"""Two at work at once: while one item waits for the server or for the disk, the next one is made in a thread."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Generic, TypeVar

Item = TypeVar("Item")


class Ahead(Generic[Item]):
    """The same items in the same order. What their iterator raises comes in its turn.

    Leave its `with` before that of what the iterator reads from: it waits for the item that is being made.
    """

    def __init__(self, items: Iterator[Item]) -> None:
        self._items = items
        self._thread = ThreadPoolExecutor(max_workers=1)
        self._coming: Future[Item | None] = self._thread.submit(next, items, None)

    def __enter__(self) -> Ahead[Item]:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._thread.shutdown()

    def __iter__(self) -> Ahead[Item]:
        return self

    def __next__(self) -> Item:
        item = self._coming.result()
        if item is None:
            raise StopIteration
        self._coming = self._thread.submit(next, self._items, None)
        return item

    def peek(self) -> Item | None:
        """The item that comes next, without taking it; None at the end."""
        return self._coming.result()
