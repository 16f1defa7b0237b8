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
import time
from collections import Counter
from collections.abc import Iterable
from datetime import datetime, timezone
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from conftest import ROOT, SAMPLES
from hypothesis import given, settings
from hypothesis import strategies as st

from xraylog import parser
from xraylog.parser import Parser
from xraylog.records import AccessRecord, BadLine, Batch, Ignored

NOW = datetime(2026, 11, 23, 12, tzinfo=timezone.utc)
AT, STORED_AT = b"2025/11/17 10:15:23.123456 ", "2025-11-17 10:15:23.123456+00"
Kind = AccessRecord | BadLine | Ignored
some_examples = settings(deadline=None, max_examples=300)


def raw(line: str | bytes) -> bytes:
    return line.encode() if isinstance(line, str) else line


def parse(*line: str | bytes, zone: str = "UTC", now: datetime = NOW) -> Kind:
    return Parser(ZoneInfo(zone), now).parse_line(b"".join(map(raw, line)))


def reason(*line: str | bytes, **when: Any) -> str:
    """Why the line is bad. Its bytes are kept as they are."""
    bad = parse(*line, **when)
    assert isinstance(bad, BadLine), bad
    assert bad.line == b"".join(map(raw, line))
    return bad.reason


def table(letter: str, rows: dict[str, Any], *names: str) -> pytest.MarkDecorator:
    """One case a row, named by the letter of its table and its key."""
    return pytest.mark.parametrize(names, list(rows.items()), ids=[f"{letter} {key}"[:60] for key in rows])


# Whole lines, but for the timestamp where there is none, and the fields from source_ip on: address, port, action,
# protocol, destination, its port, inbound, outbound, email. What is left out at the end is null.
TO_X = ("1.2.3.4", 5, "accepted", "tcp", "x", 443)
LINES: dict[str, tuple[Any, ...]] = {
    # A
    "from 203.0.113.10:51000 accepted tcp:www.example.com:443 [inbound-443 >> direct] email: k3j9": (
        *("203.0.113.10", 51000, "accepted", "tcp", "www.example.com", 443, "inbound-443", "direct", "k3j9"),
    ),
    "from tcp:198.51.100.7:40024 accepted udp:1.1.1.1:53 [a -> b] email: 17": (
        *("198.51.100.7", 40024, "accepted", "udp", "1.1.1.1", 53, "a", "b", "17"),
    ),
    "from udp:[::1]:50189 accepted udp:[2001:db8::8]:53 [socks6 >> direct]": (
        *("::1", 50189, "accepted", "udp", "2001:db8::8", 53, "socks6", "direct"),
    ),
    # B
    "2024/09/01 08:00:00 from 1.2.3.4:5 accepted tcp:x:443 [in -> out] email: e": (*TO_X, "in", "out", "e"),
    "2024/01/15 08:00:00 1.2.3.4:5 accepted tcp:x:443 [in -> out] email: e": (*TO_X, "in", "out", "e"),
    "2021/12/01 09:00:00 1.2.3.4:5 accepted tcp:x:443 [out] email: e": (*TO_X, None, "out", "e"),
    "2020/05/01 09:00:00 1.2.3.4:5 accepted tcp:x:443 [out] email:e ": (*TO_X, None, "out", "e"),
    "2019/08/01 09:00:00 1.2.3.4:5 accepted tcp:x:443 email:e ": (*TO_X, None, None, "e"),
    "2018/08/01 09:00:00 1.2.3.4:5 accepted tcp:x:443 ": TO_X,
    "2017/11/21 20:09:24 1.2.3.4:5 rejected  Proxy|VMess|Encoding: invalid user": ("1.2.3.4", 5, "rejected"),
    # C
    "from tcp:192.168.0.10 : 54321 accepted tcp:example.com : 443 [in >> out] email:user@example.com": (
        *("192.168.0.10", 54321, "accepted", "tcp", "example.com", 443, "in", "out", "user@example.com"),
    ),
    "from 1.2.3.4 : 5 accepted udp:x : 443": ("1.2.3.4", 5, "accepted", "udp", "x", 443),
    "from udp:1.2.3.4 : 5 accepted //x : 443 [a >> b] email:e": ("1.2.3.4", 5, "accepted", None, "x", 443, "a", "b", "e"),
    "from 1.2.3.4 : 5 accepted x : 443 [out]": ("1.2.3.4", 5, "accepted", None, "x", 443, None, "out"),
    "from tcp:[::1] : 5 accepted tcp:[::2] : 443 email:e": ("::1", 5, "accepted", "tcp", "::2", 443, None, None, "e"),
    "from   tcp:1.2.3.4  :   5  accepted   tcp:x:  443   [in  ->  out]   email:  e": (*TO_X, "in", "out", "e"),
    "from 1.2.3.4:5 accepted tcp:x:443 [in -> out]   email: e": (*TO_X, "in", "out", "e"),
    "from 1.2.3.4:5 accepted tcp:x:443 [in>>out] email: e": (*TO_X, "in", "out", "e"),
    "from 1.2.3.4 : 5 accepted tcp:x : 443 [in->out] email: e": (*TO_X, "in", "out", "e"),
    "from tcp : 1.2.3.4 : 5 accepted tcp : x : 443 [in -> out]": (*TO_X, "in", "out"),
    "from 1.2.3.4 : 5 accepted tcp:x : 443 [in -> out] email : e": (*TO_X, "in", "out", "e"),
    "api from 10.0.0.1:12345 api -> api": ("10.0.0.1", 12345, "api", None, None, None, "api", "api"),
    "api from [2001:db8::1]:9 api -> api": ("2001:db8::1", 9, "api", None, None, None, "api", "api"),
    "from 127.0.0.1:57104 accepted tcp:127.0.0.1:0 [api -> api]": (
        *("127.0.0.1", 57104, "accepted", "tcp", "127.0.0.1", 0, "api", "api"),
    ),
    # F
    "2023/03/01 10:22:00  accepted tcp:127.0.0.1:8800 [bridge -> out]": (
        *(None, None, "accepted", "tcp", "127.0.0.1", 8800, "bridge", "out"),
    ),
    # M
    "from tcp:[Masked IPv4]:40040 accepted tcp:[Masked IPv4]:8800 [in >> out]": (
        *(None, 40040, "accepted", "tcp", "[Masked IPv4]", 8800, "in", "out"),
    ),
}


