"""Recognise lines of xray's log or console that are not access lines: they are ignored by design. Pure."""

from __future__ import annotations

import operator
import re

from xraylog.accesslog import reject_reasons
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

# --- beginnings of messages of Go and of libraries. No access line can begin so, not even a damaged one, so the rest of
# --- such a line may be anything, also text that a client chose

# Packages that begin a message with their name: Go's net/http and crypto, grpc-go, quic-go, gorilla/websocket, others.
PACKAGE = (
    rb"(?:http|http2|h2c|net/http|tls|crypto/tls|x509|acme/autocert|grpc|transport|proto|quic|quic-go|websocket|wireguard"
    rb"|smux|yamux|kcp|mux): (?!(?:accepted|rejected) )"
)
# net.OpError (net/net.go): an operation, a network as Go names it, addresses, a colon, and what went wrong.
OPERATION = rb"(?:accept|close|dial|listen|read|set|write) (?:tcp|udp|ip|unix)[a-z46]{0,8}(?:| \S{1,200}): "
KNOWN_START = re.compile(
    PACKAGE + rb"|" + OPERATION + rb"|[a-z0-9_]{1,50}\.go:\d{1,6}: "  # log.Lshortfile
    rb"|(?:INFO|WARNING|ERROR|FATAL): (?:\[[a-z-]{1,50}\] )?[A-Za-z]"  # grpclog
    rb"|REALITY (?:local|remote)Addr: "  # github.com/xtls/reality
    rb"|Unsolicited response received on idle HTTP channel "  # net/http/transport.go
    rb"|failed to sufficiently increase (?:receive|send) buffer size "  # quic-go
)

# --- what even a damaged access line contains, but no message of Go or of a library
ACCESS_WORDS = (b"accepted", b"rejected")
# English words that share five letters, in the same places, with one of these, or end like one.
ORDINARY_WORDS = frozenset(
    b"accessed accorded affected bisected defected deducted deflected detected directed effected excepted expected"
    b" infected injected intercepted objected occupied projected received recessed redacted redeemed released repealed"
    b" repeated repelled reported resected resented revealed reverted selected".split()
)
ADDRESS_CHARACTERS = b"0123456789abcdefABCDEF.:[]%*/"
ENDS_IN_PORT = re.compile(rb".*:\d{1,5}", re.DOTALL)
DESTINATION = re.compile(rb"(?:tcp|udp|unix):[^\s:]|//|https?://")
ANYWHERE = re.compile(
    rb"email:| (?:->|>>|==>) "
    rb"|[\x00-\x08\x0a-\x1f\x7f]"  # sent by a client, and quoted in the reason of a rejection
    rb"|  | > "  # before the reason, and in it
    rb"|(?:^|[ /])(?:proxy|common|v2ray\.com|socks|trojan|v[lm]ess|shadowsocks|encoding|inbound|drain|protocol)(?:/|: )"
    rb"|(?:^| )(?:(?:tcp|udp):[^\s:]|//[^\s/])"  # a source, a destination
    rb"|:\d{1,5} (?:accepted|rejected) |(?:^| )(?:accepted|rejected) \S{1,255}:\d"
    rb"|(?:^| )(?:\d{1,3}\.){3}\d{1,3}:\d{1,5}(?: |\Z)"  # a source; Go writes a colon after an address
    rb"|\]\Z|@[^\s@]{1,255}\Z",  # of tags, of an email
    re.IGNORECASE,
)
DIGIT = re.compile(rb"\d")
CUT_STATUS = re.compile(rb"acc(?:e(?:pt?)?)?e?|rej(?:e(?:ct?)?)?e?")  # at the end of a truncated line
BEGINNINGS = frozenset(b"f fr fro m om rom tcp tcp: udp udp: DNS DoH api".split())
FIRST_WORD = re.compile(rb"[A-Za-z][^\d]+(?:\d[^\d]*)?")  # of a sentence
FIRST_WORDS = 3
MIN_BYTES = 12


def kind_after_timestamp(rest: bytes) -> Ignored | None:
    """Return the kind of a line from what follows its timestamp; None if it may be an access line."""
    if CONSOLE_LEVEL.match(rest) or CONSOLE_START.match(rest):
        return Ignored.CONSOLE
    return Ignored.DNS_ANSWER if DNS_ANSWER.match(rest) else None


def kind_without_timestamp(line: bytes) -> Ignored | None:
    """Return the kind of a line without a timestamp; None if xray writes no such line."""
    return Ignored.CONSOLE if CONSOLE_BARE.match(line) else None


def is_message(rest: bytes) -> bool:
    """Return whether what follows a timestamp is a message of Go or a library, and not an access line, even damaged.

    The loggers of Go and of libraries write to the console, for example `http: TLS handshake error from
    203.0.113.154:59240: EOF`, and any scanner can make them do so. Most messages are recognised by their beginning. Any
    other one must have nothing of an access line: `from` or a source at the start, a status as second or third word, a
    destination, tags, an email or a reason. A line with one of these is taken for a damaged access line, which must be
    reported.
    """
    if KNOWN_START.match(rest):
        return True
    words = rest.split(None, FIRST_WORDS + 1)
    # The rest of a damaged line, or a line of another program.
    if len(words) < 2 or len(rest) < MIN_BYTES or not FIRST_WORD.fullmatch(words[0]):
        return False
    if rest.startswith(b" ") or _resembles(rest[:5], b"from ", 3) or _may_be_beginning(words[0]):
        return False
    if any(map(_may_be_source, words[:2])) or any(map(_may_be_status, words[:FIRST_WORDS])):
        return False
    if len(words) <= FIRST_WORDS and CUT_STATUS.fullmatch(words[-1]):
        return False
    # The status is the fourth word if a damaged line has a blank too many.
    if len(words) > FIRST_WORDS and _may_be_source(words[2]) and _may_be_status(words[3]):
        return False
    return not ANYWHERE.search(rest) and not reject_reasons.is_of_xray(rest) and _is_utf_8(rest)


def _may_be_beginning(word: bytes) -> bool:
    """Return whether the first word may be a part of `from`, or of an address."""
    may_be_address = not word.translate(None, ADDRESS_CHARACTERS) and DIGIT.search(word) is not None
    return may_be_address or word.startswith(b"from") or word in BEGINNINGS


def _may_be_source(word: bytes) -> bool:
    """Return whether a word may be `from`, a source or a destination, even if it is damaged."""
    if _resembles(word, b"from", 2):
        return True
    if word.startswith((b"@", b"unix:", b"[Masked")) or DESTINATION.match(word) or ENDS_IN_PORT.fullmatch(word):
        return True
    others = len(word.translate(None, ADDRESS_CHARACTERS))
    return (b":" in word or word.count(b".") > 1) and 4 * others <= len(word)


def _may_be_status(word: bytes) -> bool:
    """Return whether a word may be `accepted` or `rejected`, even if it is damaged, or contains the end of one."""
    if word in ORDINARY_WORDS:
        return False
    return b"cepted" in word or b"jected" in word or any(_resembles(word, status, 5) for status in ACCESS_WORDS)


def _resembles(word: bytes, other: bytes, minimum: int) -> bool:
    """Return whether two words of the same length have at least this number of letters in the same places."""
    return len(word) == len(other) and sum(map(operator.eq, word, other)) >= minimum


def _is_utf_8(text: bytes) -> bool:
    try:
        text.decode()
    except UnicodeDecodeError:
        return False
    return True
