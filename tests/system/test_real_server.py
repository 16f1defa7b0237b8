"""Every line that a real server writes is stored once, while runs, requests and outages of the database go on together.

The server is xray, or v2ray, its parent: that writes its log the same way, with its own shapes of lines. What it must
have written is known from the requests: each has a source address of its own. Three of them at a time are far from the
queue of 128 lines beyond which they drop lines themselves.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import random
import re
import subprocess
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime, timezone
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import psycopg
import pytest
from helpers import real_servers
from helpers.site import Site, backends, wait_until
from server import FAST, Server

LONG = "long." * 40  # in host names: the log soon is larger than a block, and blocks are cut off its front
PAUSE_S = 0.1  # between the requests of one client: they shall last as long as the outages, not be many
RUN_S, SESSION_S = 0.5, 0.15  # about


@pytest.mark.timeout(3600)  # for --long; everything in it has a bound of its own
@pytest.mark.parametrize("name", ["xray", "v2ray"])
def test_every_line_that_a_real_server_writes_is_stored_once(
    own_server: Callable[..., Server], tmp_path: Path, name: str, rounds: int
) -> None:
    writer, curl = real_servers.command(name), real_servers.program("curl")
    server = own_server(*FAST)
    site = Site(tmp_path, server.keywords())
    site.set("parser", batch_size="1")  # many transactions a run: the database goes away between and in them
    began = datetime.now(timezone.utc).replace(microsecond=0)  # v2ray's clock shows no fractions
    with web() as web_port, writing(writer, site, web_port) as inbounds:
        client = Client(curl, inbounds)
        site.run()
        while_all_goes_on(site, server, client, rounds)
        for _ in KINDS:
            client.ask()
        with contextlib.suppress(AssertionError):  # it writes after it answers; what does not come is reported below
            wait_until(lambda: seen(site) >= {request.source for request in client.made}, 10)
    ended = datetime.now(timezone.utc)
    site.run()

    asked = Counter(request.row for request in client.made)
    stored = Counter(as_asked(row) for row in site.rows())
    assert (asked - stored, stored - asked) == (Counter(), Counter()), "lost, doubled"
    assert site.rejected() == []
    assert all(began <= row[0] <= ended for row in site.rows())
    assert site.log.read_bytes() == site.buffer.read_bytes() == b""
    assert sum(json.loads(run)["processed"] for run in site.stats.read_text().splitlines()) == len(client.made)


def while_all_goes_on(site: Site, server: Server, client: Client, outages: int) -> None:
    """Three clients ask, and one run follows another, until the database has been away that often."""
    over = threading.Event()
    with ThreadPoolExecutor(4) as pool:
        operator = pool.submit(stop_and_start, server, site, outages, over)
        clients = [pool.submit(client.ask_until, over) for _ in range(3)]
        try:
            while not operator.done():
                site.run()
        finally:
            over.set()
        for done in (*clients, operator):
            done.result()


def stop_and_start(server: Server, site: Site, outages: int, over: threading.Event) -> None:
    """Mostly in the middle of a run; each time until a run has noticed. Half of the runs after an outage, those that
    import the buffer, are left alone.
    """
    seed = random.randrange(1 << 30)
    print(f"seed {seed}")
    chance = random.Random(seed)
    for _ in range(outages):
        wait_until(lambda: in_session(server) or over.is_set())
        over.wait(chance.uniform(0, SESSION_S))
        server.stop(chance.choice(["fast", "immediate"]))
        wait_for_run(site, "offline", over)
        over.wait(chance.uniform(0, RUN_S))
        server.start()
        if chance.random() < 0.5:
            wait_for_run(site, "online", over)
        if over.is_set():
            return


def in_session(server: Server) -> bool:
    """Whether a run is at work in the database."""
    with psycopg.connect(**server.keywords()) as conn:  # type: ignore[arg-type]
        return backends(conn, "true") > 0


def wait_for_run(site: Site, mode: str, over: threading.Event) -> None:
    before = runs(site, mode)
    wait_until(lambda: runs(site, mode) > before or over.is_set())


def runs(site: Site, mode: str) -> int:
    return site.stats.read_text().count(f'"mode": "{mode}"')


def seen(site: Site) -> set[str]:
    """The sources of all lines that were written, wherever they are by now."""
    here = site.log.read_bytes() + site.buffer.read_bytes()
    return {source.decode() for source in re.findall(rb"127\.1\.\d+\.\d+", here)} | {
        as_asked(row)[0] for row in site.rows()
    }


# --- requests


@dataclass(frozen=True)
class Kind:
    """One way to ask, and what of it must end up in the database; `{n}` makes each request another."""

    inbound: str
    proxy: str  # as curl takes it, {port} is the inbound's
    host: str
    protocol: str | None
    options: tuple[str, ...] = ()
    accepted: bool = True


KINDS = (
    Kind("socks", "socks5h://127.0.0.1:{port}", "h{n}." + LONG + "test", "tcp"),
    Kind("socks", "socks5h://127.0.0.1:{port}", "[2001:db8::{n:x}]", "tcp"),
    Kind("locked", "socks5h://alice:right@127.0.0.1:{port}", "h{n}." + LONG + "test", "tcp"),
    Kind("locked", "socks5h://alice:wrong@127.0.0.1:{port}", "h{n}." + LONG + "test", None, accepted=False),
    Kind("http", "http://127.0.0.1:{port}", "h{n}." + LONG + "test", "http"),
    Kind("http", "http://127.0.0.1:{port}", "h{n}." + LONG + "test", None, options=("--proxytunnel",)),
)


@dataclass(frozen=True)
class Request:
    """The n-th request: it has a source, a host and, nearly, a port of its own."""

    n: int

    @property
    def kind(self) -> Kind:
        return KINDS[self.n % len(KINDS)]

    @property
    def source(self) -> str:
        return f"127.1.{self.n // 250}.{self.n % 250 + 1}"

    @property
    def host(self) -> str:
        return self.kind.host.format(n=self.n)

    @property
    def port(self) -> int:
        return 1024 + self.n % 60000

    @property
    def row(self) -> tuple[Any, ...]:
        """What must be in the database: source, action, protocol, destination and its port, tags, user."""
        if not self.kind.accepted:
            return self.source, "rejected", None, None, None, None, None, None
        return self.source, "accepted", self.kind.protocol, self.host.strip("[]"), self.port, None, "direct", None


def as_asked(row: tuple[Any, ...]) -> tuple[Any, ...]:
    """Of a row in the database, what a request determines."""
    _, source, _, *known, _ = row
    return source.removesuffix("/32"), *known


class Client:
    """Asks through the server with curl, and remembers what it asked."""

    def __init__(self, curl: str, inbounds: dict[str, int]) -> None:
        self.made: list[Request] = []
        self._curl = curl
        self._inbounds = inbounds
        self._numbers = itertools.count()

    def ask_until(self, over: threading.Event) -> None:
        while not over.wait(PAUSE_S):
            self.ask()

    def ask(self) -> None:
        request = Request(next(self._numbers))
        kind = request.kind
        done = subprocess.run(
            [self._curl, "-q", "--silent", "--show-error", "--max-time", "20", "--noproxy", "",
             "--interface", request.source, "--proxy", kind.proxy.format(port=self._inbounds[kind.inbound]),
             *kind.options, "--output", os.devnull, "--write-out", "%{http_code}",
             f"http://{request.host}:{request.port}/"],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        answer = (done.returncode, done.stdout)
        assert answer == ((0, "200") if kind.accepted else (97, "000")), (request, answer, done.stderr)
        self.made.append(request)


# --- servers


@contextlib.contextmanager
def web() -> Iterator[int]:
    """What all requests lead to; its port."""

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Answer) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join()


@contextlib.contextmanager
def writing(command: list[str], site: Site, web_port: int) -> Iterator[dict[str, int]]:
    """A server that writes the site's log; the ports of its inbounds."""
    ports = dict(zip(("socks", "locked", "http"), real_servers.free_ports(3), strict=True))
    accounts = {"auth": "password", "accounts": [{"user": "alice", "pass": "right"}]}
    inbounds: list[dict[str, Any]] = [
        {"protocol": "socks", "port": ports["socks"]},
        {"protocol": "socks", "port": ports["locked"], "settings": accounts},
        {"protocol": "http", "port": ports["http"]},
    ]
    config = {
        "log": {"access": str(site.log), "loglevel": "warning"},
        "inbounds": [{"listen": "127.0.0.1", **inbound} for inbound in inbounds],
        # every host and port leads here: the log has what was asked for
        "outbounds": [{"tag": "direct", "protocol": "freedom", "settings": {"redirect": f"127.0.0.1:{web_port}"}}],
    }
    with real_servers.running(command, site.folder / "server.json", config):
        yield ports
