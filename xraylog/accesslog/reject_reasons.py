"""Classify why xray rejected a connection, as one of a few names. Pure: no files, no database, no clock, no logging.

xray writes a chain of errors, the outermost first: `proxy/socks: failed to read address > common/protocol: invalid
domain name: …`. It is free text that differs from version to version, and a client can write what follows `invalid
domain name: `. So only one of the names below is stored. Databases and documents contain these names, so they never
change, and none is removed.
"""

from __future__ import annotations

import enum
import functools
import re

MAX_REASON_BYTES = 1 << 10  # read of a reason: those of xray and v2ray are shorter
CLIENT_TEXT_FOLLOWS = re.compile(rb"invalid domain name", re.IGNORECASE)


class RejectReason(enum.Enum):
    """The classes of the reasons that xray and v2ray give. The values are those of `logs.reject_reason`."""

    REPLAY = "replay"
    INSECURE = "insecure encryption"
    INVALID_USER = "invalid user"
    NO_LOGIN = "no login"
    OTHER_PROTOCOL = "not this protocol"
    UNSUPPORTED = "unsupported command"
    BAD_DESTINATION = "bad destination"
    UNDECIPHERABLE = "wrong key"
    TIMEOUT = "timeout"
    CLOSED = "connection closed"
    OTHER = "other"


# The first match decides, because one chain can contain several: `unable to drain connection > EOF > … invalid user >
# user do not exist` is an invalid user, and `invalid user > replayed request` is a replay. So reasons of xray precede
# errors of the network. There is no phrase for `failed to read …`, which says nothing without its cause.
PHRASES = {
    RejectReason.REPLAY: rb"replayed request|replay attack|replay detected|iv check",
    RejectReason.INSECURE: rb"insecure encryption|non VMessAEAD connection",
    RejectReason.INVALID_USER: (
        rb"invalid (?:request )?user(?: id)?\b|not a valid user|user do not exist|failed to match an user"
        rb"|invalid username or password"
    ),
    RejectReason.NO_LOGIN: rb"no matching auth method|not allowed when auth is required",
    RejectReason.OTHER_PROTOCOL: (
        rb"invalid (?:request|protocol) version|not trojan protocol|unknown socks version|firstLen <|len\(bs\) <"
    ),
    RejectReason.UNSUPPORTED: (
        rb"TCP bind is not supported|UDP is not enabled|(?:unknown|unsupported|invalid)(?: request)? command"
        rb"|unknown security type|fragmented payload"
    ),
    RejectReason.BAD_DESTINATION: (
        rb"invalid domain name|invalid (?:request|remote) address|unknown address (?:type|family)"
    ),
    RejectReason.UNDECIPHERABLE: rb"message authentication failed|invalid auth\b",
    RejectReason.TIMEOUT: rb"i/o timeout|deadline exceeded|timed out",
    RejectReason.CLOSED: (
        rb"connection reset|broken pipe|(?<![^ ])EOF(?![^ ])|closed pipe|closed network connection|forcibly closed"
        rb"|connection (?:was )?aborted"
    ),
}
PATTERNS = {reason: re.compile(phrases, re.IGNORECASE) for reason, phrases in PHRASES.items()}


def classify(reason: bytes) -> RejectReason:
    """Return the class of a reason, given all the text of a line after `rejected`, including tags and user."""
    text = reason[:MAX_REASON_BYTES]
    client_text = CLIENT_TEXT_FOLLOWS.search(text)
    return _classify(text[: client_text.end()] if client_text else text)


@functools.lru_cache(maxsize=1 << 10)  # scanners cause the same one again and again
def _classify(text: bytes) -> RejectReason:
    return next((reason for reason, pattern in PATTERNS.items() if pattern.search(text)), RejectReason.OTHER)
