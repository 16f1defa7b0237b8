"""What a real xray writes about each way to connect, and about each way to be rejected, becomes the row it should.

A second xray is the client. All connections end in the server's blackhole: its log has what was asked for.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import uuid
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from helpers import real_servers
from helpers.site import Site, wait_until

ALICE, BOB, NOBODY = (str(uuid.UUID(int=number)) for number in (1, 2, 3))
KEYS = {"alice": "YWFhYWFhYWFhYWFhYWFhYQ==", "server": "c3Nzc3Nzc3Nzc3Nzc3Nzcw==", "nobody": "bm5ubm5ubm5ubm5ubm5ubg=="}
NOW = datetime.now(timezone.utc)
FORGED = f"x\n{NOW:%Y/%m/%d %H:%M:%S} from 192.0.2.1:9 accepted tcp:forged.test:443 email: forged".encode()


@dataclass(frozen=True)
class Account:
    """An inbound of the server, and how a client connects to it."""

    inbound: str  # its tag
    protocol: str
    server: dict[str, Any]  # its settings
    client: dict[str, Any]  # without address and port
    email: str | None  # None: xray writes none
    stream: dict[str, Any] | None = None
    mux: bool = False
    reason: str = ""  # why the server rejects the client


def vless(email: str | None, client: str, **more: Any) -> dict[str, Any]:
    users = [{"id": ALICE, "email": "alice@example.com"}, {"id": BOB, "email": "Bob [x] email: b"}]
    return {
        "protocol": "vless", "server": {"clients": users, "decryption": "none"},
        "client": {"id": client, "encryption": "none"}, "email": email, **more,
    }  # fmt: skip


def of_method(method: str) -> dict[str, Any]:
    return {"method": method, "network": "tcp,udp"}


USERS_2022 = {**of_method("2022-blake3-aes-128-gcm"), "password": KEYS["server"]}
USERS = {"method": "aes-128-gcm", "password": "right", "email": "carol"}
ACCOUNTS = (
    Account("vless", **vless("alice@example.com", ALICE)),
    Account("vless", **vless("Bob [x] email: b", BOB)),
    Account("vless", **vless(None, NOBODY, reason="invalid user")),
    Account("mux", **vless("alice@example.com", ALICE, mux=True)),
    Account("ws", **vless("alice@example.com", ALICE, stream={"network": "ws"})),
    Account("xhttp", **vless("alice@example.com", ALICE, stream={"network": "xhttp"})),
    Account("grpc", **vless("alice@example.com", ALICE, stream={"network": "grpc"})),
    Account("kcp", **vless("alice@example.com", ALICE, stream={"network": "kcp"})),
    Account("vmess", "vmess", {"clients": [{"id": ALICE}]}, {"id": ALICE}, None),
    Account("vmess", "vmess", {"clients": [{"id": ALICE}]}, {"id": NOBODY}, None, reason="invalid user"),
    Account("trojan", "trojan", {"clients": [{"password": "a", "email": "t"}]}, {"password": "a"}, "t"),
    Account("trojan", "trojan", {"clients": [{"password": "a", "email": "t"}]}, {"password": "b"}, None,
            reason="invalid user"),
    Account("ss", "shadowsocks", {"network": "tcp,udp", "clients": [USERS]},
            {"method": "aes-128-gcm", "password": "right"}, "carol"),
    Account("ss", "shadowsocks", {"network": "tcp,udp", "clients": [USERS]},
            {"method": "aes-128-gcm", "password": "wrong"}, None, reason="invalid user"),
    Account("ss 2022", "shadowsocks", {**USERS_2022, "clients": [{"password": KEYS["alice"], "email": "dave"}]},
            {**of_method("2022-blake3-aes-128-gcm"), "password": f"{KEYS['server']}:{KEYS['alice']}"}, "dave"),
)  # fmt: skip
HTTP = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
AT_ONCE = (  # what no client would send: to which inbound, and why it is rejected
    ("vless", HTTP, "not this protocol"),
    ("trojan", HTTP * 5, "not this protocol"),
    ("socks", b"\x05\x01\x02", "no login"),
    ("socks", b"\x05\x01\x00" + b"\x05\x02\x00\x01" + b"\0" * 6, "unsupported command"),
    ("socks", b"\x05\x01\x00" + b"\x05\x01\x00\x09" + b"\0" * 6, "bad destination"),
    ("socks", b"\x05\x01\x00" + b"\x05\x01\x00\x03" + bytes([len(FORGED)]) + FORGED + b"\0\x50", "bad destination"),
)
HOSTS = ("h{}.example.test", "UPPER{}.Test", "203.0.113.{}", "2001:db8::{:x}")


def test_what_a_real_xray_writes_becomes_the_rows_it_is_about(site: Site) -> None:
    asked = Counter[tuple[Any, ...]]()
    with servers(site) as (ports, socks_ports), contextlib.ExitStack() as clients:
        for number, (account, port) in enumerate(zip(ACCOUNTS, socks_ports, strict=True), 1):
            for to_port, host in enumerate((form.format(number) for form in HOSTS), 1000 + 10 * number):
                clients.enter_context(through_socks(port, host, to_port))
                asked[row_of(account, host, to_port)] += 1
        for inbound, data, reason in AT_ONCE:
            clients.enter_context(sent(ports[inbound], data))
            asked[rejected(reason)] += 1
        asked["192.0.2.1", "accepted", "tcp", "forged.test", 443, None, None, "forged", ""] += 1
        with contextlib.suppress(AssertionError):  # what does not come is reported below
            wait_until(lambda: site.log.read_text(errors="replace").count("\n") >= asked.total(), 300)
    site.run()
    stored = Counter(rows(site))
    assert (asked - stored, stored - asked) == (Counter(), Counter()), site.rejected()
    assert [line for _, line in site.rejected()] == []


def row_of(account: Account, host: str, port: int) -> tuple[Any, ...]:
    if account.reason:
        return rejected(account.reason)
    return "127.0.0.1", "accepted", "tcp", host, port, account.inbound, "block", account.email, ""


def rejected(reason: str) -> tuple[Any, ...]:
    return "127.0.0.1", "rejected", None, None, None, None, None, None, reason


def rows(site: Site) -> Iterator[tuple[Any, ...]]:
    reasons = [reason or "" for (reason,) in site.query("SELECT reject_reason FROM logs ORDER BY id")]
    for (_, source, _, *row, _), reason in zip(site.rows(), reasons, strict=True):
        yield source.removesuffix("/32"), *row, reason


def through_socks(port: int, host: str, to_port: int) -> socket.socket:
    """Connect through a socks inbound, and say something, because the client of some protocols waits for it."""
    client = sent(port, b"\x05\x01\x00", is_all=False)
    assert client.recv(2) == b"\x05\x00"
    client.sendall(b"\x05\x01\x00" + socks_address(host) + struct.pack(">H", to_port))
    assert client.recv(100)[:2] == b"\x05\x00"
    client.sendall(HTTP)
    client.shutdown(socket.SHUT_WR)
    return client


def sent(port: int, data: bytes, is_all: bool = True) -> socket.socket:
    """Connect and send; xray waits for the end of what it rejects before it writes a line."""
    client = socket.create_connection(("127.0.0.1", port), 60)
    client.sendall(data)
    if is_all:
        client.shutdown(socket.SHUT_WR)
    return client


def socks_address(host: str) -> bytes:
    for kind, family in ((b"\x01", socket.AF_INET), (b"\x04", socket.AF_INET6)):
        with contextlib.suppress(OSError):
            return kind + socket.inet_pton(family, host)
    return b"\x03" + bytes([len(host)]) + host.encode()


# --- servers


@contextlib.contextmanager
def servers(site: Site) -> Iterator[tuple[dict[str, int], list[int]]]:
    """A server that writes the site's log, and a client; the server's ports by inbound, and the client's by account."""
    xray = real_servers.command("xray")
    tags = [*dict.fromkeys(account.inbound for account in ACCOUNTS), "socks"]
    numbers = real_servers.free_ports(len(tags) + len(ACCOUNTS))
    ports, socks_ports = dict(zip(tags, numbers, strict=False)), numbers[len(tags) :]
    with (
        real_servers.running(xray, site.folder / "server.json", of_server(site.log, ports)),
        real_servers.running(xray, site.folder / "client.json", of_client(ports, socks_ports)),
    ):
        yield ports, socks_ports


