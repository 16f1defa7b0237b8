"""With a mask no address of a client is written in full anywhere, and one user can be forgotten."""

from __future__ import annotations

import base64
import ipaddress
import itertools
import re
from collections.abc import Callable, Iterator
from datetime import datetime, timezone
from pathlib import Path
from zoneinfo import ZoneInfo

import psycopg
import pytest
from helpers.site import ROOT, SAMPLES, Site, line
from hypothesis import example, given, settings
from hypothesis import strategies as st
from psycopg.sql import SQL, Identifier

from xraylog import config
from xraylog.accesslog.grammar import Grammar
from xraylog.accesslog.masking import Mask
from xraylog.accesslog.parser import Parser
from xraylog.cli import Exit
from xraylog.records import AccessRecord, BadLine

NOW = datetime(2026, 11, 23, 12, tzinfo=timezone.utc)
MASK = Mask(24, 48)
MASKED = "24/48"
AT = "2025/11/17 10:15:23.123456 "

# Every way to write a source, and every way to lose it among other bytes. 4 and 6: an address met nowhere else.
ROWS = """
from 4:51000 accepted tcp:www.example.com:443 [in >> out] email: alice
4:51000 accepted udp:1.1.1.1:53 [in -> out] email: alice
from tcp:4:5 accepted tcp:x.example:443
from udp:[6%eth0]:9 accepted udp:[2001:db8:ffff::1]:53 [out]
from [6]:51000 accepted http://www.example.com/?q [in ==> out] email: bob
from 4:0 rejected  proxy/vless/encoding: invalid request version
from [6]:0 rejected  common/drain: common/drain: drained connection
from tcp : 4 : 5 accepted tcp : x.example : 443 [in->out] email : carol
api from 4:5 api -> api
from [::ffff:4]:5 accepted tcp:x.example:443 [in >> out] email: alice
"""
REFUSED = """
from 4:5 accepted tcp:x.example:4444 [in >> out] email: alice
from [6]:5 accepted tcp:x.example:4444 [in >> out] email: alice
from 4:5 accepted tcp:x.example:443 [in >> out] email: unwanted
"""
BAD = """
from 4 accepted tcp:x:443
from 4:99999 accepted tcp:x:443
from 6:1 accepted tcp:x:443
from 6 accepted tcp:x:443
from [6 accepted tcp:x:443
from [6] accepted tcp:x:443
from 4:5 acc
from 4
from x4:4y:5 accepted tcp:x:443
from 4.1:5 accepted tcp:x:443
from 4:5 accepted tcp:x:443 [in
from 4:5 accepted tcp:4
from [6]:5 accepted tcp:[6]:x
from [::ffff:4 accepted tcp:x:443
from 4:5 accepted tcp:x:443 [in >> out] email: a2025/11/17 10:15:24 from 4:5 accepted tcp:x:443
"""
WITHOUT_TIME = [
    "no line, but 4 is in it\n",
    "00000000000000000000000000000000000000000000000000000000000000000000 4 " + AT + "from 4:5 accepted tcp:x:443\n",
    "Nov 17 10:15:23 host-4 xray[6]: " + AT + "from 4:5 accepted tcp:x:443\n",
    "\0\0\0" + AT + "from 4 accepted tcp:x:443\n",
]
SOURCE = re.compile(rb"^(\d{4}/\d\d/\d\d [\d:.]+ (?:api )?(?:from )?(?:tcp:|udp:)?)(?:[\d.]+|\[[0-9a-f:]+\])(?=:\d)")


