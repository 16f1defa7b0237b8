"""A migration that is killed anywhere, there or back, and started again ends the same: same rows, same catalog."""

from __future__ import annotations

import contextlib
import random
import subprocess
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from helpers.faults import Steps
from helpers.migration import DAYS, MIGRATE, content, make_plain_logs
from helpers.site import Site, create_database, drop_database, facts, wait_until

from xraylog.database import partitions, schema
from xraylog.database.session import Connection

PARTS = 4  # of the steps to kill at: each has the time limit of a test for itself

# What `facts` does not have, and the next run can see: comments, where the sequences are, every row of both tables.
COMMENTS = """
    SELECT 'comment', objoid::regclass::text, objsubid::text, description
    FROM pg_description
    JOIN pg_class c ON c.oid = objoid AND classoid = 'pg_class'::regclass
    WHERE relnamespace = 'public'::regnamespace
"""
SEQUENCES = "SELECT quote_ident(relname) FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind = 'S'"
TABLES = """
    SELECT quote_ident(relname) FROM pg_class
    WHERE relname IN ('logs', 'logs_old', 'logs_new', 'xraylog_migration') ORDER BY 1
"""


def state_of(conn: Connection) -> frozenset[tuple[Any, ...]]:
    """All that a killed migration left, once the server has ended its session."""
    wait_until(lambda: conn.execute("""
        SELECT count(*) FROM pg_stat_activity WHERE application_name = 'migrate_logs' AND datname = current_database()
    """).fetchone() == (0,))  # fmt: skip
    found = facts(conn) | set(conn.execute(COMMENTS).fetchall())
    for (name,) in conn.execute(SEQUENCES).fetchall():
        found |= {(name, *row) for row in conn.execute(f"SELECT last_value, is_called FROM {name}").fetchall()}
    for (name,) in conn.execute(TABLES).fetchall():
        rows = conn.execute(f"SELECT t.tableoid::regclass::text, t::text FROM {name} t")
        found |= {(name, *row) for row in rows.fetchall()}
    return frozenset(found)


class Copies:
    """Copies of one database: each killed migration starts from the same."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._original = site.database

    @contextlib.contextmanager
    def next(self) -> Iterator[Connection]:
        """Point the site at a fresh copy, and drop it afterwards; the original must have no session."""
        copy = create_database({**self._original, "dbname": "postgres"}, self._original["dbname"])
        self._site.database = copy
        self._site.set("postgresql", dbname=copy["dbname"])
        with psycopg.connect(**copy, autocommit=True) as conn:  # type: ignore[arg-type]
            yield conn
        drop_database(copy)


@pytest.mark.parametrize("part", range(PARTS))
def test_killed_at_every_step_and_started_again_it_ends_the_same(
    site: Site, other_database: Connection, steps: Steps, part: int
) -> None:
    """Most steps leave what the one before has left: each state that they leave is finished from once."""
    with psycopg.connect(**site.database, autocommit=True) as conn:  # type: ignore[arg-type]
        make_plain_logs(conn, rows=8, days=2)
        expected = content(conn)
    schema.ensure(other_database)
    partitions.Partitions(other_database).ensure(DAYS[:2])
    catalog = facts(other_database)
    copies, finished = Copies(site), set()
    status, step = -9, steps.first + part * steps.every
    while status == -9:
        with copies.next() as conn:
            status = site.run_here("--drop-old", script=MIGRATE, kill_at=step)
            assert status in (0, -9), site.output()[-2000:]
            if (state := state_of(conn)) not in finished or status == 0:
                finished.add(state)
                assert site.run_here("--drop-old", script=MIGRATE) == 0, site.output()[-2000:]
                assert content(conn) == expected, site.steps()[-1]
                assert facts(conn) == catalog, site.steps()[-1]
        step += PARTS * steps.every
    assert {"execute", "commit"} <= set(site.steps())
    assert step > 100
    assert len(finished) > 4 // steps.every


def test_killed_at_random_moments_it_ends_the_same(site: Site, rounds: int) -> None:
    """Whole processes, at any instruction; the next one waits for what their sessions still do."""
    chance = random.Random(seed := random.randrange(1 << 30))
    print(f"seed {seed}")
    with psycopg.connect(**site.database, autocommit=True) as conn:  # type: ignore[arg-type]
        make_plain_logs(conn, rows=3000, days=10)
        expected = content(conn)
    copies = Copies(site)
    for _ in range(max(2, rounds // 5)):
        with copies.next() as conn:
            longest = 0.5
            while True:
                longest *= 1.2  # on a machine however slow, one of them comes to the end
                with subprocess.Popen(
                    site.command("--drop-old", script=MIGRATE), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
                ) as process:
                    with contextlib.suppress(subprocess.TimeoutExpired):
                        process.wait(chance.uniform(0.2, longest))
                    if process.poll() is None:
                        process.kill()
                        continue
                assert process.returncode == 0
                break
            assert content(conn) == expected


@pytest.mark.parametrize("part", range(2))
def test_undo_killed_at_every_step_and_started_again_ends_the_same(site: Site, steps: Steps, part: int) -> None:
    with psycopg.connect(**site.database, autocommit=True) as conn:  # type: ignore[arg-type]
        make_plain_logs(conn, rows=12)
        site.migrate()
        site.migrate("--undo", "--yes")
        before, rows = facts(conn), content(conn)
        site.migrate()
    copies = Copies(site)
    status, step = -9, steps.first + part * steps.every
    while status == -9:
        with copies.next() as conn:
            status = site.run_here("--undo", "--yes", script=MIGRATE, kill_at=step)
            assert status in (0, -9)
            if status:
                again = site.run_here("--undo", "--yes", script=MIGRATE)
                assert again == 0 or (again == 3 and "nothing to undo" in site.output()), site.steps()[-1]
            assert facts(conn) == before, site.steps()[-1]
            assert content(conn) == rows
        step += 2 * steps.every
    assert step > 30
