"""Create plain tables to migrate, read their content afterwards, and kill migrations at certain points."""

from __future__ import annotations

import contextlib
import importlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from psycopg import Transaction
from psycopg.pq import PipelineStatus, TransactionStatus
from psycopg.sql import SQL, Identifier

from helpers import faults
from helpers.site import Site
from xraylog.database import ddl
from xraylog.database.session import Connection

MIGRATE = "migrate_logs_to_partitioned"
PASSWORD = "only for this test"  # noqa: S105  # of roles that end with it


DAYS = ["2025-11-15", "2025-11-16", "2025-11-17"]


# Schema.md's logs from before it was partitioned.
OLDER = """
    CREATE TABLE logs (
        id               bigserial   PRIMARY KEY,
        "timestamp"      timestamptz NOT NULL,
        source_ip        inet,
        source_port      integer,
        action           text        NOT NULL,
        protocol_id      integer REFERENCES protocols,
        destination_id   integer REFERENCES endpoints,
        destination_port integer,
        inbound_tag_id   integer REFERENCES tags,
        outbound_tag_id  integer REFERENCES tags,
        user_id          integer REFERENCES users,
        node_id          integer REFERENCES nodes
    )
"""


# A table made by hand: other types, NOT NULL source, no key, own names.
BY_HAND = """
    CREATE TABLE logs (
        id serial,
        country varchar(2) COLLATE "C" DEFAULT 'de' CHECK (country <> 'xx'),
        "timestamp" timestamptz DEFAULT now(),
        source_ip varchar(45) NOT NULL,
        source_port smallint NOT NULL,
        action varchar(16) NOT NULL,
        protocol_id integer,
        destination_id bigint,
        destination_port integer,
        inbound_tag_id integer,
        outbound_tag_id integer,
        user_id integer NOT NULL REFERENCES users ON DELETE RESTRICT,
        bytes double precision,
        number serial
    );
    CREATE INDEX logs_timestamp_idx ON logs ("timestamp");
    CREATE INDEX logs_user_id_timestamp_idx ON logs (source_ip, user_id);
    CREATE INDEX "by Country" ON logs (lower(country)) WHERE country IS NOT NULL;
    CREATE UNIQUE INDEX once ON logs ("timestamp", id);
"""


ROWS = """
    INSERT INTO logs ("timestamp", source_ip, source_port, action, protocol_id, destination_id, destination_port,
                      inbound_tag_id, outbound_tag_id, user_id)
    SELECT timestamptz '{first} 00:00+00' + n * interval '{days} days' / {rows}, '203.0.113.7', 1024 + n, 'accepted',
           1, 1, 443, 1, NULL, n % 3 + 1
    FROM generate_series(0, {rows} - 1) AS n
"""


CONTENT = """
    SELECT id, "timestamp", host(source_ip::inet), source_port::integer, action::text, protocol_id, destination_id,
           destination_port, inbound_tag_id, outbound_tag_id, user_id
    FROM {table}
    ORDER BY id
"""


INSERT = "INSERT INTO logs (\"timestamp\", action) VALUES ('2025-11-17 12:00+00', 'accepted')"


def make_names(conn: Connection) -> None:
    for name in ("users", "protocols", "endpoints", "tags", "nodes"):
        for statement in ddl.create(name):
            conn.execute(statement)
    conn.execute("INSERT INTO users (email) VALUES ('alice'), ('bob'), ('carol')")
    conn.execute("INSERT INTO protocols (name) VALUES ('tcp')")
    conn.execute("INSERT INTO endpoints (address) VALUES ('www.example.com')")
    conn.execute("INSERT INTO tags (name) VALUES ('in')")


def make_plain_logs(conn: Connection, table: str = OLDER, rows: int = 60, first: str = DAYS[0], days: int = 3) -> None:
    """Create a plain `logs` with rows of three days."""
    make_names(conn)
    conn.execute(table)
    if rows:
        conn.execute(ROWS.format(rows=rows, first=first, days=days))


