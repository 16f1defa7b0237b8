"""Check the foreign keys of many rows as a set instead of row by row.

The row trigger of a foreign key costs 6 to 10 µs, and there are six for each row: more than everything else together
(benchmarks/load.py, path 3 compared with path 2). If the role may disable the triggers, they are off for the
transaction, and the loader does their work: it locks each name that is used, once a transaction. A concurrent DELETE of
such a name waits for our commit and then fails, as it does with the trigger.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping

from psycopg.sql import SQL, Identifier

from xraylog.database import citus, ddl
from xraylog.database.session import Connection
from xraylog.loading import copy_rows, load_paths
from xraylog.loading.copy_rows import RowFormat
from xraylog.loading.load_paths import REPLICATION_ROLE, LoadPaths

MIN_BULK_ROWS = 1_000  # with fewer the triggers cost no more than a second session (benchmarks/thresholds.py)

# FOR KEY SHARE, as the triggers take, in the order of the ids: a DELETE of these names waits.
LOCK_NAMES = """
    WITH u AS (SELECT FROM users WHERE id = ANY(%(users)s) ORDER BY id FOR KEY SHARE),
         p AS (SELECT FROM protocols WHERE id = ANY(%(protocols)s) ORDER BY id FOR KEY SHARE),
         e AS (SELECT FROM endpoints WHERE id = ANY(%(endpoints)s) ORDER BY id FOR KEY SHARE),
         t AS (SELECT FROM tags WHERE id = ANY(%(tags)s) ORDER BY id FOR KEY SHARE),
         n AS (SELECT FROM nodes WHERE id = ANY(%(nodes)s) ORDER BY id FOR KEY SHARE)
    SELECT (SELECT count(*) FROM u), (SELECT count(*) FROM p), (SELECT count(*) FROM e), (SELECT count(*) FROM t),
           (SELECT count(*) FROM n)
"""
SET_REPLICATION_ROLE = f"SELECT set_config('{REPLICATION_ROLE}', %s, true)"
COUNT_NAMES = "SELECT count(*) FROM {} WHERE id = ANY(%s)"


class NamesMissing(Exception):
    """A name was deleted after it was resolved: nothing was stored."""


class ForeignKeyChecks:
    """Detects once which load paths this role may use, and does for the second one what the triggers do."""

    def __init__(self, conn: Connection, has_reject_reason: bool = True) -> None:
        self._conn = conn
        self._has_reject_reason = has_reject_reason
        self.text = copy_rows.text(has_reject_reason)
        self._paths: LoadPaths | None = None

    def detect(self) -> LoadPaths:
        """Return the load paths that the catalog allows. Queries only the first time."""
        if self._paths is None:
            self._paths = load_paths.detect(self._conn, self._has_reject_reason)
        return self._paths

    def forget(self) -> None:
        """Detect again next time, because the tables may have been changed."""
        self._paths = None

    @property
    def hint(self) -> str | None:
        """Return what would make the next run faster, if this one had many rows."""
        return self._paths.hint if self._paths else None

    def checked_in_bulk(self, rows: int) -> bool:
        """Return whether a transaction that starts with `rows` rows checks its keys in bulk, without triggers."""
        return rows >= MIN_BULK_ROWS and self.detect().can_check_in_bulk

    def row_format(self, rows: int) -> RowFormat:
        """Return the format in which a transaction of `rows` rows sends them."""
        return self.detect().row_format if rows >= MIN_BULK_ROWS else self.text

    @contextlib.contextmanager
    def without_triggers(self) -> Iterator[None]:
        """Disable row triggers inside the block. `lock` the names of the rows before the transaction ends."""
        self._set_replication_role("replica")
        yield
        self._set_replication_role("origin")

    def _set_replication_role(self, role: str) -> None:
        if self.detect().is_distributed:
            citus.set_everywhere(self._conn, REPLICATION_ROLE, role)
        else:
            self._conn.execute(SET_REPLICATION_ROLE, [role])

    def lock(self, ids: Mapping[str, Iterable[int]]) -> None:
        """Lock names, given as ids by table, until the transaction ends: they cannot be deleted. Raises NamesMissing.

        Before or after COPY makes no difference: we wait for a concurrent DELETE, and then find the name missing. Citus
        locks a whole reference table for one of its rows, and runs deadlocked, so there the names are only counted. Our
        own DELETE of unused names needs the node's lock; one made by hand could come in between.
        """
        used = {table: sorted(set(ids[table])) for table in ddl.REFERENCE_TABLES}
        found = self._count(used) if self.detect().is_distributed else self._conn.execute(LOCK_NAMES, used).fetchone()
        if found != tuple(map(len, used.values())):
            raise NamesMissing

    def _count(self, used: Mapping[str, list[int]]) -> tuple[int, ...]:
        counts = []
        for table, ids in used.items():
            ((count,),) = self._conn.execute(SQL(COUNT_NAMES).format(Identifier(table)), [ids])
            counts.append(count)
        return tuple(counts)
