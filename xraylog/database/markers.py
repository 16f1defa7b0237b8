"""Write and read the comments on tables that record state: of a migration, and of tables that retention drops.

    xraylog: unfinished migration into logs, times read in Europe/Berlin, ids from a sequence of bigint    on logs_old
    xraylog: finished migration into logs, times read in Europe/Berlin, ids from a sequence of bigint      on logs_old
    xraylog: undone migration, to be dropped                                                               on logs_new
    xraylog: to be dropped by retention                                               on a partition, or a former one

Existing databases have these texts, so they must not change.
"""

from __future__ import annotations

import re
from typing import NamedTuple

UNFINISHED_MIGRATION = "xraylog: unfinished migration into logs"
FINISHED_MIGRATION = "xraylog: finished migration into logs"
REVERTED_MIGRATION = "xraylog: undone migration, to be dropped"
EXPIRED = "xraylog: to be dropped by retention"

OURS = "xraylog: "
MIGRATION = re.compile(
    rf"(?:{UNFINISHED_MIGRATION}|(?P<finished>{FINISHED_MIGRATION}))"
    r"(?:, times read in (?P<zone>.+), ids from a sequence of (?P<sequence_type>.+))?.*",
    re.DOTALL,
)


class MigrationMarker(NamedTuple):
    """The content of the comment on `logs_old`."""

    is_finished: bool
    zone: str | None  # in which times without a zone are read; None, like the type, if the comment does not have it
    sequence_type: str | None  # of the sequence of logs.id before the migration

    @property
    def comment(self) -> str:
        """The comment, for COMMENT ON TABLE."""
        state = FINISHED_MIGRATION if self.is_finished else UNFINISHED_MIGRATION
        return f"{state}, times read in {self.zone}, ids from a sequence of {self.sequence_type}"


def read_migration(comment: str | None) -> MigrationMarker | None:
    """Parse a comment on `logs_old`; return None if it is not of a migration."""
    found = MIGRATION.fullmatch(comment or "")
    return MigrationMarker(bool(found["finished"]), found["zone"], found["sequence_type"]) if found else None


def is_of_migration(comment: str | None) -> bool:
    """Return whether a comment on `logs_old` is of a migration, whatever state it is in."""
    return (comment or "").startswith(OURS)
