"""Every line that xray or v2ray writes becomes the right row, is ignored by design, or is bad: none is an accident.

The letters in the names are those of the tables in our study of the log: A current, B older, C documented only, D the
HTTP inbound, E shadowsocks-2022, F sources without an address, G xray's own DNS client, H DNS answers, I rejected,
J tags, K emails, L hosts, M masked addresses, N console, O wrapped by others, P damaged.
"""

from __future__ import annotations

import ipaddress
import itertools
import re
import string
from collections import Counter
from collections.abc import Iterable
from datetime import datetime, time, timedelta, timezone, tzinfo
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from helpers.parsing import (
    AT,
    NOW,
    STORED_AT,
    WHOLE,
    WHOLE_ROW,
    Kind,
    grammar_of,
    parse,
    parser_of,
    raw,
    reason,
    results,
)
from helpers.site import ROOT, SAMPLES
from hypothesis import given, settings
from hypothesis import strategies as st

from xraylog.accesslog import destination, grammar, parser
from xraylog.accesslog.destination import NETWORKS
from xraylog.accesslog.masking import UNMASKED, Mask
from xraylog.accesslog.parser import Parser
from xraylog.accesslog.reject_reasons import RejectReason
from xraylog.accesslog.values import ParseError
from xraylog.records import AccessRecord, BadLine, Batch, Ignored

some_examples = settings(deadline=None, max_examples=300)


def table(rows: dict[str, dict[Any, Any]], *names: str) -> pytest.MarkDecorator:
    """One case an entry, named by the letter of its table and its key."""
    entries = [(letter, key, value) for letter, part in rows.items() for key, value in part.items()]
    ids = [f"{letter}: {raw(key)!r:.90}" for letter, key, _ in entries]
    return pytest.mark.parametrize(names, [entry[1:] for entry in entries], ids=ids)


# Whole lines, except the timestamp where there is none, and the fields from source_ip on: address, port, action,
# protocol, destination, its port, inbound, outbound, email, reason of a rejection. What is left out at the end is null.
NOTHING = (None,) * 6  # from protocol to email
TO_X = ("1.2.3.4", 5, "accepted", "tcp", "x", 443)
LINES: dict[str, dict[str, tuple[Any, ...]]] = {
    "A": {
        "from 203.0.113.10:51000 accepted tcp:www.example.com:443 [inbound-443 >> direct] email: k3j9": (
            *("203.0.113.10", 51000, "accepted", "tcp", "www.example.com", 443, "inbound-443", "direct", "k3j9"),
        ),
        "from tcp:198.51.100.7:40024 accepted udp:1.1.1.1:53 [a -> b] email: 17": (
            *("198.51.100.7", 40024, "accepted", "udp", "1.1.1.1", 53, "a", "b", "17"),
        ),
        "from udp:[::1]:50189 accepted udp:[2001:db8::8]:53 [socks6 >> direct]": (
            *("::1", 50189, "accepted", "udp", "2001:db8::8", 53, "socks6", "direct"),
        ),
    },
    "B": {
        "2024/09/01 08:00:00 from 1.2.3.4:5 accepted tcp:x:443 [in -> out] email: e": (*TO_X, "in", "out", "e"),
        "2024/01/15 08:00:00 1.2.3.4:5 accepted tcp:x:443 [in -> out] email: e": (*TO_X, "in", "out", "e"),
        "2021/12/01 09:00:00 1.2.3.4:5 accepted tcp:x:443 [out] email: e": (*TO_X, None, "out", "e"),
        "2020/05/01 09:00:00 1.2.3.4:5 accepted tcp:x:443 [out] email:e ": (*TO_X, None, "out", "e"),
        "2019/08/01 09:00:00 1.2.3.4:5 accepted tcp:x:443 email:e ": (*TO_X, None, None, "e"),
        "2018/08/01 09:00:00 1.2.3.4:5 accepted tcp:x:443 ": TO_X,
        "2017/11/21 20:09:24 1.2.3.4:5 rejected  Proxy|VMess|Encoding: invalid user": (
            *("1.2.3.4", 5, "rejected", *NOTHING, "invalid user"),
        ),
    },
    "C": {
        "from tcp:192.168.0.10 : 54321 accepted tcp:example.com : 443 [in >> out] email:user@example.com": (
            *("192.168.0.10", 54321, "accepted", "tcp", "example.com", 443, "in", "out", "user@example.com"),
        ),
        "from 1.2.3.4 : 5 accepted udp:x : 443": ("1.2.3.4", 5, "accepted", "udp", "x", 443),
        "from udp:1.2.3.4 : 5 accepted //x : 443 [out]": ("1.2.3.4", 5, "accepted", None, "x", 443, None, "out"),
        "from 1.2.3.4 : 5 accepted x : 443 [out]": ("1.2.3.4", 5, "accepted", None, "x", 443, None, "out"),
        "from tcp:[::1] : 5 accepted tcp:[::2] : 443 [out]": ("::1", 5, "accepted", "tcp", "::2", 443, None, "out"),
        "from 1.2.3.4 : 5 accepted tcp:x : 443 email:e": (*TO_X, None, None, "e"),
        "from   tcp:1.2.3.4  :   5  accepted   tcp:x:  443   [in  ->  out]   email:  e": (*TO_X, "in", "out", "e"),
        "from 1.2.3.4:5 accepted tcp:x:443 [in -> out]   email: e": (*TO_X, "in", "out", "e"),
        "from 1.2.3.4:5 accepted tcp:x:443 [in>>out] email: e": (*TO_X, "in", "out", "e"),
        "from 1.2.3.4 : 5 accepted tcp:x : 443 [in->out] email: e": (*TO_X, "in", "out", "e"),
        "from tcp : 1.2.3.4 : 5 accepted tcp : x : 443 [in -> out]": (*TO_X, "in", "out"),
        "from 1.2.3.4 : 5 accepted tcp:x : 443 [in -> out] email : e": (*TO_X, "in", "out", "e"),
        "api from 10.0.0.1:12345 api -> api": ("10.0.0.1", 12345, "api", None, None, None, "api", "api"),
        "api from [2001:db8::1]:9 api -> api": ("2001:db8::1", 9, "api", None, None, None, "api", "api"),
        "from 127.0.0.1:57104 accepted tcp:127.0.0.1:0 [api -> api]": (
            *("127.0.0.1", 57104, "api", "tcp", "127.0.0.1", 0, "api", "api"),
        ),
        "127.0.0.1:36464 accepted tcp:127.0.0.1:0 [api]": (
            *("127.0.0.1", 36464, "api", "tcp", "127.0.0.1", 0, None, "api"),
        ),
        "from 127.0.0.1:57104 accepted tcp:127.0.0.1:0 [api >> api] email: e": (
            *("127.0.0.1", 57104, "accepted", "tcp", "127.0.0.1", 0, "api", "api", "e"),
        ),
        "from 1.2.3.4:5 accepted tcp:x:443 [api -> out]": (*TO_X, "api", "out"),
    },
    "F": {
        "2023/03/01 10:22:00  accepted tcp:127.0.0.1:8800 [bridge -> out]": (
            *(None, None, "accepted", "tcp", "127.0.0.1", 8800, "bridge", "out"),
        ),
    },
    "M": {
        "from tcp:[Masked IPv4]:40040 accepted tcp:[Masked IPv4]:8800 [in >> out]": (
            *(None, 40040, "accepted", "tcp", "[Masked IPv4]", 8800, "in", "out"),
        ),
    },
}


@table(LINES, "line", "fields")
def test_a_line_becomes_the_row_that_it_says(line: str, fields: tuple[Any, ...]) -> None:
    if line.startswith("20"):
        assert parse(line) == AccessRecord(line[:19].replace("/", "-") + "+00", *fields)
    else:
        assert parse(AT, line) == AccessRecord(STORED_AT, *fields)


