"""The whole grammar of the access log: one line in, one record out. The fast parser calls it for whatever is new.

Pure: no files, no database, no clock, no logging.

xray-core builds the line in common/log/access.go and the bracket in app/dispatcher/default.go:

    TIMESTAMP SP "from" SP FROM SP STATUS SP TO [SP "[" DETOUR "]"] [SP REASON] [SP "email: " EMAIL] LF

Nothing in it is quoted or escaped, FROM and TO may be empty, and older versions leave out some parts. Lines are split
as bytes, from the outside in. Only fields that are stored are decoded: others (the text of a reason, the path of a URL)
may contain any bytes. Every search is linear in the length of the line, because a client chooses the bytes.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Collection
from datetime import datetime, timedelta, timezone
from typing import TypeAlias
from zoneinfo import ZoneInfo

from xraylog.accesslog import client, destination, other_lines, reject_reasons, suffixes, values
from xraylog.accesslog.client import Peer
from xraylog.accesslog.clock import Clock
from xraylog.accesslog.masking import UNMASKED, Mask
from xraylog.accesslog.reject_reasons import RejectReason
from xraylog.accesslog.values import MAX_CHARACTERS, ParseError, UnstorableValue
from xraylog.records import DATED, MINUTE, UTC, AccessRecord, BadLine, Ignored, Request, Route

EARLIEST = datetime(2015, 1, 1, tzinfo=timezone.utc)  # before the first v2ray: a line from then is forged
AHEAD = timedelta(days=2)  # a wrong time zone is at most 26 hours off
LAST_SECOND = timedelta(seconds=59)
API_TAGS = ("api",)  # the tag in every example of xray's documentation

WHOLE_MINUTE = re.compile(rb"\d{4}/\d\d/\d\d \d\d:\d\d")
TIMESTAMP = re.compile(rb"(\d{4}/\d\d/\d\d \d\d:\d\d:\d\d)(\.\d{1,6})?(?: |$)")
ANOTHER_TIMESTAMP = re.compile(rb"\d{4}/\d\d/\d\d \d\d:\d\d:\d\d")
ANOTHER_LINE = re.compile(rb"\d{4}/\d\d/\d\d \d\d:\d\d:\d\d(?:\.\d{1,6})? (?:from )?\S* (?:accepted|rejected) ")
PREFIXED = "expected xray's timestamp first, found before it: "
STATUS = re.compile(rb"(?:^| )(accepted|rejected) ")
CLOSING_BRACKET = ord("]")
# Of a rejected connection, where a reason may follow: the first whole one, in which each bracket that opens is closed.
BRACKET = re.compile(
    rb" \[((?:[^\[\]]|\[[^\[\]]*\]|\](?! |\Z)){0,4096})\](?= |\Z)| \[(.*?)\](?= |\Z)",
    re.DOTALL,
)
ARROW = re.compile(rb" (?:->|>>|==>) ")
BARE_ARROW = re.compile(rb"->|==>|>>")
GLUED = "expected one line, found the timestamp or the status of another in it"
# After `accepted`: the beginning of the next line is missing, too. In a reason a client may have written it.
ANOTHER_STATUS = re.compile(rb"(?::\d{1,5}|from (?:DNS|@\S{0,108})) (?:accepted|rejected) ")
NO_SOURCE = (b"from  ", b" ")  # xray writes the blanks round it; before 1.8.24 the first follows the time
BRACKET_ALONE = re.compile(rb" \[([^\[\]]*)\](?= |\Z)")  # without a destination: all of `[::1]:5 why [in]` is a reason
# The rejections that name a user: proxy/vmess, xray up to v1.8.1; and those without a reason, before v1.1.5 `email:e `.
NAMED = re.compile(rb" {1,2}(?:Insecure encryption ?)?email: ?(.*)", re.DOTALL)
# The shapes of the tool's own documentation, which no xray writes: blanks round colons and arrows. Runs of
# blanks are bounded, so that a line made of blanks costs no more than its length.
DOCUMENTED = re.compile(
    rb"from {1,16}(?:(?:tcp|udp) {0,16}: {0,16})?(?P<source>[^\s:]+|\[[^\]\s]+\]) {0,16}: {0,16}(?P<port>\d+)"
    rb" {1,16}accepted {1,16}(?:(?P<network>tcp|udp) {0,16}: {0,16}|// {0,16}|(?!(?:tcp|udp) {0,16}:))"
    rb"(?P<host>[^\s:\[\]]+|\[[^\]\s]+\]) {0,16}: {0,16}(?P<to_port>\d+)(?P<tail>| .*)",
    re.DOTALL,
)
DOCUMENTED_BYTES = 1 << 16  # of a longer line, the blanks alone would fill the memory
BLANKS = re.compile(rb" +")
# Most requests, and most of what follows them. Each character means only itself, so that nothing else needs a look.
USUAL_REQUEST = re.compile(rb"accepted (tcp|udp):([\w.-]{1,255}):(\d{1,5})")
USUAL_ROUTE = re.compile(rb" \[([\w.-]{1,99}(?: (?:->|>>|==>) [\w.-]{1,99})?)\] email: ([\w.@+-]{1,255})")
API = re.compile(rb"api {1,16}from {1,16}(.+?) {1,16}api {0,16}-> {0,16}api {0,16}")

Tags: TypeAlias = "tuple[str | None, str | None]"  # inbound, outbound


class Grammar:
    """Parses the lines of one time zone, in the order of their log."""

    def __init__(
        self, zone: ZoneInfo, now: datetime, mask: Mask = UNMASKED, api_tags: Collection[str] = API_TAGS
    ) -> None:
        """`zone` is the server's local time, in which xray writes; `now` is an aware datetime.

        `api_tags`: the outbound tags of xray's own API and metrics.
        """
        self.clock = Clock(zone, now)
        self._api_tags = api_tags
        self._zone = zone
        self._mask = mask
        self._latest = now + AHEAD
        self._second: tuple[bytes, str] = (b"", "")

    def parse_line(self, raw: bytes) -> AccessRecord | BadLine | Ignored:
        """Parse one line, with or without its line end. Never raises: a bad line is a result too."""
        line = raw.rstrip(b"\r\n").lstrip(b"\0")  # NULs: the hole that a truncation leaves without O_APPEND
        if not line.strip():
            return Ignored.BLANK
        if line.startswith(b"#"):
            return Ignored.COMMENT
        try:
            parsed = self._parse(line)
        except ParseError as error:
            bad = BadLine(raw, str(error))
        else:
            return self._masked(parsed)
        return self._mask.bad_line(bad)  # outside of `except`, because the error keeps parts of the line in memory

    def parse_alone(self, raw: bytes) -> AccessRecord | BadLine | Ignored:
        """Parse a line that does not follow the previous one: a time in a repeated hour is of the first pass."""
        self.clock.last = ""
        return self.parse_line(raw)

    def _masked(self, parsed: AccessRecord | Ignored) -> AccessRecord | Ignored:
        if self._mask.hides and isinstance(parsed, AccessRecord):
            return parsed._replace(source_ip=self._mask.source(parsed.source_ip))
        return parsed

    def _parse(self, line: bytes) -> AccessRecord | Ignored:
        at = TIMESTAMP.match(line)
        if at is None:
            return _without_timestamp(line)
        rest = line[at.end() :]
        if (kind := other_lines.kind_after_timestamp(rest)) is not None:
            return _reject_if_two_lines(kind, rest)
        timestamp = self._timestamp(at)
        if api := API.fullmatch(rest):
            return AccessRecord(timestamp, *client.read(api[1]), "api", inbound_tag="api", outbound_tag="api")
        if other_lines.is_message(rest):
            if ANOTHER_TIMESTAMP.search(rest):
                raise ParseError(GLUED)
            return Ignored.CONSOLE
        status = STATUS.search(rest)
        if status is None:
            raise ParseError("expected 'accepted' or 'rejected' after the source, found neither")
        has_from = rest.startswith(b"from ")
        source = rest[: status.start()].removeprefix(b"from").lstrip(b" ")
        is_rejected = status[1] == b"rejected"
        if ANOTHER_TIMESTAMP.search(rest) or (not is_rejected and ANOTHER_STATUS.search(rest, status.end())):
            raise ParseError(GLUED)  # not even an email may end in one: the next line's, after a crash
        if source in (b"DNS", b"DoH"):
            return Ignored.DNS
        if not source and rest[: status.start(1)] not in NO_SOURCE:
            raise ParseError("expected a source after the time, found none")
        try:
            peer, after_status = client.read(source), rest[status.end() :]
            if is_rejected:
                return _rejected(timestamp, peer, after_status, has_from)
            record = _accepted(timestamp, peer, after_status, has_from)
            return record._replace(action="api") if self._is_api(record.outbound_tag, record.email) else record
        except ParseError as error:
            documented = DOCUMENTED.fullmatch(rest) if len(rest) <= DOCUMENTED_BYTES else None
            if documented is None or isinstance(error, UnstorableValue):
                raise
            return _documented(timestamp, documented)

    def _is_api(self, outbound_tag: str | None, email: str | None) -> bool:
        """Return whether a request is one to xray itself, as a panel makes every few seconds: nobody's traffic."""
        return email is None and outbound_tag in self._api_tags

    def route(self, rest: bytes) -> Route:
        """Return what the part after TO means: it is empty, or a space followed by tags and email.

        Raises ParseError for what could belong to TO, for a line's end, and for what depends on how the line began.
        """
        if usual := USUAL_ROUTE.fullmatch(rest):
            return Route(*_route_tags(usual[1]), usual[2].decode())
        to, tags, email = _split(b"to" + rest)
        another = ANOTHER_TIMESTAMP.search(rest) or ANOTHER_STATUS.search(rest)
        if to != b"to" or rest.endswith(b"\r") or another:
            raise ParseError("expected tags and an email, and nothing else")
        found = (_route_tags if len(tags) <= 2 * MAX_CHARACTERS else _route_tags.__wrapped__)(tags)
        if self._is_api(found[1], email):
            raise ParseError("expected a client's request, found one to xray itself")
        return Route(*found, email)

    def minute(self, minute: bytes) -> str:
        """Return a line's first 16 bytes as UTC, "2025-11-17 10:15", of the first pass. Raises ParseError, also at a
        clock change.
        """
        if not WHOLE_MINUTE.fullmatch(minute):
            raise ParseError("expected a timestamp first, found none")
        first, last = self._moment(minute + b":00"), self._moment(minute + b":59")
        if first.second or last - first != LAST_SECOND:
            raise ParseError("expected a minute without a change of the clock")
        return first.isoformat(" ")[:MINUTE]

    def _timestamp(self, at: re.Match[bytes]) -> str:
        second, fraction = at[1], at[2]
        if second != self._second[0]:
            self._second = (second, self._moment(second).isoformat(" ")[:19])
        minute, seconds = self._second[1][:MINUTE], self._second[1][MINUTE:]
        return self.clock.resolve(minute) + seconds + (fraction.decode() if fraction else "") + UTC

    def _moment(self, second: bytes) -> datetime:
        """Local wall clock to UTC. One that occurs twice is the first (fold=0), until the clock has read it."""
        try:
            year, month, day = int(second[:4]), int(second[5:7]), int(second[8:10])
            hour, minute, whole = int(second[11:13]), int(second[14:16]), int(second[17:19])
            local = datetime(year, month, day, hour, minute, whole, tzinfo=self._zone)
            moment = local.astimezone(timezone.utc)
        except (ValueError, OverflowError):
            raise ParseError(f"expected a date and time, found {second.decode()}") from None
        if not EARLIEST <= moment <= self._latest:
            raise ParseError(f"{DATED}{second.decode()}")
        self.clock.learn(local, moment)
        return moment


