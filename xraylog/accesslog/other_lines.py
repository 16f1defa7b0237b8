"""Lines that xray writes to its log, or its console, that are not access lines: they are ignored by design. Pure."""

from __future__ import annotations

import operator
import re

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

# --- what an access line has, also a damaged one, and a message of Go or of a library has not
ACCESS_WORDS = (b"accepted", b"rejected")
ADDRESS_CHARACTERS = b"0123456789abcdefABCDEF.:[]%*/"
ENDS_IN_PORT = re.compile(rb".*:\d{1,5}", re.DOTALL)
DESTINATION = re.compile(rb"(?:tcp|udp|unix):[^\s:]|//|https?://")
TAGS_OR_EMAIL = re.compile(rb"email:| (?:->|>>|==>) ")
CONTROL = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
DIGIT = re.compile(rb"\d")
CUT_STATUS = re.compile(rb"acc(?:e(?:pt?)?)?e?|rej(?:e(?:ct?)?)?e?")  # at the end of what is left of a line
BEGINNINGS = frozenset(b"f fr fro m om rom tcp tcp: udp udp: DNS DoH api".split())
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
    EOF`, and any scanner can make them do so. They share nothing with an access line: that begins with `from` or a
    source, its status stands second or third, tags and email follow. Whatever has one of these is an access line that
    was damaged, and has to be seen.
    """
    words = rest.split(None, FIRST_WORDS + 1)
    if (
        len(words) < 2 or len(rest) < SHORT or rest.startswith((b" ", b"["))
    ):  # what is left of one, or not xray's at all
        return False
    if _is_like(rest[:5], b"from ", 3) or _is_of_a_beginning(words[0]) or any(map(_is_of_a_source, words[:2])):
        return False
    if any(map(_is_of_a_status, words[:FIRST_WORDS])) or (
        len(words) <= FIRST_WORDS and CUT_STATUS.fullmatch(words[-1])
    ):
        return False
    if len(words) > FIRST_WORDS and _is_of_a_source(words[2]) and _is_of_a_status(words[3]):  # one became two
        return False
    return not (TAGS_OR_EMAIL.search(rest) or CONTROL.search(rest)) and _is_utf_8(rest)


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