class Clients:
    """Addresses that nobody else has: whoever finds one has found a client."""

    def __init__(self) -> None:
        self.met: list[bytes] = []
        self._numbers = itertools.count()

    def v4(self) -> bytes:
        number = next(self._numbers)
        return self._new(f"198.{18 + number // 40_000}.{100 + number // 200}.{11 + number % 200}")

    def v6(self) -> bytes:
        return self._new(f"2001:db8:77:{next(self._numbers) + 0x1000:x}:a:b:c:d")

    def _new(self, address: str) -> bytes:
        self.met.append(address.encode())
        return self.met[-1]

    def line(self, text: str) -> bytes:
        """A line with an address for each 4 and each 6 that stands where one may stand."""
        with_v4 = re.sub(rb"(?<![\d.])4(?!\d)", lambda _: self.v4(), text.encode())
        return re.sub(rb"(?<![\d.:a])6(?![\d.])", lambda _: self.v6(), with_v4)

    def lines(self) -> list[bytes]:
        """All of the above, and the lines of real logs with another source in each."""
        ours = [AT + text + "\n" for text in (ROWS + REFUSED + BAD).strip().splitlines() if text]
        texts = [path.read_bytes() for path in (*SAMPLES.glob("*.log"), ROOT / "examples" / "access.log")]
        real = [text + b"\n" for whole in texts for text in whole.split(b"\n")[:-1]]
        return [*map(self.line, ours + WITHOUT_TIME), *(SOURCE.sub(self._with_source, text) for text in real)]

    def _with_source(self, found: re.Match[bytes]) -> bytes:
        is_v6 = found[0].endswith(b"]")
        return found[1] + (b"[" + self.v6() + b"]" if is_v6 else self.v4())

    def are_in(self, written: dict[str, bytes]) -> set[str]:
        """Where one of them was found."""
        return {place for place, text in written.items() if any(address in text for address in self.met)}


def written_by(site: Site) -> dict[str, bytes]:
    """Everything that runs have written, but xray's own log: files with what is base64 in them, and tables."""
    files = [path for path in site.folder.rglob("*") if path.is_file() and path not in (site.log, site.config)]
    found = {path.name: path.read_bytes() for path in files}
    for name, text in found.items():
        inside = re.findall(rb'"line": "([^"]*)"', text)
        found[name] = text + b"\n".join(map(base64.b64decode, inside))
    tables = site.query("SELECT relname FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace")
    with psycopg.connect(**site.database) as conn:  # type: ignore[arg-type]
        for (table,) in tables:
            rows = conn.execute(SQL("SELECT t::text FROM {} t").format(Identifier(table))).fetchall()
            found[table] = "\n".join(row for (row,) in rows).encode()
        kept = conn.execute("SELECT line FROM rejected_lines").fetchall()
    found["rejected_lines"] += b"\n".join(line for (line,) in kept)
    return found


def run(site: Site, status: int = Exit.DONE) -> None:
    """A run that says all it can; its words are kept in a file."""
    assert site.run_here() == status, site.output()


@pytest.fixture
def installed(site: Site) -> Site:
    """With tables that refuse some lines, and everything that can be written switched on."""
    site.set("parser", timezone="Asia/Tehran")
    site.set("logging", file="own.log")
    site.append(line(0))
    site.run()
    site.query("ALTER TABLE logs ADD CHECK (destination_port <> 4444)")
    site.query("ALTER TABLE users ADD CHECK (email <> 'unwanted')")
    return site


def everything_that_runs_do(site: Site, clients: Clients) -> dict[str, bytes]:
    """Online, offline, with a batch that was torn, and an import; all that was written on the way."""
    site.append(*clients.lines())
    run(site)
    site.away()
    site.append(*clients.lines())
    run(site)
    whole = site.buffer.read_bytes()
    site.append(*clients.lines())
    run(site)
    site.buffer.write_bytes(whole + site.buffer.read_bytes()[len(whole) :].replace(b"accepted", b"acceptes", 1))
    run(site, status=Exit.OPERATOR)  # its lines had left the log
    before = {f"{name} before": text for name, text in written_by(site).items()}
    site.back()
    run(site)
    return before | written_by(site)


PLACES = {"output", "own.log", "buffer.jsonl before", "buffer.jsonl.torn", "rejected_lines"}


def test_without_a_mask_the_addresses_are_everywhere(installed: Site) -> None:
    """So whoever does not find them below has looked in the right places."""
    clients = Clients()
    places = clients.are_in(everything_that_runs_do(installed, clients))
    assert places > PLACES
    assert any(place.startswith("logs_2025") for place in places)


def test_with_a_mask_no_address_is_in_anything_that_runs_wrote(installed: Site) -> None:
    installed.set("privacy", mask_source=MASKED)
    clients = Clients()
    written = everything_that_runs_do(installed, clients)
    assert written.keys() > PLACES
    assert len(clients.met) > 1000
    assert clients.are_in(written) == set()
    assert b"expected xray's timestamp first, found before it: '0000" in written["own.log"]
    longest = "SELECT family(source_ip), max(masklen(source_ip)) FROM logs WHERE id > 1 GROUP BY 1 ORDER BY 1"
    assert installed.query(longest) == [(4, 24), (6, 48), (None, None)]


