"""While the database is away the log is emptied all the same, and the next good run brings every line in once."""

from __future__ import annotations

import gzip
import json
import os
import re
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from helpers import refusing
from helpers.refusing import Answer
from helpers.site import Site, line, lines, users

from xraylog.accesslog import drain
from xraylog.accesslog.logfile import MARK_BYTES
from xraylog.cli import Exit


def drained(path: Path) -> bool:
    """Nothing but what a drain leaves."""
    text = path.read_bytes()
    return all(part[:1] in (b"", b"#") for part in text.split(b"\n"))


def test_lines_are_buffered_and_come_in_with_the_next_good_run(site: Site) -> None:
    site.append(*lines(0, 10), "damaged\n")
    site.away()
    done = site.run()
    assert re.search(r"WARNING PostgreSQL is not available: .*Connection refused.*; new lines go to ", done.stderr)
    assert drained(site.log)
    assert site.buffered() == users(0, 10)
    assert site.last_stats()["mode"] == "offline"
    assert [site.last_stats()[field] for field in ("processed", "failed", "new_users")] == [10, 1, 10]
    site.append(*lines(10, 15))
    site.back()
    assert site.run().stderr == ""
    assert site.emails() == users(0, 15)
    assert site.rejected() == [("expected a timestamp first, found none", b"damaged")]
    assert site.buffer.read_bytes() == b""
    assert site.last_stats()["mode"] == "online"
    assert [site.last_stats()[field] for field in ("processed", "failed", "new_users")] == [5, 0, 15]


def test_a_pooler_that_is_full_is_an_outage_and_a_missing_database_is_none(site: Site) -> None:
    site.append(*lines(0, 2))
    with refusing.server(Answer("no more connections allowed (max_client_conn)", "08P01")) as port:
        site.set("postgresql", port=port)
        assert "no more connections allowed (max_client_conn) (SQLSTATE 08P01); new lines go to " in site.run().stderr
    assert site.buffered() == users(0, 2)
    site.append(*lines(2, 4))
    with refusing.server(Answer("Datenbank »xray« existiert nicht", "3D000")) as port:
        site.set("postgresql", port=port)
        assert "Datenbank »xray« existiert nicht (SQLSTATE 3D000)" in site.run(status=3).stderr
    site.back()
    site.run()
    assert site.emails() == users(0, 4)


def test_the_buffer_is_json_with_the_names_of_the_tables(site: Site) -> None:
    site.append(
        "2025/11/17 10:15:23.5 from 203.0.113.10:51000 accepted tcp:h.example:443 [in >> out] email: юзер\n", "bad\n"
    )
    site.away()
    site.run()
    header, record, bad, mark = map(json.loads, site.buffer.read_text().splitlines())
    assert list(header) == ["buffer", "node"]
    assert record == {
        "timestamp": "2025-11-17 10:15:23.5+00",
        "source_ip": "203.0.113.10",
        "source_port": 51000,
        "action": "accepted",
        "protocol": "tcp",
        "destination": "h.example",
        "destination_port": 443,
        "inbound_tag": "in",
        "outbound_tag": "out",
        "email": "юзер",
        "offset": 0,
    }
    assert bad == {"line": "YmFk", "reason": "expected a timestamp first, found none", "offset": 101}
    assert mark["mark"]["source"] == str(site.log)
    assert site.buffer.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("password", "wrong", "password authentication failed"),
        ("dbname", "nowhere", 'database "nowhere" does not exist'),
        ("sslmode", "nonsense", 'invalid sslmode value: "nonsense"'),
        ("sslmode", "require", "server does not support SSL"),
        ("keepalives", "x", 'invalid integer value "x" for connection option "keepalives"'),
        ("tcp_user_timeout", "1s", 'invalid integer value "1s" for connection option "tcp_user_timeout"'),
        ("hostaddr", "localhost", 'could not parse network address "localhost"'),
        ("gssencmode", "require", "GSSAPI"),
        ("replication", "database", "[postgresql] replication: expected none, found 'database'"),
    ],
)
def test_a_database_that_refuses_us_is_for_the_operator_and_no_line_waits(
    site: Site, key: str, value: str, said: str
) -> None:
    site.append(line(1))
    site.set("postgresql", **{key: value})
    done = site.run(status=3)
    assert said in done.stderr
    assert site.buffered() == users(1, 2)
    site.settings["postgresql"] = dict(site.database)
    site.write_config()
    site.run()
    assert site.emails() == users(1, 2)


