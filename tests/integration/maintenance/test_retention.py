"""Retention drops what is older than `[retention] days`, partition by partition, and no row that is to be kept."""

from __future__ import annotations

import contextlib
import itertools
import re
import threading
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta, timezone

import psycopg
import pytest
from helpers import faults
from helpers.load_paths import LOAD_PATHS
from helpers.site import Site, line, users, wait_until
from psycopg import errors
from psycopg.sql import SQL, Identifier

from xraylog.database import detach, dns_names, partitions, positions, schema
from xraylog.database import session as ours
from xraylog.database.capabilities import Capabilities
from xraylog.database.references import References, Resolved
from xraylog.database.session import Connection, Unavailable, Unsuitable, transaction
from xraylog.maintenance import drop_table, expired, prune, retention

NOW = datetime(2024, 3, 31, 23, 59, 59, tzinfo=timezone.utc)  # with days = 30, 2024-03-01 is the first day that is kept
TODAY = datetime.now(timezone.utc)
PASSWORD = "only for this test"  # noqa: S105  # of roles that end with it
OLD_DAY, OLD = "2024-01-01", "logs_2024_01_01"
PARTITIONS = """
    SELECT c.relname FROM pg_inherits JOIN pg_class c ON c.oid = inhrelid
    WHERE inhparent = 'logs'::regclass ORDER BY 1
"""
TABLES = "SELECT relname FROM pg_class WHERE relkind IN ('r', 'p', 'f') AND relname ~ '^logs_' ORDER BY 1"


@pytest.fixture
def server(conn: Connection) -> Connection:
    """Return a session in a database that has our tables."""
    schema.ensure(conn)
    return conn


@pytest.fixture
def other(database: dict[str, str]) -> Iterator[Connection]:
    """Yield a second session in the same database."""
    with psycopg.connect(**database, autocommit=True) as conn:  # type: ignore[arg-type]
        yield conn