def test_a_mask_changes_nothing_but_addresses(installed: Site) -> None:
    """The same rows and the same unparsed lines, apart from what is masked."""
    clients = Clients()
    installed.append(*clients.lines())
    installed.run("--keep")
    count = "SELECT count(*), max(id) FROM logs"
    ((rows, last),), rejected = installed.query(count), len(installed.rejected())
    installed.set("privacy", mask_source=MASKED)
    installed.run("--again", "--keep")
    assert installed.query(f"{count} WHERE id <= {last}")[0][0] == rows
    assert installed.query(count)[0][0] == 2 * rows - 1
    assert len(installed.rejected()) == 2 * rejected
    some = 'SELECT "timestamp", source_port, action, protocol_id, destination_id, user_id, outbound_tag_id FROM logs'
    assert sorted(installed.query(f"{some} WHERE id > {last}"), key=repr) == sorted(
        installed.query(f"{some} WHERE id <= {last} AND id > (SELECT min(id) FROM logs)"), key=repr
    )


def test_a_buffer_from_before_the_mask_is_masked_when_it_is_imported(installed: Site) -> None:
    clients = Clients()
    installed.away()
    installed.append(*clients.lines())
    run(installed)
    assert "buffer.jsonl" in clients.are_in(written_by(installed))
    for said in ("own.log", "output"):
        (installed.folder / said).unlink()
    installed.set("privacy", mask_source=MASKED)
    installed.back()
    run(installed)
    assert installed.query("SELECT count(*) FROM logs WHERE family(source_ip) = 6")[0][0] > 0
    assert len(installed.rejected()) > 20
    assert clients.are_in(written_by(installed)) == set()


# --- what is left of an address ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mask", "source", "stored"),
    [
        (Mask(24, 48), "203.0.113.77", "203.0.113.0/24"),
        (Mask(24, 48), "[2001:db8:1:2::3]", "2001:db8:1::/48"),
        (Mask(24, 48), "[fe80::1%eth0]", "fe80::/48"),
        (Mask(24, 48), "203.0.*.*", "203.0.0.0/16"),  # xray's own mask, and shorter
        (Mask(8, 16), "203.0.*.*", "203.0.0.0/8"),
        (Mask(24, 48), "[2001:db8::/32]", "2001:db8::/32"),
        (Mask(24, 48), "[2001:db8:1:2::/64]", "2001:db8:1::/48"),
        (Mask(24, 48), "[Masked IPv4]", None),
        (Mask(13, 29), "203.15.113.77", "203.8.0.0/13"),
        (Mask(13, 29), "[2001:dbf::1]", "2001:db8::/29"),
        (Mask(0, 0), "203.0.113.77", "0.0.0.0/0"),
        (Mask(0, 0), "[2001:db8::1]", "::/0"),
        (Mask(32, 128), "203.0.113.77", "203.0.113.77"),
        (Mask(32, 48), "203.0.113.77", "203.0.113.77"),
        (Mask(24, 128), "[2001:db8::1]", "2001:db8::1"),
        (Mask(24, 48), "[::ffff:203.0.113.77]", "::/48"),
        (Mask(24, 48), "[2002:cb00:714d::1]", "2002:cb00:7100::/40"),  # 6to4: 203.0.113.77 follows 2002
        (Mask(24, 32), "[2002:cb00:714d::1]", "2002:cb00::/32"),
        (Mask(24, 48), "[2002::/16]", "2002::/16"),
        (Mask(32, 48), "[2002:cb00:714d::1]", "2002:cb00:714d::/48"),
    ],
)
def test_of_a_source_its_network_is_left(mask: Mask, source: str, stored: str | None) -> None:
    text = f"{AT}from {source}:5 accepted tcp:x:443 [in >> out] email: e\n".encode()
    by_grammar = Grammar(ZoneInfo("UTC"), NOW, mask).parse_line(text)
    (batch,) = Parser(ZoneInfo("UTC"), NOW, mask).batches([(0, text * 2)], 10)
    assert isinstance(by_grammar, AccessRecord)
    assert [by_grammar.source_ip, *batch.records.source_ips] == [stored] * 3