@table("line", LINES, "line", "fields")
def test_a_line_becomes_the_row_that_it_says(line: str, fields: tuple[Any, ...]) -> None:
    if line.startswith("20"):
        assert parse(line) == AccessRecord(line[:19].replace("/", "-") + "+00", *fields)
    else:
        assert parse(AT, line) == AccessRecord(STORED_AT, *fields)


# FROM, and the row's source address and port.
SOURCES: dict[str, tuple[str | None, int | None]] = {
    **{"1.2.3.4:5": ("1.2.3.4", 5), "tcp:127.0.0.1:40022": ("127.0.0.1", 40022), "udp:[::1]:50189": ("::1", 50189)},  # A
    **{"[2001:db8::77]:0": ("2001:db8::77", 0), "0.0.0.0:0": ("0.0.0.0", 0), "tcp:0.0.0.0:0": ("0.0.0.0", 0)},  # noqa: S104
    **dict.fromkeys(["@", "@fallback", "unix:@", "unix:", "unix:/run/x.sock", ""], (None, None)),  # F
    **{"[fe80::1%eth0]:9": ("fe80::1", 9), "tcp:[fe80::1%25]:9": ("fe80::1", 9)},
    **{"203.0.*.*:7": ("203.0.0.0/16", 7), "tcp:203.*.*.*:7": ("203.0.0.0/8", 7)},  # M
    **{"203.0.113.*:7": ("203.0.113.0/24", 7), "[2001:db8::/32]:7": ("2001:db8::/32", 7)},
    **{"tcp:[2001::/16]:7": ("2001::/16", 7), "[2001:db8:1:2::/64]:7": ("2001:db8:1:2::/64", 7)},
    **{"[:::/32]:7": (None, 7), "[Masked IPv4]:7": (None, 7), "udp:[Masked IPv6]:7": (None, 7)},
}


@table("AFM", SOURCES, "source", "stored")
def test_a_source_is_an_address_a_network_or_null(source: str, stored: tuple[str | None, int | None]) -> None:
    for key in ("from ", ""):  # before xray 1.8.24 there was none
        accepted = parse(AT, key, source, " accepted tcp:x:443 [in -> out] email: e")
        assert accepted == AccessRecord(STORED_AT, *stored, "accepted", "tcp", "x", 443, "in", "out", "e")
        assert parse(AT, key, source, " rejected  why") == AccessRecord(STORED_AT, *stored, "rejected")


NO_SOURCES = "999.1.2.3:4 1.2.3:4 example.com:4 1.2.3.4 1.2.3.4: 1.2.3.4:x 1.2.3.4:-1 [::g]:4 [2001:db8::12:443 [1.2.3.45:6"
NO_SOURCES += " 999.0.*.*:4 [2001:db8::/129]:4 dns tcp: 2025/11/17:4 1.2.3.4\0:5"


@pytest.mark.parametrize("source", NO_SOURCES.split(" "))
def test_any_other_source_is_bad(source: str) -> None:
    for tail in ("accepted tcp:x:443 [in -> out] email: e", "rejected  proxy/trojan: not a valid user"):
        assert reason(AT, "from ", source, " ", tail).startswith("expected a ")