# FROM, and the row's source address and port.
SOURCES: dict[str, dict[str, tuple[str | None, int | None]]] = {
    "A": {
        "1.2.3.4:5": ("1.2.3.4", 5),
        "tcp:127.0.0.1:40022": ("127.0.0.1", 40022),
        "udp:[::1]:65535": ("::1", 65535),
        "[2001:db8::77]:0": ("2001:db8::77", 0),
        "tcp:0.0.0.0:0": ("0.0.0.0", 0),  # noqa: S104
    },
    "F": {
        **dict.fromkeys(["@", "@fallback", "unix:@", "unix:", "unix:/run/x.sock", "", "unknown:"], (None, None)),
        "[fe80::1%eth0]:9": ("fe80::1", 9),
        "tcp:[fe80::1%25]:9": ("fe80::1", 9),
    },
    "M": {
        "203.0.*.*:7": ("203.0.0.0/16", 7),
        "tcp:203.*.*.*:7": ("203.0.0.0/8", 7),
        "203.0.113.*:7": ("203.0.113.0/24", 7),
        "[2001:db8::/32]:7": ("2001:db8::/32", 7),
        "tcp:[2001::/16]:7": ("2001::/16", 7),
        "[2001:db8:1:2::/64]:7": ("2001:db8:1:2::/64", 7),
        **dict.fromkeys(["[:::/32]:7", "tcp:[Masked IPv4]:7", "[Masked IPv6]:7"], (None, 7)),
        # What was fd00::5, fe80::1%eth0, ::ffff:203.0.113.5 and 64:ff9b::203.0.113.5.
        "[fd00:::/32]:7": ("fd00::/32", 7),
        "tcp:[fe80:::/32%eth0]:7": ("fe80::/32", 7),
        "[::ffff:203.0.*.*]:7": ("::ffff:203.0.0.0/112", 7),
        "[::FFFF:203.0.113.*]:7": ("::FFFF:203.0.113.0/120", 7),
        **dict.fromkeys(["[:::/32.0.*.*]:7", "[::/16.*.*.*]:7", "[Masked IPv6[Masked IPv4]]:7"], (None, 7)),
        **dict.fromkeys(["[::ffff:0/112.0.113.5]:7", "[64:ff9b::/32.0.*.*]:7", "[64::/16.*.*.*]:7"], (None, 7)),
        **dict.fromkeys(["[Masked IPv6.0.113.5]:7", "[::ffff:[Masked IPv4]]:7", "[Masked IPv6%eth0]:7"], (None, 7)),
    },
}


@table(SOURCES, "source", "stored")
def test_a_source_is_an_address_a_network_or_null(source: str, stored: tuple[str | None, int | None]) -> None:
    for key in ("from ", ""):  # before xray 1.8.24 there was none
        accepted = parse(AT, key, source, " accepted tcp:x:443 [in -> out] email: e")
        assert accepted == AccessRecord(STORED_AT, *stored, "accepted", "tcp", "x", 443, "in", "out", "e")
        rejected = AccessRecord(STORED_AT, *stored, "rejected", reject_reason="other")
        assert parse(AT, key, source, " rejected  why") == rejected


NO_SOURCES = "999.1.2.3:4 1.2.3:4 example.com:4 1.2.3.4 1.2.3.4: 1.2.3.4:x 1.2.3.4:-1 1.2.3.4\0:5 [2001:db8::12:443"
NO_SOURCES += " [fd00:::]:5 [::ffff:999.0.*.*]:5 [x*]:5 [*]:5 [x.Masked]:5"
NO_SOURCES += " [1.2.3.45:6 [::g]:4 999.0.*.*:4 [2001:db8::/129]:4 ::1%eth0:5 ::1%\0:5 dns tcp: 2025/11/17:4"


@pytest.mark.parametrize("source", NO_SOURCES.split(" "))
def test_any_other_source_is_bad(source: str) -> None:
    for tail in ("accepted tcp:x:443 [in -> out] email: e", "rejected  proxy/trojan: not a valid user"):
        assert reason(AT, "from ", source, " ", tail).startswith("expected a")


def test_a_piece_that_means_nothing_by_itself_is_bad() -> None:
    for piece in (b"from @", b"from @abc", b"from unix:@"):  # sources of a line that has no port after them
        with pytest.raises(ParseError, match="expected an address"):
            grammar.source(piece)
    with pytest.raises(ParseError, match="expected a host, found none"):
        destination.host(b"")


# What follows `accepted`, and the fields from protocol on.
X = ("tcp", "x", 443)
ACCEPTED: dict[str, dict[str | bytes, tuple[Any, ...]]] = {
    "A": {
        "tcp:x:443": X,
        "tcp:x:443 [direct]": (*X, None, "direct"),
        "tcp:x:443 email: e": (*X, None, None, "e"),
        "tcp:x:443 [a ==> b]": (*X, "a", "b"),
        "tcp:rev.internal:0 [interconn -> portal] email: b": ("tcp", "rev.internal", 0, "interconn", "portal", "b"),
    },
    "D": {
        "//www.example.com:443": (None, "www.example.com", 443),
        "//[::1]:8800": (None, "::1", 8800),
        "//EXAMPLE.com.:443": (None, "EXAMPLE.com.", 443),
        "//localhost": (None, "localhost", None),
        "//127.0.0.1:99999": (None, "127.0.0.1", None),
        "//127.0.0.1:0": (None, "127.0.0.1", 0),
        "http://www.example.com/": ("http", "www.example.com", 80),
        "https://www.example.com": ("https", "www.example.com", 443),
        "ftp://www.example.com/pub": ("ftp", "www.example.com", 21),
        "https://h:8800/tls": ("https", "h", 8800),
        "ftp://h:8800/x": ("ftp", "h", 8800),
        "http://h:65535/": ("http", "h", 65535),
        "http://h:65536/": ("http", "h", None),
        f"http://h:{'9' * 5000}/": ("http", "h", None),
        "http://127.0.0.1:8800/path/to?q=1&x=%20y": ("http", "127.0.0.1", 8800),
        "http://127.0.0.1:8800/x?email:a@b.c%20[in]": ("http", "127.0.0.1", 8800),
        "http://h:8800?next=me@evil.test:1": ("http", "h", 8800),
        "http://user:pa55@127.0.0.1:8800/secret": ("http", "127.0.0.1", 8800),
        "http://user:pa55@[::1]/secret": ("http", "::1", 80),
        "http://b%C3%BCcher.test:8800/%C3%A9": ("http", "b%C3%BCcher.test", 8800),
        "http://[fe80::1%25eth0]:8800/": ("http", "fe80::1", 8800),
        b"http://h/\xff\xfe\0": ("http", "h", 80),
        "/rel": (),
        "*": (),
    },
    "E": {
        "127.0.0.1:8800 [ss22-in >> direct] email: ss22@example.com": (
            *(None, "127.0.0.1", 8800, "ss22-in", "direct", "ss22@example.com"),
        ),
        "[::1]:8800 [ss22-in >> direct]": (None, "::1", 8800, "ss22-in", "direct"),
        "localhost:8800 email: e": (None, "localhost", 8800, None, None, "e"),
    },
    "J": {
        "tcp:x:443 [VLESS TCP REALITY -> b c]": (*X, "VLESS TCP REALITY", "b c"),
        "tcp:x:443 [inbound-0.0.0.0:443 >> b]": (*X, "inbound-0.0.0.0:443", "b"),
        "tcp:x:443 [vless in (a) -> b[1]]": (*X, "vless in (a)", "b[1]"),
        "tcp:x:443 [вход ==> 出] email: e": (*X, "вход", "出", "e"),
        "tcp:x:443 [doko -> out -> put] x]": (*X, "doko", "out -> put] x"),
        "tcp:x:443 [a>>b -> c]": (*X, "a>>b", "c"),
        "tcp:x:443 [t -> t]": (*X, "t", "t"),
        "tcp:x:443 [a -> b] c] email: d] email: e": (*X, "a", "b] c", "d] email: e"),
    },
    "K": {
        "tcp:x:443 [b] email: 12.alice": (*X, None, "b", "12.alice"),
        "tcp:x:443 [b] email: 7": (*X, None, "b", "7"),
        "tcp:x:443 [b] email: user with space|x": (*X, None, "b", "user with space|x"),
        "tcp:x:443 [b] email: юзер@пример.рф": (*X, None, "b", "юзер@пример.рф"),
        "tcp:x:443 [b] email: a]b [c -> d] email: e": (*X, None, "b", "a]b [c -> d] email: e"),
        "tcp:x:443 email: a [b -> c]": (*X, None, None, "a [b -> c]"),
        "tcp:x:443 email: a rejected b": (*X, None, None, "a rejected b"),
        "tcp:x:443 [b] email: dup  ": (*X, None, "b", "dup"),
        "tcp:x:443 [b] email:  e": (*X, None, "b", " e"),
    },
    "L": {
        "tcp:LocalHost.:65535": ("tcp", "LocalHost.", 65535),
        "tcp:under_score.test:0": ("tcp", "under_score.test", 0),
        "tcp:1.2.3:8800": ("tcp", "1.2.3", 8800),
        "udp:xn--bcher-kva.test:53": ("udp", "xn--bcher-kva.test", 53),
        "tcp:[fe80::1%eth0]:443": ("tcp", "fe80::1", 443),
    },
    "M": {
        "tcp:198.51.*.*:443 [in-0.0.*.* >> out] email: e": ("tcp", "198.51.*.*", 443, "in-0.0.*.*", "out", "e"),
        "tcp:[2001:db8::/32]:443": ("tcp", "2001:db8::/32", 443),
        "[Masked IPv6]:8800 [i-[Masked IPv4]:4 >> o] email: Masked IPv6": (
            *(None, "[Masked IPv6]", 8800, "i-[Masked IPv4]:4", "o", "Masked IPv6"),
        ),
        "http://[Masked IPv4]:8800/a [out]": ("http", "[Masked IPv4]", 8800, None, "out"),
        "http://[:::/32]:8800/v6": ("http", ":::/32", 8800),
        "//[2001::/16]:443 [http-in >> direct]": (None, "2001::/16", 443, "http-in", "direct"),
        "tcp:[fd00:::/32]:443 [out]": ("tcp", "fd00:::/32", 443, None, "out"),
        "http://[fe80::/16%25eth0]:8800/v6": ("http", "fe80::/16", 8800),
        "http://me:pa55@[:::/32.0.*.*]/v6?x": ("http", ":::/32.0.*.*", 80),
        "tcp:[Masked IPv6[Masked IPv4]]:443 [out]": ("tcp", "[Masked IPv6[Masked IPv4]]", 443, None, "out"),
        "http://[Masked IPv6%eth0]/x": ("http", "[Masked IPv6%eth0]", 80),
    },
}