def test_an_ipv4_address_in_ipv6_is_masked_as_one() -> None:
    (left,) = [ipaddress.ip_network(Mask(24, 128).source("::ffff:203.0.113.77") or "")]
    assert left == ipaddress.ip_network("::ffff:203.0.113.0/120")


@pytest.mark.parametrize(
    ("kept", "left"),
    [
        ("2025/11/17 10:15:23.123456 from 203.0.113.77:5", "2025/11/17 10:15:23.123456 from 203.0.113.0:5"),
        ("tcp:203.0.113.77:5 tcp:[2001:db8:1:2::3]:443", "tcp:203.0.113.0:5 tcp:[2001:db8:1::]:443"),
        ("a203.0.113.77b 1.2.3.4.", "a203.0.113.0b 1.2.3.0."),
        ("from 203.0.11", "from [masked]"),  # torn
        ("113.77:51000 accepted", "[masked]:51000 accepted"),  # its beginning was cut off
        ("1203.0.113.77 from", "[masked] from"),
        ("[2001:db8:1:2:3:", "[[masked]"),
        (" db8:1:2::3]:443", " db8:1:2::]:443"),
        ("from [2002:cb00:714d::1]:5", "from [2002:cb00:7100::]:5"),
        ("9abc:4242]:51000 accepted", "[masked]]:51000 accepted"),
        ("b8:1234:5678:9abc::42]:51000 accepted", "[masked]]:51000 accepted"),
        (":42]:51000 accepted", "[masked]]:51000 accepted"),
        ("\0\0\09abc:4242]:51000 accepted", "\0\0\0[masked]]:51000 accepted"),  # after a hole
        ("203.0.113.77:51000 accepted", "203.0.113.0:51000 accepted"),
        ("[::ffff:203.0.113.77] [::ffff:cb00:714d]", "[[masked]] [[masked]]"),
        ("2025/11/17 10:15:23203.0.113.77", "2025/11/17 [masked]"),
        ('{"timestamp": "2025-11-17 10:15:23.1+00"}', '{"timestamp": "2025-11-17 10:15:23.1+00"}'),
        ("tcp:www.example.com:443 [in-443 >> out] email: bea.ch@face.de", None),
        ("accepted tcp:cafe:443 10:15", None),
    ],
)
def test_of_bytes_that_are_kept_every_address_is_masked(kept: str, left: str | None) -> None:
    assert MASK.line(kept.encode()).decode() == (kept if left is None else left)


def test_the_reason_is_masked_like_the_line() -> None:
    bad = Grammar(ZoneInfo("UTC"), NOW, MASK).parse_line(b"2025/11/17 10:15:23 from 203.0.113.77 accepted tcp:x:443")
    assert bad == BadLine(
        b"2025/11/17 10:15:23 from 203.0.113.0 accepted tcp:x:443",
        "expected a source address and port, found '203.0.113.0'",
    )


@pytest.mark.parametrize("text", ["9abc:4242]:51000 accepted tcp:x:443", "\0\09abc:4242]:51000 accepted tcp:x:443"])
def test_the_reason_that_quotes_the_beginning_of_a_cut_line_is_masked_like_it(text: str) -> None:
    bad = Grammar(ZoneInfo("UTC"), NOW, MASK).parse_line(f"{text} {AT}from 4:5 accepted tcp:x:443".encode())
    assert isinstance(bad, BadLine)
    assert b"9abc" not in bad.line
    assert "[masked]]:51000 accepted" in bad.reason
    assert "9abc" not in bad.reason


@pytest.mark.parametrize("address", ["2001:db8:1234:5678:9abc:def0:1111:4242", "2001:db8:1234:5678:9abc::4242"])
def test_a_line_that_was_cut_within_an_address_keeps_no_group_of_it(address: str) -> None:
    """As long as two groups are left: one alone may be any number."""
    for start in range(1, address.rindex(":")):
        left = MASK.line(f"{address[start:]}]:51000 accepted tcp:www.example.com:443".encode()).decode()
        assert left == "[masked]]:51000 accepted tcp:www.example.com:443"


