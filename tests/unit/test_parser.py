"""Every line that xray or v2ray writes becomes the right row, is ignored by design, or is bad: none is an accident.

The letters in the names are those of the tables in our study of the log: A current, B older, C documented only, D the
HTTP inbound, E shadowsocks-2022, F sources without an address, G xray's own DNS client, H DNS answers, I rejected,
J tags, K emails, L hosts, M masked addresses, N console, O wrapped by others, P damaged.
"""

from __future__ import annotations

from typing import Any

import pytest
from helpers.log_lines import NOTHING, REASONS, SECOND_LINES
from helpers.parsing import (
    AT,
    STORED_AT,
    WHOLE,
    WHOLE_ROW,
    parse,
    raw,
    reason,
)

from xraylog.accesslog import client, destination
from xraylog.accesslog.reject_reasons import RejectReason
from xraylog.accesslog.values import ParseError
from xraylog.records import AccessRecord, Ignored


def table(rows: dict[str, dict[Any, Any]], *names: str) -> pytest.MarkDecorator:
    """One case an entry, named by the letter of its table and its key."""
    entries = [(letter, key, value) for letter, part in rows.items() for key, value in part.items()]
    ids = [f"{letter}: {raw(key)!r:.90}" for letter, key, _ in entries]
    return pytest.mark.parametrize(names, [entry[1:] for entry in entries], ids=ids)


# Whole lines, except the timestamp where there is none, and the fields from source_ip on: address, port, action,
# protocol, destination, its port, inbound, outbound, email, reason of a rejection. What is left out at the end is null.
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
            client.without_port(piece)
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
