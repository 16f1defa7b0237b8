"""Lines that xray writes to its log, or its console, that are not access lines: they are ignored by design. Pure."""

from __future__ import annotations

import re

from xraylog.records import Ignored

# app/dns: `UDP:8.8.8.8:53 got answer: host -> [ip] 23.4ms` (common/log/dns.go)
DNS_ANSWER = re.compile(rb"\S+ (?:got answer:|cache HIT:|cache OPTIMISTE:)(?: |$)")
CONSOLE_LEVEL = re.compile(rb"\[(?:Debug|Info|Warning|Error|Unknown)\]")
CONSOLE_START = re.compile(rb"Using (?:default config|config|confdir)|Reading config:")
# Lines without a timestamp: the banner, a failed start, and what Go prints when it panics.
CONSOLE_BARE = re.compile(
    rb"(?:Xray|V2Ray) \d+\.|A unified platform for anti-censorship\.|Failed to start: |\t?panic: |fatal error: "
    rb"|goroutine \d+ \[|\[signal |runtime[./:]|exit status \d|\t[/\w]\S*:\d+|[\w/-]{1,100}\.[\w./*\[\]-]{0,200}\("
    rb"|created by "
)


def kind_after_timestamp(rest: bytes) -> Ignored | None:
    """Return what a line is whose timestamp is followed by `rest`; None for what may be an access line."""
    if CONSOLE_LEVEL.match(rest) or CONSOLE_START.match(rest):
        return Ignored.CONSOLE
    return Ignored.DNS_ANSWER if DNS_ANSWER.match(rest) else None


def kind_without_timestamp(line: bytes) -> Ignored | None:
    """Return what a line without a timestamp is; None for one that xray does not write."""
    return Ignored.CONSOLE if CONSOLE_BARE.match(line) else None