def test_a_read_only_database_is_an_outage(site: Site) -> None:
    """A standby, or a server that was switched over."""
    site.append(line(1))
    name = site.database["dbname"]
    site.query(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
    said = site.run().stderr
    assert "the server is read-only: default_transaction_read_only is on (database)" in said
    assert f'ALTER DATABASE "{name}" RESET default_transaction_read_only' in said
    assert site.buffered() == users(1, 2)
    site.query(f"BEGIN READ WRITE; ALTER DATABASE {name} RESET ALL; COMMIT")
    site.run()
    assert site.emails() == users(1, 2)


def test_a_run_whose_database_fails_half_way_buffers_the_rest(site: Site) -> None:
    site.append(*lines(0, 10))
    site.run()
    site.query("ALTER TABLE logs ADD CONSTRAINT small CHECK (source_port < 1024 + 310) NOT VALID")
    site.set("parser", batch_size="100")
    site.append(*lines(10, 910))
    done = site.run(status=3)
    assert "small" in done.stderr
    assert site.last_stats()["processed"] == 900
    assert site.emails() == users(0, 310)
    assert site.buffered() == users(10, 910)  # nobody has confirmed those that are stored, and the log is drained
    site.query("ALTER TABLE logs DROP CONSTRAINT small")
    site.run()
    assert site.emails() == users(0, 910)


# --- older positions, and other hands on the log


def test_an_offline_run_over_an_older_position_stores_nothing_twice(site: Site) -> None:
    """Stored, killed before draining, then the database went away, then more lines came."""
    site.append(*lines(0, 10))
    site.run("--keep")
    site.append(*lines(10, 20))
    site.away()
    site.run()
    assert site.buffered() == users(0, 20)
    site.back()
    site.run()
    assert site.emails() == users(0, 20)


def test_an_offline_run_that_was_killed_before_draining_buffers_nothing_twice(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(*_: object) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    site.append(*lines(0, 10))
    site.away()
    with monkeypatch.context() as patch:
        patch.setattr(drain, "drain", die)
        assert site.run_here() == -9
    site.append(*lines(10, 20))
    site.run()
    assert site.buffered() == users(0, 20)
    site.back()
    site.run()
    assert site.emails() == users(0, 20)


def test_a_kept_log_is_buffered_once_and_stored_once(site: Site) -> None:
    site.away()
    for start in range(0, 40, 10):
        site.append(*lines(start, start + 10))
        site.run("--keep")
        site.run("--keep")
    assert site.buffered() == users(0, 40)
    site.back()
    site.run("--keep")
    site.append(*lines(40, 45))
    site.run()
    assert site.emails() == users(0, 45)


def test_a_buffered_log_ends_as_its_mark(site: Site) -> None:
    """Not empty: as long as the database knows its old head, a new log that begins alike must not look like it."""
    site.append(*lines(0, 200))
    site.away()
    site.run()
    assert site.log.stat().st_size == MARK_BYTES
    site.back()
    site.append(line(200))
    site.run()
    assert site.log.stat().st_size == 0


def test_a_log_renamed_while_the_database_is_away_is_buffered_once(site: Site) -> None:
    site.away()
    site.append(*lines(0, 10))
    site.run("--keep")
    site.append(*lines(10, 20))
    old = site.folder / "access.log.1"
    site.log.rename(old)
    site.append(*lines(20, 25))
    site.run()
    site.run("--logfile", str(old))
    assert site.buffered() == users(0, 25)
    site.back()
    site.run()
    assert site.emails() == users(0, 25)


def test_two_logs_share_one_buffer(site: Site) -> None:
    other = site.folder / "other.log"
    site.away()
    for start in (0, 10):
        site.append(*lines(start, start + 10))
        site.append(*lines(start + 100, start + 110), to=other)
        site.run("--keep")
        site.run("--keep", "--logfile", str(other))
    site.back()
    site.run()
    site.run("--logfile", str(other))
    assert site.emails() == users(0, 20) + users(100, 120)


@pytest.mark.parametrize("own", ["buffer.jsonl", "config.ini", "stats.jsonl"])
def test_our_own_files_are_no_logs(site: Site, own: str) -> None:
    site.append(*lines(0, 5))
    site.away()
    site.run()
    before = (site.folder / own).read_bytes()
    assert "--logfile: expected xray's log, found" in site.run("--logfile", own, status=78, cwd=site.folder).stderr
    assert (site.folder / own).read_bytes() == before


@pytest.mark.parametrize("of_other", ["buffer.jsonl", "buffer.jsonl.state"])
def test_the_buffer_of_another_installation_is_no_log(site: Site, of_other: str) -> None:
    """It was emptied, and its rows became unparsed lines."""
    other = site.clone()
    other.append(*lines(0, 5))
    other.away()
    other.run()
    before = (other.folder / of_other).read_bytes()
    said = site.run("--logfile", str(other.folder / of_other), status=78).stderr
    assert "--logfile: expected xray's log, found the offline buffer of another installation" in said
    assert (other.folder / of_other).read_bytes() == before
    assert other.buffered() == users(0, 5)


@pytest.mark.parametrize("how", ["copy", "hard link", "gzip", "pipe"])
def test_a_buffer_under_another_name_is_no_log(site: Site, how: str) -> None:
    other = site.clone()
    other.append(*lines(0, 5))
    other.away()
    other.run()
    named, before = site.folder / "other.log", other.buffer.read_bytes()
    if how == "hard link":
        named.hardlink_to(other.buffer)
    else:
        named.write_bytes(gzip.compress(before) if how == "gzip" else before)
    for arguments in ([], ["--dry-run"]):
        with named.open() as file:
            given = "-" if how == "pipe" else str(named)
            done = site.run("--logfile", given, *arguments, status=Exit.OPERATOR, stdin=file)
        assert "expected xray's log, found an offline buffer" in done.stderr
    assert site.rejected() == []
    assert other.buffered() == users(0, 5)


@pytest.mark.parametrize(
    "own",
    ["buffer.jsonl", "config.ini", "stats.jsonl", "buffer.jsonl.state", "buffer.jsonl.lock", "access.log.lock", "pass"],
)
@pytest.mark.parametrize("through", [os.link, os.symlink])
def test_another_name_does_not_make_a_log_of_our_own_files(
    site: Site, own: str, through: Callable[[Path, Path], None]
) -> None:
    """A hard link of config.ini, given as a log, was emptied, and its password stored as an unparsed line."""
    (site.folder / "pass").write_text("*:*:*:*:secret\n")
    (site.folder / "pass").chmod(0o600)
    site.set("postgresql", passfile=str(site.folder / "pass"))
    site.append(*lines(0, 5))
    site.away()
    site.run()
    before, other = (site.folder / own).read_bytes(), site.folder / "other.log"
    through(site.folder / own, other)
    assert "expected xray's log, found" in site.run("--logfile", str(other), status=78).stderr
    assert (site.folder / own).read_bytes() == before
    site.run("--logfile", str(site.folder / "oth*.log"))  # a pattern leaves it out
    site.set("parser", logfile="other.log")
    assert "expected" in site.run(status=78).stderr
    site.set("parser", logfile="access.log")
    site.back()
    site.run()
    assert site.emails() == users(0, 5)
    assert site.rejected() == []
