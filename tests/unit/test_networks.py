"""Files of networks are read in each of their shapes, and a line that is not clear is an error with its place."""

from __future__ import annotations

import gzip
import os
import random
import threading
from collections.abc import Callable
from ipaddress import ip_address, ip_network, summarize_address_range
from pathlib import Path

import pytest

from xraylog.networks import files, ranges
from xraylog.networks.files import Unreadable
from xraylog.networks.ranges import Info, Range

AU, CLOUD = r"AU	\N	\N", r"\N	13335	Cloudflare, Inc."
SHAPES = [
    ("1.0.0.0,1.0.0.255,AU\n", [f"1.0.0.0/24	{AU}"]),
    ("1.0.1.0,1.0.3.255,au\r\n", [f"1.0.1.0/24	{AU}", f"1.0.2.0/23	{AU}"]),  # no single network
    ("16777216,16777471,AU\n", [f"1.0.0.0/24	{AU}"]),  # -num
    ("0,16777215,AU\n", [f"0.0.0.0/8	{AU}"]),
    ("42540528726795050063891204319802818560,42540528806023212578155541913346768895,AU\n", [f"2001:200::/32	{AU}"]),
    ("0,42540528806023212578155541913346768895,AU\n", None),  # IPv6, though its first number is small
    ("2001:200::,2001:200:ffff:ffff:ffff:ffff:ffff:ffff,AU\n", [f"2001:200::/32	{AU}"]),
    ('1.0.0.0,1.0.0.255,13335,"Cloudflare, Inc."\n', [f"1.0.0.0/24	{CLOUD}"]),
    ("1.0.0.0/24,AU\n", [f"1.0.0.0/24	{AU}"]),
    ("2001:db8::/32,AU\n1.0.0.7/32,AU\n", [f"1.0.0.7/32	{AU}", f"2001:db8::/32	{AU}"]),
    ("1.0.0.0\t1.0.0.255\t13335\tAU\tCLOUDFLARENET\n", [r"1.0.0.0/24	AU	13335	CLOUDFLARENET"]),
    ("1.0.0.0\t1.0.0.255\t0\tNone\tNot routed\n1.0.1.0\t1.0.1.255\t1\tAU\tX\n", ["1.0.1.0/24	AU	1	X"]),
    (
        "network,country,country_code,asn,as_name\n1.0.0.0/24,Australia,AU,AS13335,\n",
        ["1.0.0.0/24	AU	13335	AS13335"],
    ),
    ("\ufeffstart,end,-,country\n1.0.0.0,1.0.0.255,OC,AU\n", [f"1.0.0.0/24	{AU}"]),
    # As the table has them, also where the first line lacks some, and where a country and a provider overlap.
    (
        "1.0.0.0/24,AU,64496,X\n1.0.1.0/24,,64497,Y\n",
        ["1.0.0.0/24	AU	64496	X", r"1.0.1.0/24	\N	64497	Y"],
    ),
    ("1.0.0.0/16,AU,,\n1.0.0.0/24,,64496,X\n", [r"1.0.0.0/24	\N	64496	X", r"1.0.0.0/16	AU	\N	\N"]),
    ("1.0.0.0/24,,64496,X\n1.0.0.0/24,AU,,\n", ["1.0.0.0/24	AU	64496	X"]),
    ("1.0.0.0/24\t\\N\t64496\tX\n", [r"1.0.0.0/24	\N	64496	X"]),
    ("1.0.0.0,1.0.0.255,AU,64496,X\n", ["1.0.0.0/24	AU	64496	X"]),
    ('1.0.0.0/24\t64496\t"LLC" Foo\n', [r'1.0.0.0/24	\N	64496	"LLC" Foo']),
    ('1.0.0.0/24\t64496\t"A ""b"" c"\n', [r'1.0.0.0/24	\N	64496	A "b" c']),
    ("\n1.0.0.0/24,AU\n\n", [f"1.0.0.0/24	{AU}"]),  # lines with nothing in them
    ("1.0.0.0/24,64496,a\\b  c\n", [r"1.0.0.0/24	\N	64496	a\\b c"]),
    # IPv4 in a file of IPv6, as text or as a number: answers are about IPv4 then, and would not find it.
    ("::ffff:1.0.0.0/120,AU\n", [f"1.0.0.0/24	{AU}"]),
    (
        "281470698520576,281470698520831,AU\n2001:db8::,2001:db8::,AU\n",
        [f"1.0.0.0/24	{AU}", f"2001:db8::/128	{AU}"],
    ),
    ("\n\r\n1.0.0.0\t1.0.0.255\tAU\n", [f"1.0.0.0/24	{AU}"]),
]
WRONG = [
    ("1.0.0.0,1.0.0.255,AU\n1.0.1.0,1.0.1.256,AU\n", "line 2: expected an address, found '1.0.1.256'"),
    ("1.0.0.0,1.0.0.255,AU\n1.0.1.0,1.0.1.255\n", "line 2: expected 3 columns as in the first line, found 2"),
    ("1.0.0.9,1.0.0.1,AU\n", "line 1: expected the first and the last address of a range, found '1.0.0.9' and"),
    ("1.0.0.0,2001:db8::,AU\n", "line 1: expected the first and the last address of a range, found '1.0.0.0' and"),
    ("1.0.0.1/24,AU\n", "line 1: expected the first address of a network, found '1.0.0.1/24'"),
    ("1.0.0.0/33,AU\n", "line 1: expected a network as in 198.51.100.0/24, found '1.0.0.0/33'"),
    ("network,country\n1.0.0.0/24,Australia\n", "line 2: expected a country of two letters, found 'Australia'"),
    ("network,asn\n1.0.0.0/24,x\n", "line 2: expected the number of an autonomous system as in 64496 or AS64496"),
    ("1.0.0.0,1.0.0.255,OC,AU\n", "line 1: expected a country, or the number of a provider, after the network"),
    ("network,geoname_id\n", "line 1: expected a column country, asn or provider in the header, found 'network,g"),
    ("<html>\n", "line 1: expected a network, an address, or a header as in start,end,country, found '<html>'"),
    ('1.0.0.0,1.0.0.255,"AU\n', 'line 1: expected CSV, in which "" is a quote inside of quotes, found: unexpected end'),
    ('1.0.0.0/24,64496,"LLC" Foo\n', 'line 1: expected CSV, in which "" is a quote inside of quotes, found: '),
    ("1.0.0.0/24,US,,Ohio\n1.0.1.0/24,US,Utah,\n", "line 2: expected the number of an autonomous system as in 64496"),
    (b"1.0.0.0/24,AU\n1.0.1.0/24,\xff\xff\n", "line 2: expected UTF-8, found 0xff"),
    ("", "expected networks with a country or a provider, found none"),
    (f"1.0.0.0/24,1,{'x' * 200_000}\n", "line 1: expected fields of at most 131072 characters, found a longer one"),
    (
        gzip.compress(b"1.0.0.0/24,AU\n", mtime=0)[
            :-4
        ],  # without the time, so that all pytest workers collect the same tests
        "expected a file with a network on each line, found: Compressed file ended",
    ),
]


