"""Lines that no released xray writes, but forks, Go and libraries do; and that a damaged line is none of them."""

from __future__ import annotations

import random
import re
import string
from collections.abc import Callable
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from helpers.parsing import AT, NOW, STORED_AT, WHOLE, grammar_of, parse, reason
from helpers.site import SAMPLES
from hypothesis import given
from hypothesis import strategies as st

from xraylog.accesslog import other_lines, suffixes
from xraylog.accesslog.grammar import Grammar
from xraylog.records import AccessRecord, BadLine, Ignored

FROM = "from 1.2.3.4:5 "
X = ("1.2.3.4", 5, "accepted", "tcp", "x", 443)

# --- fields after the email --------------------------------------------------------------------------------------

SUFFIXES = [
    "request_bytes: 100 response_bytes: 2000",
    "response_bytes: 2000 request_bytes: 100",
    "request_bytes=100 response_bytes=2000",
    "request_bytes: 7",
    "bytes_sent: 0 bytes_received: 0",
    "uplink=0 downlink=18446744073709551615",
    "downlink: 1 uplink: 2",
    "upload: 1 download: 2",
    "original: tcp:203.0.113.20:443 sniffed: tls",
    "original: tcp:[2001:db8::20]:80 sniffed: http",
    "original: tcp:198.18.0.42:443 sniffed: fakedns+others",
    "original: udp:[Masked IPv4]:443 sniffed: quic",
    "sniffed: ssh original: tcp:www.example.com:22",
    "uplink=1 original: tcp:x:443 sniffed: something_new downlink=2",
    "egress: v4",
    "sniffed: bittorrent",
    "count: 3 duration: 1m2.5s",
    "up_bytes=1 down_bytes=2",
    "bytes_in: 1 bytes_out: 2",
    "requestBytes: 100 responseBytes: 2000",
    "RequestBytes=100",
    "rx: 5 tx: 6",
    "request_bytes: 100, response_bytes: 2000",
    "uplink=1; downlink=2",
    "original: 203.0.113.20:443 sniffed: tls",
    "original: //x.example:443 sniffed: http/1.1",
    "original: unix:/run/x.sock sniffed: TLS",
    "original: tcp:[Masked IPv6[Masked IPv4]]:443 sniffed: tls",
    "up: 100 down: 200",
    "up=100 down=200",
    "uplink: 100B downlink: 2.5KB",
    "uplink: 1.5 MiB downlink: 2 kB",
    "uplink: 3K | downlink: 4M",
    "uploaded: 12B downloaded: 3.1GiB",
    "rx: 5 kB/s tx: 6.25Mbps",
    "latency: 12ms rtt: 3ms",
    "duration: 1m2.5s latency_ms: 7",
    "request-bytes: 100",
    "request_size: 100 response_size: 3",
    "response_length=5",
    "bytes-in=1 bytes-out=2",
    "total_traffic: 5MB",
    "request_bytes: -1",
    "request_bytes: -1 response_bytes: 2000",
    "[uplink: 1, downlink: 2]",
    "(uplink=1 downlink=2)",
    "{rx: 1; tx: 2} sniffed: tls",
    "target: tcp:203.0.113.20:443",
    "dest: [2001:db8::20]:443",
    "remote_addr: 203.0.113.20:443 duration=12ms",
    "domain: www.example.com sniffed: tls",
    "sni=www.example.com ip=203.0.113.20",
    "up: 1 session_id: 123456 down: 2",
    "uplink: 1 session_id: 1, level=0 downlink: 2",
]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_known_fields_after_the_email_are_no_part_of_it(suffix: str) -> None:
    for end in ("", " "):
        for email in ("alice", "alice@example.com", "a b: c d", "юзер", "a]b [c -> d] email: e", "alice: 5", "team=7"):
            said = parse(AT, FROM, "accepted tcp:x:443 [in >> out] email: ", email, " ", suffix, end)
            assert said == AccessRecord(STORED_AT, *X, "in", "out", email)
        for key in ("", " email:", " email: "):
            tagged = parse(AT, FROM, "accepted tcp:x:443 [in >> out]", key.rstrip(" "), " ", suffix, end)
            assert tagged == AccessRecord(STORED_AT, *X, "in", "out")
            bare = parse("2021/05/01 09:00:00 1.2.3.4:5 accepted tcp:x:443", key.rstrip(" "), " ", suffix, end)
            assert bare == AccessRecord("2021-05-01 09:00:00+00", *X)