@table(ACCEPTED, "text", "fields")
def test_after_accepted_come_destination_tags_and_user(text: str | bytes, fields: tuple[Any, ...]) -> None:
    """Of a URL only scheme, host and port are stored: not its user, password, path or query."""
    assert parse(AT, "from 1.2.3.4:5 accepted ", text) == AccessRecord(STORED_AT, "1.2.3.4", 5, "accepted", *fields)
    if len(fields) <= 3:
        row = AccessRecord(STORED_AT, "1.2.3.4", 5, "accepted", *(fields or (None, None, None)), "a b", "c")
        assert parse(AT, "1.2.3.4:5 accepted ", text, " [a b -> c]") == row


# What follows `rejected` and two blanks, and the reason that is stored.
REASONS: dict[str | bytes, str] = {
    "proxy/vless/encoding: invalid request user id": "invalid user",
    "proxy/vless/encoding: invalid request user id: 5783a3e7-e373-51cd-8642-c83782b807c5": "invalid user",
    "proxy/trojan: not a valid user": "invalid user",
    "proxy/socks: invalid username or password": "invalid user",
    "proxy/shadowsocks: failed to match an user > proxy/shadowsocks: Not Found": "invalid user",
    "common/drain: common/drain: unable to drain connection > EOF > proxy/vmess/encoding: invalid user > user do not "
    "exist": "invalid user",
    "v2ray.com/core/proxy/vmess/encoding: failed to drain connection DrainSize = 800 41 22 > "
    "v2ray.com/core/proxy/vmess/encoding: invalid user > v2ray.com/core/proxy/vmess: Not Found": "invalid user",
    # proxy/vmess/aead/authid.go: the account exists, or its checksum would not fit
    "common/drain: common/drain: unable to drain connection > EOF > proxy/vmess/encoding: invalid user > invalid "
    "timestamp, perhaps unsynchronized time": "wrong clock",
    "proxy/vmess/encoding: invalid user > timestamp is negative": "wrong clock",
    "proxy/vmess/encoding: invalid user > replayed request": "replay",
    "proxy/vmess/encoding: duplicated session id, possibly under replay attack, but this is a AEAD request": "replay",
    "proxy/shadowsocks: failed iv check > proxy/shadowsocks: IV is not unique": "replay",
    "proxy/vmess/encoding: invalid user: VMessAEAD is enforced and a non VMessAEAD connection is received. You can "
    "still disable it": "insecure encryption",
    "proxy/socks: no matching auth method": "no login",
    "proxy/socks: socks 4 is not allowed when auth is required.": "no login",
    "proxy/vless/encoding: invalid request version": "not this protocol",
    "proxy/trojan: not trojan protocol": "not this protocol",
    "proxy/socks: unknown Socks version: 71": "not this protocol",
    "proxy/vless/inbound: firstLen < 18 (VLESS)": "not this protocol",
    "proxy/shadowsocks: len(bs) <= 32": "not this protocol",
    # crypto/tls, of an inbound with TLS
    "proxy/vmess/encoding: failed to read request header > tls: first record does not look like a TLS handshake": (
        "not this protocol"
    ),
    "proxy/vmess/encoding: failed to read request header > tls: oversized record received with length 65535": (
        "not this protocol"
    ),
    "proxy/vmess/encoding: failed to read request header > local error: tls: bad record MAC": "not this protocol",
    "transport/internet/reality: processed invalid connection": "not this protocol",
    "proxy/hysteria: invalid padding length": "not this protocol",
    "proxy/socks: TCP bind is not supported.": "unsupported command",
    "proxy/socks: UDP is not enabled.": "unsupported command",
    "proxy/socks: unknown command 9": "unsupported command",
    "proxy/vless/encoding: invalid request address": "bad destination",
    "proxy/vmess/encoding: invalid remote address": "bad destination",
    "proxy/trojan: failed to read address and port > common/protocol: unknown address type: 9": "bad destination",
    "proxy/hysteria: invalid address length": "bad destination",
    "v2ray.com/core/proxy/shadowsocks: failed to read address > cipher: message authentication failed": "wrong key",
    "proxy/vmess/encoding: invalid auth, but this is a AEAD request": "wrong key",
    "proxy/vless/encoding: failed to read request version > read tcp [::1]:443->[::2]:65535: i/o timeout": "timeout",
    "timeout: no recent network activity": "timeout",  # quic-go
    "timeout: handshake did not complete in time": "timeout",
    "proxy/vless/encoding: failed to read request version > read tcp 1.2.3.4:443->5.6.7.8:6001: read: connection reset "
    "by peer": "connection closed",
    "proxy/socks: insufficient header > unexpected EOF": "connection closed",
    "proxy/socks: insufficient header > EOF": "connection closed",
    "proxy/vless/encoding: failed to read > read tcp 1.2.3.4:443->5.6.7.8:6001: wsarecv: An existing connection was "
    "forcibly closed by the remote host.": "connection closed",
    "proxy/vmess/encoding: failed to read request header > remote error: tls: bad certificate": "connection closed",
    "proxy/vless/encoding: failed to read request version > websocket: close 1000 (normal)": "connection closed",
    "proxy/vmess/encoding: failed to read request header > websocket: close 1005 (no status)": "connection closed",
    "proxy/vmess/encoding: failed to read request header > websocket: close 1006 (abnormal closure): unexpected EOF": (
        "connection closed"
    ),
    "proxy/vmess/encoding: failed to read request header > rpc error: code = Canceled desc = context canceled": (
        "connection closed"
    ),
    "proxy/vmess/encoding: failed to read request header > http2: client disconnected": "connection closed",
    "stream 4 canceled by remote with error code 256": "connection closed",
    "Application error 0x100 (remote)": "connection closed",
    "common/drain: common/drain: unable to drain connection > websocket: close 1000 (normal) > proxy/vmess/encoding: "
    "invalid user > user do not exist": "invalid user",
    "common/drain: common/drain: unable to drain connection > websocket: close 1006 (abnormal closure): unexpected EOF "
    "> proxy/vmess/encoding: invalid user > user do not exist": "invalid user",
    # What a client wrote decides nothing.
    "proxy/vmess/encoding: failed to read request header > websocket: close 1000 (normal): invalid user > replayed "
    "request": "connection closed",
    "proxy/vmess/encoding: failed to read request header > websocket: close 4000: tls: i/o timeout": (
        "connection closed"
    ),
    "proxy/vmess/encoding: failed to read request header > Application error 0x0 (remote): invalid user": (
        "connection closed"
    ),
    "proxy/vmess/encoding: failed to read request header > NO_ERROR (remote) (frame type: 0x1c): not a valid user": (
        "connection closed"
    ),
    "proxy/vmess/encoding: failed to read request header > tls: client requested unsupported application protocols "
    "([invalid user replayed request])": "not this protocol",
    b"proxy/socks: failed to read address > common/protocol: invalid domain name: \xff\xfe\0 bad": "bad destination",
    b"proxy/socks: failed to read address > common/protocol: invalid domain name: " + b"\x80" * 255: "bad destination",
    "common/protocol: invalid domain name: [a -> b] email: x": "bad destination",
    "common/protocol: invalid domain name: 6.6.6.6:6 accepted tcp:h:1 [a -> b] email: x": "bad destination",
    "common/protocol: invalid domain name: Insecure encryption email: x": "bad destination",
    "common/protocol: invalid domain name: invalid user > replayed request": "bad destination",
    # A host that a fork names is none of these.
    "dial tcp: lookup EOF.invalid-user.example: no such host": "other",
    "a reason that nobody knows yet": "other",
    "": "other",
}


