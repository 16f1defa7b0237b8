"""A run that goes on where another text or another machine was, and is killed anywhere, has stored every line once."""

from __future__ import annotations

import contextlib
import os
from collections import Counter
from collections.abc import Iterator

import pytest
from helpers import faults
from helpers.faults import Steps
from helpers.load_paths import LOAD_PATHS
from helpers.site import Site, lines, users


def on_one_of(load_path: str, steps: Steps) -> Steps:
    """Each step is struck on one of the load paths."""
    return Steps(steps.first + LOAD_PATHS.index(load_path) * steps.every, len(LOAD_PATHS) * steps.every)


@pytest.mark.parametrize("load_path", LOAD_PATHS)
def test_killed_at_every_step_of_the_first_run_of_a_copied_machine(steps: Steps, site: Site, load_path: str) -> None:
    """Its log has lines that are stored, its buffer some that the original imports, too, and each has lines of its own.

    Each step has machines of its own. What follows the kill is the copy, or the original, in turns.
    """
    site.load_path = load_path
    for step in on_one_of(load_path, steps):
        first = step * 100
        original = site.clone(str(step))
        original.set("parser", node=f"n{step}")
        original.append(*lines(first, first + 3))
        assert original.run_here("--keep") == 0
        original.away()
        original.append(*lines(first + 3, first + 6))
        assert original.run_here("--keep") == 0
        original.back()
        copy = original.clone("copy")
        original.append(*lines(first + 10, first + 13))
        assert original.run_here("--keep") == 0
        copy.append(*lines(first + 20, first + 23))
        status = copy.run_here(kill_at=step)
        for one in (copy, original) if step % 2 else (original, copy):
            assert one.run_here() == 0
        expected = users(first, first + 6) + users(first + 10, first + 13) + users(first + 20, first + 23)
        found = Counter({user: count for user, count in site.emails().items() if first <= int(user[1:]) < first + 100})
        assert found == expected, copy.steps()
        if status == 0:
            return
        assert status == -9, copy.output()[-2000:]
    raise AssertionError


def test_killed_at_every_step_of_a_run_that_only_drains_before_its_copy_runs(steps: Steps, site: Site) -> None:
    """The copy's log has the lines that left the original's."""
    for step in steps:
        first = step * 10
        original = site.clone(str(step))
        original.set("parser", node=f"n{step}")
        original.append(*lines(first, first + 3))
        assert original.run_here("--keep") == 0
        copy = original.clone("copy")
        status = original.run_here(kill_at=step)
        if step % 4 < 2:
            assert original.run_here() == 0
        for one in (copy, original):
            assert one.run_here() == 0
        found = Counter({user: count for user, count in site.emails().items() if first <= int(user[1:]) < first + 10})
        assert found == users(first, first + 3), copy.output()
        if status == 0:
            return
        assert status == -9, original.output()[-2000:]
    raise AssertionError


@contextlib.contextmanager
def piped(text: str, kill_at: int | None, site: Site) -> Iterator[None]:
    """Inside, this text is what comes through the pipe."""
    with (site.folder / "text").open("w+") as file, faults.after_step(kill_at, site.folder / "steps"):
        file.write(text)
        file.seek(0)
        os.dup2(file.fileno(), 0)
        yield


@pytest.mark.parametrize("load_path", LOAD_PATHS)
@pytest.mark.parametrize("away", [False, True])
def test_killed_at_every_step_of_a_journal_that_dropped_its_oldest_lines(
    steps: Steps, site: Site, load_path: str, away: bool
) -> None:
    """Each step has a node of its own; after the kill the journal is piped again, when it has one more line."""
    site.load_path = load_path
    expected: Counter[str] = Counter()

    def pipe(first: int, end: int, kill_at: int | None = None) -> int:
        text = "".join(lines(first, end))
        return site.run_here("--logfile", "-", inside=piped(text, kill_at, site))

    for step in on_one_of(load_path, steps):
        first = step * 100
        site.set("parser", node=f"n{step}")
        assert pipe(first, first + 20) == 0
        if away:
            site.away()
        status = pipe(first + 8, first + 30, kill_at=step)
        site.back()
        assert pipe(first + 8, first + 31) == 0
        expected += users(first, first + 31)
        assert site.emails() == expected, site.steps()
        if status == 0:
            return
        assert status == -9, site.output()[-2000:]
    raise AssertionError