@pytest.mark.parametrize(
    "field", ["traffic: 300", "traffic=3.5GB", "duration=12ms", "duration: 1m2.5s", "latency: 3ms"]
)
def test_a_field_that_may_be_a_users_name_is_cut_after_an_email_only(field: str) -> None:
    said = parse(AT, FROM, "accepted tcp:x:443 [in >> out] email: alice ", field)
    assert said == AccessRecord(STORED_AT, *X, "in", "out", "alice")
    said = parse(AT, FROM, "accepted tcp:x:443 [in >> out] email: ", field)
    assert said == AccessRecord(STORED_AT, *X, "in", "out", field)
    assert parse(AT, FROM, "accepted tcp:x:443 [in >> out] ", field) == AccessRecord(STORED_AT, *X, "in", "out")


@pytest.mark.parametrize("unknown", ["session_id: 123456", "session_id=1a-2b", "level: 0, id: 5", "ua: curl/8.5 x=:1"])
def test_unknown_fields_before_known_ones_are_no_part_of_the_email(unknown: str) -> None:
    """They are what changes from line to line, so each line would have a user of its own."""
    for known in ("uplink: 1 downlink: 2", "request_bytes=1", "duration: 5s", "(up: 1 down: 2)"):
        for key in ("email: ", "email:"):
            said = parse(AT, FROM, "accepted tcp:x:443 [in >> out] ", key, "alice b ", unknown, " ", known)
            assert said == AccessRecord(STORED_AT, *X, "in", "out", "alice b")
    said = parse(AT, FROM, "accepted tcp:x:443 [in >> out] email: alice ", unknown)
    assert said == AccessRecord(STORED_AT, *X, "in", "out", f"alice {unknown}")


def test_the_first_of_unknown_fields_is_the_email_where_nothing_else_is_left() -> None:
    for email in ("alice: 5", "team=7", "id:17"):
        for others in ("", "level: 0 "):
            said = parse(AT, FROM, "accepted tcp:x:443 [out] email: ", email, " ", others, "uplink: 1 downlink: 2")
            assert said == AccessRecord(STORED_AT, *X, None, "out", email)


some_fields = st.sampled_from([*SUFFIXES, "uplink: 1", "traffic: 1", "level: 0", "session_id=1", "(up: 1"])


@given(st.lists(some_fields, max_size=6), st.text(max_size=20))
def test_whatever_is_cut_is_at_the_end_and_leaves_no_known_fields(fields: list[str], email: str) -> None:
    line = f" [in >> out] email: {email} {' '.join(fields)}".encode()
    left = suffixes.cut(line, has_email=True)
    assert line.startswith(left)
    assert suffixes.cut(left, has_email=True) == left or left.endswith(b" ")


@given(st.from_regex(suffixes.FIELD, fullmatch=True))
def test_each_field_has_a_colon_or_an_equals_sign(field: bytes) -> None:
    """An email that has neither is not searched."""
    assert b":" in field or b"=" in field


@pytest.mark.timeout(120)  # what is linear takes milliseconds, on any machine; what is not, hours
@pytest.mark.parametrize(
    "field", [*SUFFIXES, "level: 0", "a:b:c=d", "(", "[uplink: 1", "uplink: 1 K", "original: a:1:2"]
)
def test_a_long_run_of_fields_that_is_none_takes_no_time(field: str) -> None:
    """A client of a socks inbound writes up to 255 bytes into a reason; fields that could be read in two ways took
    2 ** n steps.
    """
    fields = f"{field} " * 200
    parse(AT, FROM, "accepted tcp:x:443 [in >> out] email: a ", fields[:900], "!")
    parse(AT, FROM, "rejected  common/protocol: invalid domain name: ", fields[:900], "!")


@pytest.mark.parametrize("suffix", ["uplink: 5", "downlink=5", "rx: 1", "count: 3", "duration: 5s", "sniffed: new"])
def test_one_known_field_in_the_place_of_the_email_is_none(suffix: str) -> None:
    tagged = parse(AT, FROM, "accepted tcp:x:443 [in >> out] ", suffix)
    assert tagged == AccessRecord(STORED_AT, *X, "in", "out")
    assert parse(AT, FROM, "accepted tcp:x:443 ", suffix) == AccessRecord(STORED_AT, *X)