# What stands behind `accepted`, and the fields from protocol on.
X = ("tcp", "x", 443)
ACCEPTED: dict[str | bytes, tuple[Any, ...]] = {
    # A, C
    "tcp:x:443": X,
    "tcp:x:443 [direct]": (*X, None, "direct"),
    "tcp:x:443 email: e": (*X, None, None, "e"),
    "tcp:x:443 [a ==> b]": (*X, "a", "b"),
    "tcp:rev.internal:0 [interconn -> portal] email: b": ("tcp", "rev.internal", 0, "interconn", "portal", "b"),
    # D
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
    # E
    "127.0.0.1:8800 [ss22-in >> direct] email: ss22@example.com": (
        *(None, "127.0.0.1", 8800, "ss22-in", "direct", "ss22@example.com"),
    ),
    "[::1]:8800 [ss22-in >> direct]": (None, "::1", 8800, "ss22-in", "direct"),
    "localhost:8800 email: e": (None, "localhost", 8800, None, None, "e"),
    # J
    "tcp:x:443 [VLESS TCP REALITY -> b c]": (*X, "VLESS TCP REALITY", "b c"),
    "tcp:x:443 [inbound-0.0.0.0:443 >> b]": (*X, "inbound-0.0.0.0:443", "b"),
    "tcp:x:443 [vless in (a) -> b[1]]": (*X, "vless in (a)", "b[1]"),
    "tcp:x:443 [вход ==> 出] email: e": (*X, "вход", "出", "e"),
    "tcp:x:443 [doko -> out -> put] x]": (*X, "doko", "out -> put] x"),
    "tcp:x:443 [a>>b -> c]": (*X, "a>>b", "c"),
    "tcp:x:443 [t -> t]": (*X, "t", "t"),
    "tcp:x:443 [a -> b] c] email: d] email: e": (*X, "a", "b] c", "d] email: e"),
    # K
    "tcp:x:443 [b] email: 12.alice": (*X, None, "b", "12.alice"),
    "tcp:x:443 [b] email: 7": (*X, None, "b", "7"),
    "tcp:x:443 [b] email: user with space|x": (*X, None, "b", "user with space|x"),
    "tcp:x:443 [b] email: юзер@пример.рф": (*X, None, "b", "юзер@пример.рф"),
    "tcp:x:443 [b] email: a]b [c -> d] email: e": (*X, None, "b", "a]b [c -> d] email: e"),
    "tcp:x:443 email: a [b -> c]": (*X, None, None, "a [b -> c]"),
    "tcp:x:443 email: a rejected b": (*X, None, None, "a rejected b"),
    "tcp:x:443 [b] email: dup  ": (*X, None, "b", "dup"),
    "tcp:x:443 [b] email:  e": (*X, None, "b", " e"),
    # L
    "tcp:LocalHost.:65535": ("tcp", "LocalHost.", 65535),
    "tcp:under_score.test:0": ("tcp", "under_score.test", 0),
    "tcp:1.2.3:8800": ("tcp", "1.2.3", 8800),
    "udp:xn--bcher-kva.test:53": ("udp", "xn--bcher-kva.test", 53),
    "tcp:[fe80::1%eth0]:443": ("tcp", "fe80::1", 443),
    # M
    "tcp:198.51.*.*:443 [in-0.0.*.* >> out] email: e": ("tcp", "198.51.*.*", 443, "in-0.0.*.*", "out", "e"),
    "tcp:[2001:db8::/32]:443": ("tcp", "2001:db8::/32", 443),
    "[Masked IPv6]:8800 [i-[Masked IPv4]:4 >> o] email: Masked IPv6": (
        *(None, "[Masked IPv6]", 8800, "i-[Masked IPv4]:4", "o", "Masked IPv6"),
    ),
    "http://[Masked IPv4]:8800/a [out]": ("http", "[Masked IPv4]", 8800, None, "out"),
    "http://[:::/32]:8800/v6": ("http", ":::/32", 8800),
    "//[2001::/16]:443 [http-in >> direct]": (None, "2001::/16", 443, "http-in", "direct"),
}


@table("ACDEJKLM", ACCEPTED, "text", "fields")
def test_behind_accepted_stand_destination_tags_and_user(text: str | bytes, fields: tuple[Any, ...]) -> None:
    """Of a URL only scheme, host and port are stored: not its user, password, path or query."""
    assert parse(AT, "from 1.2.3.4:5 accepted ", text) == AccessRecord(STORED_AT, "1.2.3.4", 5, "accepted", *fields)
    if len(fields) <= 3:
        row = AccessRecord(STORED_AT, "1.2.3.4", 5, "accepted", *(fields or (None, None, None)), "a b", "c")
        assert parse(AT, "1.2.3.4:5 accepted ", text, " [a b -> c]") == row


REASONS: dict[str, str | bytes] = {
    "vless": "proxy/vless/encoding: invalid request user id",
    "vless, addresses": "proxy/vless/encoding: failed to read request version > read tcp 1.2.3.4:443->5.6.7.8:6001: "
    "read: connection reset by peer",
    "vless, IPv6 addresses": "proxy/vless/encoding: failed > read tcp [a]:443->[b]:65535: i/o timeout",
    "socks": "proxy/socks: unknown Socks version: 71",
    "socks, a full stop": "proxy/socks: TCP bind is not supported.",
    "socks, EOF": "proxy/socks: insufficient header > unexpected EOF",
    "trojan": "proxy/trojan: not trojan protocol",
    "vmess": "common/drain: common/drain: unable to drain connection > EOF > proxy/vmess/encoding: invalid user > "
    "user do not exist",
    "shadowsocks": "proxy/shadowsocks: failed to match an user > proxy/shadowsocks: Not Found",
    "v2ray": "v2ray.com/core/proxy/vmess/encoding: failed to drain connection DrainSize = 800 41 22 > Not Found",
    "bytes": b"proxy/socks: failed to read address > common/protocol: invalid domain name: \xff\xfe\0 bad",
    "255 bytes": b"proxy/socks: failed to read address > common/protocol: invalid domain name: " + bytes([0x80] * 255),
    "like tags and an email": "common/protocol: invalid domain name: [a -> b] email: x",
    "like an accepted one": "common/protocol: invalid domain name: 6.6.6.6:6 accepted tcp:h:1 [a -> b] email: x",
    "like an insecure one": "common/protocol: invalid domain name: Insecure encryption email: x",
    "none": "",
}


@table({f"I {name}": why for name, why in REASONS.items()}, "why")
def test_a_rejected_line_is_a_row_and_its_reason_is_not_stored(why: str | bytes) -> None:
    why = why.encode() if isinstance(why, str) else why
    for prefix in (b"from ", b"from tcp:", b"from udp:", b""):
        line = AT.encode() + prefix + b"1.2.3.4:5 rejected  " + why
        assert parse(line) == AccessRecord(STORED_AT, *SRC, "rejected")


@pytest.mark.parametrize("why", ["Insecure encryption email: a b", "Insecure encryptionemail:a b "])
def test_one_rejection_names_a_user(why: str) -> None:
    assert parse(f"{AT}from 1.2.3.4:5 rejected  {why}") == AccessRecord(STORED_AT, *SRC, "rejected", email="a b")