@pytest.mark.parametrize(("text", "rows"), SHAPES)
@pytest.mark.parametrize("packed", [False, True])
def test_a_file_of_each_shape_is_read_or_refused(
    tmp_path: Path, text: str, rows: list[str] | None, packed: bool
) -> None:
    path = tmp_path / "networks.csv"
    path.write_bytes(gzip.compress(text.encode()) if packed else text.encode())
    found = files.read(path)
    if rows is None:
        assert found.versions == {6}
    else:
        assert "".join(found.rows()).splitlines() == rows
        assert found.versions == {6 if ":" in row.split("\t")[0] else 4 for row in rows}


@pytest.mark.parametrize(("text", "complaint"), WRONG)
def test_a_wrong_line_is_an_error_with_its_place(tmp_path: Path, text: str | bytes, complaint: str) -> None:
    path = tmp_path / "networks.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(Unreadable) as refused:
        files.read(path)
    assert str(refused.value).startswith(str(path))
    assert complaint in str(refused.value)


def test_a_file_that_is_not_there_is_an_error_with_its_name(tmp_path: Path) -> None:
    with pytest.raises(Unreadable, match=r"none: expected a file .*, found: No such file or directory"):
        files.read(tmp_path / "none")


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_a_pipe_is_read_as_a_file_and_not_waited_for(tmp_path: Path, pack: Callable[[bytes], bytes]) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    with pytest.raises(Unreadable, match="found a pipe without a writer"):
        files.read(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    with path.open("wb") as writer:
        writer.write(pack(b"198.51.100.0/24,DE\n"))
        writer.flush()
        thread = threading.Timer(0, writer.close)
        thread.start()
        found = files.read(path)
        thread.join()
    os.close(reader)
    assert [*found.rows()] == ["198.51.100.0/24\tDE\t\\N\t\\N\n"]


@pytest.mark.parametrize("bits", [32, 128])
def test_a_range_becomes_the_fewest_networks(bits: int) -> None:
    chance = random.Random(7)
    kind = ip_address(0).__class__ if bits == 32 else ip_address("::").__class__
    for _ in range(40):
        first = chance.randrange(1 << bits) >> chance.randrange(bits) << chance.choice((0, 0, bits // 2))
        first %= 1 << bits
        last = min((1 << bits) - 1, first + chance.randrange(1 << chance.randrange(1, bits)))
        found = Range(*ranges.parse_range(str(kind(first)), str(kind(last))), Info("AU", None, None))
        assert list(map(ip_network, found.networks())) == list(summarize_address_range(kind(first), kind(last)))


def test_of_networks_that_overlap_the_smallest_counts_then_the_later_one() -> None:
    chance = random.Random(7)
    for _ in range(50):
        found = []
        for number in range(chance.randrange(1, 12)):
            first = chance.randrange(20)
            found.append(Range(chance.choice((4, 4, 6)), first, chance.randrange(first, 25), Info(None, number, "x")))
        expected = {}
        for one in sorted(found, key=lambda one: (one.first - one.last, one.first, found.index(one))):  # smallest last
            expected |= {(one.version, address): one.info for address in range(one.first, one.last + 1)}
        pieces = ranges.disjoint(found)
        got = [((one.version, at), one.info) for one in pieces for at in range(one.first, one.last + 1)]
        assert len(got) == len(dict(got))
        assert dict(got) == expected


def test_two_files_about_the_same_are_refused(tmp_path: Path) -> None:
    paths = [tmp_path / name for name in ("a", "b", "c")]
    for path, text in zip(paths, ("1.0.0.0/24,AU\n", "2001:db8::/32,AU\n", "1.0.0.0/24,1,AU,x\n"), strict=True):
        path.write_text(text)
    assert len(files.read_all(paths[:2])) == 2
    with pytest.raises(Unreadable, match=r"c: expected one file of the countries of IPv4, found another, .*/a; load"):
        files.read_all(paths)