# What operators call their users, and what only looks like a field.
EMAILS = [
    *("alice: 5", "id: 17", "uid=17", "level: 0", "user=alice level=0", "limit: 100", "plan: 100GB", "port: 443"),
    *("vless-443|dave@example.net|7", "12.alice", "alice expire: 2026-12-31", "team: red", "a=b", "a: b: c: d"),
    *("office uplink: 2", "downlink=5", "upload: 5", "download=7", "alice count: 2", "traffic: 100"),
    *("original: alice", "alice original: tcp", "alice original: tcp:x", "alice sniffed: glue", "egress: berlin"),
    *("request_bytes", "request_bytes:", "alice request_bytes: many", "request_bytes: 1 alice"),
    *("uplink=1 alice downlink=2", "alice up: x down: y", "user domain", "user domain: example.com", "a (b)", "team=7"),
    *("alice request_bytes : 1", "alicerequest_bytes: 1", "my_request_bytes: 1", "alice uplink=1;downlink=2"),
    *("alice request_bytes: --1", "alice uplink=one downlink=two", "alice request_bytes:  5", "alice bytes: 5"),
    *("ten bytes_per_second: 5", "a uplink = 1 downlink = 2", "alice Uplink=1 Downlink=2"),
    *("alice (uplink=1 downlink=2", "alice uplink=1 downlink=2]", "bob (level: 3)", "a up: 5 apples", "b [up: 1]"),
    *("alice target: berlin", "alice target: tcp", "bob latency: low", "bob traffic: high", "b latency: 5"),
    *("alice uplink: 1 downlink: 2 team: red", "alice domain: x sniffed:", "b host: a.example", "in: 5"),
    *("office tx: 2", "rx=5", "alice maxbytes: 5", "alice original: x", "alice, bob", "alice; level: 0,"),
    *("duration: 5s", "alice duration=5", "http://x/?uplink=1&downlink=2", "alice original=tcp sniffed=tls!"),
]  # fmt: skip


@pytest.mark.parametrize("email", EMAILS)
def test_any_other_email_is_kept_to_its_last_letter(email: str) -> None:
    for tags in (" [in >> out]", ""):
        said = parse(AT, FROM, "accepted tcp:x:443", tags, " email: ", email)
        assert isinstance(said, AccessRecord)
        assert said.email == email


def test_a_comma_before_known_fields_is_no_part_of_the_email() -> None:
    for separator in (",", ";"):
        said = parse(AT, FROM, "accepted tcp:x:443 [out] email: alice", separator, " request_bytes: 1")
        assert said == AccessRecord(STORED_AT, *X, None, "out", "alice")
        said = parse(AT, FROM, "accepted tcp:x:443 [out]", separator, " request_bytes: 1")
        assert said == AccessRecord(STORED_AT, *X, None, "out")


def test_known_fields_are_no_part_of_any_other_part_of_the_line() -> None:
    tag = parse(AT, FROM, "accepted tcp:x:443 [in >> uplink=1 downlink=2] email: e")
    assert tag == AccessRecord(STORED_AT, *X, "in", "uplink=1 downlink=2", "e")
    for one in ("uplink=1", "in: 5", "host: a.example", "egress: v4"):
        assert parse(AT, FROM, "accepted tcp:x:443 [", one, "]") == AccessRecord(STORED_AT, *X, None, one)
    assert reason(AT, FROM, "accepted tcp:foo uplink=1 downlink=2").startswith("expected a destination")
    assert reason(AT, FROM, "accepted tcp:x:443 uplinks=1 downlinks=2").startswith("expected")


def test_the_reason_names_an_unknown_field_after_the_tags() -> None:
    """Before the email, too: nothing tells where the field ends."""
    for field in ("uplinks: 1", "level: 0 email: e", "request_bytes: 1 email: e"):
        assert reason(AT, FROM, "accepted tcp:x:443 [in >> out] ", field).endswith(f"after the tags, found ' {field}'")
    assert reason(AT, FROM, "accepted tcp:x:443 [in >> out").endswith("found none")


# --- TO ----------------------------------------------------------------------------------------------------------