@pytest.mark.parametrize(("why", "name"), REASONS.items(), ids="I: {!r:.60}".format)
def test_of_a_rejected_connection_the_name_of_its_reason_is_stored(why: str | bytes, name: str) -> None:
    for source in ("from 1.2.3.4:5", "from tcp:1.2.3.4:5", "from udp:1.2.3.4:5", "1.2.3.4:5"):
        row = AccessRecord(STORED_AT, "1.2.3.4", 5, "rejected", reject_reason=name)
        assert parse(AT, source, " rejected  ", why) == row


def test_each_reason_of_the_catalogue_has_a_line_here() -> None:
    assert {*REASONS.values()} == {reason.value for reason in RejectReason}


@pytest.mark.parametrize("length", [1 << 10, 1 << 20])
def test_a_long_reason_is_sorted_by_its_beginning(length: int) -> None:
    row = AccessRecord(STORED_AT, "1.2.3.4", 5, "rejected", reject_reason="invalid user")
    assert parse(AT, "from 1.2.3.4:5 rejected  invalid request user id: ", "0 " * length) == row


def test_one_rejection_names_a_user() -> None:
    row = AccessRecord(STORED_AT, "1.2.3.4", 5, "rejected", email="a b", reject_reason="insecure encryption")
    assert parse(AT, "from 1.2.3.4:5 rejected  Insecure encryption email: a b") == row
    assert parse(AT, "1.2.3.4:5 rejected  Insecure encryptionemail:a b ") == row


IGNORED: dict[Ignored, list[str | bytes]] = {
    Ignored.DNS: [  # G
        AT + b"from DNS accepted udp:127.0.0.1:5353 [dns-tag -> direct]",
        AT + b"from DNS accepted tcp:8.8.8.8:53 [dns-tag -> direct]",
        AT + b"from DNS accepted https://h/dns-query [dns-tag -> direct]",
        AT + b"from DNS accepted https://1.1.1.1/dns-query [local]",
        AT + b"from DNS accepted udp:94.140.14.14:853 [local]",
        "2021/06/01 08:00:00 DoH accepted https://h/dns-query [out]",
        "2021/06/01 08:00:00 DNS accepted udp:8.8.8.8:53 [out]",
    ],
    Ignored.DNS_ANSWER: [  # H
        AT + b"UDP:8.8.8.8:53 got answer: www.example.com -> [93.184.215.14, 2001:db8::1] 23.4ms",
        "2021/06/01 08:00:00 UDP:DNS.EXAMPLE:53 got answer: h -> [1.2.3.4] 316.692µs",
        AT + b"TCP//h:53 cache HIT: h -> [1.2.3.4] 1ms",
        AT + b"TCPL//h:53 cache OPTIMISTE: h -> [1.2.3.4] 1ms",
        AT + b"DOH//h got answer: nx -> [] 1ms <rcode: 3>",
        AT + b"DOHL//h got answer: h -> [] 5s <Post > dial tcp 1.2.3.4:443 > context deadline exceeded>",
        AT + b"quic+local://h got answer: h -> [1.2.3.4] 1ms",
        AT + b"localhost got answer: accepted -> [127.0.0.1] 1.722946ms",
        AT + b"FakeDNS got answer: h -> [198.18.0.1] 1ms",
    ],
    Ignored.CONSOLE: [  # N
        "Xray 24.11.21 (Xray, Penetrates Everything.) 513f18b (go1.23.3 linux/amd64)",
        "V2Ray 4.34.0 (V2Fly, a community-driven edition of V2Ray.) Custom (go1.15.5 linux/amd64)",
        "A unified platform for anti-censorship.",
        AT + b"[Debug] [1234567] transport/internet/tcp: dialing TCP to tcp:x:443",
        AT + b"[Info] [1234567] proxy/socks: from 1.2.3.4:5 accepted tcp:x:443 [in -> out] email: e",
        AT + b"[Warning] core: Xray 24.11.21 started",
        "2024/09/01 08:00:00 [Error] app/dispatcher: default route for tcp:x:443",
        AT + b"Using default config:  /usr/local/etc/xray/config.json",
        "Failed to start: main: failed to load config files: [config.json] > EOF",
        "panic: runtime error: invalid memory address or nil pointer dereference",
        "\tpanic: a second one [recovered]",
        "fatal error: all goroutines are asleep - deadlock!",
        "[signal SIGSEGV: segmentation violation code=0x1 addr=0x18 pc=0x9d5a4e]",
        "goroutine 34 [chan receive, 12 minutes]:",
        "main.main()",
        "github.com/xtls/xray-core/app/dispatcher.(*DefaultDispatcher).Dispatch(0xc000, {0x1, 0x2})",
        "github.com/xtls/xray-core/common/cache.Map[...].Load(0xc000)",
        "\tgithub.com/xtls/xray-core/main/main.go:31 +0x1d4",
        "created by github.com/xtls/xray-core/main/run.go in goroutine 1",
    ],
    Ignored.BLANK: ["", "\n", "\r\n", "   ", b"\0\0\0"],
    Ignored.COMMENT: ["#", b"# drained " + AT + b"from 1.2.3.4:5 accepted tcp:x:443"],
}


ALL_IGNORED = [(line, kind) for kind, lines in IGNORED.items() for line in lines]
LETTERS = {Ignored.DNS: "G", Ignored.DNS_ANSWER: "H"}


@pytest.mark.parametrize(
    ("line", "kind"), ALL_IGNORED, ids=[f"{LETTERS.get(kind, 'N')}: {line!r:.90}" for line, kind in ALL_IGNORED]
)
def test_what_is_no_clients_access_is_ignored_by_design(line: str | bytes, kind: Ignored) -> None:
    assert parse(line) is kind


PREFIXES = {
    "journald": "Nov 17 10:15:23 host xray[812]: ",
    "docker logs -t": "2025-11-17T10:15:23.123456789Z ",
    "compose": "xray-1  | ",
    "docker json-file": '{"log":"',
    "colours": "\x1b[36mxray |\x1b[0m ",
    "BOM": "\N{BOM}",
}


