"""The state file: a field changes alone, and the file is replaced only if one does."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from xraylog.accesslog import installation
from xraylog.accesslog.installation import Installation


def test_a_field_changes_and_the_others_stay(tmp_path: Path) -> None:
    buffer, known = tmp_path / "buffer", Installation(confirmed=3, unread={"a.log": 5})
    installation.write(buffer, known)
    assert installation.update(buffer, buffered=7, last_batch="ab") is None
    assert installation.read(buffer) == replace(known, buffered=7, last_batch="ab")


def test_a_state_without_a_change_is_not_written_again(tmp_path: Path) -> None:
    """When it was written counts: a buffer that was moved away later was moved by the operator."""
    buffer = tmp_path / "buffer"
    installation.write(buffer, Installation(buffered=7))
    before = installation.state_path(buffer).stat()
    assert installation.update(buffer, buffered=7) is None
    after = installation.state_path(buffer).stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def test_of_too_many_values_the_earliest_is_dropped() -> None:
    known = {"a": 1, "b": 2, "c": 3}
    assert list(installation.with_latest(known, "a", 4, 3).items()) == [("b", 2), ("c", 3), ("a", 4)]
    assert list(installation.with_latest(known, "d", 4, 3)) == ["b", "c", "d"]
