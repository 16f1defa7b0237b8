"""A bulk load parses, adds names and stores rows at the same time."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timezone
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from xraylog.accesslog.parser import Parser
from xraylog.database.references import Resolved
from xraylog.database.rejection import Refusals
from xraylog.loading import bulk
from xraylog.records import Batch

NOW = datetime(2025, 11, 18, tzinfo=timezone.utc)
TEXT = b"2025/11/17 10:15:23 from 203.0.113.1:1024 accepted tcp:host.example:443 [in >> out] email: alice\n"


class Slow:
    """Names that are known once the next batch has been parsed."""

    def __init__(self) -> None:
        self.next_is_parsed = threading.Event()

    def resolve(self, names: Any) -> Resolved:
        if not self.next_is_parsed.wait(600):
            raise TimeoutError
        return Resolved({table: dict.fromkeys(wanted, 1) for table, wanted in names.items()}, {}, {})


def batch() -> Batch:
    (found,) = Parser(ZoneInfo("UTC"), NOW).batches([(0, TEXT)], 10)
    return found


def test_the_next_batch_is_parsed_while_the_server_adds_names(monkeypatch: pytest.MonkeyPatch) -> None:
    names = Slow()

    def batches() -> Iterator[Batch]:
        yield batch()
        names.next_is_parsed.set()
        yield batch()

    monkeypatch.setattr(
        bulk, "prepare", lambda batch, resolved, *_: (len(batch.records), sorted(resolved.ids["users"]))
    )
    with ThreadPoolExecutor(1) as resolver:
        prepared: list[Any] = list(
            bulk.prepare_all(names, resolver, 1, None, Refusals(), batches())  # type: ignore[arg-type]
        )
    assert prepared == [(1, ["alice"])] * 2