IGNORED: dict[Ignored, list[str | bytes]] = {
    Ignored.DNS: [  # G
        AT + "from DNS accepted udp:127.0.0.1:5353 [dns-tag -> direct]",
        AT + "from DNS accepted tcp:8.8.8.8:53 [dns-tag -> direct]",
        AT + "from DNS accepted https://h/dns-query [dns-tag -> direct]",
        AT + "from DNS accepted https://1.1.1.1/dns-query [local]",
        AT + "from DNS accepted udp:94.140.14.14:853 [local]",
        "2021/06/01 08:00:00 DoH accepted https://h/dns-query [out]",
        "2021/06/01 08:00:00 DNS accepted udp:8.8.8.8:53 [out]",
    ],
    Ignored.DNS_ANSWER: [  # H
        AT + "UDP:8.8.8.8:53 got answer: www.example.com -> [93.184.215.14, 2001:db8::1] 23.4ms",
        "2021/06/01 08:00:00 UDP:DNS.EXAMPLE:53 got answer: h -> [1.2.3.4] 316.692µs",
        AT + "TCP//h:53 cache HIT: h -> [1.2.3.4] 1µs",
        AT + "TCPL//h:53 cache OPTIMISTE: h -> [1.2.3.4] 1µs",
        AT + "DOH//h got answer: nx -> [] 1ms <rcode: 3>",
        AT + "DOHL//h got answer: h -> [] 5s <Post > dial tcp 1.2.3.4:443 > context deadline exceeded>",
        AT + "quic+local://h got answer: h -> [1.2.3.4] 1ms",
        AT + "localhost got answer: accepted -> [127.0.0.1] 1.722946ms",
        AT + "FakeDNS got answer: h -> [198.18.0.1] 1µs",
    ],
    Ignored.CONSOLE: [  # N
        "Xray 24.11.21 (Xray, Penetrates Everything.) 513f18b (go1.23.3 linux/amd64)",
        "V2Ray 4.34.0 (V2Fly, a community-driven edition of V2Ray.) Custom (go1.15.5 linux/amd64)",
        "A unified platform for anti-censorship.",
        *(f"{AT}[{level}] [1234567] proxy/vless: pkg: text" for level in ("Debug", "Info", "Warning", "Error")),
        "2024/09/01 08:00:00 [Info] app/dispatcher: default route for tcp:x:443",
        AT + "[Info] [1] proxy/socks: from 1.2.3.4:5 accepted tcp:x:443 [in -> out] email: e",
        AT + "Using default config:  /usr/local/etc/xray/config.json",
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
        "\t/usr/lib/go/src/runtime/proc.go:283 +0x28b",
        "created by github.com/xtls/xray-core/main/run.go in goroutine 1",
    ],
    Ignored.BLANK: ["", "\n", "\r\n", "   ", b"\0\0\0"],
    Ignored.COMMENT: ["# drained 2025/11/17 10:15:23 from 1.2.3.4:5 accepted tcp:x:443", "#"],
}


@pytest.mark.parametrize(("line", "kind"), [(line, kind) for kind, lines in IGNORED.items() for line in lines])
def test_what_is_no_clients_access_is_ignored_by_design(line: str | bytes, kind: Ignored) -> None:
    assert parse(line) is kind


WHOLE = AT + "from 1.2.3.4:5 accepted tcp:x.example:443 [in -> out] email: e"
PREFIXES = {
    "journald": "Nov 17 10:15:23 host xray[812]: ",
    "docker logs -t": "2025-11-17T10:15:23.123456789Z ",
    "compose": "xray-1  | ",
    "docker json-file": '{"log":"',
    "colours": "\x1b[36mxray |\x1b[0m ",
    "BOM": "\N{BOM}",
}


@table({f"O {name}": prefix for name, prefix in PREFIXES.items()}, "prefix")
def test_a_line_behind_a_prefix_is_bad_and_the_reason_names_the_prefix(prefix: str) -> None:
    assert repr(prefix.encode())[2:-1] in reason(prefix + WHOLE)


def test_windows_line_ends_are_no_part_of_a_line() -> None:
    assert parse(WHOLE + "\r\n") == parse(WHOLE + "\r") == parse(WHOLE + "\n") == parse(WHOLE)
    assert parse(f"{AT}from 1.2.3.4:5 rejected  why\r\n") == AccessRecord(STORED_AT, *SRC, "rejected")


def test_a_run_of_nuls_before_a_line_is_cut() -> None:
    assert (
        parse(b"\0" * 309 + WHOLE.encode())
        == parse(WHOLE)
        == AccessRecord(STORED_AT, *SRC, "accepted", "tcp", "x.example", 443, "in", "out", "e")
    )


@pytest.mark.parametrize("end", range(1, WHOLE.index("443")))
def test_a_line_cut_before_its_port_is_bad(end: int) -> None:
    assert reason(WHOLE[:end]).startswith("expected ")


FIRST_LINES = [
    *(WHOLE[:end] for end in (5, 12, 22, 30, 40, 44, 50, 60, 68, 75, len(WHOLE))),
    AT + "from 1.2.3.4:5 rejected  proxy/trojan: not a va",
    AT + "from DNS accepted udp:1.1.1.1:53 [dns -> dir",
    AT + "UDP:8.8.8.8:53 got answer: www.example.com -> [1.2",
    AT + "[Info] [1] proxy/vless/inbound: received requ",
    "A unified platform for anti-cens",
    "Xray 24.11.21 (Xray, Penetrates",
]
SECOND_LINES = [
    WHOLE,
    "2020/05/01 09:00:00 1.2.3.4:5 accepted tcp:x:443 [out] email:e ",
    AT + "from  accepted tcp:x:443 [bridge -> out]",
    AT + "from 1.2.3.4:5 rejected  proxy/trojan: not a valid user",
]


