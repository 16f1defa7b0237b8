"""A comment on a table says the same to whoever reads it as to whoever wrote it."""

from __future__ import annotations

from zoneinfo import available_timezones

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xraylog.database import markers
from xraylog.database.markers import MigrationMarker

ZONES = sorted(available_timezones())
TYPES = ("smallint", "integer", "bigint")


@given(st.booleans(), st.sampled_from(ZONES), st.sampled_from(TYPES))
def test_what_was_written_is_read(is_finished: bool, zone: str, sequence_type: str) -> None:
    written = MigrationMarker(is_finished, zone, sequence_type)
    assert markers.read_migration(written.comment) == written


@given(st.text())
def test_any_other_text_says_nothing(text: str) -> None:
    assert markers.read_migration(text) is None


def test_databases_have_these_texts() -> None:
    assert (
        MigrationMarker(False, "Europe/Berlin", "integer").comment
        == "xraylog: unfinished migration into logs, times read in Europe/Berlin, ids from a sequence of integer"
    )
    assert (
        MigrationMarker(True, "UTC", "bigint").comment
        == "xraylog: finished migration into logs, times read in UTC, ids from a sequence of bigint"
    )
    assert markers.REVERTED_MIGRATION == "xraylog: undone migration, to be dropped"
    assert markers.EXPIRED == "xraylog: to be dropped by retention"


@pytest.mark.parametrize("state", [markers.UNFINISHED_MIGRATION, markers.FINISHED_MIGRATION])
def test_a_comment_that_was_shortened_still_tells_the_state(state: str) -> None:
    for rest in ("", ", times read in UTC", ", and more"):
        found = markers.read_migration(state + rest)
        assert found == MigrationMarker(state == markers.FINISHED_MIGRATION, None, None)


def test_whatever_a_migration_has_reached_its_comment_is_known() -> None:
    for comment in (MigrationMarker(False, "UTC", "bigint").comment, markers.FINISHED_MIGRATION):
        assert markers.is_of_migration(comment)
    for comment in (None, "", "old logs of 2024"):
        assert not markers.is_of_migration(comment)