# --- pieces that mean the same in every line that says `accepted` ------------------------------------------------


def request(request: bytes) -> Request:
    """Return what `accepted TO` means. Raises ParseError."""
    if usual := USUAL_REQUEST.fullmatch(request):
        return Request("accepted", usual[1].decode(), usual[2].decode(), values.port(usual[3]))
    return Request("accepted", *destination.read(request.removeprefix(b"accepted ")))


# --- parts of the grammar ----------------------------------------------------------------------------------------


def _without_timestamp(line: bytes) -> Ignored:
    if (kind := other_lines.kind_without_timestamp(line)) is not None:
        return _reject_if_two_lines(kind, line)
    if later := ANOTHER_TIMESTAMP.search(line):
        if later.start() == 0:
            after = values.excerpt(line[later.end() : line.find(b" ", later.end()) + 1 or None])
            raise ParseError(f"expected a fraction of up to six digits, or none, after the seconds, found {after}")
        raise ParseError(PREFIXED + values.excerpt(line[: later.start()]))
    raise ParseError("expected a timestamp first, found none")


def _reject_if_two_lines(ignored: Ignored, rest: bytes) -> Ignored:
    """Refuse two lines in one: a crash or a full disk can leave a line without its end, and an access line after it."""
    if ANOTHER_LINE.search(rest):
        raise ParseError(GLUED)
    return ignored


