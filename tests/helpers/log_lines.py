"""Pieces of lines and whole lines that several tests of the parser read."""

from __future__ import annotations

from helpers.parsing import AT, WHOLE

NOTHING = (None,) * 6  # the fields of a row from protocol to email

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

# Whole lines of which each could follow the torn end of another one.
SECOND_LINES = [
    WHOLE,
    b"2020/05/01 09:00:00 1.2.3.4:5 accepted tcp:x:443 [out] email:e ",
    AT + b"from  accepted tcp:x:443 [bridge -> out]",
    AT + b"from 1.2.3.4:5 rejected  proxy/trojan: not a valid user",
]