@pytest.mark.parametrize("prefix", PREFIXES.values(), ids=map("O: {}".format, PREFIXES))
def test_a_line_after_a_prefix_is_bad_and_the_reason_names_the_prefix(prefix: str) -> None:
    assert repr(prefix.encode())[2:-1] in reason(prefix, WHOLE)


def test_line_ends_and_the_nuls_of_a_truncated_file_are_no_part_of_a_line() -> None:
    for line in (WHOLE, WHOLE + b"\n", WHOLE + b"\r\n", b"\0" * 309 + WHOLE, b"\0" + WHOLE + b"\r\n"):
        assert parse(line) == WHOLE_ROW


@pytest.mark.parametrize("end", range(1, WHOLE.index(b"443")), ids="P: {}".format)
def test_a_line_cut_before_its_port_is_bad(end: int) -> None:
    assert reason(WHOLE[:end]).startswith("expected ")


@pytest.mark.parametrize("end", ["10", "10.0", "10.0.0.1", "10.0.0.1:", "[2001:db8::1", "[2001:db8::1]", ""])
@pytest.mark.parametrize("network", ["tcp", "udp"])
def test_a_line_cut_in_the_address_of_its_destination_is_bad(network: str, end: str) -> None:
    """`tcp:10` was a host named tcp, and its port."""
    for begin in ("from 1.2.3.4:5", "from tcp : 1.2.3.4 : 5", "1.2.3.4:5", "from tcp:[2001:db8::1]:5"):
        for rest in ("", " [in >> out] email: e", "  [in >> out]"):
            assert reason(AT, begin, f" accepted {network}:{end}", rest).startswith("expected")
            assert reason(AT, begin, f" accepted {network} : {end}", rest).startswith("expected")


FIRST_LINES = [
    *(WHOLE[:end] for end in (5, 12, 22, 30, 40, 44, 50, 60, 68, 75, len(WHOLE))),
    AT + b"from 1.2.3.4:5 rejected  proxy/trojan: not a va",
    AT + b"from DNS accepted udp:1.1.1.1:53 [dns -> dir",
    AT + b"UDP:8.8.8.8:53 got answer: www.example.com -> [1.2",
    AT + b"[Info] [1] proxy/vless/inbound: received requ",
    b"Xray 24.11.21 (Xray, Penetrates",
    b"panic: runtime err",
]
SECOND_LINES = [
    WHOLE,
    b"2020/05/01 09:00:00 1.2.3.4:5 accepted tcp:x:443 [out] email:e ",
    AT + b"from  accepted tcp:x:443 [bridge -> out]",
    AT + b"from 1.2.3.4:5 rejected  proxy/trojan: not a valid user",
]


@pytest.mark.parametrize("first", FIRST_LINES, ids="P: {!r}".format)
def test_two_lines_glued_into_one_are_bad(first: bytes) -> None:
    for second in SECOND_LINES:
        assert isinstance(parse(second), AccessRecord)
        assert reason(first, second).startswith("expected ")
    assert "another" in reason(WHOLE, AT, "[Info] [1] proxy: text")


@pytest.mark.parametrize(
    "begin", ["from 1.2.3.4:5 accepted tcp:x:443 [a -> b] email: ", "1.2.3.4:5 accepted tcp:x:443 ["]
)
@pytest.mark.parametrize(
    "source", ["from 5.6.7.8:9", "5.6.7.8:9", "from tcp:[::1]:9", "from @", "from DNS", "rom 5.6.7.8:9"]
)
def test_a_second_status_makes_two_lines_of_one_without_a_timestamp(begin: str, source: str) -> None:
    """The end of a line and the beginning of the next are missing: what is left looks like a user's name."""
    for status in ("accepted tcp:q:1 [c -> d] email: y", "rejected  proxy/socks: no matching auth method"):
        assert reason(AT, begin, "x", source, " ", status).startswith("expected ")
        assert reason(AT, begin, "x ", source, " ", status).startswith("expected ")
    for first in ("from 1.2.3.4:5 accepted tcp:x:443 [out] email: x ", "from DNS accepted udp:1.1.1.1:53 [dns -> di"):
        assert "another" in reason(AT, first, source, " accepted tcp:q:1")


@pytest.mark.parametrize("begin", ["", "from ", "from", "from   ", "  "])
def test_without_a_source_there_are_two_blanks_or_the_line_is_damaged(begin: str) -> None:
    """The reverse bridge of xray has no source, and xray writes the blanks round it."""
    for text in ("accepted tcp:h:443 [in -> out] email: e", "rejected  proxy/socks: no matching auth method"):
        assert reason(AT, begin, text).startswith("expected ")
        for real in ("from  ", " "):
            row = parse(AT, real, text)
            assert isinstance(row, AccessRecord)
            assert (row.source_ip, row.source_port) == (None, None)


def at(wall: str, **when: Any) -> str:
    """The timestamp stored for a wall-clock time."""
    record = parse(wall, " from 1.2.3.4:5 accepted tcp:x:443", **when)
    assert isinstance(record, AccessRecord), record
    return record.timestamp


@pytest.mark.parametrize(
    ("zone", "wall", "stored"),
    [
        ("UTC", "2025/11/17 10:15:23", "2025-11-17 10:15:23+00"),
        ("Asia/Tehran", "2025/11/17 02:15:23", "2025-11-16 22:45:23+00"),
        ("Asia/Kathmandu", "2025/01/01 00:00:00", "2024-12-31 18:15:00+00"),
        ("America/New_York", "2025/07/01 20:00:00", "2025-07-02 00:00:00+00"),
        ("America/New_York", "2025/12/01 20:00:00", "2025-12-02 01:00:00+00"),
        ("Europe/Berlin", "2025/10/26 01:59:59", "2025-10-25 23:59:59+00"),
        ("Europe/Berlin", "2025/10/26 02:30:00", "2025-10-26 00:30:00+00"),  # twice: the first
        ("Europe/Berlin", "2025/10/26 03:00:00", "2025-10-26 02:00:00+00"),
        ("America/New_York", "2025/11/02 01:30:00", "2025-11-02 05:30:00+00"),  # twice: the first
        ("UTC", "2024/02/29 23:59:59", "2024-02-29 23:59:59+00"),
        ("UTC", "2015/01/01 00:00:00", "2015-01-01 00:00:00+00"),
    ],
)
def test_a_time_is_the_zones_wall_clock_and_is_stored_in_utc(zone: str, wall: str, stored: str) -> None:
    assert at(wall, zone=zone) == stored
    assert at(wall + ".000001", zone=zone) == stored.replace("+", ".000001+")


class ChangedWithinAMinute(tzinfo):
    """A zone in which clocks are set forward by an hour at 10:15:30. No zone has done that yet."""

    def utcoffset(self, moment: datetime | None) -> timedelta:
        return timedelta(hours=moment is not None and moment.time() >= time(10, 15, 30))

    def dst(self, moment: datetime | None) -> timedelta:  # noqa: ARG002  # of tzinfo
        return timedelta()


def test_a_minute_in_which_clocks_change_is_not_read_as_one() -> None:
    one = grammar.Grammar(ChangedWithinAMinute(), NOW)  # type: ignore[arg-type]
    assert one.minute(b"2025/11/17 10:14") == "2025-11-17 10:14"
    with pytest.raises(ParseError, match="expected a minute without a change of the clock"):
        one.minute(b"2025/11/17 10:15")


@pytest.mark.parametrize("fraction", [".1234567", ".123456789", ",123", ".", "Z", "+03:30"])
def test_a_longer_fraction_is_bad_and_the_reason_names_it(fraction: str) -> None:
    assert reason("2025/11/17 10:15:23", fraction, " from 1.2.3.4:5 accepted tcp:x:443").endswith(
        f"found '{fraction} '"
    )


@pytest.mark.parametrize("fraction", ["1", "12", "123", "1234", "12345", "123456", "000000"])
def test_a_fraction_is_kept_as_written(fraction: str) -> None:
    assert at(f"2025/11/17 10:15:23.{fraction}") == f"2025-11-17 10:15:23.{fraction}+00"


