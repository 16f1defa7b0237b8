"""Lines that xray writes to its log, or its console, that are not access lines: they are ignored by design. Pure."""

from __future__ import annotations

import operator
import re

from xraylog.accesslog import reject_reasons
from xraylog.accesslog.reject_reasons import RejectReason
from xraylog.records import Ignored

# app/dns: `UDP:8.8.8.8:53 got answer: host -> [ip] 23.4ms` (common/log/dns.go); maskAddress puts a blank into the name
DNS_ANSWER = re.compile(rb"(?:Masked IPv[46]|\S)+ (?:got answer:|cache HIT:|cache OPTIMISTE:)(?: |$)")
CONSOLE_LEVEL = re.compile(rb"\[(?:Debug|Info|Warning|Error|Unknown)\]")
CONSOLE_START = re.compile(rb"Using (?:default config|config|confdir)|Reading config:")
# Lines without a timestamp: the banner, a failed start, and what Go prints when it panics.
CONSOLE_BARE = re.compile(
    rb"(?:Xray|V2Ray) \d+\.|A unified platform for anti-censorship\.|Failed to start: |\t?panic: |fatal error: "
    rb"|goroutine \d+ \[|\[signal |runtime[./:]|exit status \d|\t[/\w]\S*:\d+|[\w/-]{1,100}\.[\w./*\[\]-]{0,200}\("
    rb"|created by "
)

# --- how messages of Go and of libraries begin, and no access line can, damaged or not: whatever follows, also bytes of
# --- a client, is a part of them

# Packages that name themselves: of Go's net/http and crypto, of grpc-go, quic-go, gorilla/websocket and others.
PACKAGE = (
    rb"(?:http|http2|h2c|net/http|tls|crypto/tls|x509|acme/autocert|grpc|transport|proto|quic|quic-go|websocket|wireguard"
    rb"|smux|yamux|kcp|mux): (?!(?:accepted|rejected) )"
)
# net.OpError (net/net.go): an operation, a network of Go's, addresses, and after a colon what went wrong.
OPERATION = rb"(?:accept|close|dial|listen|read|set|write) (?:tcp|udp|ip|unix)[a-z46]{0,8}(?:| \S{1,200}): "
KNOWN_START = re.compile(
    PACKAGE + rb"|" + OPERATION + rb"|[a-z0-9_]{1,50}\.go:\d{1,6}: "  # log.Lshortfile
    rb"|(?:INFO|WARNING|ERROR|FATAL): (?:\[[a-z-]{1,50}\] )?[A-Za-z]"  # grpclog
    rb"|REALITY (?:local|remote)Addr: "  # github.com/xtls/reality
    rb"|Unsolicited response received on idle HTTP channel "  # net/http/transport.go
    rb"|failed to sufficiently increase (?:receive|send) buffer size "  # quic-go
)

# --- what an access line has, also a damaged one, and a message of Go or of a library has not
ACCESS_WORDS = (b"accepted", b"rejected")
# English words that have five letters of these in their places, or the end of one of them.
OTHER_WORDS = frozenset(
    b"accessed accorded affected bisected defected deducted deflected detected directed effected excepted expected"
    b" infected injected intercepted objected occupied projected received recessed redacted redeemed released repealed"
    b" repeated repelled reported resected resented revealed reverted selected".split()
)
ADDRESS_CHARACTERS = b"0123456789abcdefABCDEF.:[]%*/"
ENDS_IN_PORT = re.compile(rb".*:\d{1,5}", re.DOTALL)
DESTINATION = re.compile(rb"(?:tcp|udp|unix):[^\s:]|//|https?://")
ANYWHERE = re.compile(
    rb"email:| (?:->|>>|==>) "
    rb"|[\x00-\x08\x0a-\x1f\x7f]"  # as a client sent them, in the reason of a rejection
    rb"|  | > "  # before the reason, and in it
    rb"|(?:^|[ /])(?:proxy|common|v2ray\.com|socks|trojan|v[lm]ess|shadowsocks|encoding|inbound|drain|protocol)(?:/|: )"
    rb"|(?:^| )(?:(?:tcp|udp):[^\s:]|//[^\s/])"  # a source, a destination
    rb"|:\d{1,5} (?:accepted|rejected) |(?:^| )(?:accepted|rejected) \S{1,255}:\d"
    rb"|(?:^| )(?:\d{1,3}\.){3}\d{1,3}:\d{1,5}(?: |\Z)"  # a source; Go writes a colon after an address
    rb"|\]\Z|@[^\s@]{1,255}\Z",  # of tags, of an email
    re.IGNORECASE,
)
DIGIT = re.compile(rb"\d")
CUT_STATUS = re.compile(rb"acc(?:e(?:pt?)?)?e?|rej(?:e(?:ct?)?)?e?")  # at the end of what is left of a line
BEGINNINGS = frozenset(b"f fr fro m om rom tcp tcp: udp udp: DNS DoH api".split())
FIRST_WORD = re.compile(rb"[A-Za-z][^\d]+(?:\d[^\d]*)?")  # of a sentence
OF_GO = (RejectReason.OTHER, RejectReason.TIMEOUT, RejectReason.CLOSED)  # reasons that are an error of Go, or unknown
FIRST_WORDS = 3
SHORT = 12  # bytes


