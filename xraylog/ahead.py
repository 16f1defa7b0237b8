"""Two at work at once: while a batch waits for the server or for the disk, the next one is parsed."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")


def ahead(items: Iterator[Item]) -> Generator[Item]:
    """The same items in the same order; the next one is made in a thread meanwhile. What `items` raises comes in turn.

    Close it before what `items` reads from: it waits for the item that is being made.
    """
    with ThreadPoolExecutor(max_workers=1) as thread:
        coming = thread.submit(next, items, None)
        while (item := coming.result()) is not None:
            coming = thread.submit(next, items, None)
            yield item
            del item  # the caller may have let go of it: two in memory, not three