NO_TIMES = [
    *("2025/02/29 10:15:23", "2025/02/30 10:15:23", "2025/11/31 10:15:23", "2025/13/01 10:15:23"),
    *("2025/00/10 10:15:23", "2025/10/00 10:15:23", "0000/00/00 00:00:00", "0001/01/01 00:00:00"),
    *("2025/11/17 24:00:00", "2025/11/17 23:60:00", "2025/11/17 23:59:60", "9999/12/31 23:59:59"),
    *("2014/12/31 12:00:00", "1970/01/01 00:00:00", "2025/11/17 10:15:23.", "2025/11/17 10:15:23.1234567"),
    *("2025-11-17 10:15:23", "2025/11/17T10:15:23", "2025/1/17 10:15:23", "٢٠٢٥/11/17 10:15:23"),
]


@pytest.mark.parametrize("wall", NO_TIMES)
@pytest.mark.parametrize("zone", ["UTC", "Asia/Tehran", "America/New_York"])
def test_an_impossible_time_is_bad_and_the_next_line_is_not(zone: str, wall: str) -> None:
    line = wall + " from 1.2.3.4:5 accepted tcp:x:443"
    assert reason(line, zone=zone).startswith("expected ")
    one = grammar_of(zone)
    for _ in range(2):  # whatever the parser remembers of the line before
        assert isinstance(one.parse_line(line.encode()), BadLine)
        assert isinstance(one.parse_line(WHOLE), AccessRecord)


@pytest.mark.parametrize(("zone", "hour"), [("UTC", 12), ("Asia/Tokyo", 21)])
def test_a_time_before_2015_or_more_than_two_days_ahead_is_bad(zone: str, hour: int) -> None:
    now = datetime(2025, 11, 17, 12, tzinfo=timezone.utc)
    assert at(f"2025/11/19 {hour}:00:00", zone=zone, now=now) == "2025-11-19 12:00:00+00"
    assert "ahead" in reason(f"2025/11/19 {hour}:00:01 from 1.2.3.4:5 accepted tcp:x:443", zone=zone, now=now)
    assert "2015" in reason("2014/12/31 23:59:59 from 1.2.3.4:5 accepted tcp:x:443", zone=zone, now=now)


NAMED = {
    "email": "from 1.2.3.4:5 accepted tcp:x:443 [in -> out] email: {}",
    "email of a rejected connection": "from 1.2.3.4:5 rejected  Insecure encryption email: {}",
    "inbound": "from 1.2.3.4:5 accepted tcp:x:443 [{} -> out]",
    "outbound": "from 1.2.3.4:5 accepted tcp:x:443 [in -> {}] email: e",
    "only tag": "from 1.2.3.4:5 accepted tcp:x:443 [{}]",
    "host": "from 1.2.3.4:5 accepted tcp:{}:443 [in -> out] email: e",
    "host of shadowsocks-2022": "from 1.2.3.4:5 accepted {}:443 [in -> out] email: e",
    "host of a URL": "from 1.2.3.4:5 accepted http://{}/ [in -> out]",
    "documented email": "from 1.2.3.4 : 5 accepted tcp:x : 443 [in -> out] email:{}",
}


@pytest.mark.parametrize("text", NAMED.values(), ids=NAMED)
def test_a_name_is_up_to_255_characters_of_utf8_without_nul(text: str) -> None:
    for letter in "aю𝕏":
        assert letter * 255 in parse(AT, text.replace("{}", letter * 255))
        assert "255 characters" in reason(AT, text.replace("{}", letter * 256))
    for broken in (b"\xff\xfe", b"caf\xe9", b"a\xc3", b"\xed\xa0\x80", b"\xc0\x80"):
        assert "UTF-8" in reason(AT, text.encode().replace(b"{}", broken))
    assert "NUL" in reason(AT, text.replace("{}", "a\0b"))


@pytest.mark.parametrize("text", list(NAMED.values())[:5], ids=list(NAMED)[:5])
def test_blanks_inside_a_tag_or_an_email_are_kept_and_counted(text: str) -> None:
    name = "a" + " " * 253 + "b"
    assert name in parse(AT, text.replace("{}", name))
    assert "255 characters" in reason(AT, text.replace("{}", name + "c"))


@pytest.mark.parametrize("text", ["from 1.2.3.4:{} accepted tcp:x:1", "from 1.2.3.4:1 accepted tcp:x:{}"])
@pytest.mark.parametrize("colon", [":", " : "], ids=["written", "documented"])
def test_a_port_is_up_to_65535(text: str, colon: str) -> None:
    text = text.replace(":{}", colon + "{}")
    for port in (0, 9, 65535):
        assert port in parse(AT, text.format(port))
    for port in (65536, 99999, 100000, "9" * 5000):
        assert "port" in reason(AT, text.format(port))
    for no_port in ("-1", "+1", "1_0", "٣", "0x1"):
        assert reason(AT, text.format(no_port)).startswith("expected ")


def test_a_line_of_200_093_bytes_is_a_row() -> None:
    line = (AT + b"from 1.2.3.4:5 accepted http://h:8800/").ljust(200_072, b"a") + b" [http-in >> direct]\n"
    assert len(line) == 200_093
    assert parse(line) == AccessRecord(
        STORED_AT, "1.2.3.4", 5, "accepted", "http", "h", 8800, "http-in", "direct", None
    )


def parsed(path: Path, zone: str, now: datetime) -> list[Kind]:
    one = grammar_of(zone, now)
    return [one.parse_line(line) for line in path.read_bytes().split(b"\n")[:-1]]


def kinds(results: Iterable[Kind]) -> Counter[Any]:
    """How many rows of each action, lines ignored of each kind, and bad lines."""
    return Counter(
        got.action if isinstance(got, AccessRecord) else got if isinstance(got, Ignored) else BadLine for got in results
    )


LOCAL = "127.0.0.1"
VLESS = ("vless in (a)", "direct")
HTTP = ("http-in", "direct", None)
# By line number in the sample: minute and second, then the fields from source_ip on.
XRAY: dict[int, tuple[Any, ...]] = {
    1: ("40:50", LOCAL, 60626, "accepted", "tcp", LOCAL, 8800, "socks-in", "direct"),
    6: ("40:50", LOCAL, 60668, "accepted", "tcp", "blocked.test", 8800, "socks-in", "block"),
    9: ("40:51", LOCAL, 60098, "rejected", *NOTHING, "invalid user"),
    17: ("40:51", LOCAL, 44106, "accepted", "http", "::1", 8800, *HTTP),
    18: ("40:51", LOCAL, 44110, "accepted", "http", "blocked.test", 80, "http-in", "block"),
    26: ("40:53", LOCAL, 44822, "accepted", "tcp", LOCAL, 8800, "doko", "out -> put] x"),
    27: ("40:53", LOCAL, 45176, "accepted", "http", LOCAL, 8800, None, "direct"),
    37: ("40:54", LOCAL, 47694, "accepted", "tcp", "localhost", 8800, "vmess-in", "direct", "юзер@пример.рф"),
    44: ("40:54", LOCAL, 47090, "accepted", "tcp", LOCAL, 8800, *VLESS, "a]b [c -> d] email: e"),
    47: ("40:54", LOCAL, 47114, "accepted", "tcp", LOCAL, 8800, *VLESS, "dup"),
    71: ("41:09", "2001:db8::77", 0, "accepted", "tcp", "::1", 8800, "vless-ws", "direct", "ws@example.com"),
    80: ("41:09", LOCAL, 49758, "accepted", None, "::1", 8800, "ss22-in", "direct", "ss22@example.com"),
    83: ("41:21", None, None, "accepted", "tcp", LOCAL, 8800, "vless-unix", "direct", "unix@example.com"),
    89: ("41:21", LOCAL, 46878, "accepted", None, "localhost", None, *HTTP),
    93: ("41:21", LOCAL, 46964, "accepted", None, LOCAL, None, *HTTP),
    95: ("41:21", LOCAL, 46978, "accepted", "http", LOCAL, 8800, *HTTP),
    98: ("41:21", LOCAL, 47010, "accepted", "http", LOCAL, 8800, *HTTP),
    125: ("41:36", LOCAL, 49558, "rejected", *NOTHING, "bad destination"),  # a name with NUL, and bytes not of UTF-8
    156: ("41:46", LOCAL, 55464, "accepted", "udp", LOCAL, 5353, "trojan-in", "direct", "troy@example.com"),
    172: ("41:47", LOCAL, 41214, "api", "tcp", LOCAL, 0, "api", "api"),
}
V2RAY: dict[int, tuple[Any, ...]] = {
    1: ("38:41", LOCAL, 55954, "accepted", "tcp", LOCAL, 8800, None, "direct"),
    16: ("38:42", LOCAL, 40122, "accepted", None, "localhost", 8800, None, "direct"),
    19: ("38:43", LOCAL, 40146, "accepted", None, "blocked.test", 443, None, "block"),
    43: ("38:44", LOCAL, 45028, "accepted", "tcp", "::1", 8800, None, "direct", "a]b [c -> d] email: e"),
    161: ("39:07", LOCAL, 50278, "api", "tcp", LOCAL, 0, None, "api"),
}
FORGED = AccessRecord(
    "2025-12-31 20:30:00+00", "6.6.6.6", 666, "accepted", "tcp", "forged.test", 443, "a", "b", "forged"
)


