"""Cut off the fields that forks of xray append to an access line, after the email or in its place. Pure.

An email is free text, and nothing separates it from these fields. So they are recognised by a catalogue: known words,
each with a value of its kind, in any order, at the end of the line. Everything else belongs to the email, except
unknown fields directly before known ones, which show that the fields have started.
"""

from __future__ import annotations

import re

TAIL_BYTES = 1 << 10  # only the end is searched, so that the time does not depend on the length of the line

# --- values
NUMBER = rb"-?\d{1,20}(?:\.\d{1,9})?"
UNIT = rb"(?:[kKMGTP]i?)?(?:B|[Bb]ytes?|bit|bps)(?:/s)?|[kKMGT]"
SIZE = NUMBER + rb"(?: ?(?:" + UNIT + rb"))?"
TIME = rb"-?(?:\d{1,9}(?:\.\d{1,9})?(?:h|ms?|s|us|\xc2\xb5s|ns))+"
NAME = rb"[A-Za-z0-9_-]{1,63}(?:\.[A-Za-z0-9_-]{1,63}){1,20}\.?"  # of a host; also matches an IPv4 address
ADDRESS = rb"(?:" + NAME + rb"|\[[^\s\]]{1,64}\])"
DESTINATION = rb"(?:(?:Masked IPv[46]|\S)+:\d{1,5}|unix:[/@]\S*)"
SNIFFED = rb"tls|quic|https?|http[12]|h2|bittorrent|fakedns|fakedns\+others|dns|ssh|stun|dtls|none|unknown"

# --- words
DIRECTION = (
    rb"request|response|req|resp|sent|received|send|recv|receive|uplink|downlink|uploaded|downloaded|upload|download"
    rb"|up|down|in|out|inbound|outbound|read|written|write|rx|tx|total"
)
AMOUNT = rb"bytes|size|length|traffic|packets"
EQUALS = rb"(?:: ?|=)"
# No user has such a name, so each of these is a field even if it is the only one and in the place of the email.
SURE = (
    rb"(?i:(?:" + DIRECTION + rb")[_-]?(?:" + AMOUNT + rb")|(?:" + AMOUNT + rb")[_-]?(?:" + DIRECTION + rb"))"
    + (EQUALS + SIZE),
    rb"original" + EQUALS + DESTINATION,
    rb"(?:original|target|destination|dst|dest|remote)(?:[_-]?addr(?:ess)?)?" + EQUALS
    + (rb"(?:(?:tcp|udp)[46]?:)?" + ADDRESS + rb":\d{1,5}"),
    rb"sniffed" + EQUALS + rb"(?:" + SNIFFED + rb")",
    rb"egress" + EQUALS + rb"v[46]",
)  # fmt: skip
# A user may be called `traffic: 100`, so one of these alone is not a field if it is in the place of the email.
AFTER_EMAIL = (
    rb"(?:duration|elapsed|latency|rtt)" + EQUALS + TIME,
    rb"(?:duration|elapsed|latency|rtt)_(?:ms|us|ns)" + EQUALS + NUMBER,
    rb"traffic" + EQUALS + SIZE,
)
# A user may be called `office uplink: 2`, so one of these alone is not a field after an email either.
WITH_OTHERS = (
    rb"(?:" + DIRECTION + rb"|bytes|count|size|packets|conns?|connections)" + EQUALS + SIZE,
    rb"sniffed" + EQUALS + rb"[A-Za-z0-9+._/-]{1,32}",
    rb"(?:domain|host|sni|server_name|ip|target|destination|dst|dest)" + EQUALS + ADDRESS,
)
# Any word with a value without blanks: a field only if a known field follows.
UNKNOWN = rb"(?!email:)[A-Za-z][A-Za-z0-9_.-]{0,31}" + EQUALS + rb"(?!email:)[^\s,;|()\[\]{}]{1,64}(?<![:=])"

SEPARATORS = b",;|"  # optional, between two fields
OPENING, CLOSING = b"[({", b"])}"  # may enclose all the fields
FIELD = re.compile(
    rb" [\[({]?(?:(?P<sure>" + rb"|".join(SURE) + rb")|(?P<after>" + rb"|".join(AFTER_EMAIL)
    + rb")|(?P<with_others>" + rb"|".join(WITH_OTHERS) + rb")|(?P<unknown>" + UNKNOWN
    + rb"))[,;|]?[\])}]?(?: ?[,;|])?(?= |\Z)"
)  # fmt: skip


def cut(rest: bytes, has_email: bool) -> bytes:
    """Return the text without the fields at its end. `has_email`: whether they may belong to an email or a reason."""
    email = rest.find(b" email:")
    if email >= 0 and b":" not in rest[email + len(b" email:") :] and b"=" not in rest[email:]:
        return rest  # the usual case
    fields = _last_fields(rest, email + len(b" email:") if email >= 0 else len(rest))
    if not fields or fields[-1].lastgroup == "unknown":
        return rest
    is_in_place_of_email = rest[: fields[0].start()].endswith(b" email:")
    if is_in_place_of_email and fields[0].lastgroup == "unknown":  # take it for the email, because there must be one
        del fields[0]
    start = fields[0].start()
    return rest[:start].rstrip(SEPARATORS) if _are_fields(fields, has_email, is_in_place_of_email) else rest


def _last_fields(rest: bytes, email: int) -> list[re.Match[bytes]]:
    """Return the consecutive matches at the end of the text that may be fields. `email`: where the email begins.

    No text is matched twice, because what follows a field does not change where it ends. So the time is linear.
    """
    fields: list[re.Match[bytes]] = []
    at, end = max(0, len(rest) - TAIL_BYTES), len(rest.rstrip(b" "))
    while 0 <= at < end:
        field = FIELD.match(rest, at, end)
        if field is not None and (field.lastgroup != "unknown" or at >= email or fields):
            fields.append(field)
            at = field.end()
        else:
            fields.clear()
            at = rest.find(b" ", at + 1)
    return fields


def _are_fields(fields: list[re.Match[bytes]], has_email: bool, is_in_place_of_email: bool) -> bool:
    """Return whether these matches are fields, and not a part of an email."""
    text = b"".join(field[0] for field in fields)
    if len(text.translate(None, OPENING)) != len(text.translate(None, CLOSING)):
        return False
    if len({_word(field[0]) for field in fields if field.lastgroup != "unknown"}) > 1:
        return True
    if not has_email:  # then brackets may enclose tags instead
        return not text.startswith((b" [", b" (", b" {"))
    kinds = {field.lastgroup for field in fields}
    return "sure" in kinds or ("after" in kinds and not is_in_place_of_email)


def _word(field: bytes) -> bytes:
    return field.lstrip(b" " + OPENING).replace(b"=", b":").partition(b":")[0]
