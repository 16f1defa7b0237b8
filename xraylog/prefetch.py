"""Iterators that read ahead of their caller, one of them in a thread while the caller waits for the server or disk."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Generic, TypeVar

Item = TypeVar("Item")


class Prefetcher(Generic[Item]):
    """Yields the items of an iterator, which a thread produces ahead. An error is raised after the items before it.

    Leave its `with` block before that of whatever the iterator reads from: leaving waits for the item being produced.
    """

    def __init__(self, items: Iterator[Item], room: int = 0, size: Callable[[Item], int] = lambda _: 1) -> None:
        """Let the thread produce another item whenever the sizes of the waiting ones add up to `room` or less."""
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
        """Return the next item, or the one `ahead` of it, without taking it; None at the end, or without room."""
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
    """Yield each item once it is ready, or once the next one has been read, or at the end.

    An error of the iterator is raised after the items before it.
    """
    waiting: list[Item] = []
    try:
        for item in items:
            waiting.append(item)
            del item
            while len(waiting) > 1 or (waiting and is_ready(waiting[0])):
                yield waiting.pop(0)
    except Exception:
        yield from pop_all(waiting)
        raise
    yield from pop_all(waiting)


def pop_all(items: list[Item]) -> Iterator[Item]:
    """Yield the items, and remove each from the list before: the caller has the only reference to it."""
    while items:
        yield items.pop(0)


def chunks(items: Iterator[Item], is_enough: Callable[[list[Item]], bool]) -> Iterator[list[Item]]:
    """Yield lists of consecutive items, each as soon as `is_enough` accepts it; the last may be smaller.

    An error of the iterator is raised after the items before it. The caller takes the items out of the list, and may
    continue with the iterator itself.
    """
    chunk: list[Item] = []
    try:
        for item in items:
            chunk.append(item)
            del item
            if is_enough(chunk):
                yield chunk
                chunk = []
    except Exception:
        if chunk:
            yield chunk
        raise
    if chunk:
        yield chunk