def kind_after_timestamp(rest: bytes) -> Ignored | None:
    """Return what a line is whose timestamp is followed by `rest`; None for what may be an access line."""
    if CONSOLE_LEVEL.match(rest) or CONSOLE_START.match(rest):
        return Ignored.CONSOLE
    return Ignored.DNS_ANSWER if DNS_ANSWER.match(rest) else None


def kind_without_timestamp(line: bytes) -> Ignored | None:
    """Return what a line without a timestamp is; None for one that xray does not write."""
    return Ignored.CONSOLE if CONSOLE_BARE.match(line) else None


def is_message(rest: bytes) -> bool:
    """Return whether what follows a timestamp is a message of Go or of a library, and no access line, damaged or not.

    Go's own logger and those of libraries write to the console, `http: TLS handshake error from 203.0.113.154:59240:
    EOF`, and any scanner can make them do so. Most are known by how they begin. The others share nothing with an access
    line: that begins with `from` or a source, its status is the second or third word, a destination, tags and email
    follow, or a reason. Whatever has one of these is an access line that was damaged, and has to be seen.
    """
    if KNOWN_START.match(rest):
        return True
    words = rest.split(None, FIRST_WORDS + 1)
    if len(words) < 2 or len(rest) < SHORT or not FIRST_WORD.fullmatch(words[0]):  # what is left of one, or not xray's
        return False
    if rest.startswith(b" ") or _is_like(rest[:5], b"from ", 3) or _is_of_a_beginning(words[0]):
        return False
    if any(map(_is_of_a_source, words[:2])) or any(map(_is_of_a_status, words[:FIRST_WORDS])):
        return False
    if len(words) <= FIRST_WORDS and CUT_STATUS.fullmatch(words[-1]):
        return False
    if len(words) > FIRST_WORDS and _is_of_a_source(words[2]) and _is_of_a_status(words[3]):  # one became two
        return False
    return not ANYWHERE.search(rest) and reject_reasons.sort(rest) in OF_GO and _is_utf_8(rest)


def _is_of_a_beginning(word: bytes) -> bool:
    """Return whether the first word may be a piece of `from`, or of an address."""
    is_of_an_address = not word.translate(None, ADDRESS_CHARACTERS) and DIGIT.search(word) is not None
    return is_of_an_address or word.startswith(b"from") or word in BEGINNINGS


def _is_of_a_source(word: bytes) -> bool:
    """Return whether a word may be, or have been, `from`, what follows it, or what follows the status."""
    if _is_like(word, b"from", 2):
        return True
    if word.startswith((b"@", b"unix:", b"[Masked")) or DESTINATION.match(word) or ENDS_IN_PORT.fullmatch(word):
        return True
    others = len(word.translate(None, ADDRESS_CHARACTERS))
    return (b":" in word or word.count(b".") > 1) and 4 * others <= len(word)


def _is_of_a_status(word: bytes) -> bool:
    """Return whether a word may be, or have been, `accepted` or `rejected`, or has a piece of one in it."""
    if word in OTHER_WORDS:
        return False
    return b"cepted" in word or b"jected" in word or any(_is_like(word, status, 5) for status in ACCESS_WORDS)


def _is_like(word: bytes, other: bytes, least: int) -> bool:
    """Return whether words of one length have at least this number of letters in common."""
    return len(word) == len(other) and sum(map(operator.eq, word, other)) >= least


def _is_utf_8(text: bytes) -> bool:
    try:
        text.decode()
    except UnicodeDecodeError:
        return False
    return True
