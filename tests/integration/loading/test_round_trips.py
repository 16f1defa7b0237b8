"""How often a run waits for the server: each round trip costs what the network between them costs."""

from __future__ import annotations

import contextlib
import selectors
import socket
import threading
from collections.abc import Callable, Iterator

import psycopg
import pytest
from helpers.site import Site, lines, users

from xraylog.database.capabilities import Capabilities


class Wire:
    """Stands between a run and the server, and counts how often the run speaks after it has heard an answer."""

    def __init__(self, server: tuple[str, int]) -> None:
        self.round_trips = 0
        self._server = server
        self._door = socket.create_server(("127.0.0.1", 0))
        self.port = self._door.getsockname()[1]
        self._threads: list[threading.Thread] = []
        self._start(self._serve)

    def _start(self, target: Callable[..., None], *arguments: object) -> None:
        self._threads.append(threading.Thread(target=target, args=arguments))
        self._threads[-1].start()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):  # the door was closed
            while True:
                run, _ = self._door.accept()
                self._start(self._relay, run)

    def _relay(self, run: socket.socket) -> None:
        heard = True
        with run, socket.create_connection(self._server) as server, selectors.DefaultSelector() as ready:
            ready.register(run, selectors.EVENT_READ, server)
            ready.register(server, selectors.EVENT_READ, run)
            while True:
                for key, _ in ready.select():
                    if not (data := key.fileobj.recv(1 << 16)):  # type: ignore[union-attr]
                        return
                    self.round_trips += heard and key.fileobj is run
                    heard = key.fileobj is server
                    key.data.sendall(data)

    def close(self) -> None:
        self._door.shutdown(socket.SHUT_RDWR)  # wakes accept(), which close() alone would not
        for thread in self._threads:
            thread.join()
        self._door.close()


@pytest.fixture
def wire(site: Site) -> Iterator[Wire]:
    """The site's runs go through it."""
    wire = Wire((site.database["host"], int(site.database["port"])))
    site.set("postgresql", host="127.0.0.1", port=str(wire.port), sslmode="disable", gssencmode="disable")
    yield wire
    wire.close()


def count(site: Site, wire: Wire, *text: str) -> int:
    """The round trips of a run with these lines."""
    site.append(*text)
    before = wire.round_trips
    site.run()
    return wire.round_trips - before


def test_a_run_with_nothing_to_do_asks_nothing(site: Site, wire: Wire) -> None:
    site.log.touch()
    assert count(site, wire) == 0


def test_a_run_with_a_hundred_lines_makes_few_round_trips(site: Site, wire: Wire) -> None:
    """The connection has three, and its end. Each of six questions has one: the tables, sessions of dead runs, whether
    the database is the one that confirmed the last run, the node, the days, the names.

    Each of five transactions has two, its begin with settings and locks, and its commit, and its statements: the
    position and old positions; COPY in its savepoint and the position; that this run is confirmed; the position again,
    when the log was drained and when it was emptied.
    """
    if not psycopg.Pipeline.is_supported():
        pytest.skip("libpq before 14 sends the begin of a transaction by itself")
    count(site, wire, *lines(0, 100))  # makes the tables
    known, new_names = count(site, wire, *lines(0, 100)), count(site, wire, *lines(100, 200))
    with psycopg.connect(**site.database) as conn:  # type: ignore[arg-type]
        begin = (
            1 if Capabilities.of(conn).statements_have_timeouts else 2
        )  # the settings wait for an answer of their own
    assert known == 4 + 6 * begin + 5 * (begin + 1) + 2 + 5 + 1 + 1 + 1
    assert new_names == known + begin + 1 + 2 * 3  # in users and endpoints: an INSERT in a savepoint


def test_libpq_without_pipelines_stores_the_same(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(psycopg.Pipeline, "is_supported", lambda: False)  # before 14
    for first in (0, 100):
        site.append(*lines(first, first + 100))
        site.run()
    assert site.emails() == users(0, 200)