def _rejected(timestamp: str, peer: Peer, rest: bytes, has_from: bool) -> AccessRecord:
    """Return the record of a line, of which `rest` follows `rejected`.

    xray leaves TO empty, so that the reason follows two blanks: free text, which can hold what a client sent, but does
    not begin with it. Forks write a destination there. Tags and email directly after it are no part of a reason, nor
    are they in its place.
    """
    rest = suffixes.cut(rest, has_email=True)  # or the reason, which is free text, too
    to, rest = destination.before_reason(rest)
    protocol, host, port = (None, None, None) if to is None else destination.read(to)
    tags, email, why = _before_reason(rest, (BRACKET_ALONE if to is None else BRACKET).match(rest))
    inbound, outbound = _tags(tags, has_from)
    return AccessRecord(timestamp, *peer, "rejected", protocol, host, port, inbound, outbound, email, why.value)


def _before_reason(rest: bytes, bracket: re.Match[bytes] | None) -> tuple[bytes, str | None, RejectReason]:
    """Return tags and email, if they precede or replace the reason, and the reason's class."""
    tags = next(filter(None, bracket.groups()), b"") if bracket else b""
    end = bracket.end() if bracket else 0
    named = NAMED.match(rest, end)
    email = values.name("email", named[1].rstrip(b" ")) if named else None
    return tags, email, reject_reasons.classify(rest[end : named.start(1) if named else None])


