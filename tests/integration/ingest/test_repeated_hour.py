"""The second pass of the hour that clocks repeat in autumn shows in what came before it, also in an earlier run."""

from __future__ import annotations

import pytest
from helpers.site import Site, line, lines

WALL = "2025/10/26 02:{:02}:00"
FIRST, SECOND = 0, 1  # hours of UTC in which the passes of Berlin's are


@pytest.fixture
def site(site: Site) -> Site:
    site.set("parser", timezone="Europe/Berlin")
    return site


def write(site: Site, *minutes: int) -> None:
    site.append(*[line(minute, WALL.format(minute)) for minute in minutes])


def stored(site: Site) -> list[tuple[int, int]]:
    """Hour and minute of UTC of each row, in the order in which they were stored."""
    return [(row[0].hour, row[0].minute) for row in site.query("""SELECT "timestamp" AT TIME ZONE 'UTC' FROM logs
                                                                  ORDER BY id""")]  # fmt: skip


@pytest.mark.parametrize("keep", [[], ["--keep"]], ids=["drained", "kept"])
def test_the_next_run_knows_which_pass_it_is(site: Site, keep: list[str]) -> None:
    """Where the lines are gone, and where they stay, more of them than a run looks back."""
    write(site, 10, 50)
    site.run(*keep)
    site.append(*lines(100, 300, "2025/10/26 02:51:00"))
    write(site, 5)
    site.run(*keep)
    write(site, 40)
    site.run(*keep)
    site.away()
    write(site, 50)
    site.run(*keep)
    write(site, 59)
    site.run(*keep)
    site.back()
    site.run(*keep)
    marks = [at for at in stored(site) if at != (FIRST, 51)]
    assert marks == [(FIRST, 10), (FIRST, 50), *((SECOND, minute) for minute in (5, 40, 50, 59))]


def test_what_is_stored_again_from_its_beginning_begins_in_the_first_pass(site: Site) -> None:
    write(site, 10, 50, 5, 40)
    site.run("--keep")
    site.run("--keep", "--again")
    assert stored(site) == [(FIRST, 10), (FIRST, 50), (SECOND, 5), (SECOND, 40)] * 2


def test_nothing_is_remembered_of_any_other_hour(site: Site) -> None:
    site.append(line(0, "2025/10/26 03:00:00"))
    site.run()
    assert '"last_minutes": {}' in site.state.read_text()