def check_sample(name: str, by_hand: dict[int, tuple[Any, ...]], **counts: int) -> None:
    got = parsed(SAMPLES / name, "Asia/Tehran", NOW)
    assert kinds(got) == {Ignored.__members__.get(key, key): count for key, count in counts.items()}
    for number, (minute, *fields) in by_hand.items():
        assert got[number - 1] == AccessRecord(f"2026-11-22 15:{minute}+00", *fields), number
    assert FORGED in got  # a client's own line feed made this line: nothing in it tells


def test_every_line_of_a_real_xray_log_is_understood() -> None:
    check_sample("xray_24.11.21.log", XRAY, accepted=121, api=2, rejected=30, DNS=18, DNS_ANSWER=1)


def test_every_line_of_a_real_v2ray_log_is_understood() -> None:
    check_sample("v2ray_4.34.0.log", V2RAY, accepted=119, api=2, rejected=40)


def test_our_example_shows_every_kind_of_line() -> None:
    text = (ROOT / "examples" / "access.log").read_bytes()
    got = parsed(ROOT / "examples" / "access.log", "UTC", datetime(2025, 11, 18, tzinfo=timezone.utc))
    assert text.endswith(b"\n")
    assert len(got) == text.count(b"\n") == sum(kinds(got).values())
    assert kinds(got).keys() == {"accepted", "rejected", "api", BadLine, *Ignored}
    assert len({bad.reason.partition(", found")[0] for bad in got if isinstance(bad, BadLine)}) >= 5
    days = {record.timestamp[:10] for record in got if isinstance(record, AccessRecord)}
    assert days == {"2025-11-15", "2025-11-16", "2025-11-17"}


# What a line may be made of, put together in any order: some of it parses, and all of it nearly does.
PIECES = (
    "from |DNS|@|unix:|tcp:|udp:|//|http://|1.2.3.4:5|[2001:db8::1%eth0]:443|203.0.*.*:1|[Masked IPv4]:1|x.example:443"
    "|[2001:db8::/32]:1| accepted | rejected  | [in -> out]| [|]| | email: |email:|e|api from | api -> api| : |\0|\r|\t"
    "|#|[Info] | got answer: |2025/11/17 10:15:23 |9999/99/99 99:99:99|me:pa55@|/?q|:99999|Insecure encryption email: "
    "| invalid request user id| > EOF|invalid domain name: "
)
pieces = st.sampled_from(PIECES.encode().split(b"|")) | st.just("ю".encode() * 90) | st.binary(max_size=4)
nearly = st.lists(pieces, max_size=12).map(b"".join)
clients = st.sampled_from([b"1.2.3.4:5", b"tcp:[::1]:0", b"@", b"203.0.*.*:1", b"[fe80::1%eth0]:9", b"[Masked IPv6]:2"])
openings = [b" [", b" [in -> ", b" [in -> out] email: ", b" email:", b""]
accesses = st.tuples(
    st.just(AT + b"from "),
    clients,
    st.sampled_from([b" accepted tcp:x:443", b" accepted http://h", b" rejected  Insecure encryption"]),
    st.sampled_from(openings),
    st.text(max_size=300).map(str.encode) | nearly,
    st.sampled_from([b"]", b"] email: e", b""]),
).map(b"".join)
any_bytes = st.binary(max_size=200) | nearly | nearly.map(lambda text: AT + text) | accesses


REJECT_REASONS = {reason.value for reason in RejectReason}


def check(line: bytes, got: Kind) -> None:
    """Every value of a row fits its column, and a bad line is kept as it was."""
    assert isinstance(got, AccessRecord | BadLine | Ignored)
    if isinstance(got, BadLine):
        assert got.line == line
        assert got.reason.isprintable()
    if isinstance(got, AccessRecord):
        assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d(\.\d{1,6})?\+00", got.timestamp)
        if got.source_ip is not None:
            assert "%" not in got.source_ip
            assert ipaddress.ip_interface(got.source_ip)
        for port in (got.source_port, got.destination_port):
            assert port is None or 0 <= port <= 65535
        assert got.action in {"accepted", "rejected", "api"}
        assert (got.reject_reason in REJECT_REASONS) if got.action == "rejected" else not got.reject_reason
        assert got.protocol in {*PROTOCOLS.values(), *(network.decode() for network in NETWORKS)}
        for name in (got.destination, got.inbound_tag, got.outbound_tag, got.email):
            assert name is None or (1 <= len(name.encode().decode()) <= 255 and "\0" not in name)


@settings(some_examples, max_examples=1000)
@given(any_bytes)
def test_no_bytes_make_the_parser_raise(line: bytes) -> None:
    check(line, parse(line))


@settings(some_examples, max_examples=1000)
@given(accesses)
def test_every_value_of_a_row_fits_its_column(line: bytes) -> None:
    check(line, parse(line, zone="Asia/Tehran"))


# What xray can write and a parser can understand: free text, without what makes a line ambiguous.
texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\n\r\0"), min_size=1, max_size=255)
emails = texts.filter(lambda text: not text.endswith(" "))
tags = texts.filter(lambda text: text == text.strip(" ") and not re.search(r"email:|->|>>|\]\Z", text))
names = st.text(string.ascii_letters + string.digits + "-._", min_size=1, max_size=255)
ports = st.integers(0, 65535)
v6 = st.ip_addresses(v=6).map(str)
addresses = st.ip_addresses(v=4).map(str).map(lambda ip: (ip, ip)) | v6.map(lambda ip: (f"[{ip}]", ip))
hosts = addresses | names.filter(lambda name: name not in {"tcp", "udp"}).map(lambda name: (name, name))
no_sources = st.sampled_from(["", "@", "unix:@", "unix:"]).map(lambda text: (text, (None, None)))
sources = no_sources | st.builds(
    lambda prefix, ip, port: (f"{prefix}{ip[0]}:{port}", (ip[1], port)),
    st.sampled_from(["", "tcp:", "udp:"]),
    addresses,
    ports,
)
PROTOCOLS = {
    "tcp:": "tcp",
    "udp:": "udp",
    "": None,
    "//": None,
    "http://": "http",
    "https://": "https",
    "ftp://": "ftp",
}
destinations = st.builds(
    lambda prefix, host, port: (f"{prefix}{host[0]}:{port}", (PROTOCOLS[prefix], host[1], port)),
    st.sampled_from(list(PROTOCOLS)),
    hosts,
    ports,
)
two_tags = st.builds(
    lambda inbound, arrow, outbound: (f" [{inbound} {arrow} {outbound}]", (inbound, outbound)),
    tags,
    st.sampled_from(["->", ">>", "==>"]),
    tags,
)
brackets = st.just(("", (None, None))) | tags.map(lambda tag: (f" [{tag}]", (None, tag))) | two_tags
moments = st.datetimes(datetime(2015, 1, 1), datetime(2026, 11, 25))  # noqa: DTZ001  # as in the log: without a zone


