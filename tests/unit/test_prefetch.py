"""Items come in their order while the next one is made, and so does what their iterator raises."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from xraylog.prefetch import Prefetcher, chunks, one_ahead


def test_items_come_in_their_order_and_can_be_seen_before_they_are_taken() -> None:
    with Prefetcher(iter("abc")) as items:
        assert [(items.peek(), item) for item in items] == [("b", "a"), ("c", "b"), (None, "c")]
        assert items.peek() is None
        assert list(items) == []


def test_the_next_item_is_made_while_the_caller_works_on_this_one() -> None:
    second_begun = threading.Event()

    def items() -> Iterator[int]:
        yield 1
        second_begun.set()
        yield 2

    with Prefetcher(items()) as prefetched:
        assert next(prefetched) == 1
        assert second_begun.wait(600)


def test_an_error_comes_after_the_items_before_it() -> None:
    def items() -> Iterator[int]:
        yield 1
        raise OSError("the disk")

    with Prefetcher(items()) as prefetched:
        assert next(prefetched) == 1
        with pytest.raises(OSError, match="the disk"):
            next(prefetched)


def test_one_may_look_as_far_ahead_as_there_is_room() -> None:
    with Prefetcher(iter([5, 5, 1, 1]), 9, size=int) as items:
        assert [items.peek(number) for number in range(4)] == [5, 5, None, None]  # two have more than 9 together
        assert next(items) == 5
        assert [items.peek(number) for number in range(4)] == [5, 1, 1, None]


def test_looking_ahead_does_not_meet_an_error() -> None:
    """What comes before it can be finished."""

    def items() -> Iterator[int]:
        yield 1
        raise OSError("the disk")

    with Prefetcher(items(), 9) as prefetched:
        assert (prefetched.peek(), prefetched.peek(1)) == (1, None)
        assert next(prefetched) == 1
        assert prefetched.peek() is None
        with pytest.raises(OSError, match="the disk"):
            next(prefetched)


def test_items_come_together_until_they_are_enough() -> None:
    items = iter(range(1, 8))
    found = chunks(items, lambda taken: sum(taken) >= 6)
    assert next(found) == [1, 2, 3]
    assert next(items) == 4  # the caller may go on by itself
    assert list(found) == [[5, 6], [7]]


def test_items_before_an_error_come_first() -> None:
    def items() -> Iterator[int]:
        yield 1
        raise OSError("the disk")

    found = chunks(items(), lambda taken: len(taken) == 2)
    assert next(found) == [1]
    with pytest.raises(OSError, match="the disk"):
        next(found)


def test_leaving_waits_for_the_item_that_is_being_made() -> None:
    begun, let_go, made = threading.Event(), threading.Event(), threading.Event()

    def items() -> Iterator[int]:
        yield 1
        begun.set()
        let_go.wait(600)
        made.set()
        yield 2

    with Prefetcher(items()) as prefetched:
        next(prefetched)
        assert begun.wait(600)
        threading.Timer(0.1, let_go.set).start()
    assert made.is_set()


def test_items_are_made_ahead_as_long_as_there_is_room() -> None:
    made: list[int] = []
    third_made = threading.Event()

    def items() -> Iterator[int]:
        for size in (5, 5, 1, 1):
            made.append(size)
            if len(made) == 3:
                third_made.set()
            yield size

    with Prefetcher(items(), 9, size=int) as prefetched:
        assert not third_made.wait(0.2)  # two have more than 9 together
        assert made == [5, 5]
        assert next(prefetched) == 5
        assert third_made.wait(600)
        assert list(prefetched) == [5, 1, 1]


def test_an_item_that_is_not_ready_is_kept_back_until_the_next_one_is_there() -> None:
    made: list[int] = []

    def items() -> Iterator[int]:
        for number in range(3):
            made.append(number)
            yield number

    assert [(item, len(made)) for item in one_ahead(items(), lambda _: False)] == [(0, 2), (1, 3), (2, 3)]
    made.clear()
    assert [(item, len(made)) for item in one_ahead(items(), lambda _: True)] == [(0, 1), (1, 2), (2, 3)]
    made.clear()
    assert [(item, len(made)) for item in one_ahead(items(), lambda item: item == 1)] == [(0, 2), (1, 2), (2, 3)]


def test_an_error_comes_after_the_item_that_was_kept_back() -> None:
    def items() -> Iterator[int]:
        yield 1
        raise OSError("the disk")

    kept_back = one_ahead(items(), lambda _: False)
    assert next(kept_back) == 1
    with pytest.raises(OSError, match="the disk"):
        next(kept_back)