def content(conn: Connection, table: str = "logs") -> list[tuple[Any, ...]]:
    return conn.execute(CONTENT.format(table=table)).fetchall()


def days_of(conn: Connection) -> Counter[str]:
    """Return the number of rows of each partition, by its name."""
    found = conn.execute("SELECT tableoid::regclass::text, count(*) FROM logs GROUP BY 1")
    return Counter(dict(found.fetchall()))


def is_plain(conn: Connection) -> bool:
    ((kind,),) = conn.execute("SELECT relkind::text FROM pg_class WHERE oid = 'logs'::regclass")
    return bool(kind == "r")


def columns(conn: Connection, table: str = "logs") -> dict[str, str]:
    return dict(
        conn.execute(
            "SELECT attname, format_type(atttypid, atttypmod) FROM pg_attribute "
            "WHERE attrelid = %s::regclass AND attnum > 0 AND NOT attisdropped ORDER BY attnum",
            [table],
        ).fetchall()
    )


def indexes(conn: Connection, table: str) -> dict[str, str]:
    """Return the indexes of a table: names, and definitions after USING."""
    found = conn.execute(
        "SELECT c.relname, pg_get_indexdef(i.indexrelid) FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid "
        "WHERE i.indrelid = %s::regclass",
        [table],
    )
    return {name: text.partition(" USING ")[2] for name, text in found}


@contextlib.contextmanager
def dying_after(module: str, function: str) -> Iterator[None]:
    """Let a forked run end as soon as this function has returned."""
    place = importlib.import_module(f"xraylog.migration.{module}")
    real = getattr(place, function)

    def die(*arguments: Any) -> None:
        real(*arguments)
        faults.kill()

    setattr(place, function, die)
    yield


def stop_after_the_rename(site: Site) -> None:
    """Run a migration that is killed when the new `logs` has just been created."""
    assert site.run_here(script=MIGRATE, inside=dying_after("swap", "swap")) == -9, site.output()


def stop_in_the_middle(site: Site) -> None:
    """Run a migration that is killed when the first day has just been copied."""
    assert site.run_here(script=MIGRATE, inside=dying_after("backfill", "copy_day")) == -9, site.output()


@contextlib.contextmanager
def counting_locks(path: Path) -> Iterator[None]:
    """Count in a forked run how many locks on tables and indexes a transaction held at its end, at most."""
    real = Transaction.__exit__
    most = 0

    def end(transaction: Transaction, *arguments: Any) -> Any:
        nonlocal most
        conn = transaction.connection
        is_open = conn.info.transaction_status == TransactionStatus.INTRANS
        if is_open and conn.info.pipeline_status == PipelineStatus.OFF:
            held = "SELECT count(*) FROM pg_locks WHERE locktype = 'relation' AND pid = pg_backend_pid()"
            ((now,),) = conn.execute(held)
            most = max(most, now)
            path.write_text(str(most))
        return real(transaction, *arguments)

    Transaction.__exit__ = end  # type: ignore[method-assign]
    yield


def most_locks(site: Site, *arguments: str) -> int:
    """Run a migration; return the largest number of locks that one of its transactions held."""
    path = site.folder / "locks"
    assert site.run_here(*arguments, script=MIGRATE, inside=counting_locks(path)) == 0, site.output()
    return int(path.read_text())


def give_tables(conn: Connection, owner: str) -> None:
    """Let a role own the tables, as if it had made them, and create others."""
    conn.execute(SQL("GRANT CREATE ON SCHEMA public TO {}").format(Identifier(owner)))
    for table in ("logs", *ddl.REFERENCE_TABLES):
        conn.execute(SQL("ALTER TABLE {} OWNER TO {}").format(Identifier(table), Identifier(owner)))


def log_in_as(site: Site, role: str) -> None:
    """Let all that follows connect as this role."""
    site.set("postgresql", user=role, password=PASSWORD)