@pytest.mark.parametrize("second", SECOND_LINES, ids=["current", "old", "bridge", "rejected"])
@pytest.mark.parametrize("first", FIRST_LINES)
def test_two_lines_glued_into_one_are_bad(first: str, second: str) -> None:
    assert isinstance(parse(second), AccessRecord)
    assert reason(first + second).startswith("expected ")


def at(wall: str, **when: Any) -> str:
    """The timestamp stored for a wall-clock time."""
    record = parse(f"{wall} from 1.2.3.4:5 accepted tcp:x:443", **when)
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


@pytest.mark.parametrize("fraction", ["1", "12", "123", "1234", "12345", "123456", "000000"])
def test_a_fraction_is_kept_as_written(fraction: str) -> None:
    assert at(f"2025/11/17 10:15:23.{fraction}") == f"2025-11-17 10:15:23.{fraction}+00"


@pytest.mark.parametrize(
    "wall",
    [
        *("2025/02/29 10:15:23", "2025/02/30 10:15:23", "2025/11/31 10:15:23", "2025/13/01 10:15:23"),
        *("2025/00/10 10:15:23", "2025/10/00 10:15:23", "0000/00/00 00:00:00", "0001/01/01 00:00:00"),
        *("2025/11/17 24:00:00", "2025/11/17 23:60:00", "2025/11/17 23:59:60", "9999/12/31 23:59:59"),
        *("2014/12/31 23:59:59", "1970/01/01 00:00:00", "2025/11/17 10:15:23.", "2025/11/17 10:15:23.1234567"),
        *("2025-11-17 10:15:23", "2025/11/17T10:15:23", "2025/1/17 10:15:23", "٢٠٢٥/11/17 10:15:23"),
    ],
)
@pytest.mark.parametrize("zone", ["UTC", "Asia/Tehran", "America/New_York"])
def test_an_impossible_time_is_bad_and_the_next_line_is_not(zone: str, wall: str) -> None:
    if wall.startswith("2014") and zone == "America/New_York":
        wall = "2014/12/31 18:59:59"  # the same moment
    assert reason(f"{wall} from 1.2.3.4:5 accepted tcp:x:443", zone=zone).startswith("expected ")
    one = Parser(ZoneInfo(zone), NOW)
    for _ in range(2):  # whatever the parser remembers of the line before
        assert isinstance(one.parse_line(f"{wall} from 1.2.3.4:5 accepted tcp:x:443".encode()), BadLine)
        assert isinstance(one.parse_line(WHOLE.encode()), AccessRecord)


@pytest.mark.parametrize(("zone", "hour"), [("UTC", 12), ("Asia/Tokyo", 21)])
def test_a_time_more_than_two_days_ahead_is_bad(zone: str, hour: int) -> None:
    now = datetime(2025, 11, 17, 12, tzinfo=timezone.utc)
    assert at(f"2025/11/19 {hour}:00:00", zone=zone, now=now) == "2025-11-19 12:00:00+00"
    assert "ahead" in reason(f"2025/11/19 {hour}:00:01 from 1.2.3.4:5 accepted tcp:x:443", zone=zone, now=now)


NAMED = {
    "email": "from 1.2.3.4:5 accepted tcp:x:443 [in -> out] email: {}",
    "email, rejected": "from 1.2.3.4:5 rejected  Insecure encryption email: {}",
    "inbound": "from 1.2.3.4:5 accepted tcp:x:443 [{} -> out]",
    "outbound": "from 1.2.3.4:5 accepted tcp:x:443 [in -> {}] email: e",
    "only outbound": "from 1.2.3.4:5 accepted tcp:x:443 [{}]",
    "host": "from 1.2.3.4:5 accepted tcp:{}:443 [in -> out] email: e",
    "host, no prefix": "from 1.2.3.4:5 accepted {}:443 [in -> out] email: e",
    "host of a URL": "from 1.2.3.4:5 accepted http://{}/ [in -> out]",
    "email, documented": "from 1.2.3.4 : 5 accepted tcp:x : 443 [in -> out] email:{}",
}


@table(NAMED, "text")
def test_a_name_is_up_to_255_characters_of_utf8_without_nul(text: str) -> None:
    for letter in "aю𝕏":
        assert letter * 255 in parse(AT + text.format(letter * 255))
        assert "255 characters" in reason(AT + text.format(letter * 256))
    for broken in (b"\xff\xfe", b"caf\xe9", b"a\xc3", b"\xed\xa0\x80", b"\xc0\x80"):
        assert "UTF-8" in reason((AT + text).encode().replace(b"{}", broken))
    assert "NUL" in reason(AT + text.format("a\0b"))


@pytest.mark.parametrize("text", ["from 1.2.3.4:{} accepted tcp:x:1", "from 1.2.3.4:1 accepted tcp:x:{}"])
@pytest.mark.parametrize("blanks", ["", " "], ids=["written", "documented"])
def test_a_port_is_up_to_65535(text: str, blanks: str) -> None:
    text = text.replace(":{}", f"{blanks}:{blanks}{{}}")
    for port in (0, 1, 65535):
        assert port in parse(AT + text.format(port))
    for bad in (65536, 99999, 100000, 10**30, -1, "٣"):
        assert "port" in reason(AT + text.format(bad))


def test_a_line_of_200_093_bytes_is_a_row() -> None:
    line = f"{AT}from 1.2.3.4:5 accepted http://127.0.0.1:8800/".ljust(200_093 - 21, "a") + " [http-in >> direct]\n"
    assert len(line) == 200_093
    fields = (*SRC, "accepted", "http", "127.0.0.1", 8800, "http-in", "direct")
    assert parse(line) == AccessRecord(STORED_AT, *fields)