@pytest.fixture
def kept(site: Site, server: Connection) -> Site:
    """Return a site that keeps thirty days, with a line of today, and a partition of the old day that has a row."""
    site.set("retention", days=30)
    site.set("parser", stray_days=36_500)  # lines of the old day come after those of today
    site.append(today(0))
    assert site.run_here() == 0
    fill(server)
    return site


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait only a second in total for locks, also in the runs of `run_here`."""
    monkeypatch.setattr(ours, "LOCK_TIMEOUT_S", 1)


def today(n: int) -> str:
    return line(n, f"{TODAY:%Y/%m/%d %H:%M:%S.%f}")


def day(conn: Connection, *days: str) -> None:
    partitions.Partitions(conn).ensure(days)


def fill(conn: Connection, name: str = OLD_DAY) -> None:
    """Insert a row into the partition of a day."""
    day(conn, name)
    conn.execute("INSERT INTO logs (\"timestamp\", action) VALUES (%s::timestamptz, 'accepted')", [f"{name} 12:00+00"])


def hand_made(conn: Connection, name: str, low: str, high: str, more: str = "") -> None:
    conn.execute(f"CREATE TABLE {name} PARTITION OF logs FOR VALUES FROM ({low}) TO ({high}) {more}")


def enforce(conn: Connection, days: int = 30, now: datetime = NOW, prune_names: bool = False) -> list[str]:
    return list(retention.enforce(conn, days, now, prune_names))


def found(conn: Connection, query: str = PARTITIONS) -> list[str]:
    return [name for (name,) in conn.execute(query)]


def concurrently(conn: Connection) -> bool:
    return Capabilities.of(conn).detach_concurrently


@contextlib.contextmanager
def reader(other: Connection) -> Iterator[None]:
    """Let another session read logs inside the block."""
    with other.transaction():
        other.execute("SELECT count(*) FROM logs")
        yield


# --- which partitions are old --------------------------------------------------------------------------------


def test_today_and_the_days_before_it_are_kept_in_utc(server: Connection) -> None:
    """The last day that is dropped ends exactly when the first one that is kept begins."""
    day(server, "2024-02-28", "2024-02-29", "2024-03-01", "2024-03-31")
    server.execute("SET timezone TO 'Asia/Tokyo'")
    assert [table.name for table in expired.tables(server, 30, NOW)] == ["logs_2024_02_28", "logs_2024_02_29"]
    reason = "is dropped: rows from before 2024-03-01 are not kept"
    assert enforce(server) == [
        f"logs_2024_02_28 (FROM ('2024-02-28 00:00:00+00') TO ('2024-02-29 00:00:00+00')) {reason}",
        f"logs_2024_02_29 (FROM ('2024-02-29 00:00:00+00') TO ('2024-03-01 00:00:00+00')) {reason}",
    ]
    assert found(server) == found(server, TABLES) == ["logs_2024_03_01", "logs_2024_03_31"]

    assert enforce(server) == []
    assert len(enforce(server, now=NOW + timedelta(seconds=1))) == 1  # a second later it is the next day
    assert found(server) == ["logs_2024_03_31"]


def test_a_partition_with_one_moment_that_is_kept_stays(server: Connection) -> None:
    hand_made(server, "before", "MINVALUE", "'2024-02-29 22:00+00'")
    hand_made(server, "an_hour", "'2024-02-29 22:00+00'", "'2024-02-29 23:00+00'")
    hand_made(server, "the_last_hour", "'2024-03-01 00:00+01'", "'2024-03-01 01:00+01'")
    hand_made(server, "a_moment_more", "'2024-03-01 00:00+00'", "'2024-03-01 00:00:00.000001+00'")
    hand_made(server, "a_day_in_tokyo", "'2024-03-02 00:00+09'", "'2024-03-03 00:00+09'")
    hand_made(server, "what_comes", "'2024-03-03 00:00+09'", "MAXVALUE")
    assert len(enforce(server)) == 3
    assert found(server) == ["a_day_in_tokyo", "a_moment_more", "what_comes"]


def test_beside_a_default_partition_old_ones_go_and_its_rows_stay(server: Connection) -> None:
    if server.info.server_version < 110000:
        pytest.skip("PostgreSQL 10 has no DEFAULT partition")
    fill(server)
    server.execute("CREATE TABLE logs_default PARTITION OF logs DEFAULT")
    server.execute("INSERT INTO logs (\"timestamp\", action) VALUES ('2020-01-01', 'accepted')")
    assert len(enforce(server)) == 1
    assert found(server) == found(server, TABLES) == ["logs_default"]
    assert server.execute("SELECT count(*) FROM logs").fetchone() == (1,)


def test_a_partition_that_is_partitioned_goes_as_a_whole(server: Connection) -> None:
    hand_made(server, "logs_january", "'2024-01-01'", "'2024-02-01'", 'PARTITION BY RANGE ("timestamp")')
    server.execute("CREATE TABLE logs_first PARTITION OF logs_january FOR VALUES FROM ('2024-01-01') TO ('2024-01-15')")
    assert len(enforce(server)) == 1
    assert found(server, TABLES) == []


def test_names_are_only_names(server: Connection) -> None:
    server.execute("CREATE SCHEMA elsewhere")
    hand_made(server, 'elsewhere."logs; ""2099"""', "'2024-01-01'", "'2024-01-02'")
    hand_made(server, "logs_1999_01_01", "'2024-03-20'", "'2024-03-21'")
    assert enforce(server)[0].startswith('elsewhere."logs; ""2099""" (')
    assert found(server) == ["logs_1999_01_01"]


def test_a_foreign_table_is_left_where_it_is(server: Connection) -> None:
    keys = "SELECT conname FROM pg_constraint WHERE conrelid = 'logs'::regclass AND contype = 'f'"
    for key in found(server, keys):  # with them logs can have no foreign table
        server.execute(SQL("ALTER TABLE logs DROP CONSTRAINT {}").format(Identifier(key)))
    server.execute("CREATE FOREIGN DATA WRAPPER nothing")
    server.execute("CREATE SERVER nowhere FOREIGN DATA WRAPPER nothing")
    server.execute(
        "CREATE FOREIGN TABLE far PARTITION OF logs FOR VALUES FROM ('2024-01-01') TO ('2024-01-02') SERVER nowhere"
    )
    day(server, "2024-01-02")
    is_left, is_dropped = enforce(server)
    assert is_left.startswith("far (")
    assert is_left.endswith("is not dropped")
    assert is_dropped.startswith("logs_2024_01_02 (")
    assert found(server) == ["far"]


@pytest.mark.parametrize("clock", [datetime(2200, 1, 1, tzinfo=timezone.utc), TODAY])
def test_a_clock_that_runs_ahead_empties_nothing(server: Connection, clock: datetime) -> None:
    day(server, f"{TODAY:%Y-%m-%d}")
    assert enforce(server, days=1, now=clock) == []


def test_a_day_that_was_detached_by_hand_is_kept(server: Connection) -> None:
    fill(server)
    server.execute(f"ALTER TABLE logs DETACH PARTITION {OLD}")
    assert enforce(server) == []
    assert found(server, TABLES) == [OLD]


