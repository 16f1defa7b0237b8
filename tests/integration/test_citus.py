"""Whatever the product sends about rows where Citus distributes `logs` is in a form that Citus takes.

The forms that it refuses are those that a cluster refused (tests/system/test_citus.py tries all of this on one).
"""

from __future__ import annotations

from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import psycopg
import pytest
from helpers import citus, load_paths
from helpers.load_paths import KEYS_IN_BULK
from helpers.report_data import read as read_page
from helpers.site import Site, line, lines

from xraylog.answers import statements
from xraylog.database import dns_names, networks, schema
from xraylog.loading.load_paths import LOAD_PATHS
from xraylog.maintenance import prune

Connection = psycopg.Connection[tuple[Any, ...]]
TODAY = f"{datetime.now(timezone.utc):%Y/%m/%d} 00:00:00.5"

BAD = {
    "GROUPING SETS": "SELECT count(*) FROM logs GROUP BY GROUPING SETS ((user_id), (node_id))",
    "a SELECT of no column": "SELECT EXISTS (SELECT FROM logs)",
    "LATERAL": "SELECT * FROM users u LEFT JOIN LATERAL (SELECT 1 FROM logs l) s ON true",
    "a correlated subquery": "SELECT id FROM users WHERE NOT EXISTS (SELECT 1 FROM logs l WHERE l.user_id = users.id)",
    "now() in a CASE": "UPDATE log_positions SET updated_at = CASE WHEN updated_at < now() THEN now() END WHERE id = 1",
    "a function that is not immutable": "DELETE FROM log_positions RETURNING extract(epoch FROM updated_at)",
    "a UNION ALL of no row": "SELECT 1 FROM logs UNION ALL SELECT NULL FROM logs WHERE false",
    "names that depend on rows": "DELETE FROM users WHERE id NOT IN (SELECT user_id FROM logs)",
    "DDL": "ALTER TABLE logs DETACH PARTITION logs_2025_11_17 CONCURRENTLY",
    "now() on the workers": "SELECT count(*) FROM logs WHERE \"timestamp\" >= now() - interval '1 hour'",
    "a lock of names": "SELECT 1 FROM users WHERE id = 1 FOR KEY SHARE",
    "a setting that stays here": "SELECT set_config('session_replication_role', 'replica', true)",
    "a setting out of order": "SET LOCAL \"lock_timeout\" TO '1s'",
}


@pytest.mark.parametrize("form", BAD)
def test_a_form_that_citus_refuses_is_noticed(form: str) -> None:
    (found,) = citus.refused(["SELECT 1", "SELECT 2", BAD[form]])
    assert found.startswith(f"{form}: ")


@pytest.fixture
def sent(site: Site, conn: Connection, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """What is sent by runs of each kind, an import, retention and names included, by a page, and by questions."""
    schema.ensure(conn)
    site.append(line(99), line(98, TODAY))
    site.run()
    citus.distribute(conn)
    citus.refuse_row_7(conn)
    read = citus.record(monkeypatch, tmp_path / "sent")
    site.append(*lines(0, 20), "damaged\n")
    for option in ("--dry-run", "--check"):
        site.run_here(option)
    site.run()
    site.run("--replay-rejected")
    load_paths.take_until_undone(monkeypatch, KEYS_IN_BULK)
    with_worker = LOAD_PATHS.replace("tgisinternal", "(tgname = 'worker')")
    monkeypatch.setattr("xraylog.loading.load_paths.LOAD_PATHS", with_worker)
    site.away()
    site.append(*lines(20, 40))
    site.run()
    site.back()
    site.run()
    site.run("--make-partitions", "2")
    site.append(*lines(40, 42))
    for _ in range(2):
        site.run("--keep")
    conn.execute(networks.CREATE)
    conn.execute("INSERT INTO networks VALUES ('0.0.0.0/0', 'DE', 64496, 'Example')")
    conn.execute(dns_names.CREATE)
    conn.execute("UPDATE endpoints SET address = '198.51.100.7' WHERE address = 'host1.example'")
    conn.execute("INSERT INTO dns_names SELECT '2025-11-17', 1, '198.51.100.7', min(id) FROM endpoints")
    page = read_page(site.database)
    assert page.places
    assert page.names
    site.run("online", script="ask_logs")  # nobody is
    site.run("new", script="ask_logs")
    site.run("user", "u1", "--node", "n1", script="ask_logs")
    site.set("retention", days=30, prune_names="true")
    site.run()
    assert site.query("SELECT count(*) FROM logs") == [(1,)]  # retention has dropped the rest
    assert list(prune.remove(conn)) == []
    return read()


def test_what_is_sent_about_rows_is_in_a_form_that_citus_takes(sent: list[str]) -> None:
    assert citus.refused(sent) == []
    for part in ("COPY ", "INSERT INTO logs", "SET LOCAL", "DROP TABLE", "EXCEPT SELECT", "DELETE FROM", "PARTITION OF",
                 "run_command_on_workers", "citus_check_cluster_node_health", "FROM logs l"):  # fmt: skip
        assert any(part in text for text in sent), part


def test_each_answer_is_in_a_form_that_citus_takes() -> None:
    answers = statements.read(is_distributed=True).values()
    assert (
        citus.refused(
            [
                text
                for answer in answers
                for text in (answer.text, answer.narrowed(statements.OF_NODE, statements.OF_USERS))
            ]
        )
        == []
    )