def kinds(results: Iterable[Kind]) -> Counter[Any]:
    """How many rows of each action, lines ignored of each kind, and bad lines."""
    return Counter(
        got.action if isinstance(got, AccessRecord) else got if isinstance(got, Ignored) else BadLine for got in results
    )


def parsed(path: Any, zone: str, now: datetime) -> list[Kind]:
    one = Parser(ZoneInfo(zone), now)
    return [one.parse_line(line) for line in path.read_bytes().split(b"\n")[:-1]]


def test_all_lines_of_a_real_xray_log_are_understood() -> None:
    got = parsed(SAMPLES / "xray_24.11.21.log", "Asia/Tehran", NOW)
    assert kinds(got) == {"accepted": 123, "rejected": 30, Ignored.DNS: 18, Ignored.DNS_ANSWER: 1}
    day, local, b = "2026-11-22 15:", ("127.0.0.1",), "accepted"
    by_hand = {
        1: ("40:50+00", *local, 60626, b, "tcp", "127.0.0.1", 8800, "socks-in", "direct"),
        6: ("40:50+00", *local, 60668, b, "tcp", "blocked.test", 8800, "socks-in", "block"),
        9: ("40:51+00", *local, 60098, "rejected"),
        17: ("40:51+00", *local, 44106, b, "http", "::1", 8800, "http-in", "direct"),
        26: ("40:53+00", *local, 44822, b, "tcp", "127.0.0.1", 8800, "doko", "out -> put] x"),
        27: ("40:53+00", *local, 45176, b, "http", "127.0.0.1", 8800, None, "direct"),
        37: ("40:54+00", *local, 47694, b, "tcp", "localhost", 8800, "vmess-in", "direct", "юзер@пример.рф"),
    }
    for number, (minute, *fields) in by_hand.items():
        assert got[number - 1] == AccessRecord(day + minute, *fields)
    found = {got_[1:] for got_ in got if isinstance(got_, AccessRecord)}
    vless = ("vless in (a)", "direct")
    assert found >= {
        (*local, 47090, b, "tcp", "127.0.0.1", 8800, *vless, "a]b [c -> d] email: e"),
        (*local, 47114, b, "tcp", "127.0.0.1", 8800, *vless, "dup"),
        ("2001:db8::77", 0, b, "tcp", "::1", 8800, "vless-ws", "direct", "ws@example.com"),
        (*local, 49758, b, None, "::1", 8800, "ss22-in", "direct", "ss22@example.com"),
        (None, None, b, "tcp", "127.0.0.1", 8800, "vless-unix", "direct", "unix@example.com"),
        (*local, 46878, b, None, "localhost", None, "http-in", "direct", None),
        (*local, 46934 + 30, b, None, "127.0.0.1", None, "http-in", "direct", None),
        (*local, 46978, b, "http", "127.0.0.1", 8800, "http-in", "direct", None),
        (*local, 46992, b, "ftp", "127.0.0.1", 8800, "http-in", "direct", None),
        (*local, 47010, b, "http", "127.0.0.1", 8800, "http-in", "direct", None),
        (*local, 55464, b, "udp", "127.0.0.1", 5353, "trojan-in", "direct", "troy@example.com"),
        (*local, 49558, "rejected", *[None] * 6),  # raw bytes and a NUL in its reason
        ("6.6.6.6", 666, b, "tcp", "forged.test", 443, "a", "b", "forged"),  # a client's own line feed: not detectable
        (*local, 41198, b, "tcp", "127.0.0.1", 0, "api", "api", None),
    }


def test_all_lines_of_a_real_v2ray_log_are_understood() -> None:
    got = parsed(SAMPLES / "v2ray_4.34.0.log", "Asia/Tehran", NOW)
    assert kinds(got) == {"accepted": 121, "rejected": 40}
    local, b = ("127.0.0.1",), "accepted"
    assert got[0] == AccessRecord(
        "2026-11-22 15:38:41+00", *local, 55954, b, "tcp", "127.0.0.1", 8800, None, "direct", None
    )
    assert {record[1:] for record in got if isinstance(record, AccessRecord)} >= {
        (*local, 40122, b, None, "localhost", 8800, None, "direct", None),
        (*local, 35268 + 0, b, "tcp", "127.0.0.1", 8800, None, "direct", None)[:0] or got[0][1:],
        (*local, 40138, b, "http", "blocked.test", 80, None, "block", None),
        (*local, 45028, b, "tcp", "::1", 8800, None, "direct", "a]b [c -> d] email: e"),
        ("2001:db8::77", 0, b, "tcp", "localhost", 8800, None, "direct", "ws@example.com"),
        (*local, 46135 + 1, "rejected", *[None] * 6),
        (*local, 43538, "rejected", *[None] * 6),
        ("6.6.6.6", 666, b, "tcp", "forged.test", 443, "a", "b", "forged"),
        ("::1", 46835, b, "udp", "::1", 5353, None, "direct", None),
        (*local, 50266, b, "tcp", "127.0.0.1", 0, None, "api", None),
    }


def test_our_example_shows_every_kind_of_line() -> None:
    path = ROOT / "examples" / "access.log"
    got = parsed(path, "UTC", datetime(2025, 11, 18, tzinfo=timezone.utc))
    assert len(got) == path.read_bytes().count(b"\n") > 250
    assert path.read_bytes().endswith(b"\n")
    assert kinds(got).keys() == {"accepted", "rejected", "api", BadLine, *Ignored}
    assert len({bad.reason.partition(", found")[0] for bad in got if isinstance(bad, BadLine)}) >= 5
    days = {record.timestamp[:10] for record in got if isinstance(record, AccessRecord)}
    assert days == {"2025-11-15", "2025-11-16", "2025-11-17"}