def test_a_table_with_our_comment_on_it_stays_when_it_has_a_row_that_is_kept(server: Connection) -> None:
    """A run was killed before it detached the table, then more days were to be kept, and an operator renamed it."""
    fill(server, "2024-03-01")
    server.execute(detach.mark("logs_2024_03_01"))
    server.execute("ALTER TABLE logs DETACH PARTITION logs_2024_03_01")
    assert enforce(server) == []
    assert found(server, TABLES) == ["logs_2024_03_01"]
    assert enforce(server, days=29) == [
        "logs_2024_03_01 (detached before) is dropped: rows from before 2024-03-02 are not kept"
    ]


def test_while_the_table_of_a_migration_is_there_nothing_goes(server: Connection) -> None:
    """Before that table is dropped, every day is compared with it."""
    fill(server)
    server.execute("CREATE TABLE logs_old ()")
    server.execute("COMMENT ON TABLE logs_old IS 'xraylog: finished migration into logs, times read in UTC'")
    assert expired.tables(server, 30, NOW) == []
    assert expired.count_unparsed_lines(server, 30, NOW) == 0
    (said,) = enforce(server)
    assert said.startswith("nothing old is dropped: logs_old")
    assert found(server) == [OLD]


# --- runs ----------------------------------------------------------------------------------------------------


def test_by_default_all_is_kept(site: Site, server: Connection) -> None:
    fill(server)
    site.append(today(1))
    site.run()
    site.set("retention", days="")
    site.run()
    assert OLD in found(server)


def test_a_run_says_what_it_drops(kept: Site, server: Connection) -> None:
    kept.append(today(1))
    assert kept.run_here() == 0
    assert f"INFO    {OLD} (FROM ('2024-01-01 00:00:00+00')" in kept.output()
    assert found(server, TABLES) == [f"logs_{TODAY:%Y_%m_%d}"]
    assert kept.emails() == users(0, 2)


def test_a_run_with_nothing_new_drops_too_and_says_nothing_by_itself(kept: Site, server: Connection) -> None:
    done = kept.run()
    assert (done.stdout, done.stderr) == ("", "")
    assert OLD not in found(server, TABLES)


@pytest.mark.empty_database
def test_before_there_are_tables_and_beside_a_plain_one_nothing_happens(site: Site) -> None:
    site.set("retention", days=30)
    site.log.touch()
    site.run()
    assert site.query("SELECT to_regclass('logs')") == [(None,)]
    site.query('CREATE TABLE logs (id bigint, "timestamp" timestamptz)')
    site.run()
    assert "expected a table partitioned by day" in site.run("-v").stderr


def test_a_run_that_puts_its_lines_aside_drops_nothing(kept: Site) -> None:
    kept.append(today(1))
    kept.away()
    assert kept.run().stderr.count("\n") == 1
    assert kept.buffered() == users(1, 2)


def test_a_line_of_a_day_that_is_not_kept_is_stored_and_goes_with_its_day(kept: Site, server: Connection) -> None:
    kept.append(line(1, "2024/01/01 10:00:00"), line(2, "2024/01/07 10:00:00"))
    assert kept.run_here() == 0
    assert kept.last_stats()["processed"] == 2
    assert found(server, TABLES) == [f"logs_{TODAY:%Y_%m_%d}"]


def test_what_cannot_be_dropped_is_reported_once_and_stops_nothing_else(kept: Site, server: Connection) -> None:
    server.execute(f"CREATE VIEW january AS SELECT * FROM {OLD}")
    day(server, "2024-01-02")
    kept.append(today(1))
    kept.set("stats", prometheus="xraylog.prom")
    assert kept.run_here() == 3
    told = (kept.folder / "xraylog.prom").read_text()
    assert re.search(r"^xraylog_last_run_exit_status\{.*\} 3$", told, re.MULTILINE)
    assert re.search(r"^xraylog_last_success_timestamp_seconds\{.*\} [1-9]", told, re.MULTILINE)  # it has all lines
    assert f"ERROR   retention: {OLD}: cannot drop table {OLD} because other objects depend on it" in kept.output()
    assert "view january depends on table" in kept.output()
    assert "logs_2024_01_02" not in found(server, TABLES)
    assert (kept.last_stats()["mode"], kept.last_stats()["processed"]) == ("online", 1)
    assert kept.emails() == users(0, 2)

    server.execute("DROP VIEW january")
    assert kept.run_here() == 0
    assert found(server, TABLES) == [f"logs_{TODAY:%Y_%m_%d}"]