def of_server(log: Path, ports: dict[str, int]) -> dict[str, Any]:
    inbounds = {"socks": {"protocol": "socks", "settings": {"auth": "noauth"}}} | {
        account.inbound: {
            "protocol": account.protocol, "settings": account.server, "streamSettings": account.stream or {}
        }
        for account in ACCOUNTS
    }  # fmt: skip
    return {
        "log": {"access": str(log), "loglevel": "warning"},
        "inbounds": [
            {"tag": tag, "listen": "127.0.0.1", "port": ports[tag], **inbound} for tag, inbound in inbounds.items()
        ],
        "outbounds": [{"tag": "block", "protocol": "blackhole"}],
    }


def of_client(ports: dict[str, int], socks_ports: list[int]) -> dict[str, Any]:
    outbounds = []
    for number, account in enumerate(ACCOUNTS):
        server: dict[str, Any] = {"address": "127.0.0.1", "port": ports[account.inbound]}
        if account.protocol in {"vless", "vmess"}:
            settings = {"vnext": [{**server, "users": [account.client]}]}
        else:
            settings = {"servers": [{**server, **account.client}]}
        outbounds.append({
            "tag": str(number), "protocol": account.protocol, "settings": settings,
            "streamSettings": account.stream or {}, "mux": {"enabled": account.mux},
        })  # fmt: skip
    return {
        "log": {"access": "none", "loglevel": "warning"},
        "inbounds": [
            {"tag": f"of {number}", "listen": "127.0.0.1", "port": port, "protocol": "socks"}
            for number, port in enumerate(socks_ports)
        ],
        "outbounds": outbounds,
        "routing": {
            "rules": [
                {"inboundTag": [f"of {number}"], "outboundTag": str(number)} for number, _ in enumerate(socks_ports)
            ]
        },
    }
