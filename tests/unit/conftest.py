"""A unit test speaks to no server: it is over in milliseconds, and can run anywhere."""

from __future__ import annotations

from typing import NoReturn

import psycopg
import pytest
from server import Server


@pytest.fixture(autouse=True)
def _no_server(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_arguments: object, **_keywords: object) -> NoReturn:
        pytest.fail("expected a unit test that needs no server; the others are in tests/integration")

    monkeypatch.setattr(psycopg, "connect", refuse)
    monkeypatch.setattr(psycopg.Connection, "connect", refuse)
    monkeypatch.setattr(Server, "start", refuse)