def _accepted(timestamp: str, peer: Peer, rest: bytes, has_from: bool) -> AccessRecord:
    """Return the record of a line, of which `rest` follows `accepted`: TO, the bracket and the email."""
    to, tags, email = _split(rest)
    inbound, outbound = _tags(tags, has_from)
    protocol, host, port = destination.read(to)
    return AccessRecord(timestamp, *peer, "accepted", protocol, host, port, inbound, outbound, email)


def _split(rest: bytes) -> tuple[bytes, bytes, str | None]:
    """TO, the inside of the bracket, and the email: cut at whichever comes first, ` [` or ` email:`.

    The bracket closes at the first `]` before ` email:` or the end of the line: tags and emails are free text.
    """
    rest = suffixes.cut(rest, has_email=b" email:" in rest)
    bracket, at_email = rest.find(b" ["), rest.find(b" email:")
    if bracket < 0 or 0 <= at_email < bracket:
        end = len(rest) if at_email < 0 else at_email
        return rest[:end].rstrip(b" "), b"", _email(rest, end)
    closing = rest.find(b"] email:", bracket)
    if closing < 0:
        closing = len(rest.rstrip(b" ")) - 1
        if rest[closing] != CLOSING_BRACKET:
            if after := rest.find(b"] ", bracket) + 1:
                raise ParseError(f"expected an email or nothing after the tags, found {values.excerpt(rest[after:])}")
            raise ParseError("expected ']' after the tags, found none")
    return rest[:bracket], rest[bracket + 2 : closing], _email(rest, closing + 1)


def _email(line: bytes, start: int) -> str | None:
    """Return the email: the rest of the line from `start` on, after ` email:` if that is there. Copies it once."""
    start += len(b" email:") if line.startswith(b" email:", start) else 0
    start += line.startswith(b" ", start)
    return values.name("email", line[start:].rstrip(b" "))


def _tags(tags: bytes, has_from: bool) -> Tags:
    """`in -> out`, `in >> out`, `in ==> out`; a single tag is the outbound's.

    Arrows without blanks are only in documentation, which also says `from`.
    """
    arrow = ARROW.search(tags)
    if arrow is None and has_from:
        arrow = BARE_ARROW.search(tags)
    if arrow is None:
        return None, values.name("tag", tags.strip(b" "))
    return values.name("tag", tags[: arrow.start()].strip(b" ")), values.name("tag", tags[arrow.end() :].strip(b" "))


@functools.lru_cache(maxsize=1 << 10)  # every user has a route of their own, and few tags
def _route_tags(tags: bytes) -> Tags:
    found = _tags(tags, has_from=True)
    if found != _tags(tags, has_from=False):
        raise ParseError("expected blanks round the arrow")
    return found


def _documented(timestamp: str, match: re.Match[bytes]) -> AccessRecord:
    """Return the record of a line with blanks round its colons."""
    tail = BLANKS.sub(b" ", match["tail"]).replace(b" email :", b" email:", 1)
    nothing, tags, email = _split(tail)
    if nothing:
        raise ParseError(f"expected tags or an email after the destination, found {values.excerpt(match['tail'])}")
    inbound, outbound = _tags(tags, has_from=True)
    peer = client.address_of(match["source"]), values.port(match["port"])
    protocol = match["network"].decode() if match["network"] else None
    host, port = destination.host(match["host"]), values.port(match["to_port"])
    return AccessRecord(timestamp, *peer, "accepted", protocol, host, port, inbound, outbound, email)
