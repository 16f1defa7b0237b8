"""A migration prints how far it is, and what the verification found."""

from __future__ import annotations

import re

from helpers.migration import (
    DAYS,
    make_plain_logs,
)
from helpers.site import Site

from xraylog.database.session import Connection


def test_the_proof_is_a_table_with_a_line_for_each_day(conn: Connection, site: Site) -> None:
    make_plain_logs(conn)
    said = site.migrate().stdout
    proof = [row.split() for row in said.splitlines() if re.match(r"2025-11-\d\d +\d", row)]
    assert [row[:3] for row in proof] == [[day, "20", "20"] for day in DAYS]
    assert all(row[3] == row[4] and len(row) == 5 for row in proof)


def test_progress_says_rows_rate_days_and_time_left(conn: Connection, site: Site) -> None:
    make_plain_logs(conn)
    assert re.search(r"2025-11-15: 3 of 3 days, 60 of 60 rows, [\d,]+ rows/s, 0 s left", site.migrate().stdout), (
        "the last line of progress, for the newest day comes first"
    )