NETWORKS: dict[str, tuple[Any, ...]] = {
    "icmp:198.51.100.9:0": ("icmp", "198.51.100.9", 0),
    "icmp:[2001:db8::9]:0": ("icmp", "2001:db8::9", 0),
    "unknown:x:443": ("unknown", "x", 443),
    "unix:/run/x.sock": ("unix", "/run/x.sock", None),
    "unix:@x": ("unix", "@x", None),
    "unix:x:0": ("unix", "x", 0),
    "icmp:443": (None, "icmp", 443),
    "tcp:2001:db8::9:443": ("tcp", "2001:db8::9", 443),
    "::1:443": (None, "::1", 443),
    "tcp:fe80::1%eth0:443": ("tcp", "fe80::1", 443),
    "//2001:db8::9:443": (None, "2001:db8::9", 443),
    "http://me:pa55@2001:db8::9:80/x": ("http", "2001:db8::9", 80),
}


@pytest.mark.parametrize(("to", "fields"), NETWORKS.items(), ids=NETWORKS)
def test_a_known_network_before_the_host_is_the_protocol(to: str, fields: tuple[Any, ...]) -> None:
    row = AccessRecord(STORED_AT, "1.2.3.4", 5, "accepted", *fields, "in", "out", "e")
    assert parse(AT, FROM, "accepted ", to, " [in >> out] email: e") == row
    assert parse(AT, "from icmp:1.2.3.4:5 accepted ", to, " [in >> out] email: e") == row


WITH_A_COLON = ["mailto:alice:25", "tcp:a:b:443", "icmp:a:b:0", "http:x:80", "xtcp:x:443", "a:b:c:1"]
WITH_A_COLON += ["//a:b:443", "http://a:b:80/x", "http://me:pa55@a:b:80/"]


@pytest.mark.parametrize("to", WITH_A_COLON)
def test_any_other_host_with_a_colon_is_bad(to: str) -> None:
    assert "without a colon" in reason(AT, FROM, "accepted ", to, " [in >> out] email: e")


@pytest.mark.parametrize("name", ["[x]", "[x y]", "[x.example]", "[::1 ]", "[Masked IPv5]", "[x[Masked IPv4]]"])
def test_only_an_address_stands_in_brackets(name: str) -> None:
    for to in (f"tcp:{name}:443", f"{name}:443", f"//{name}:443", f"http://{name}/x"):
        assert reason(AT, FROM, "accepted ", to, " [in >> out] email: e").startswith("expected an address in brackets")


# --- rejected ----------------------------------------------------------------------------------------------------

