"""While the database is away the log is emptied all the same, and the next good run brings every line in once."""

from __future__ import annotations

import json
import os
import re
import signal
from collections import Counter
from pathlib import Path

import pytest
from helpers.site import Site, line, lines, users

from xraylog.accesslog import logfile, offline_buffer
from xraylog.accesslog.logfile import MARK_BYTES
from xraylog.ingest import buffer_import


def drained(path: Path) -> bool:
    """Nothing but what a drain leaves."""
    text = path.read_bytes()
    return all(part[:1] in (b"", b"#") for part in text.split(b"\n"))


def test_lines_are_put_aside_and_come_in_with_the_next_good_run(site: Site) -> None:
    site.append(*lines(0, 10), "damaged\n")
    site.away()
    done = site.run()
    assert re.search(r"WARNING PostgreSQL is not available: .*Connection refused.*; new lines go to ", done.stderr)
    assert drained(site.log)
    assert site.put_aside() == users(0, 10)
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


def test_the_buffer_keeps_the_order_over_many_runs(site: Site) -> None:
    site.away()
    with site.log.open("ab"):
        for start in range(0, 50, 10):
            site.append(*lines(start, start + 10))
            site.run()
    site.back()
    site.log.unlink()  # also when the log is missing
    site.run()
    assert [row[9] for row in site.rows()] == [f"u{n}" for n in range(50)]


def test_an_import_goes_on_where_it_was_stopped(site: Site) -> None:
    site.append(*lines(0, 300))
    site.set("parser", batch_size="50")
    site.away()
    site.run()
    site.back()
    site.append(line(300))
    step, imported = 0, 0
    while site.run_here(kill_at=(step := step + 7)) != 0:
        now = sum(site.emails().values())
        assert now % 50 == 0 or now == 301
        assert now >= imported
        imported = now
    assert site.emails() == users(0, 301)