QUAD = re.compile(rb"(?=((?:\d{1,3}\.){3}\d{1,3}))")
PIECES = (
    b"from |203.0.113.77|2001:db8:1:2::3|::1|::ffff:1.2.3.4|:|.|[|]|/24|/|%|a|g|1|23|2025/11/17 |10:15:23|\0|\xff|\\x"
)
pieces = st.lists(st.sampled_from(PIECES.split(b"|")) | st.binary(max_size=3), max_size=12).map(b"".join)


@settings(deadline=None, max_examples=1000)
@given(pieces, st.sampled_from([MASK, Mask(24, 128)]))
@example(b"2025/11/17 10:15:23.122203.0.113.77", MASK)
@example(b"from :0::", MASK)
@example(b"2025/11/17 10:15:23a0:0:1::2", MASK)
def test_no_bytes_keep_an_address(text: bytes, mask: Mask) -> None:
    left = mask.line(text)
    assert mask.line(left) == left
    for quad in QUAD.findall(left):
        assert quad.endswith(b".0"), (text, left)
    if mask.v6 == 48:
        for run_of_it in re.findall(rb"[0-9A-Fa-f:]+", left):
            for address in (run_of_it, run_of_it.removeprefix(b":")):
                assert bits(address) & ((1 << 80) - 1) == 0, (text, left)


def bits(address: bytes) -> int:
    try:
        return int(ipaddress.IPv6Address(address.decode()))
    except ValueError:
        return 0