# Anything that a line may be made of, put together in any order: some of it parses, and all of it is nearly right.
PIECES = [
    *(
        "from ",
        "DNS",
        "@",
        "unix:",
        "tcp:",
        "udp:",
        "//",
        "http://",
        "1.2.3.4:5",
        "[2001:db8::1%eth0]:443",
        "203.0.*.*:1",
    ),
    *(
        "[Masked IPv4]:1",
        "[2001:db8::/32]:1",
        " accepted ",
        " rejected  ",
        "x.example:443",
        " [in -> out]",
        " [",
        "]",
        " ",
    ),
    *(
        " email: ",
        "email:",
        "e",
        "api from ",
        " api -> api",
        " : ",
        "\0",
        "\r",
        "\t",
        "#",
        "[Info] ",
        " got answer: ",
        "*",
    ),
    *(
        "2025/11/17 10:15:23 ",
        "9999/99/99 99:99:99",
        "user:pa55@",
        "/path?q",
        ":99999",
        "Insecure encryption email: ",
        "ю" * 90,
    ),
]
piece = st.sampled_from([text.encode() for text in PIECES])
nearly = st.lists(piece | st.binary(max_size=4), max_size=12).map(b"".join)
client = st.sampled_from([b"1.2.3.4:5", b"tcp:[::1]:0", b"@", b"203.0.*.*:1", b"[fe80::1%eth0]:9", b"[Masked IPv6]:2"])
behind = st.builds(
    lambda who, status, rest: b"%sfrom %s %s %s" % (AT.encode(), who, status, rest),
    client,
    st.sampled_from([b"accepted tcp:x:443", b"accepted x.example:1", b"accepted http://h", b"accepted", b"rejected"]),
    nearly,
)
any_bytes = st.binary(max_size=200) | nearly | nearly.map(lambda text: AT.encode() + text) | behind
NAMES = ("protocol", "destination", "inbound_tag", "outbound_tag", "email")


@given(any_bytes)
def test_no_bytes_make_the_parser_raise(raw: bytes) -> None:
    got = parse(raw)
    assert isinstance(got, AccessRecord | BadLine | Ignored)
    if isinstance(got, BadLine):
        assert got.line == raw
        assert "\0" not in got.reason
        assert got.reason.isprintable()


@settings(max_examples=1000)
@given(any_bytes | behind, st.sampled_from(["UTC", "Asia/Tehran"]))
def test_every_value_of_a_row_fits_its_column(raw: bytes, zone: str) -> None:
    record = parse(raw, zone)
    if not isinstance(record, AccessRecord):
        return
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d(\.\d{1,6})?\+00", record.timestamp)
    if record.source_ip is not None:
        assert "%" not in record.source_ip
        ipaddress.ip_interface(record.source_ip)
    for port in (record.source_port, record.destination_port):
        assert port is None or 0 <= port <= 65535
    assert record.action in {"accepted", "rejected", "api"}
    assert record.protocol in {None, "tcp", "udp", "http", "https", "ftp"}
    for name in (getattr(record, column) for column in NAMES):
        assert name is None or 1 <= len(name.encode().decode()) <= 255
        assert name is None or ("\0" not in name and "\n" not in name)


# What xray can write and a parser can understand: free text without what makes a line ambiguous.
free_text = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\n\r\0"), min_size=1, max_size=255)
tag = free_text.filter(lambda text: text == text.strip(" ") and not re.search(r"email:|->|>>|]\Z|\A]", text))
email = free_text.filter(lambda text: not text.endswith(" "))
domain = st.from_regex(r"[A-Za-z0-9_.-]{1,255}", fullmatch=True).filter(lambda text: text not in {"tcp", "udp"})
number = st.integers(0, 65535)
v6 = st.ip_addresses(v=6).map(str).filter(lambda text: "%" not in text)
address = st.ip_addresses(v=4).map(str).map(lambda text: (text, text)) | v6.map(lambda text: (text, f"[{text}]"))
host = domain.map(lambda text: (text, text)) | address
sources = st.one_of(
    st.sampled_from(["", "@", "unix:@", "unix:"]).map(lambda text: (text, (None, None))),
    st.builds(
        lambda prefix, ip, port: (f"{prefix}{ip[1]}:{port}", (ip[0], port)),
        st.sampled_from(["", "tcp:", "udp:"]),
        address,
        number,
    ),
)
SCHEMES = {"tcp:": "tcp", "udp:": "udp", "": None, "//": None, "http://": "http", "https://": "https", "ftp://": "ftp"}
destinations = st.builds(
    lambda scheme, name, port: (f"{scheme}{name[1]}:{port}", (SCHEMES[scheme], name[0], port)),
    st.sampled_from(list(SCHEMES)),
    host,
    number,
)
brackets = st.one_of(
    st.just(("", (None, None))),
    tag.map(lambda text: (f" [{text}]", (None, text))),
    st.builds(
        lambda inbound, arrow, outbound: (f" [{inbound} {arrow} {outbound}]", (inbound, outbound)),
        tag,
        st.sampled_from(["->", ">>", "==>"]),
        tag,
    ),
)
moments = st.datetimes(datetime(2015, 1, 1), datetime(2026, 11, 25))  # noqa: DTZ001  # as the log: without a zone