REJECTED: dict[str, tuple[Any, ...]] = {
    "tcp:x.example:443 [in >> out] email: bob": ("tcp", "x.example", 443, "in", "out", "bob"),
    "tcp:x.example:443 [out]": ("tcp", "x.example", 443, None, "out"),
    "tcp:x.example:443": ("tcp", "x.example", 443),
    "tcp:x.example:443 email: bob": ("tcp", "x.example", 443, None, None, "bob"),
    "udp:[2001:db8::1]:53 [in -> out] email: b c": ("udp", "2001:db8::1", 53, "in", "out", "b c"),
    "tcp:[Masked IPv4]:443 [in >> out] email: b": ("tcp", "[Masked IPv4]", 443, "in", "out", "b"),
    "//x:443 [in >> out]": (None, "x", 443, "in", "out"),
    "x:443 [in >> out] email: bob": (None, "x", 443, "in", "out", "bob"),
    "tcp:example.com:443 invalid user uplink=0 downlink=0": ("tcp", "example.com", 443),
    "tcp:example.com:443 [in >> out] invalid user": ("tcp", "example.com", 443, "in", "out"),
    "tcp:example.com:443 [in >> out] email: bob uplink=0 downlink=0": (
        *("tcp", "example.com", 443, "in", "out", "bob"),
    ),
    " email: bob": (None, None, None, None, None, "bob"),
    " email: bob uplink=0 downlink=0": (None, None, None, None, None, "bob"),
    " email:bob ": (None, None, None, None, None, "bob"),  # as xray before v1.1.5 writes it
    "  email: bob": (None, None, None, None, None, "bob"),
    " [in >> out] email: bob": (None, None, None, "in", "out", "bob"),
    "[in >> out] email: bob": (None, None, None, "in", "out", "bob"),
    " [out]": (None, None, None, None, "out"),
    " [in >> out] proxy/trojan: not a valid user": (None, None, None, "in", "out"),
    " [in >> out] Insecure encryption email: bob": (None, None, None, "in", "out", "bob"),
    "tcp:x:443 [in >> out]  email: bob": ("tcp", "x", 443, "in", "out", "bob"),
    "tcp:x:443 [out] email:bob ": ("tcp", "x", 443, None, "out", "bob"),
    "tcp:x:443 [VLESS [x] -> b] email: bob": ("tcp", "x", 443, "VLESS [x]", "b", "bob"),
    "tcp:x:443 [in -> b] invalid [x] user": ("tcp", "x", 443, "in", "b"),
    "tcp:x:443 [in [x -> b] email: bob": ("tcp", "x", 443, "in [x", "b", "bob"),
    "tcp:x:443 [a]b -> c] email: bob": ("tcp", "x", 443, "a]b", "c", "bob"),
    # Of the text of a reason nothing is kept, because a client can write it.
    "tcp:x:443 invalid domain name: y [a -> b] email: forged": ("tcp", "x", 443),
    "tcp:x:443 [in >> out] bad name [a -> b] email: forged": ("tcp", "x", 443, "in", "out"),
    "tcp:x bad": (),
    "proxy/socks: bad email: forged": (),
    " [::1]:5 [a -> b] email: bob": (None, "::1", 5, "a", "b", "bob"),
    " [in >> out] proxy/socks: bad [a -> b] email: forged": (None, None, None, "in", "out"),
    # Two blanks, as before a reason: none of xray's begins with a destination.
    " tcp:x:443 [in >> out] email: bob": ("tcp", "x", 443, "in", "out", "bob"),
    " tcp:x:443 [in >> out] email: bob uplink=0 downlink=0": ("tcp", "x", 443, "in", "out", "bob"),
    " tcp:x:443 email: bob": ("tcp", "x", 443, None, None, "bob"),
    " tcp:x:443 [out]": ("tcp", "x", 443, None, "out"),
    " tcp:x:443 [in >> out] invalid user": ("tcp", "x", 443, "in", "out"),
    " tcp:x:443": ("tcp", "x", 443),
    " tcp:x:443 ": ("tcp", "x", 443),
    " tcp:x:443 invalid user [a -> b] email: forged": (),
    " tcp:x [in >> out] email: forged": (),
    "  tcp:x:443 [in >> out] email: forged": (),
}
REJECTED_FOR = {
    "tcp:example.com:443 invalid user uplink=0 downlink=0": "invalid user",
    "tcp:example.com:443 [in >> out] invalid user": "invalid user",
    "tcp:x:443 [in -> b] invalid [x] user": "other",
    " [in >> out] proxy/trojan: not a valid user": "invalid user",
    " [in >> out] Insecure encryption email: bob": "insecure encryption",
    " tcp:x:443 [in >> out] invalid user": "invalid user",
    " tcp:x:443 invalid user [a -> b] email: forged": "invalid user",
    "tcp:x:443 invalid domain name: y [a -> b] email: forged": "bad destination",
}


@pytest.mark.parametrize(("text", "fields"), REJECTED.items(), ids=REJECTED)
def test_what_stands_before_the_reason_of_a_rejection_is_kept(text: str, fields: tuple[Any, ...]) -> None:
    for source in (FROM, "1.2.3.4:5 "):
        said = parse(AT, source, "rejected ", text)
        assert isinstance(said, AccessRecord)
        assert said._replace(reject_reason="") == AccessRecord(STORED_AT, "1.2.3.4", 5, "rejected", *fields)
        assert said.reject_reason == REJECTED_FOR.get(text, "other")


# --- messages of Go and of libraries -----------------------------------------------------------------------------

