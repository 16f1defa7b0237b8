"""Whatever bytes a line has, the parser ends, raises nothing, and agrees with the grammar; batches lose no line."""

from __future__ import annotations

import ipaddress
import itertools
import re
import string
from collections import Counter
from collections.abc import Iterable
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from helpers.log_lines import REASONS, SECOND_LINES
from helpers.parsing import (
    AT,
    NOW,
    WHOLE,
    WHOLE_ROW,
    Kind,
    grammar_of,
    parse,
    parser_of,
    raw,
    results,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from xraylog.accesslog import client, parser
from xraylog.accesslog.destination import NETWORKS
from xraylog.accesslog.masking import UNMASKED, Mask
from xraylog.accesslog.parser import Parser
from xraylog.accesslog.reject_reasons import RejectReason
from xraylog.records import AccessRecord, BadLine, Batch, Ignored

some_examples = settings(deadline=None, max_examples=300)

PIECES = (
    "from |DNS|@|unix:|tcp:|udp:|//|http://|1.2.3.4:5|[2001:db8::1%eth0]:443|203.0.*.*:1|[Masked IPv4]:1|x.example:443"
    "|[2001:db8::/32]:1| accepted | rejected  | [in -> out]| [|]| | email: |email:|e|api from | api -> api| : |\0|\r|\t"
    "|#|[Info] | got answer: |2025/11/17 10:15:23 |9999/99/99 99:99:99|me:pa55@|/?q|:99999|Insecure encryption email: "
    "| invalid request user id| > EOF|invalid domain name: "
)
pieces = st.sampled_from(PIECES.encode().split(b"|")) | st.just("ю".encode() * 90) | st.binary(max_size=4)
nearly = st.lists(pieces, max_size=12).map(b"".join)
clients = st.sampled_from([b"1.2.3.4:5", b"tcp:[::1]:0", b"@", b"203.0.*.*:1", b"[fe80::1%eth0]:9", b"[Masked IPv6]:2"])
openings = [b" [", b" [in -> ", b" [in -> out] email: ", b" email:", b""]
accesses = st.tuples(
    st.just(AT + b"from "),
    clients,
    st.sampled_from([b" accepted tcp:x:443", b" accepted http://h", b" rejected  Insecure encryption"]),
    st.sampled_from(openings),
    st.text(max_size=300).map(str.encode) | nearly,
    st.sampled_from([b"]", b"] email: e", b""]),
).map(b"".join)
any_bytes = st.binary(max_size=200) | nearly | nearly.map(lambda text: AT + text) | accesses


REJECT_REASONS = {reason.value for reason in RejectReason}


def check(line: bytes, got: Kind) -> None:
    """Every value of a row fits its column, and a bad line is kept as it was."""
    assert isinstance(got, AccessRecord | BadLine | Ignored)
    if isinstance(got, BadLine):
        assert got.line == line
        assert got.reason.isprintable()
    if isinstance(got, AccessRecord):
        assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d(\.\d{1,6})?\+00", got.timestamp)
        if got.source_ip is not None:
            assert "%" not in got.source_ip
            assert ipaddress.ip_interface(got.source_ip)
        for port in (got.source_port, got.destination_port):
            assert port is None or 0 <= port <= 65535
        assert got.action in {"accepted", "rejected", "api"}
        assert (got.reject_reason in REJECT_REASONS) if got.action == "rejected" else not got.reject_reason
        assert got.protocol in {*PROTOCOLS.values(), *(network.decode() for network in NETWORKS)}
        for name in (got.destination, got.inbound_tag, got.outbound_tag, got.email):
            assert name is None or (1 <= len(name.encode().decode()) <= 255 and "\0" not in name)


@settings(some_examples, max_examples=1000)
@given(any_bytes)
def test_no_bytes_make_the_parser_raise(line: bytes) -> None:
    check(line, parse(line))


@settings(some_examples, max_examples=1000)
@given(accesses)
def test_every_value_of_a_row_fits_its_column(line: bytes) -> None:
    check(line, parse(line, zone="Asia/Tehran"))


# What xray can write and a parser can understand: free text, without what makes a line ambiguous.
texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\n\r\0"), min_size=1, max_size=255)
emails = texts.filter(lambda text: not text.endswith(" "))
tags = texts.filter(lambda text: text == text.strip(" ") and not re.search(r"email:|->|>>|\]\Z", text))
names = st.text(string.ascii_letters + string.digits + "-._", min_size=1, max_size=255)
ports = st.integers(0, 65535)
v6 = st.ip_addresses(v=6).map(str)
addresses = st.ip_addresses(v=4).map(str).map(lambda ip: (ip, ip)) | v6.map(lambda ip: (f"[{ip}]", ip))
hosts = addresses | names.filter(lambda name: name not in {"tcp", "udp"}).map(lambda name: (name, name))
no_sources = st.sampled_from(["", "@", "unix:@", "unix:"]).map(lambda text: (text, (None, None)))
sources = no_sources | st.builds(
    lambda prefix, ip, port: (f"{prefix}{ip[0]}:{port}", (ip[1], port)),
    st.sampled_from(["", "tcp:", "udp:"]),
    addresses,
    ports,
)
PROTOCOLS = {
    "tcp:": "tcp",
    "udp:": "udp",
    "": None,
    "//": None,
    "http://": "http",
    "https://": "https",
    "ftp://": "ftp",
}
destinations = st.builds(
    lambda prefix, host, port: (f"{prefix}{host[0]}:{port}", (PROTOCOLS[prefix], host[1], port)),
    st.sampled_from(list(PROTOCOLS)),
    hosts,
    ports,
)
two_tags = st.builds(
    lambda inbound, arrow, outbound: (f" [{inbound} {arrow} {outbound}]", (inbound, outbound)),
    tags,
    st.sampled_from(["->", ">>", "==>"]),
    tags,
)
brackets = st.just(("", (None, None))) | tags.map(lambda tag: (f" [{tag}]", (None, tag))) | two_tags
moments = st.datetimes(datetime(2015, 1, 1), datetime(2026, 11, 25))  # noqa: DTZ001  # as in the log: without a zone


@some_examples
@given(moments, st.booleans(), st.booleans(), sources, destinations, brackets, st.none() | emails)
def test_a_record_written_as_xray_writes_it_is_read_back(
    moment: datetime, micro: bool, has_from: bool, source: Any, to: Any, bracket: Any, email: str | None
) -> None:
    wall = f"{moment:%Y/%m/%d %H:%M:%S}" + (f".{moment:%f}" if micro else "")
    begin = f"{wall} {'from ' if has_from else ''}{source[0]}"
    stored_at = wall.replace("/", "-") + "+00"
    end = "" if email is None else f" email: {email}"
    expected = AccessRecord(stored_at, *source[1], "accepted", *to[1], *bracket[1], email)
    assert parse(begin, " accepted ", to[0], bracket[0], end) == expected
    rejected = parse(begin, " rejected  a/b: ", to[0], bracket[0], end)
    assert isinstance(rejected, AccessRecord)
    # The words of a reason may be those of a tag, by chance.
    assert rejected.reject_reason in {reason.value for reason in RejectReason}
    assert rejected._replace(reject_reason="other") == AccessRecord(
        stored_at, *source[1], "rejected", reject_reason="other"
    )


USUAL = b" accepted tcp:www.example.com:443 [in-1 >> out_2] email: me+7@example.com"
odd = pieces | st.sampled_from([*b"=-> up: 1| x=2".split(b"|"), b"9" * 99, b"m" * 256])


@settings(some_examples, max_examples=1000)
@given(st.integers(0, len(USUAL)), st.integers(0, 20), odd)
def test_the_fast_look_at_usual_pieces_agrees_with_the_whole_grammar(at: int, dropped: int, inserted: bytes) -> None:
    parse(AT + b"from 1.2.3.4:5" + USUAL[:at] + inserted + USUAL[at + dropped :])


REJECTED_LINES = [AT + b"from 1.2.3.4:5 rejected  " + raw(why) for why in REASONS]
known_lines = st.sampled_from([*SECOND_LINES, *REJECTED_LINES, WHOLE + b"\r", AT, b"", b"#"])
masks = st.sampled_from([UNMASKED, Mask(24, 48), Mask(0, 0)])
some_lines = st.lists(known_lines | any_bytes.map(lambda line: line.replace(b"\n", b"")), max_size=20)


def blocks(text: bytes, start: int, ends: Iterable[int]) -> list[tuple[int, bytes]]:
    """The text, cut at some of its line ends."""
    feeds = [0, *(found.end() for found in re.finditer(rb"\n", text))]
    edges = sorted({0, len(text), *(feeds[end % len(feeds)] for end in ends)})
    return [(start + begin, text[begin:end]) for begin, end in itertools.pairwise(edges)]


@some_examples
@given(some_lines, st.integers(1, 6), st.lists(st.integers(0, 20), max_size=5), st.integers(0, 10**12), masks)
def test_batches_are_the_lines_in_order_however_the_text_is_cut(
    lines: list[bytes], size: int, ends: list[int], start: int, mask: Mask
) -> None:
    text = b"".join(line + b"\n" for line in lines)
    begins = itertools.accumulate((len(line) + 1 for line in lines), initial=start)
    by_grammar = grammar_of(mask=mask)
    each = [(begin, mask.line(line), by_grammar.parse_line(line)) for begin, line in zip(begins, lines, strict=False)]
    got = list(parser_of("UTC", NOW, mask).batches(blocks(text, start, ends), size))

    assert b"".join(batch.text for batch in got) == text
    position = start
    for batch in got:
        assert (batch.start, batch.end) == (position, position + len(batch.text))
        assert 1 <= batch.lines == len(batch.records) + len(batch.bad_lines) + sum(batch.ignored.values())
        assert len(batch.records) + len(batch.bad_lines) <= size
        position = batch.end
    of_records = [(*batch.line(index), record) for batch in got for index, record in enumerate(batch.records)]
    assert of_records == [(begin, line, row) for begin, line, row in each if isinstance(row, AccessRecord)]
    bad_lines = [bad for batch in got for bad in batch.bad_lines]
    assert bad_lines == [(begin, bad) for begin, _, bad in each if isinstance(bad, BadLine)]
    ignored = sum((Counter(batch.ignored) for batch in got), Counter())
    assert ignored == Counter(kind for _, _, kind in each if isinstance(kind, Ignored))


def batches(*given_blocks: tuple[int, bytes]) -> list[Batch]:
    return list(Parser(ZoneInfo("UTC"), NOW).batches(given_blocks, 10))


def test_a_batch_holds_no_gap_of_the_file() -> None:
    line = WHOLE + b"\n"
    got = batches((0, line), (len(line), line), (1000, line))
    assert [(batch.start, batch.end) for batch in got] == [(0, 2 * len(line)), (1000, 1000 + len(line))]
    assert [list(batch.records) for batch in got] == [[WHOLE_ROW] * 2, [WHOLE_ROW]]


def test_long_lines_close_a_batch_early(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parser, "BATCH_BYTES", 1000)
    monkeypatch.setattr(parser, "CHUNK_BYTES", 500)
    assert [batch.lines for batch in batches((0, (b"#" * 499 + b"\n") * 5))] == [2, 2, 1]


def test_many_days_close_a_batch_early(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of them is a partition that the transaction locks."""
    monkeypatch.setattr(parser, "MAX_DAYS", 3)
    monkeypatch.setattr(parser, "CHUNK_BYTES", 1)  # a line at a time
    for line in (b"from 1.2.3.4:5 accepted tcp:h:443 [in >> out]", b"from 1.2.3.4:5 rejected  why"):
        text = b"".join(b"2025/11/%02d 10:15:23 %b\n" % (day, line) for day in (1, 1, 2, 2, 3, 3, 4, 4, 5))
        assert [batch.lines for batch in batches((0, text))] == [5, 4]


def test_much_that_was_never_seen_closes_a_batch_early(monkeypatch: pytest.MonkeyPatch) -> None:
    """An adversary's log, of which every line has new names, must not fill the memory."""
    monkeypatch.setattr(parser, "MAX_NEW_PIECES", 6)
    monkeypatch.setattr(parser, "CHUNK_BYTES", 1)  # a line at a time
    new = [b"from 1.2.3.%d:4 accepted tcp:h%d:443 [in >> out] email: u%d" % (n, n, n) for n in range(5)]
    known = [new[0]] * 5
    unusual = [b"from 1.2.3.%d:4 rejected  why" % n for n in range(9)]
    for lines, lengths in ((new, [2, 2, 1]), (known, [5]), (unusual, [6, 3])):
        text = b"".join(b"2025/11/17 10:15:23 " + line + b"\n" for line in lines)
        assert [batch.lines for batch in batches((0, text))] == lengths


@some_examples
@given(
    st.from_regex(rb"[0-9.]{0,17}", fullmatch=True) | st.ip_addresses(v=4).map(lambda address: str(address).encode())
)
def test_the_fast_look_at_an_address_agrees_with_the_standard_library(text: bytes) -> None:
    try:
        ipaddress.IPv4Address(text.decode())
        is_address = True
    except ValueError:
        is_address = False
    assert bool(client.V4.fullmatch(text)) == is_address


HEADS = [
    "from 1.2.3.4:5 accepted ",
    "from 1.2.3.4:5 rejected ",
    "from 1.2.3.4:5 accepted tcp:x:443 [",
    "from ",
    "api from ",
]
NASTY = [" [", "] ", "]", " ", "a.", ":", "[", "@", "\t", " email:", "] email:", " : ", " -> ", " api", "\0", " [:/1"]
NASTY += ["2025/11/17 10:15:2", "2025/11/17 10:15:23 ", " from ", "from 1", "accepted", " accepted", "tcp:"]


@pytest.mark.timeout(120)  # what is linear takes milliseconds, on any machine; what is not, hours
@pytest.mark.parametrize("head", [*HEADS, "", None])
@pytest.mark.parametrize("pattern", NASTY)
def test_a_long_line_of_what_is_searched_for_comes_to_its_end(head: str | None, pattern: str) -> None:
    """A client chooses these bytes. A search takes a step for each, at most 2,000,000; or 125,000,000,000, whatever the
    pattern, if it begins again at each. Through both: the parser asks the grammar for a line of such a length.
    """
    begin = b"" if head is None else b"2025/11/17 10:15:23 " + head.encode()
    line = begin + pattern.encode() * int(500_000 / len(pattern) ** 0.5)
    assert len(results(Parser(ZoneInfo("UTC"), NOW), line)) == 1
