"""Iterators that look ahead; one of them in a thread, while the caller waits for the server or the disk."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Generic, TypeVar

Item = TypeVar("Item")


class Prefetcher(Generic[Item]):
    """The same items in the same order. What their iterator raises is raised after the items before it.

    Leave its `with` before that of what the iterator reads from: leaving waits for the item in production.
    """

    def __init__(self, items: Iterator[Item], room: int = 0, size: Callable[[Item], int] = lambda _: 1) -> None:
        """Produce an item whenever the `size`s of those that wait add up to `room` or less."""
        self._items = items
        self._room = room
        self._size = size
        self._waiting: deque[Item] = deque()
        self._has_ended = False  # nothing more comes
        self._is_left = False  # nothing more is wanted
        self._error: BaseException | None = None
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._produce)

    def __enter__(self) -> Prefetcher[Item]:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        with self._changed:
            self._is_left = True
            self._changed.notify_all()
        self._thread.join()

    def __iter__(self) -> Prefetcher[Item]:
        return self

    def __next__(self) -> Item:
        if self.peek() is None:
            if self._error is not None:
                raise self._error
            raise StopIteration
        with self._changed:
            self._changed.notify_all()
            return self._waiting.popleft()

    def peek(self, ahead: int = 0) -> Item | None:
        """Return an item without taking it, the next or a later one; None at the end, and where no more may wait."""
        with self._changed:
            self._changed.wait_for(lambda: len(self._waiting) > ahead or self._has_ended or not self._may_continue())
            return self._waiting[ahead] if len(self._waiting) > ahead else None

    def _produce(self) -> None:
        try:
            for item in self._items:
                with self._changed:
                    self._waiting.append(item)
                    del item  # the caller's is the only reference while the next one is produced
                    self._changed.notify_all()
                    self._changed.wait_for(self._may_continue)
                    if self._is_left:
                        return
        except BaseException as error:  # raised where the items are taken
            self._error = error
        finally:
            with self._changed:
                self._has_ended = True
                self._changed.notify_all()

    def _may_continue(self) -> bool:
        return self._is_left or sum(map(self._size, self._waiting)) <= self._room


def one_ahead(items: Iterator[Item], is_ready: Callable[[Item], bool]) -> Iterator[Item]:
    """Yield each item when it is ready, or once the next one is there, or none comes.

    What their iterator raises is raised after the items before it.
    """
    waiting: deque[Item] = deque()
    try:
        for item in items:
            waiting.append(item)
            del item
            while len(waiting) > 1 or (waiting and is_ready(waiting[0])):
                yield waiting.popleft()
    except Exception:
        yield from _drained(waiting)
        raise
    yield from _drained(waiting)


def _drained(waiting: deque[Item]) -> Iterator[Item]:
    while waiting:
        yield waiting.popleft()


def chunks(items: Iterator[Item], is_enough: Callable[[list[Item]], bool]) -> Iterator[list[Item]]:
    """Yield items together, as soon as they are enough. What their iterator raises is raised after the items before it.

    The caller takes the items out of the list, and may go on with the iterator itself.
    """
    taken: list[Item] = []
    try:
        for item in items:
            taken.append(item)
            del item
            if is_enough(taken):
                yield taken
                taken = []
    except Exception:
        if taken:
            yield taken
        raise
    if taken:
        yield taken