MESSAGES = [
    "http: TLS handshake error from 203.0.113.154:59240: EOF",
    "http: TLS handshake error from [2001:db8::1]:59240: remote error: tls: unknown certificate",
    "http: TLS handshake error from 203.0.113.154:59240: client rejected the certificate",
    "http: Accept error: accept tcp [::]:443: accept4: too many open files; retrying in 5ms",
    "http: panic serving 203.0.113.5:4000: runtime error: invalid memory address or nil pointer dereference",
    "http: superfluous response.WriteHeader call from net/http.(*timeoutWriter).writeHeaderLocked (server.go:3)",
    'http2: server: error reading preface from client 203.0.113.5:4000: bogus greeting "GET / HTTP/1.1"',
    "failed to sufficiently increase receive buffer size (was: 208 kiB, wanted: 7168 kiB). See https://github.com/x/y.",
    "REALITY remoteAddr: 203.0.113.5:51000\thello.sessionId: [1 2 3]",
    "transport: http2Server.HandleStreams failed to read frame: read tcp 1.2.3.4:443->5.6.7.8:9: i/o timeout",
    "ERROR: [core] grpc: addrConn.createTransport failed to connect",
    "server.go:3215: http: TLS handshake error from 203.0.113.154:59240: EOF",
    "read udp 0.0.0.0:443: use of closed network connection",
    "accept tcp [::]:443: accept4: too many open files",
    "dial tcp: lookup www.example.com on 127.0.0.53:53: no such host",
    "read tcp 1.2.3.4:443->5.6.7.8:9: read: connection reset by peer",
    "tls: первое слово",
    # words that look like a status
    'Unsolicited response received on idle HTTP channel starting with "HTTP/1.1 408"; err=<nil>',
    "http2: Transport received GOAWAY",
    'transport: received the unexpected content-type "text/html"',
    "http2: received GOAWAY [FrameHeader GOAWAY len=8], starting graceful shutdown",
    "protocol error: received *http.http2MetaHeadersFrame before a SETTINGS frame",
    "connection expected to be closed",
    "peer detected a duplicate packet",
    "Server repeated the request too often",
    "server reported an error",
]
TO_A_CLIENT = (
    "http: TLS handshake error from 203.0.113.154:59240: tls: client requested unsupported application protocols"
)
WITH_BYTES_OF_A_CLIENT = [
    f"{TO_A_CLIENT} ([".encode() + b"\x8a\x8a http/0.9])",
    f'{TO_A_CLIENT} (["a -> b"])',
    f"{TO_A_CLIENT} ([from 5.6.7.8:9 accepted tcp:x:443 [a -> b] email: e])",
    'http2: server: error reading preface from client 203.0.113.9:44: bogus greeting "email: x"',
    'http2: server: error reading preface from client 203.0.113.9:44: bogus greeting "1 rejected  proxy/socks: "',
    'Unsolicited response received on idle HTTP channel starting with "email: x -> y"; err=<nil>',
]


@pytest.mark.parametrize("message", [*MESSAGES, *WITH_BYTES_OF_A_CLIENT])
def test_a_message_of_go_or_of_a_library_is_ignored(message: str | bytes) -> None:
    assert parse(AT, message) is Ignored.CONSOLE
    assert parse("2025/03/12 15:15:27 ", message) is Ignored.CONSOLE
    assert "another" in reason(AT, message, WHOLE)
    assert "another" in reason(AT, message, AT)


@given(
    st.sampled_from([f"{TO_A_CLIENT} ([", "http2: ", "REALITY remoteAddr: ", "server.go:3: "]), st.binary(max_size=99)
)
def test_no_bytes_of_a_client_make_a_message_another_line(begin: str, text: bytes) -> None:
    said = grammar_of().parse_line(AT + begin.encode() + b"x" + text.replace(b"\n", b""))
    assert said is Ignored.CONSOLE


NO_MESSAGES = [
    "EOF",
    "",
    " http: TLS handshake error",
    "[error] 812#812: *5 connect() failed",  # nginx has the same timestamp
    "a handshake\0error",
    b"a handshake \xff error",
    "http: rejected tcp:x:443",
    "http: accepted tcp:x:443",
    "127.hi1ge0h1cjjh2 iected  v2ray.com/core/proxy/vless/encoding: invalid request version",
    "aazz a  from tcp:203.0.113.231:40105 rejected  proxy/socks: no matching auth method",
    "some other words from tcp:203.0.113.231:40105 rejected  proxy/socks: no matching auth method",
    "some other words 203.0.113.231:40105 accepted www.example.com:443",
    "some other words from 203.0.113.231:40105 reje",
    "frproxy/vless/encoding: invalid request address",
    "encoding: invalid request user id",
    "carol is a not a valid user",
    "some text failed to drain connection > EOF",
    "some text [direct]",
    "some text carol@example.com",
    "accepted tcp to x from 5.6.7.8",
    "from nowhere else",
]


@pytest.mark.parametrize("text", NO_MESSAGES)
def test_what_could_be_a_damaged_access_line_is_bad(text: str | bytes) -> None:
    assert reason(AT, text).startswith("expected ")