@pytest.mark.timeout(300)  # what is linear takes seconds, on any machine
@pytest.mark.parametrize(
    "pattern", ["1", "1.", "a", "a:", ":", ".", "1.2.3.4 ", "2025/11/17 10:15:23", "::1/", "f.1", "\0"]
)
def test_a_long_line_is_masked_in_time_that_grows_with_its_length(pattern: str) -> None:
    """A client chooses these bytes. What is quadratic would take an hour here."""
    text = pattern.encode() * ((1 << 20) // len(pattern))
    MASK.line(text)


# --- the setting ---------------------------------------------------------------------------------------------


def with_mask(site: Site, value: str) -> config.Config:
    site.set("privacy", mask_source=value)
    return config.read(site.config)


@pytest.fixture
def folder(tmp_path: Path) -> Site:
    """A config file, and no database."""
    return Site(tmp_path, {"host": "127.0.0.1", "dbname": "xray", "user": "xray", "port": "1"})


@pytest.mark.parametrize(
    ("value", "kept"),
    [("none", (32, 128)), ("None", (32, 128)), ("24/48", (24, 48)), ("0/0", (0, 0)), ("32/128", (32, 128))],
)
def test_the_mask_is_none_or_two_prefix_lengths(folder: Site, value: str, kept: tuple[int, int]) -> None:
    assert with_mask(folder, value).mask_source == kept


@pytest.mark.parametrize("value", ["24", "/24/48", "33/48", "24/129", "24/48/64", "-1/48", "24 / 48", "half", "٢٤/48"])
def test_another_mask_is_a_complaint(folder: Site, value: str) -> None:
    with pytest.raises(config.ConfigError) as caught:
        with_mask(folder, value)
    expected = "expected none, or prefix lengths for IPv4 and IPv6, 0/0 to 32/128, like 24/48"
    assert caught.value.complaints == [f"{folder.config}: [privacy] mask_source: {expected}, found {value!r}"]


# --- docs/privacy.md: what is stored already -----------------------------------------------------------------------


def section(title: str) -> list[list[str]]:
    """The statements of each block of SQL under that heading of docs/privacy.md."""
    text = (ROOT / "docs" / "privacy.md").read_text().partition(f"\n## {title}\n")[2].partition("\n## ")[0]
    blocks = re.findall(r"^```sql\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return [[part for part in re.split(r";\n", block) if part.strip()] for block in blocks]


@pytest.fixture
def do(site: Site) -> Iterator[Callable[[list[str]], None]]:
    """Two days of Alice's and of others', unparsed lines of both; then SQL can be done to them."""
    by = "2025/11/{0} 10:15:23 from 203.0.113.{0}:5 accepted tcp:x.example:443 [in >> out] email: {1}@example.com\n"
    site.append(
        *(by.format(day, user) for day in (17, 18) for user in ("alice", "bob")),
        "2025/11/17 10:15:23 from 2001:db8:1:2::3 accepted tcp:x:443 email: alice@example.com\n",
        "2025/11/17 10:15:23 from nowhere:5 accepted tcp:x:443 email: bob@example.com\n",
        "2025/11/17 10:15:23 from [2001:db8:1:2::3]:5 accepted tcp:x:443 email: bob@example.com\n",
        "2025/11/17 10:15:23 from [2002:cb00:714d::1]:5 accepted tcp:x:443 email: bob@example.com\n",
    )
    site.run()
    with psycopg.connect(**site.database, autocommit=True) as conn:  # type: ignore[arg-type]

        def execute(statements: list[str]) -> None:
            for statement in statements:
                conn.execute(statement)  # type: ignore[call-overload]

        yield execute


def words(site: Site) -> bytes:
    """All rows of all tables, and what the planner knows of them."""
    statistics = "\n".join(map(str, site.query("SELECT t::text FROM pg_stats t WHERE schemaname = 'public'")))
    return b"\n".join(written_by(site)[table] for table in ("users", "rejected_lines")) + statistics.encode()


def test_the_page_deletes_a_user_with_all_rows_and_nobody_else(site: Site, do: Callable[[list[str]], None]) -> None:
    site.query("ANALYZE")
    delete, _, vacuum = section("Forgetting a user")
    others = [row for row in site.rows() if "alice@example.com" not in row]
    assert b"alice@example.com" in words(site)
    do(delete)
    do(vacuum)
    assert site.rows() == others
    assert len(others) == 4
    assert b"alice@example.com" not in words(site)
    assert len(site.rejected()) == 1


def test_the_page_takes_a_name_off_and_leaves_the_rows(site: Site, do: Callable[[list[str]], None]) -> None:
    site.query("ANALYZE")
    _, rename, vacuum = section("Forgetting a user")
    before = site.rows()
    do(rename)
    do(vacuum)
    ((name,),) = site.query("SELECT email FROM users WHERE email ~ '^forgotten-'")
    assert sorted(site.rows(), key=repr) == sorted(
        [(row[0], None, None, *row[3:9], name, row[10]) if row[9] == "alice@example.com" else row for row in before],
        key=repr,
    )
    assert b"alice@example.com" not in words(site)
    assert len(site.rejected()) == 1


def test_a_user_who_is_met_again_is_a_new_one(site: Site, do: Callable[[list[str]], None]) -> None:
    _, rename, _ = section("Forgetting a user")
    do(rename)
    site.append("2025/11/19 10:15:23 from 203.0.113.9:5 accepted tcp:x:443 email: alice@example.com\n")
    site.run()
    assert site.emails()["alice@example.com"] == 1


def test_the_page_masks_the_rows_of_a_day_as_a_run_would(site: Site, do: Callable[[list[str]], None]) -> None:
    ((update,),) = section("Masking what is stored")
    do([update])
    addresses = 'SELECT source_ip::text FROM logs WHERE "timestamp"{} ORDER BY 1'
    on, after = addresses.format("< '2025-11-18'"), addresses.format(">= '2025-11-18'")
    assert site.query(on) == [
        ("2001:db8:1::/48",),
        ("2002:cb00:7100::/40",),
        ("203.0.113.0/24",),
        ("203.0.113.0/24",),
    ]
    assert site.query(after) == [("203.0.113.18/32",)] * 2


def test_the_document_shows_what_is_left_of_an_unparsed_line() -> None:
    text = (ROOT / "docs" / "privacy.md").read_text()
    shown = [line for block in re.findall(r"```text\n(.*?)```", text, re.DOTALL) for line in block.splitlines()]
    assert shown[1:] == [
        MASK.line(b"2025/11/17 10:15:23 from 203.0.113.77 accepted tcp:192.0.2.80:443").decode(),
        MASK.line(b"2025/11/17 10:15:24 from 203.0.11").decode(),
        MASK.line(b"b8:1:2::3]:51000 accepted tcp:192.0.2.80:443").decode(),
    ]
    assert shown[0] == MASK.source("203.0.113.77")