@given(moments, st.booleans(), st.booleans(), sources, destinations, brackets, st.none() | email)
def test_a_record_written_as_xray_writes_it_is_read_back(
    moment: datetime, micro: bool, from_: bool, source: Any, to: Any, detour: Any, user: str | None
) -> None:
    wall = moment.strftime("%Y/%m/%d %H:%M:%S") + (f".{moment:%f}" if micro else "")
    begin = f"{wall} {'from ' * from_}{source[0]}"
    stored_at = wall.replace("/", "-") + "+00"
    line = f"{begin} accepted {to[0]}{detour[0]}{'' if user is None else f' email: {user}'}"
    assert parse(line) == AccessRecord(stored_at, *source[1], "accepted", *to[1], *detour[1], user)
    assert parse(f"{begin} rejected  {user}") == AccessRecord(stored_at, *source[1], "rejected")


some_lines = st.lists(
    st.sampled_from([line.encode() for line in (WHOLE, AT, "", "#", SECOND_LINES[1], SECOND_LINES[3], WHOLE + "\r")])
    | any_bytes.map(lambda raw: raw.replace(b"\n", b"")),
    max_size=20,
)


def cut(text: bytes, start: int, ends: Iterable[int]) -> list[tuple[int, bytes]]:
    """The text as blocks, cut at some of its line ends."""
    feeds = [0, *(found.end() for found in re.finditer(rb"\n", text))]
    edges = sorted({0, len(text), *(feeds[end % len(feeds)] for end in ends)})
    return [(start + begin, text[begin:end]) for begin, end in itertools.pairwise(edges)]


@given(some_lines, st.integers(1, 6), st.lists(st.integers(0, 20), max_size=5), st.integers(0, 10**12), st.data())
def test_batches_are_the_lines_in_order_however_they_are_cut(
    lines: list[bytes], size: int, ends: list[int], start: int, data: st.DataObject
) -> None:
    text = b"".join(line + b"\n" for line in lines)
    each = [(start + len(b"".join(line + b"\n" for line in lines[:n])), parse(lines[n])) for n in range(len(lines))]
    batches = list(Parser(UTC, NOW).batches(cut(text, start, ends), size))

    assert b"".join(batch.text for batch in batches) == text
    position = start
    for batch in batches:
        assert (batch.start, batch.end) == (position, position + len(batch.text))
        assert 1 <= batch.lines == len(batch.records) + len(batch.bad_lines) + sum(batch.ignored.values())
        assert len(batch.records) + len(batch.bad_lines) <= size
        position = batch.end
    rows = [(begin, got) for begin, got in each if isinstance(got, AccessRecord)]
    assert [record for batch in batches for record in batch.records] == [got for _, got in rows]
    assert [bad for batch in batches for bad in batch.bad_lines] == [
        (begin, got) for begin, got in each if isinstance(got, BadLine)
    ]
    assert sum((Counter(batch.ignored) for batch in batches), Counter()) == Counter(
        got for _, got in each if isinstance(got, Ignored)
    )
    own = [batch.line(index) for batch in batches for index in range(len(batch.records))]
    assert [begin for begin, _ in own] == [begin for begin, _ in rows]
    assert all(text[begin - start :].startswith(raw + b"\n") and b"\n" not in raw for begin, raw in own)


def batches(*blocks: tuple[int, bytes], size: int = 10) -> list[Batch]:
    return list(Parser(UTC, NOW).batches(blocks, size))


def test_a_batch_holds_no_gap_of_the_file() -> None:
    block = WHOLE.encode() + b"\n"
    got = batches((0, block), (len(block), block), (1000, block))
    assert [(batch.start, batch.end) for batch in got] == [(0, 2 * len(block)), (1000, 1000 + len(block))]
    assert [len(batch.records) for batch in got] == [2, 1]


def test_long_lines_close_a_batch_early(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parser, "BATCH_BYTES", 1000)
    assert [batch.lines for batch in batches((0, (b"#" * 499 + b"\n") * 5))] == [2, 2, 1]


def seconds(one: Parser, line: bytes) -> float:
    """Best of five: the noise of a busy machine only ever adds time."""
    best = float("inf")
    for _ in range(5):
        began = time.perf_counter()
        one.parse_line(line)
        best = min(best, time.perf_counter() - began)
    return best


HEADS = [b"2025/11/17 10:15:23 from 1.2.3.4:5 accepted ", b"2025/11/17 10:15:23 from 1.2.3.4:5 rejected "]
HEADS += [b"2025/11/17 10:15:23 ", b"2025/11/17 10:15:23 from 1.2.3.4:5 accepted tcp:x:443 [", b"\0", b""]
NASTY = [
    b" [",
    b"] ",
    b"]",
    b" ",
    b"a.",
    b":",
    b"[",
    b"@",
    b"\t",
    b" email:",
    b"] email:",
    b" : ",
    b" -> ",
    b" api",
    b"\0",
]
NASTY += [
    b"2025/11/17 10:15:2",
    b"2025/11/17 10:15:23 ",
    b" from ",
    b"from 1",
    b"accepted",
    b" accepted",
    b" [:/1",
    b"\xff",
]


@pytest.mark.parametrize("head", HEADS, ids=["accepted", "rejected", "timestamp", "tags", "NUL", "bare"])
@pytest.mark.parametrize("pattern", NASTY, ids=repr)
def test_a_line_of_twice_the_length_takes_about_twice_the_time(head: bytes, pattern: bytes) -> None:
    """A client chooses up to all of these bytes. Quadratic behaviour would take four times, and seconds of it."""
    one = Parser(UTC, NOW)
    short, long = (head + pattern * (size // len(pattern)) for size in (200_000, 400_000))
    took = seconds(one, long)
    assert took < 0.03 or took < 2.9 * seconds(one, short)