def test_tables_of_another_role_are_one_complaint(site: Site, server: Connection, database: dict[str, str]) -> None:
    day(server, "2024-01-01", "2024-01-02", "2024-03-20")
    name = f"role_of_{database['dbname']}"
    role = Identifier(name)
    server.execute(SQL("CREATE ROLE {} LOGIN PASSWORD {}").format(role, PASSWORD))
    server.execute(SQL("GRANT ALL ON ALL TABLES IN SCHEMA public TO {}").format(role))
    server.execute("REVOKE DELETE ON rejected_lines FROM PUBLIC")
    server.execute(SQL("REVOKE DELETE ON rejected_lines FROM {}").format(role))
    try:
        keywords = {**database, "user": name, "password": PASSWORD}
        with ours.connect(keywords) as conn, pytest.raises(Unsuitable) as told:
            enforce(conn)
        assert str(told.value) == (
            f"logs_2024_01_01 and 1 more: expected tables that {name} may drop, found those of {database['user']}; "
            f"ALTER TABLE … OWNER TO {name}, or GRANT {database['user']} TO {name}; "
            f"rejected_lines: permission denied for {'table' if server.info.server_version >= 110000 else 'relation'} "
            "rejected_lines (SQLSTATE 42501); "
            f"as their owner, or a superuser of PostgreSQL: GRANT SELECT, DELETE ON rejected_lines TO {name}"
        )
        assert len(found(server)) == 3
        site.set("postgresql", user=name, password=PASSWORD)
        site.set("retention", days=30)
        done = site.run("--dry-run", status=3)
        assert f"stays: it belongs to {database['user']}" in done.stdout
    finally:
        server.execute(SQL("DROP OWNED BY {}").format(role))
        server.execute(SQL("DROP ROLE {}").format(role))


def test_a_day_of_a_role_that_does_not_own_logs_is_dropped_and_names_need_a_grant(
    server: Connection, database: dict[str, str]
) -> None:
    """It may drop its day, but not detach it. So it must not mark it: the mark would outlive a detach by hand."""
    fill(server)
    server.execute("INSERT INTO users (email) VALUES ('unused')")
    day(server, f"{NOW:%Y-%m-%d}")
    name = f"role_of_{database['dbname']}"
    role = Identifier(name)
    server.execute(SQL("CREATE ROLE {} LOGIN PASSWORD {}").format(role, PASSWORD))
    try:
        server.execute(SQL("GRANT SELECT, INSERT, UPDATE ON ALL TABLES IN SCHEMA public TO {}").format(role))
        server.execute(SQL("GRANT DELETE ON rejected_lines TO {}").format(role))
        server.execute(SQL("ALTER TABLE {} OWNER TO {}").format(Identifier(OLD), role))
        keywords = {**database, "user": name, "password": PASSWORD}
        with ours.connect(keywords) as conn, pytest.raises(Unsuitable, match="unused names: permission denied") as told:
            enforce(conn, prune_names=True)
        assert found(server, TABLES) == [f"logs_{NOW:%Y_%m_%d}"]
        grant = "GRANT SELECT, DELETE ON users, endpoints, protocols, tags"
        assert f"{grant} TO {name}; GRANT SELECT ON logs, nodes TO {name}" in str(told.value)
    finally:
        server.execute(SQL("DROP OWNED BY {}").format(role))
        server.execute(SQL("DROP ROLE {}").format(role))


def test_check_wants_the_right_that_retention_needs(kept: Site, server: Connection, database: dict[str, str]) -> None:
    name = f"role_of_{database['dbname']}"
    server.execute(SQL("CREATE ROLE {} LOGIN PASSWORD {}").format(Identifier(name), PASSWORD))
    try:
        kept.set("postgresql", user=name, password=PASSWORD)
        assert f"GRANT SELECT, INSERT, DELETE ON rejected_lines TO {name}" in kept.run("--check", status=3).stdout
        kept.set("retention", days="")
        assert f"GRANT INSERT ON rejected_lines TO {name}" in kept.run("--check", status=3).stdout
        kept.set("retention", days=30, prune_names="true")
        said = kept.run("--check", status=3).stdout
        assert f"GRANT SELECT, INSERT, DELETE ON users TO {name}" in said
        assert f"GRANT SELECT, INSERT ON logs TO {name}" in said
    finally:
        server.execute(SQL("DROP ROLE {}").format(Identifier(name)))


# --- others at work ------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("impatient")
def test_during_a_long_query_nothing_is_changed_and_the_next_run_tries_again(
    kept: Site, server: Connection, other: Connection
) -> None:
    fill(server, "2024-01-02")
    with reader(other):
        kept.append(today(1))
        assert kept.run_here() == 0
        assert f"WARNING retention: {OLD}: a transaction has used logs for more than 1 s" in kept.output()
        assert kept.output().count("WARNING") == 1
        assert server.execute("SELECT count(*) FROM logs").fetchone() == (4,)
    assert kept.run_here() == 0
    assert found(server, TABLES) == [f"logs_{TODAY:%Y_%m_%d}"]