SAMPLE_LINES = [line for path in sorted(SAMPLES.iterdir()) for line in path.read_bytes().split(b"\n")[:-1]]
ACCESS_LINES = [line for line in SAMPLE_LINES if b" got answer:" not in line and len(line) < 300]
SHAPES = {re.sub(rb"\d+", b"0", line): line for line in ACCESS_LINES}  # one line of each


def other_byte(chance: random.Random) -> int:
    return chance.choice((chance.randrange(256), *b" .:[]acdefo"))


def change(chance: random.Random, rest: bytearray, most: int = 8) -> None:
    """Up to `most` of its bytes are others."""
    for _ in range(chance.randrange(most + 1)):
        rest[chance.randrange(len(rest))] = other_byte(chance)


def cut_out(chance: random.Random, rest: bytearray) -> None:
    """What is left of the beginning shows what it was: without any of it, a tail is a text like others."""
    start = chance.randrange(len(b"from 1"), len(rest))
    del rest[start : chance.randrange(start, len(rest) + 1)]


def insert(chance: random.Random, rest: bytearray) -> None:
    at = chance.randrange(len(rest) + 1)
    rest[at:at] = bytes(other_byte(chance) for _ in range(chance.randrange(1, 12)))


def insert_words(chance: random.Random, rest: bytearray) -> None:
    at = chance.choice((0, chance.randrange(len(rest) + 1)))
    words = (bytes(chance.choices(string.ascii_lowercase.encode(), k=chance.randrange(1, 9))) for _ in range(3))
    rest[at:at] = b" ".join([*words][: chance.randrange(1, 4)]) + b" "


def test_a_damaged_access_line_is_never_taken_for_a_message() -> None:
    """Cut anywhere, and up to three of its bytes are others. The same damage every time: 20,000 lines of it."""
    chance = random.Random(17)
    for line in ACCESS_LINES * (20_000 // len(ACCESS_LINES)):
        rest = bytearray(line[20:])
        change(chance, rest, 3)
        damaged = bytes(rest[: chance.randrange(1, 2 * len(rest))])
        assert not other_lines.is_message(damaged), damaged


@pytest.mark.parametrize("rest", [b"unknown word accep", b"Some thing rej", b"Failure of accepte"])
def test_words_that_end_in_the_beginning_of_a_status_may_be_what_is_left_of_a_line(rest: bytes) -> None:
    assert not other_lines.is_message(rest)
    assert other_lines.is_message(rest[: rest.rindex(b" ")] + b" handshake")


@pytest.mark.parametrize("damage", [change, cut_out, insert, insert_words])
def test_nor_is_one_with_other_damage(damage: Callable[[random.Random, bytearray], None]) -> None:
    """More bytes that are others, a piece that is missing, text that does not belong to it: 20,000 lines of each."""
    chance = random.Random(23)
    for line in ACCESS_LINES * (20_000 // len(ACCESS_LINES)):
        rest = bytearray(line[20:])
        damage(chance, rest)
        assert not other_lines.is_message(bytes(rest)), bytes(rest)


def test_no_piece_of_an_access_line_is_taken_for_a_message() -> None:
    one = Grammar(ZoneInfo("UTC"), NOW)
    for line in SHAPES.values():
        for at in range(1, len(line)):
            assert one.parse_line(line[:at]) is not Ignored.CONSOLE
            assert one.parse_line(line[at:]) is not Ignored.CONSOLE


def test_a_masked_dns_server_has_a_blank_in_its_name() -> None:
    for server in (
        "UDP:[Masked IPv4]:53",
        "https://[Masked IPv6]/dns-query",
        "UDP:203.0.*.*:53",
        "TCP//[2001::/16]:53",
        "UDP:[Masked IPv6%eth0]:53",
        "UDP:[Masked IPv6[Masked IPv4]]:53",
        "UDP:[fe80:::/32%eth0]:53",
    ):
        text = f"{server} got answer: www.example.com. -> [[Masked IPv4], Masked IPv6] 23.456789ms"
        assert parse(AT, text) is Ignored.DNS_ANSWER
        assert parse(AT, text.replace("got answer", "cache OPTIMISTE")) is Ignored.DNS_ANSWER
    assert isinstance(parse(AT, "UDP:[Masked IPv4]:53 got an answer: x"), BadLine)
