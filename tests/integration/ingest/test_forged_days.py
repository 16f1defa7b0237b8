"""Lines of days that a client has forged cost neither a partition nor another line, on every load path."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from datetime import date, datetime, timedelta, timezone

import pytest
from helpers.load_paths import LOAD_PATHS
from helpers.site import Site, line, lines, users

TODAY = datetime.now(timezone.utc).date()


def at(day: date) -> str:
    return f"{day:%Y/%m/%d} 00:00:01.000001"


def ago(days: int) -> str:
    return at(TODAY - timedelta(days=days))


def forged(first: int, end: int) -> list[str]:
    """Lines of the users n, each of another day long ago."""
    return [line(n, ago(3000 - n)) for n in range(first, end)]


def strays(site: Site) -> list[bytes]:
    """Lines in rejected_lines for being strays."""
    return [text for reason, text in site.rejected() if reason.startswith("expected a date near ")]


def partitions(site: Site) -> int:
    ((count,),) = site.query("SELECT count(*) FROM pg_inherits WHERE inhparent = 'logs'::regclass")
    return int(count)


def texts(some: Iterable[str]) -> list[bytes]:
    return [one.rstrip("\n").encode() for one in some]


@pytest.mark.parametrize("load_path", LOAD_PATHS)
def test_forged_days_are_rejected_and_make_no_partition(site: Site, load_path: str) -> None:
    site.load_path = load_path
    site.set("parser", batch_size=20)
    site.append(*lines(0, 15, ago(0)), *forged(15, 60), *lines(60, 70, ago(0)))
    told = site.run()
    assert site.emails() == users(0, 15) + users(60, 70)
    assert strays(site) == texts(forged(15, 60))
    assert partitions(site) == 1
    assert told.stderr.count("raise [parser] stray_days, then --replay-rejected") == 1


@pytest.mark.parametrize("load_path", LOAD_PATHS)
def test_into_the_buffer_they_are_rejected_alike(site: Site, load_path: str) -> None:
    site.load_path = load_path
    site.set("parser", batch_size=20)
    site.away()
    site.append(*lines(0, 15, ago(0)), *forged(15, 60), *lines(60, 70, ago(0)))
    site.run()
    assert site.buffered() == users(0, 15) + users(60, 70)
    site.back()
    site.run()
    assert site.emails() == users(0, 15) + users(60, 70)
    assert strays(site) == texts(forged(15, 60))
    assert partitions(site) == 1


@pytest.mark.parametrize("size", [1, 3, 7, 100])
def test_a_file_that_keeps_its_lines_gets_the_same_verdicts_however_it_is_cut(site: Site, size: int) -> None:
    """Into runs, batches, and lines that go to the buffer: a run knows the lines before its own."""
    site.set("parser", batch_size=size)
    text = [line(n, ago(0)) if n % 3 else forged(n, n + 1)[0] for n in range(1, 31)]
    for first in range(0, len(text), 5):
        site.append(*text[first : first + 5])
        if first % 10:
            site.away()
        site.run("--keep")
        site.back()
    site.run("--keep")
    assert site.emails() == Counter(f"u{n}" for n in range(1, 31) if n % 3)
    assert strays(site) == texts(forged(n, n + 1)[0] for n in range(3, 31, 3))


@pytest.mark.parametrize("step", range(1, 12, 2))
def test_a_run_that_is_killed_doubles_and_loses_none(site: Site, step: int) -> None:
    site.set("parser", batch_size=4)
    site.append(*lines(0, 5, ago(0)), *forged(5, 10), line(10, ago(0)))
    site.run_here(kill_at=step)
    site.append(*forged(11, 13), line(13, ago(0)))
    site.run()
    assert site.emails() == users(0, 5) + users(10, 11) + users(13, 14)
    assert sorted(strays(site)) == sorted(texts([*forged(5, 10), *forged(11, 13)]))


@pytest.mark.parametrize(
    "text",
    [
        pytest.param([line(n, ago(3000 - 60 * n)) for n in range(20)], id="a line every two months"),
        pytest.param([*lines(0, 3, ago(900)), *lines(3, 20, ago(300))], id="a pause of two years"),
        pytest.param([line(0, ago(900)), *lines(1, 20, ago(0))], id="a first line, and nothing for years"),
        pytest.param([*lines(0, 5, ago(0)), *lines(5, 15, ago(900)), *lines(15, 20, ago(0))], id="a wrong clock"),
    ],
)
def test_what_xray_writes_by_itself_is_loaded(site: Site, text: list[str]) -> None:
    site.set("parser", batch_size=100)
    site.append(*text)
    site.run()
    assert site.emails() == users(0, 20)
    assert site.rejected() == []


def test_a_raised_setting_lets_them_in_and_replay_moves_what_was_rejected(site: Site) -> None:
    site.append(line(0, ago(0)), *forged(1, 4), line(4, ago(0)))
    site.run()
    site.run("--replay-rejected")
    assert strays(site) == texts(forged(1, 4))
    site.set("parser", stray_days=2998)
    site.run("--replay-rejected")
    assert strays(site) == texts(forged(1, 2))
    site.set("parser", stray_days=36500)
    site.append(line(5, ago(0)), *forged(6, 7))
    site.run()
    site.run("--replay-rejected")
    assert site.rejected() == []
    assert site.emails() == users(0, 7)


def test_a_dry_run_counts_them(site: Site) -> None:
    site.append(line(0, ago(0)), *forged(1, 4), line(4, ago(0)))
    assert "3 expected a date near those of the lines around it" in site.run("--dry-run").stdout


def test_forged_lines_that_come_alone_are_compared_with_what_has_left_the_log(site: Site) -> None:
    """One after the other, into an empty log, online or not; what follows is not compared with them."""
    site.append(line(0, ago(0)))
    site.run()
    for n in range(1, 5):
        site.append(forged(n, n + 1)[0])
        if n % 2:
            site.away()
        assert "1 unparsed" in site.run("-v").stderr
        site.back()
    site.append(line(5, ago(-1)), line(6, ago(0)))
    site.run()
    assert strays(site) == texts(forged(1, 5))
    assert site.emails() == users(0, 1) + users(5, 7)
    assert partitions(site) == 2


def test_an_old_log_of_another_name_is_loaded_as_it_is(site: Site) -> None:
    site.append(line(0, ago(0)))
    site.run()
    old = site.folder / "access.log.1"
    site.append(*forged(1, 4), to=old)
    site.run("--logfile", str(old))
    assert site.emails() == users(0, 4)