def test_nobody_who_comes_meanwhile_waits(kept: Site, server: Connection, other: Connection) -> None:
    polls = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'parse_logs' AND query ~ 'pg_locks'"
    server.execute("SET lock_timeout = '100ms'")
    with ThreadPoolExecutor() as pool:
        with reader(other):
            run = pool.submit(kept.run)
            wait_until(lambda: kept.query(polls) == [(1,)])
            for n in range(5):
                server.execute("INSERT INTO logs (\"timestamp\", action) VALUES (%s, 'accepted')", [TODAY])
                assert server.execute("SELECT count(*) FROM logs").fetchone() == (3 + n,)
            assert not run.done()
        run.result()
    assert OLD not in found(server, TABLES)


@pytest.fixture
def half_detached(server: Connection, other: Connection, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Leave the old day half detached, by a reader that blocks DETACH … CONCURRENTLY until it is cancelled."""
    if not concurrently(server):
        pytest.skip("PostgreSQL 14 is the first that has DETACH … CONCURRENTLY")
    fill(server)
    with monkeypatch.context() as patch, reader(other):
        patch.setattr(drop_table, "_wait_for_users", lambda _: None)
        with pytest.raises(Unavailable, match=OLD):
            enforce(server)
        ((bounds,),) = server.execute("SELECT count(*) FROM pg_inherits WHERE inhdetachpending")
        assert bounds == 1
        yield


@pytest.mark.usefixtures("impatient", "half_detached")
def test_a_half_detached_day_is_finished_by_the_next_run(server: Connection, other: Connection) -> None:
    other.execute("COMMIT")
    fill(server, "2024-01-02")
    assert [(table.name, table.stage) for table in expired.tables(server, 30, NOW)] == [
        (OLD, expired.Stage.PENDING),
        ("logs_2024_01_02", expired.Stage.ATTACHED),
    ]
    with transaction(server):
        assert len(partitions.read_bounds(server)) == 1
    assert len(enforce(server)) == 2
    assert found(server, TABLES) == []
    other.execute("BEGIN")


@contextlib.contextmanager
def killed_when_half_detached(site: Site) -> Iterator[None]:
    """Kill a run inside the block as soon as another session sees that the partition is half detached."""

    def watch() -> None:
        wait_until(lambda: site.query("SELECT count(*) FROM pg_inherits WHERE inhdetachpending") == [(1,)])
        faults.kill()

    threading.Thread(target=watch, daemon=True).start()
    yield


@pytest.mark.usefixtures("impatient")
def test_killed_while_the_server_is_still_detaching(
    kept: Site, server: Connection, other: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The killed run's session continues in the server. Whichever of the two comes second finds the work done."""
    if not concurrently(server):
        pytest.skip("PostgreSQL 14 is the first that has DETACH … CONCURRENTLY")
    with reader(other):
        with monkeypatch.context() as patch:
            patch.setattr(drop_table, "_wait_for_users", lambda _: None)
            patch.setattr(ours, "LOCK_TIMEOUT_S", 60)
            assert kept.run_here(inside=killed_when_half_detached(kept)) == -9
        kept.append(today(1))
        assert kept.run_here() == 0
        assert kept.output().count("WARNING retention: ") == 1
        assert found(server, TABLES)[0] == OLD
    assert kept.run_here() == 0
    assert found(server, TABLES) == [f"logs_{TODAY:%Y_%m_%d}"]
    assert kept.emails() == users(0, 2)


@pytest.mark.usefixtures("impatient", "half_detached")
def test_a_late_line_of_a_half_detached_day_recreates_it(server: Connection, other: Connection) -> None:
    with pytest.raises(errors.LockNotAvailable):  # an outage like any other: the line goes to the buffer
        day(server, OLD_DAY)
    other.execute("COMMIT")
    fill(server)
    assert server.execute("SELECT count(*) FROM logs").fetchone() == (1,)
    assert len(enforce(server)) == 2
    assert found(server, TABLES) == []
    other.execute("BEGIN")


def test_a_late_line_of_a_detached_day_recreates_it(site: Site, server: Connection) -> None:
    """A run was killed between DETACH and DROP, and retention is no longer set."""
    for n, load_path in enumerate(LOAD_PATHS):
        fill(server)
        server.execute(detach.mark(OLD))
        server.execute(f"ALTER TABLE logs DETACH PARTITION {OLD}")
        site.load_path = load_path
        site.append(line(n, "2024/01/01 10:00:00"))
        assert site.run_here() == 0
        assert site.emails() == users(n, n + 1)
        assert len(found(server, TABLES)) == 2  # it was renamed, with its rows
        assert len(enforce(server)) == 2
        assert found(server, TABLES) == []


def test_what_another_session_is_detaching_is_left_to_it(server: Connection, other: Connection) -> None:
    if not concurrently(server):
        pytest.skip("PostgreSQL 14 is the first that has DETACH … CONCURRENTLY")
    fill(server)
    day(server, "2024-01-02")
    with reader(other):
        server.execute("SET statement_timeout = '200ms'")
        with pytest.raises(errors.QueryCanceled):
            server.execute(f"ALTER TABLE logs DETACH PARTITION {OLD} CONCURRENTLY")
        server.execute("RESET statement_timeout")
    assert len(enforce(server)) == 1
    assert found(server, TABLES) == [OLD]


def test_runs_at_once_drop_each_partition_once(server: Connection, database: dict[str, str]) -> None:
    days = [f"2024-01-{n:02d}" for n in range(1, 13)]
    for name in days:
        fill(server, name)

    def run(_: int) -> list[str]:
        with ours.connect(database) as conn:
            return enforce(conn)

    with ThreadPoolExecutor(4) as pool:
        said = list(itertools.chain(*pool.map(run, range(4))))
    assert sorted(text.partition(" ")[0] for text in said) == [f"logs_{name.replace('-', '_')}" for name in days]
    assert found(server, TABLES) == []


FIRST_STEP = 9  # the steps before are the locks and the statistics, which test_kill.py tests


@pytest.mark.faults
@pytest.mark.parametrize("beside_default", [False, True], ids=["alone", "beside a DEFAULT partition"])
def test_a_drop_that_is_killed_at_any_step_is_finished_by_the_next_run(
    kept: Site, server: Connection, beside_default: bool, steps: faults.Steps
) -> None:
    """The next run finishes it, whether it has lines of that day, of today, or none."""
    if beside_default and server.info.server_version < 110000:
        pytest.skip("PostgreSQL 10 has no DEFAULT partition")
    if beside_default:
        server.execute("CREATE TABLE logs_default PARTITION OF logs DEFAULT")
    expected, names = users(0, 1), set()
    stay = found(server, TABLES)
    stay.remove(OLD)
    steps_of_retention = itertools.dropwhile(lambda step: step < FIRST_STEP, steps)
    for step in itertools.islice(steps_of_retention, 0, None, 1 + beside_default):
        fill(server)
        status = kept.run_here(kill_at=step)
        assert status in (0, -9)
        new = [[], [today(step)], [line(step, "2024/01/01 10:00:00")]][step % 3]
        kept.append(*new)
        assert kept.run_here() == 0, kept.output()[-2000:]
        assert not new or kept.last_stats()["processed"] == 1
        expected.update(users(step, step + 1) if step % 3 == 1 else {})
        assert kept.emails() == expected
        assert found(server, TABLES) == stay, kept.steps()[-1]
        if status == 0:
            break
        names.add(kept.steps()[-1].split(" ")[0])
    steps.expect({"execute"}, names, kept.folder / "steps")


def test_dropping_has_a_deadline_and_goes_on_in_the_next_run(
    server: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The oldest go first; names are pruned once, by the run that drops the last one."""
    monkeypatch.setattr(retention, "MAX_DROPPING_S", -1)
    fill(server, "2024-01-03")
    day(server, "2024-01-01", "2024-01-02")
    server.execute("INSERT INTO endpoints (address) VALUES ('unused')")
    for left in (2, 1):
        dropped, more = enforce(server, prune_names=True)
        assert dropped.startswith(f"logs_2024_01_0{3 - left} (")
        assert more == f"{left} more tables from before 2024-03-01 are left for the next runs"
        assert len(found(server)) == left
    assert len(enforce(server, prune_names=True)) == 2
    assert found(server, "SELECT address FROM endpoints") == []


def test_a_run_with_lines_stores_them_before_and_between(kept: Site, server: Connection) -> None:
    day(server, "2024-01-02")
    for n, tables in ((1, 2), (2, 1)):
        kept.append(today(n))
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(retention, "MAX_DROPPING_S", -1)
            assert kept.run_here() == 0
        assert kept.emails() == users(0, n + 1)
        assert len(found(server)) == tables


# --- unparsed lines ------------------------------------------------------------------------------------------


def test_unparsed_lines_of_the_same_days_go_some_at_a_time(server: Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    server.execute("INSERT INTO nodes (name) VALUES ('n1')")
    moments = ["2024-02-29 23:59:59.999999+00"] * 8 + ["2024-03-01 00:00+00", "2024-03-05 00:00+00"]
    for moment in moments:
        server.execute(
            "INSERT INTO rejected_lines (rejected_at, node_id, source, line_offset, reason, line) "
            "VALUES (%s::timestamptz, 1, 'access.log', 0, 'no line', '')",
            [moment],
        )
    monkeypatch.setattr(retention, "CHUNK_ROWS", 3)
    assert expired.count_unparsed_lines(server, 30, NOW) == 8
    assert enforce(server) == ["rejected_lines: 8 lines from before 2024-03-01 are removed"]
    assert server.execute("SELECT count(*), min(rejected_at) FROM rejected_lines").fetchone() == (
        2,
        datetime(2024, 3, 1, tzinfo=timezone.utc),
    )


AGAIN = """
    CREATE FUNCTION again() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        EXECUTE format('INSERT INTO %I SELECT ($1).*', TG_TABLE_NAME) USING OLD;
        RETURN NULL;
    END $$
"""
KEEP = "CREATE FUNCTION keep() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'"
KEEPING = {
    "a trigger that inserts them again": (
        f"{AGAIN}; CREATE TRIGGER kept AFTER DELETE ON {{0}} FOR EACH ROW EXECUTE PROCEDURE again()",
        "ALTER TABLE {0} DISABLE TRIGGER kept",
    ),
    "a trigger that keeps them": (
        f"{KEEP}; CREATE TRIGGER kept BEFORE DELETE ON {{0}} FOR EACH ROW EXECUTE PROCEDURE keep()",
        "ALTER TABLE {0} DISABLE TRIGGER kept",
    ),
    "a rule": ("CREATE RULE kept AS ON DELETE TO {0} DO INSTEAD NOTHING", "DROP RULE kept ON {0}"),
}


@pytest.mark.parametrize("how", KEEPING)
@pytest.mark.parametrize("table", ["rejected_lines", "dns_names"])
def test_what_keeps_old_rows_is_named_and_ends_no_run_late(
    server: Connection, monkeypatch: pytest.MonkeyPatch, table: str, how: str
) -> None:
    """A trigger that inserts what is deleted would otherwise be fed forever."""
    server.execute("INSERT INTO nodes (name) VALUES ('n1')")
    server.execute(dns_names.CREATE)
    for n in range(7):
        server.execute("INSERT INTO dns_names VALUES ('2024-01-01', 1, '192.0.2.1', %s)", [n])
        server.execute(
            "INSERT INTO rejected_lines (rejected_at, node_id, source, line_offset, reason, line) "
            "VALUES ('2024-01-01', 1, 'access.log', %s, 'no line', '')",
            [n],
        )
    made, mends = (text.format(table) for text in KEEPING[how])
    server.execute(made)
    monkeypatch.setattr(retention, "CHUNK_ROWS", 3)
    with pytest.raises(Unsuitable) as told:
        enforce(server)
    expected = f"{table} keeps 7 rows that are older than [retention] days; as their owner, or a superuser of "
    assert str(told.value) == f"{expected}PostgreSQL: {mends}"
    server.execute(mends)
    enforce(server)
    assert server.execute(f"SELECT count(*) FROM {table}").fetchone() == (0,)


# --- names ---------------------------------------------------------------------------------------------------

NAMES = {"users": "email", "endpoints": "address", "protocols": "name", "tags": "name"}


def add_unused(conn: Connection) -> None:
    for table, column in NAMES.items():
        conn.execute(f"INSERT INTO {table} ({column}) VALUES ('unused')")


def unused_left(conn: Connection) -> int:
    return sum(len(found(conn, f"SELECT id FROM {table} WHERE {column} = 'unused'")) for table, column in NAMES.items())


def test_unused_names_go_only_when_that_is_wanted_and_used_ones_stay(kept: Site, server: Connection) -> None:
    add_unused(server)
    assert kept.run_here() == 0
    assert OLD not in found(server)
    assert unused_left(server) == 4

    kept.set("retention", prune_names="true")
    assert kept.run_here() == 0
    assert unused_left(server) == 4  # all of logs is read, so not by every run

    fill(server)
    rows, nodes = kept.rows()[:1], kept.query("SELECT * FROM nodes")
    assert kept.run_here() == 0
    assert unused_left(server) == 0
    assert kept.rows() == rows
    assert len(kept.query("SELECT id FROM tags")) == 2
    assert kept.query("SELECT * FROM nodes") == nodes


def test_many_names_go_some_at_a_time(server: Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prune, "BATCH_NAMES", 100)
    day(server, "2024-03-20")
    server.execute("INSERT INTO endpoints (address) SELECT 'host ' || n FROM generate_series(1, 2000) AS n")
    server.execute(
        "INSERT INTO logs (\"timestamp\", action, destination_id) SELECT '2024-03-20 12:00+00', 'accepted', id "
        "FROM endpoints WHERE id % 10 = 0"
    )
    assert list(prune.remove(server)) == ["endpoints: 1800 names that no row of logs uses are removed"]
    assert server.execute("SELECT count(*) FROM endpoints WHERE id % 10 = 0").fetchone() == (200,)
    assert server.execute("SELECT count(*) FROM endpoints").fetchone() == (200,)


def test_while_a_run_of_any_node_stores_rows_no_name_goes(
    server: Connection, other: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prune, "MAX_SECONDS", 0.3)
    server.execute("INSERT INTO nodes (name) VALUES ('n1'), ('n2')")
    add_unused(server)
    with transaction(other, positions.node_lock("n2")):
        said = list(prune.remove(server))
    assert said == [
        f"{table}: 0 names that no row of logs uses are removed, and 1 are left for another day" for table in NAMES
    ]
    assert unused_left(server) == 4


@pytest.mark.parametrize("load_path", LOAD_PATHS)
def test_names_that_go_between_a_runs_names_and_its_rows_are_recreated(
    site: Site, server: Connection, monkeypatch: pytest.MonkeyPatch, load_path: str
) -> None:
    """On each load path the foreign keys refuse the rows, and nothing is stored until the names are recreated."""
    site.load_path = load_path
    resolve = References.resolve
    removed: list[str] = []

    def resolve_and_remove(self: References, names: Mapping[str, Iterable[str]]) -> Resolved:
        resolved = resolve(self, names)
        if "users" in names and not removed:
            with psycopg.connect(**site.database, autocommit=True) as conn:  # type: ignore[arg-type]
                removed.extend(prune.remove(conn))
            (site.folder / "removed").write_text("\n".join(removed))
        return resolved

    monkeypatch.setattr(References, "resolve", resolve_and_remove)
    site.append(*[today(n % 50) for n in range(200)])
    assert site.run_here() == 0, site.output()
    assert "users: 50 names that no row of logs uses are removed" in (site.folder / "removed").read_text()
    assert site.emails() == Counter({f"u{n}": 4 for n in range(50)})
    assert "WARNING" not in site.output()
    assert len(found(server, "SELECT id FROM users")) == 50


def test_names_without_a_key_that_guards_them_stay(server: Connection) -> None:
    day(server, "2024-03-20")
    add_unused(server)
    table = "logs" if server.info.server_version >= 110000 else "logs_2024_03_20"
    keys = f"SELECT conname FROM pg_constraint WHERE conrelid = '{table}'::regclass AND conname ~ %s"
    for column in ("user_id", "outbound_tag_id"):
        ((key,),) = server.execute(keys, [column])
        server.execute(SQL("ALTER TABLE {} DROP CONSTRAINT {}").format(Identifier(table), Identifier(key)))
    server.execute(f"ALTER TABLE {table} ADD FOREIGN KEY (user_id) REFERENCES users ON DELETE CASCADE")
    of_users, of_endpoints, of_protocols, of_tags = prune.remove(server)
    assert of_users.startswith("users: no name is removed: expected a foreign key on each of logs.user_id")
    assert of_tags.startswith("tags: no name is removed: expected a foreign key on each of logs.inbound_tag_id, out")
    assert of_endpoints.startswith("endpoints: 1 names")
    assert of_protocols.startswith("protocols: 1 names")
    assert unused_left(server) == 2


def test_names_that_another_table_refers_to_stay(server: Connection) -> None:
    server.execute("CREATE TABLE payments (user_id integer REFERENCES users ON DELETE CASCADE)")
    add_unused(server)
    of_users, *_ = prune.remove(server)
    assert of_users == "users: no name is removed: payments refers to it, too"
    assert unused_left(server) == 1


def test_names_of_a_day_that_comes_to_an_end_go_with_it(site: Site, server: Connection) -> None:
    site.set("retention", days=30, prune_names="true")
    site.append(line(2, "2024/01/01 10:00:00"), today(1))
    assert site.run_here() == 0
    assert site.emails() == users(1, 2)
    assert found(server, "SELECT email FROM users") == ["u1"]