def test_an_import_says_how_far_it_is(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    site.append(*lines(0, 100))
    site.set("parser", batch_size="20")
    site.away()
    site.run()
    size = site.buffer.stat().st_size
    site.back()
    assert buffer_import.PROGRESS_S == 10  # seconds
    monkeypatch.setattr(buffer_import, "PROGRESS_S", 0)
    assert site.run_here() == 0
    told = re.findall(rf"{site.buffer}: (\d+) of {size} bytes imported", site.output())
    assert [int(number) for number in told] == sorted(int(number) for number in told)
    assert len(told) == 5
    assert f"{site.buffer} imported: 100 rows + 0 rejected + 0 stored before" in site.output()


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
    assert site.put_aside() == users(1, 2)
    site.settings["postgresql"] = dict(site.database)
    site.write_config()
    site.run()
    assert site.emails() == users(1, 2)


def test_a_read_only_database_is_an_outage(site: Site) -> None:
    """A standby, or a server that was switched over."""
    site.append(line(1))
    name = site.database["dbname"]
    site.query(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
    assert "25006" in site.run().stderr
    assert site.put_aside() == users(1, 2)
    site.query(f"BEGIN READ WRITE; ALTER DATABASE {name} RESET ALL; COMMIT")
    site.run()
    assert site.emails() == users(1, 2)


def test_a_run_whose_database_fails_half_way_puts_the_rest_aside(site: Site) -> None:
    site.append(*lines(0, 10))
    site.run()
    site.query("ALTER TABLE logs ADD CONSTRAINT small CHECK (source_port < 1024 + 310) NOT VALID")
    site.set("parser", batch_size="100")
    site.append(*lines(10, 910))
    done = site.run(status=3)
    assert "small" in done.stderr
    assert site.last_stats()["processed"] == 900
    assert site.emails() == users(0, 310)
    assert site.put_aside() == users(310, 910)
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
    assert site.put_aside() == users(0, 20)
    site.back()
    site.run()
    assert site.emails() == users(0, 20)


def test_an_offline_run_that_was_killed_before_draining_puts_nothing_aside_twice(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(*_: object) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    site.append(*lines(0, 10))
    site.away()
    with monkeypatch.context() as patch:
        patch.setattr(logfile.LogFile, "drain", die)
        assert site.run_here() == -9
    site.append(*lines(10, 20))
    site.run()
    assert site.put_aside() == users(0, 20)
    site.back()
    site.run()
    assert site.emails() == users(0, 20)


def test_a_kept_log_is_put_aside_once_and_stored_once(site: Site) -> None:
    site.away()
    for start in range(0, 40, 10):
        site.append(*lines(start, start + 10))
        site.run("--keep")
        site.run("--keep")
    assert site.put_aside() == users(0, 40)
    site.back()
    site.run("--keep")
    site.append(*lines(40, 45))
    site.run()
    assert site.emails() == users(0, 45)


@pytest.mark.parametrize("first", ["online", "offline"])
def test_again_offline_loads_again_once(site: Site, first: str) -> None:
    site.append(*lines(0, 10))
    if first == "offline":
        site.away()
    site.run("--keep")
    site.away()
    site.run("--keep", "--again")
    site.run("--keep")
    site.back()
    site.run()
    assert site.emails() == users(0, 10) + users(0, 10)


def test_ten_equal_lines_in_every_generation_are_ten_rows_each(site: Site) -> None:
    """Online, kept, offline, offline, online: the heads of the log look alike every time."""
    same = [line(1)] * 10
    site.append(*same)
    site.run("--keep")
    site.away()
    for _ in range(3):
        site.run()
        site.append(*same)
    site.back()
    site.run()
    site.append(*same)
    site.run()
    assert site.emails() == Counter({"u1": 50})


def test_a_log_put_aside_ends_as_its_mark(site: Site) -> None:
    """Not empty: as long as the database knows its old head, a new log that begins alike must not look like it."""
    site.append(*lines(0, 200))
    site.away()
    site.run()
    assert site.log.stat().st_size == MARK_BYTES
    site.back()
    site.append(line(200))
    site.run()
    assert site.log.stat().st_size == 0


def test_a_log_renamed_while_the_database_is_away_is_put_aside_once(site: Site) -> None:
    site.away()
    site.append(*lines(0, 10))
    site.run("--keep")
    site.append(*lines(10, 20))
    old = site.folder / "access.log.1"
    site.log.rename(old)
    site.append(*lines(20, 25))
    site.run()
    site.run("--logfile", str(old))
    assert site.put_aside() == users(0, 25)
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


def test_a_node_that_was_renamed_meanwhile_keeps_its_lines_apart(site: Site) -> None:
    site.away()
    site.append(*lines(0, 5))
    site.run("--keep")
    site.set("parser", node="new name")
    site.back()
    site.run("--keep")
    assert {row[-1] for row in site.rows()} == {"n1", "new name"}  # another node's position is not ours


# --- torn tails


def test_a_buffer_cut_anywhere_in_its_last_batch_loses_only_what_is_still_in_the_log(site: Site) -> None:
    site.away()
    site.append(*lines(0, 3))
    site.run("--keep")
    first = site.buffer.read_bytes()
    site.append(*lines(3, 5))
    site.run("--keep")
    whole = site.buffer.read_bytes()
    for cut in range(len(first), len(whole) + 1, 1):
        site.buffer.write_bytes(whole[:cut])
        with offline_buffer.opened(site.buffer) as aside:
            assert not aside.is_empty
            found = [stored.batch.end for stored in aside.batches(0)]
        assert found == [sum(map(len, lines(0, n))) for n in ((3, 5) if cut == len(whole) else (3,))]
        assert site.buffer.read_bytes() == (whole if cut == len(whole) else first)
    site.buffer.write_bytes(whole[: len(whole) - 7])
    site.run("--keep")
    assert site.put_aside() == users(0, 5)
    site.back()
    site.run()
    assert site.emails() == users(0, 5)


def test_a_buffer_cut_anywhere_in_its_first_batch_is_empty(site: Site) -> None:
    site.away()
    site.append(line(0))
    site.run("--keep")
    whole = site.buffer.read_bytes()
    for cut in range(len(whole)):
        site.buffer.write_bytes(whole[:cut])
        with offline_buffer.opened(site.buffer) as aside:
            assert aside.is_empty
    site.run()
    assert site.put_aside() == users(0, 1)


@pytest.mark.parametrize("place", ["record", "mark"])
def test_a_last_batch_with_lost_blocks_is_cut_off(site: Site, place: str) -> None:
    """After a crash of the machine any block of an unsynced batch may be zeros, with its mark in place."""
    site.away()
    site.append(*lines(0, 3))
    site.run("--keep")
    first = site.buffer.read_bytes()
    site.append(*lines(3, 60))
    site.run("--keep")
    whole = bytearray(site.buffer.read_bytes())
    hole = len(first) + 700 if place == "record" else whole.rindex(b'"heads"')
    whole[hole : hole + 512] = bytes(len(whole[hole : hole + 512]))
    whole[-1:] = b"\n"
    site.buffer.write_bytes(bytes(whole))
    with offline_buffer.opened(site.buffer) as aside:
        assert not aside.is_empty
        assert aside.torn == Path(f"{site.buffer}.torn")
    assert site.buffer.read_bytes() == first


def test_a_damaged_batch_that_looks_torn_is_kept_beside_the_buffer(site: Site) -> None:
    """Drained and damaged later: its lines are nowhere else."""
    site.append(*lines(0, 100))
    site.away()
    site.run()
    damaged = site.buffer.read_bytes().replace(b'"u15"', b'"u1X"')
    site.buffer.write_bytes(damaged)
    site.back()
    done = site.run()
    torn = Path(f"{site.buffer}.torn")
    assert f"{site.buffer} ended in a torn batch; it is now in {torn}" in done.stderr
    assert torn.read_bytes() == damaged
    assert torn.stat().st_mode & 0o777 == 0o600


def test_more_than_one_damaged_batch_is_no_torn_end(site: Site) -> None:
    site.away()
    for start in range(0, 30, 10):
        site.append(*lines(start, start + 10))
        site.run()
    damaged = site.buffer.read_bytes().replace(b'"tcp"', b'"TCP"')
    site.buffer.write_bytes(damaged)
    site.append(line(40))
    assert "a checksum that does not fit" in site.run(status=3).stderr
    assert site.buffer.read_bytes() == damaged
    assert site.log.read_bytes().endswith(line(40).encode())


def test_a_damaged_mark_in_the_middle_does_not_stop_new_lines(site: Site) -> None:
    site.away()
    for start in range(0, 30, 10):
        site.append(*lines(start, start + 10))
        site.run("--keep")
    whole = site.buffer.read_bytes()
    marks = [match.start() for match in re.finditer(rb'{"mark"', whole)]
    site.buffer.write_bytes(whole[: marks[1] + 20] + bytes(20) + whole[marks[1] + 40 :])
    site.append(*lines(30, 35))
    site.run("--keep")
    put_aside = re.findall(r'"email": "(\w+)"', site.buffer.read_text())
    assert Counter(put_aside) == users(0, 35)
    site.back()
    assert "expected a batch of ours" in site.run(status=3).stderr
    assert site.emails() == users(0, 10)
    broken = site.buffer.read_bytes()
    site.buffer.write_bytes(whole[: marks[1] + 40] + broken[marks[1] + 40 :])
    site.run()
    assert site.emails() == users(0, 35)


def test_a_first_batch_of_zeros_is_no_buffer_of_somebody_else(site: Site) -> None:
    site.append(*lines(0, 10))
    site.away()
    site.run("--keep")
    site.buffer.write_bytes(bytes(site.buffer.stat().st_size))
    site.run("--keep")
    assert site.put_aside() == users(0, 10)


@pytest.mark.parametrize("step", [60, 75, 90])
def test_a_buffer_half_imported_under_another_name_of_the_node(site: Site, step: int) -> None:
    site.set("parser", batch_size="10")
    site.away()
    for start in range(0, 90, 30):
        site.append(*lines(start, start + 30))
        site.run_here()
    site.back()
    site.run_here(kill_at=step)
    site.set("parser", node="renamed")
    site.run()
    assert site.emails() == users(0, 90)


def test_a_copy_with_more_lines_does_not_take_the_position_of_its_original_offline(site: Site) -> None:
    site.append(*lines(0, 100))
    site.run("--keep")
    copy = site.folder / "copy.log"
    copy.write_bytes(site.log.read_bytes())
    site.append(line(100), to=copy)
    site.away()
    site.run("--logfile", str(copy))
    site.append("half a line", to=copy)
    site.back()
    site.run("--logfile", str(copy))
    site.run("--keep")
    assert site.emails() == users(0, 101)


def test_an_imported_buffer_that_is_put_back_is_not_imported_again(site: Site) -> None:
    site.append(*lines(0, 100))
    site.away()
    site.run()
    copy = site.buffer.read_bytes()
    site.back()
    site.run()
    site.append(line(100))
    site.run()
    site.buffer.write_bytes(copy)
    site.run()
    assert site.emails() == users(0, 101)
    assert site.buffer.read_bytes() == b""


@pytest.mark.parametrize("own", ["buffer.jsonl", "config.ini", "stats.jsonl"])
def test_our_own_files_are_no_logs(site: Site, own: str) -> None:
    site.append(*lines(0, 5))
    site.away()
    site.run()
    before = (site.folder / own).read_bytes()
    assert "--logfile: expected xray's log, found" in site.run("--logfile", own, status=78, cwd=site.folder).stderr
    assert (site.folder / own).read_bytes() == before


def test_marks_are_found_across_the_edges_of_windows(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    site.away()
    site.append(*lines(0, 5))
    site.run("--keep")
    size = site.buffer.stat().st_size
    for window in range(12, size + 20):
        monkeypatch.setattr(offline_buffer, "WINDOW_BYTES", window)
        with offline_buffer.opened(site.buffer) as aside:
            assert not aside.is_empty
    assert site.buffer.stat().st_size == size


def test_a_file_that_is_no_buffer_is_left_alone(site: Site) -> None:
    site.buffer.write_text('{"precious": 1}\n')
    site.append(line(1))
    assert "expected our buffer" in site.run(status=3).stderr
    assert site.buffer.read_text() == '{"precious": 1}\n'
    assert site.log.read_bytes() == line(1).encode()


def test_a_buffer_damaged_in_its_middle_is_said_and_new_lines_are_safe(site: Site) -> None:
    site.away()
    for start in (0, 5):
        site.append(*lines(start, start + 5))
        site.run()
    whole = site.buffer.read_bytes()
    site.buffer.write_bytes(whole.replace(b'"u2"', b'"uX"'))
    site.back()
    site.append(*lines(10, 12))
    assert "a checksum that does not fit" in site.run(status=3).stderr
    assert site.emails() == Counter()
    site.buffer.write_bytes(site.buffer.read_bytes().replace(b'"uX"', b'"u2"'))
    site.run()
    assert site.emails() == users(0, 12)