@some_examples
@given(moments, st.booleans(), st.booleans(), sources, destinations, brackets, st.none() | emails)
def test_a_record_written_as_xray_writes_it_is_read_back(
    moment: datetime, micro: bool, has_from: bool, source: Any, to: Any, bracket: Any, email: str | None
) -> None:
    wall = f"{moment:%Y/%m/%d %H:%M:%S}" + (f".{moment:%f}" if micro else "")
    begin = f"{wall} {'from ' if has_from else ''}{source[0]}"
    stored_at = wall.replace("/", "-") + "+00"
    end = "" if email is None else f" email: {email}"
    expected = AccessRecord(stored_at, *source[1], "accepted", *to[1], *bracket[1], email)
    assert parse(begin, " accepted ", to[0], bracket[0], end) == expected
    rejected = parse(begin, " rejected  a/b: ", to[0], bracket[0], end)
    assert isinstance(rejected, AccessRecord)
    # The words of a reason may be those of a tag, by chance.
    assert rejected.reject_reason in {reason.value for reason in RejectReason}
    assert rejected._replace(reject_reason="other") == AccessRecord(
        stored_at, *source[1], "rejected", reject_reason="other"
    )


REJECTED_LINES = [AT + b"from 1.2.3.4:5 rejected  " + raw(why) for why in REASONS]
known_lines = st.sampled_from([*SECOND_LINES, *REJECTED_LINES, WHOLE + b"\r", AT, b"", b"#"])
masks = st.sampled_from([UNMASKED, Mask(24, 48), Mask(0, 0)])
some_lines = st.lists(known_lines | any_bytes.map(lambda line: line.replace(b"\n", b"")), max_size=20)


def blocks(text: bytes, start: int, ends: Iterable[int]) -> list[tuple[int, bytes]]:
    """The text, cut at some of its line ends."""
    feeds = [0, *(found.end() for found in re.finditer(rb"\n", text))]
    edges = sorted({0, len(text), *(feeds[end % len(feeds)] for end in ends)})
    return [(start + begin, text[begin:end]) for begin, end in itertools.pairwise(edges)]


@some_examples
@given(some_lines, st.integers(1, 6), st.lists(st.integers(0, 20), max_size=5), st.integers(0, 10**12), masks)
def test_batches_are_the_lines_in_order_however_the_text_is_cut(
    lines: list[bytes], size: int, ends: list[int], start: int, mask: Mask
) -> None:
    text = b"".join(line + b"\n" for line in lines)
    begins = itertools.accumulate((len(line) + 1 for line in lines), initial=start)
    by_grammar = grammar_of(mask=mask)
    each = [(begin, mask.line(line), by_grammar.parse_line(line)) for begin, line in zip(begins, lines, strict=False)]
    got = list(parser_of("UTC", NOW, mask).batches(blocks(text, start, ends), size))

    assert b"".join(batch.text for batch in got) == text
    position = start
    for batch in got:
        assert (batch.start, batch.end) == (position, position + len(batch.text))
        assert 1 <= batch.lines == len(batch.records) + len(batch.bad_lines) + sum(batch.ignored.values())
        assert len(batch.records) + len(batch.bad_lines) <= size
        position = batch.end
    of_records = [(*batch.line(index), record) for batch in got for index, record in enumerate(batch.records)]
    assert of_records == [(begin, line, row) for begin, line, row in each if isinstance(row, AccessRecord)]
    bad_lines = [bad for batch in got for bad in batch.bad_lines]
    assert bad_lines == [(begin, bad) for begin, _, bad in each if isinstance(bad, BadLine)]
    ignored = sum((Counter(batch.ignored) for batch in got), Counter())
    assert ignored == Counter(kind for _, _, kind in each if isinstance(kind, Ignored))


def batches(*given_blocks: tuple[int, bytes]) -> list[Batch]:
    return list(Parser(ZoneInfo("UTC"), NOW).batches(given_blocks, 10))


def test_a_batch_holds_no_gap_of_the_file() -> None:
    line = WHOLE + b"\n"
    got = batches((0, line), (len(line), line), (1000, line))
    assert [(batch.start, batch.end) for batch in got] == [(0, 2 * len(line)), (1000, 1000 + len(line))]
    assert [list(batch.records) for batch in got] == [[WHOLE_ROW] * 2, [WHOLE_ROW]]


def test_long_lines_close_a_batch_early(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parser, "BATCH_BYTES", 1000)
    monkeypatch.setattr(parser, "CHUNK_BYTES", 500)
    assert [batch.lines for batch in batches((0, (b"#" * 499 + b"\n") * 5))] == [2, 2, 1]


def test_many_days_close_a_batch_early(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of them is a partition that the transaction locks."""
    monkeypatch.setattr(parser, "MAX_DAYS", 3)
    monkeypatch.setattr(parser, "CHUNK_BYTES", 1)  # a line at a time
    for line in (b"from 1.2.3.4:5 accepted tcp:h:443 [in >> out]", b"from 1.2.3.4:5 rejected  why"):
        text = b"".join(b"2025/11/%02d 10:15:23 %b\n" % (day, line) for day in (1, 1, 2, 2, 3, 3, 4, 4, 5))
        assert [batch.lines for batch in batches((0, text))] == [5, 4]


def test_much_that_was_never_seen_closes_a_batch_early(monkeypatch: pytest.MonkeyPatch) -> None:
    """An adversary's log, of which every line has new names, must not fill the memory."""
    monkeypatch.setattr(parser, "MAX_NEW_PIECES", 6)
    monkeypatch.setattr(parser, "CHUNK_BYTES", 1)  # a line at a time
    new = [b"from 1.2.3.%d:4 accepted tcp:h%d:443 [in >> out] email: u%d" % (n, n, n) for n in range(5)]
    known = [new[0]] * 5
    unusual = [b"from 1.2.3.%d:4 rejected  why" % n for n in range(9)]
    for lines, lengths in ((new, [2, 2, 1]), (known, [5]), (unusual, [6, 3])):
        text = b"".join(b"2025/11/17 10:15:23 " + line + b"\n" for line in lines)
        assert [batch.lines for batch in batches((0, text))] == lengths


@some_examples
@given(
    st.from_regex(rb"[0-9.]{0,17}", fullmatch=True) | st.ip_addresses(v=4).map(lambda address: str(address).encode())
)
def test_the_fast_look_at_an_address_agrees_with_the_standard_library(text: bytes) -> None:
    try:
        ipaddress.IPv4Address(text.decode())
        is_address = True
    except ValueError:
        is_address = False
    assert bool(grammar.V4.fullmatch(text)) == is_address


HEADS = [
    "from 1.2.3.4:5 accepted ",
    "from 1.2.3.4:5 rejected ",
    "from 1.2.3.4:5 accepted tcp:x:443 [",
    "from ",
    "api from ",
]
NASTY = [" [", "] ", "]", " ", "a.", ":", "[", "@", "\t", " email:", "] email:", " : ", " -> ", " api", "\0", " [:/1"]
NASTY += ["2025/11/17 10:15:2", "2025/11/17 10:15:23 ", " from ", "from 1", "accepted", " accepted", "tcp:"]


@pytest.mark.timeout(120)  # what is linear takes milliseconds, on any machine; what is not, hours
@pytest.mark.parametrize("head", [*HEADS, "", None])
@pytest.mark.parametrize("pattern", NASTY)
def test_a_long_line_of_what_is_searched_for_comes_to_its_end(head: str | None, pattern: str) -> None:
    """A client chooses these bytes. A search takes a step for each, at most 2,000,000; or 125,000,000,000, whatever the
    pattern, if it begins again at each. Through both: the parser asks the grammar for a line of such a length.
    """
    begin = b"" if head is None else b"2025/11/17 10:15:23 " + head.encode()
    line = begin + pattern.encode() * int(500_000 / len(pattern) ** 0.5)
    assert len(results(Parser(ZoneInfo("UTC"), NOW), line)) == 1
