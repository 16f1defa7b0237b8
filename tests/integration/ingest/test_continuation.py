"""Stored text is known again: a journal that is piped in without its oldest lines, a log after an archive."""

from __future__ import annotations

import pytest
from helpers.load_paths import LOAD_PATHS
from helpers.site import Site, line, lines, users

SKIPPED = "are stored already, and are skipped"
UNKNOWN = "no part of it is known from what was piped in before"


def pipe(site: Site, *ranges: tuple[int, int], arguments: tuple[str, ...] = ()) -> str:
    """Pipe these lines in; return what the run said."""
    text = "".join("".join(lines(first, end)) for first, end in ranges)
    return site.run("--logfile", "-", *arguments, input=text).stderr


@pytest.mark.parametrize("load_path", LOAD_PATHS)
@pytest.mark.parametrize("away", ["never", "at last", "always"])
def test_a_journal_that_dropped_its_oldest_lines_goes_on(site: Site, load_path: str, away: str) -> None:
    site.load_path = load_path
    if away == "always":
        site.away()
    assert "known" not in pipe(site, (0, 300)) + pipe(site, (0, 350))
    if away == "at last":
        site.away()
    said = pipe(site, (100, 400))
    known = len("".join(lines(100, 350)))
    assert f"its bytes 0 to {known} {SKIPPED}" in said
    assert "--logfile - --again" in said or "--again --logfile -" in said
    assert SKIPPED not in pipe(site, (100, 420))
    site.back()
    assert pipe(site, (100, 420)) == ""
    assert SKIPPED in pipe(site, (200, 420))
    assert pipe(site, (200, 430)) == ""
    assert site.emails() == users(0, 430)
    assert not site.buffered()


def test_what_is_before_the_known_text_is_loaded_too(site: Site) -> None:
    """First the last hour, then all of it; a text in two pieces."""
    pipe(site, (100, 200))
    pipe(site, (250, 300))
    begin, end = (len("".join(lines(50, n))) for n in (100, 200))
    again, last = (len("".join(lines(50, n))) for n in (250, 300))
    assert f"its bytes {begin} to {end}, {again} to {last} {SKIPPED}" in pipe(site, (50, 400))
    assert pipe(site, (50, 400)) == ""
    assert site.emails() == users(50, 400)


def test_a_dry_run_and_again_know_it_too(site: Site) -> None:
    pipe(site, (0, 100))
    text = "".join(lines(50, 120))
    assert "20 lines = 20 rows" in site.run("--dry-run", "--logfile", "-", input=text).stdout
    assert pipe(site, (50, 120), arguments=("--again",)) == ""
    assert site.emails() == users(0, 120) + users(50, 100)


def test_a_text_of_which_nothing_is_known_is_loaded_and_said(site: Site) -> None:
    assert pipe(site, (0, 50)) == ""
    assert UNKNOWN in pipe(site, (100, 150))
    assert pipe(site, (100, 150)) == ""
    assert site.emails() == users(0, 50) + users(100, 150)


def test_of_a_text_that_repeats_itself_no_line_is_left_out(site: Site) -> None:
    """Its end is met first where the fewest lines are before it."""
    site.run("--logfile", "-", input=line(1) + line(2) * 60)
    said = site.run("--logfile", "-", input=line(2) * 200).stderr
    assert SKIPPED in said
    assert site.emails()["u2"] >= 200


def test_lines_of_any_length_are_found(site: Site) -> None:
    """Longer than what is compared, and than what is read at a time; and a text of one short line."""
    long = ["x" * size + f"{size}\n" for size in (3, 2_000, 400_000, 1_500)]
    site.run("--logfile", "-", input="first\n" + "".join(long[:3]))
    site.run("--logfile", "-", input="".join(long))
    assert len(site.rejected()) == 5


@pytest.mark.parametrize(("begins_with", "stored"), [(lines(0, 15), 20), ([*lines(0, 14), line(99)], 35)])
def test_a_log_that_begins_with_the_text_of_an_archive_counts_as_stored_that_far(
    site: Site, begins_with: list[str], stored: int
) -> None:
    archive = site.folder / "old.log"
    site.append(*lines(0, 15), to=archive)
    site.run("--logfile", str(archive), "--keep")
    site.append(*begins_with, *lines(15, 20))
    site.run()
    assert sum(site.emails().values()) == stored
