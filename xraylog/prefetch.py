"""Two at work at once: while some items wait for the server or for the disk, the next ones are made in a thread."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Generic, TypeVar

Item = TypeVar("Item")


class Ahead(Generic[Item]):
    """The same items in the same order. What their iterator raises comes in its turn.

    Leave its `with` before that of what the iterator reads from: it waits for the item that is being made.
    """

    def __init__(self, items: Iterator[Item], room: int = 0, size: Callable[[Item], int] = lambda _: 1) -> None:
        """One item is made while those that wait have together at most a size of `room`."""
        self._items = items
        self._room = room
        self._size = size
        self._waiting: deque[Item] = deque()
        self._ended = False  # nothing more comes
        self._left = False  # nothing more is wanted
        self._error: BaseException | None = None
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._make)

    def __enter__(self) -> Ahead[Item]:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        with self._changed:
            self._left = True
            self._changed.notify_all()
        self._thread.join()

    def __iter__(self) -> Ahead[Item]:
        return self

    def __next__(self) -> Item:
        if self.peek() is None:
            raise StopIteration
        with self._changed:
            self._changed.notify_all()
            return self._waiting.popleft()

    def peek(self) -> Item | None:
        """The item that comes next, without taking it; None at the end."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._ended)
            if self._waiting:
                return self._waiting[0]
        if self._error is not None:
            raise self._error
        return None

    def _make(self) -> None:
        try:
            for item in self._items:
                with self._changed:
                    self._waiting.append(item)
                    del item  # whoever takes it lets go of it while the next one is made
                    self._changed.notify_all()
                    self._changed.wait_for(self._may_go_on)
                    if self._left:
                        return
        except BaseException as error:  # raised where the items are taken
            self._error = error
        finally:
            with self._changed:
                self._ended = True
                self._changed.notify_all()

    def _may_go_on(self) -> bool:
        return self._left or sum(map(self._size, self._waiting)) <= self._room
