"""Fields that forks of xray append to an access line, after the email or in its place. Pure.

An email is free text, and nothing separates it from them. So they are cut by a catalogue: known words, each with a
value of its kind, in any order, at the end of the line. Whatever else is there belongs to the email.
"""

from __future__ import annotations

import re

TAIL_BYTES = 1 << 10  # searched, so that the time does not depend on the length of the line
COUNT = rb"\d{1,20}"
SOMETHING = (
    rb"request|response|sent|received|recv|uplink|downlink|upload|download|up|down|in|out|inbound|outbound|read|written"
    rb"|write|rx|tx|total"
)
DESTINATION = rb"(?:(?:Masked IPv[46]|\S)+:\d{1,5}|unix:[/@]\S*)"
SNIFFED = rb"tls|quic|https?|http[12]|h2|bittorrent|fakedns|fakedns\+others|dns|ssh|stun|dtls|none|unknown"
# Nobody calls a user so: each of these is a field even if it is the only one.
SURE = (
    rb"(?i:(?:" + SOMETHING + rb")_?bytes|bytes_?(?:" + SOMETHING + rb"))(?:: ?|=)" + COUNT,
    rb"original(?:: ?|=)" + DESTINATION,
    rb"sniffed(?:: ?|=)(?:" + SNIFFED + rb")",
    rb"egress(?:: ?|=)v[46]",
)
# A user may be called `office uplink: 2`, so one of these alone is none after an email.
IN_COMPANY = (
    rb"(?:uplink|downlink|upload|download|rx|tx|sent|received|bytes|count)(?:: ?|=)" + COUNT,
    rb"sniffed(?:: ?|=)[A-Za-z0-9+._/-]{1,32}",
    rb"duration(?:: ?|=)(?:\d{1,9}(?:\.\d{1,9})?(?:h|ms?|s|us|\xc2\xb5s|ns))+",
)
SEPARATORS = b",;"  # or none, between two fields
END = rb"[" + SEPARATORS + rb"]?(?= |\Z)"
FIELD = rb" (?:" + b"|".join(SURE) + rb"|" + b"|".join(IN_COMPANY) + rb")" + END
FIELDS = re.compile(rb"(?:" + FIELD + rb")+ *\Z")
SURE_FIELD = re.compile(rb" (?:" + b"|".join(SURE) + rb")" + END)
WORD = re.compile(rb" ([a-z_]+)[:=]")


def cut(rest: bytes, has_email: bool) -> bytes:
    """Return the text without the fields at its end. `has_email`: whether they may be a part of it."""
    start = max(0, len(rest) - TAIL_BYTES)
    found = FIELDS.search(rest, start)
    if found is None:
        return rest
    fields = found[0]
    is_sure = not has_email or SURE_FIELD.search(fields) is not None or len({*WORD.findall(fields)}) > 1
    return rest[: found.start()].rstrip(SEPARATORS) if is_sure else rest
