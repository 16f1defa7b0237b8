"""Classify why xray rejected a connection, as one of a few names. Pure: no files, no database, no clock, no logging.

xray writes a chain of errors, the outermost first: `proxy/socks: failed to read address > common/protocol: invalid
domain name: …`. It is free text that differs from version to version, and in some places a client chose it. So only one
of the names below is stored, and nothing that a client chose decides which. Databases and documents contain these
names, so they never change, and none is removed.
"""

from __future__ import annotations

import enum
import functools
import re

MAX_REASON_BYTES = 1 << 10  # read of a reason: those of xray and v2ray are shorter
# A name; the text of a WebSocket close frame (1006 is no frame); of QUIC's CONNECTION_CLOSE; names for ALPN.
CLIENT_TEXT_FOLLOWS = re.compile(
    rb"invalid domain name|websocket: close (?!1006 )\d{1,5}(?: \([a-z ]{1,40}\))?: "
    rb"|\(remote\)(?: \(frame type: 0x[0-9a-f]{1,16}\))?: |unsupported application protocols",
    re.IGNORECASE,
)


class RejectReason(enum.Enum):
    """The classes of the reasons that xray and v2ray give. The values are those of `logs.reject_reason`."""

    REPLAY = "replay"
    INSECURE = "insecure encryption"
    CLOCK = "wrong clock"
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
OF_XRAY = {
    RejectReason.REPLAY: rb"replayed request|replay attack|replay detected|iv check",
    RejectReason.INSECURE: rb"insecure encryption|non VMessAEAD connection",
    RejectReason.CLOCK: rb"perhaps unsynchronized time|timestamp is negative",  # after `invalid user`
    RejectReason.INVALID_USER: (
        rb"invalid (?:request )?user(?: id)?\b|not a valid user|user do not exist|failed to match an user"
        rb"|invalid username or password"
    ),
    RejectReason.NO_LOGIN: rb"no matching auth method|not allowed when auth is required",
    RejectReason.OTHER_PROTOCOL: (
        rb"invalid (?:request|protocol) version|not trojan protocol|unknown socks version|firstLen <|len\(bs\) <"
        rb"|processed invalid connection|invalid padding length"
    ),
    RejectReason.UNSUPPORTED: (
        rb"TCP bind is not supported|UDP is not enabled|(?:unknown|unsupported|invalid)(?: request)? command"
        rb"|unknown security type|fragmented payload"
    ),
    RejectReason.BAD_DESTINATION: (
        rb"invalid domain name|invalid (?:request|remote) address|unknown address (?:type|family)"
        rb"|invalid address length"
    ),
    RejectReason.UNDECIPHERABLE: rb"message authentication failed|invalid auth\b",
}
# Go and libraries write these to the console, too (`other_lines`). A client that does not trust our certificate closes
# the connection; other errors of TLS are about bytes that are no TLS, or none that we speak.
OF_GO = {
    RejectReason.TIMEOUT: (
        rb"i/o timeout|deadline exceeded|timed out|no recent network activity|handshake did not complete in time"
    ),
    RejectReason.CLOSED: (
        rb"connection reset|broken pipe|(?<![^ ])EOF(?![^ ])|closed pipe|closed network connection|forcibly closed"
        rb"|connection (?:was )?aborted|websocket: close \d|context canceled|client disconnected|remote error: tls: "
        rb"|\(remote\)|canceled by remote"
    ),
    RejectReason.OTHER_PROTOCOL: rb"(?<![^ ])tls: ",
}
PATTERNS_OF_XRAY, PATTERNS_OF_GO = (
    [(reason, re.compile(phrases, re.IGNORECASE)) for reason, phrases in each.items()] for each in (OF_XRAY, OF_GO)
)


def classify(reason: bytes) -> RejectReason:
    """Return the class of a reason, given all the text of a line after `rejected`, including tags and user."""
    return _classify(_without_client_text(reason))


def is_of_xray(text: bytes) -> bool:
    """Return whether a text contains a reason that only xray and v2ray write, and neither Go nor a library."""
    ours = _without_client_text(text)
    return any(pattern.search(ours) for _, pattern in PATTERNS_OF_XRAY)


def _without_client_text(reason: bytes) -> bytes:
    text = reason[:MAX_REASON_BYTES]
    client_text = CLIENT_TEXT_FOLLOWS.search(text)
    return text[: client_text.end()] if client_text else text


@functools.lru_cache(maxsize=1 << 10)  # scanners cause the same one again and again
def _classify(text: bytes) -> RejectReason:
    patterns = [*PATTERNS_OF_XRAY, *PATTERNS_OF_GO]
    return next((reason for reason, pattern in patterns if pattern.search(text)), RejectReason.OTHER)
