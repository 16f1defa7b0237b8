"""Imitate Citus on a single server: its catalog, its functions, and errors that were observed on a real cluster."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql

from xraylog.database import ddl

Connection = psycopg.Connection[tuple[Any, ...]]

CATALOG = """
    CREATE TABLE pg_dist_partition (logicalrelid regclass NOT NULL, partmethod "char" NOT NULL, partkey text);
    ALTER TABLE pg_dist_partition SET SCHEMA pg_catalog;
    CREATE TABLE pg_dist_shard (logicalrelid regclass NOT NULL, shardid bigint);
    ALTER TABLE pg_dist_shard SET SCHEMA pg_catalog;
    CREATE TABLE pg_dist_node (nodename text, nodeport integer, isactive boolean, noderole text,
                               shouldhaveshards boolean);
    ALTER TABLE pg_dist_node SET SCHEMA pg_catalog;
    GRANT SELECT ON pg_catalog.pg_dist_partition, pg_catalog.pg_dist_shard, pg_catalog.pg_dist_node TO PUBLIC;
    INSERT INTO pg_catalog.pg_dist_node VALUES ('coordinator', 5432, true, 'primary', false),
        ('one', 5432, true, 'primary', true), ('two', 5432, true, 'primary', true);
    CREATE TABLE cluster_health (from_nodename text, from_nodeport integer, to_nodename text, to_nodeport integer,
                                 result boolean);
    INSERT INTO cluster_health VALUES ('coordinator', 5432, 'one', 5432, true);
    GRANT SELECT ON cluster_health TO PUBLIC;
    CREATE FUNCTION pg_catalog.citus_check_cluster_node_health() RETURNS SETOF cluster_health LANGUAGE sql AS
        $$ SELECT * FROM public.cluster_health $$;
    CREATE FUNCTION pg_catalog.citus_total_relation_size(relation regclass) RETURNS bigint LANGUAGE sql AS
        $$ SELECT pg_total_relation_size(relation) $$;
"""
# The workers' answers where the role has the right on all, or lacks it on one.
WORKER_WITH_GRANT = """
    CREATE OR REPLACE FUNCTION pg_catalog.run_command_on_workers(command text)
    RETURNS TABLE (nodename text, nodeport integer, success boolean, result text) LANGUAGE sql AS
        $$ VALUES ('one', 5432, true, 't'), ('two', 5432, true, 't') $$;
"""
WORKER_WITHOUT_GRANT = """
    CREATE OR REPLACE FUNCTION pg_catalog.run_command_on_workers(command text)
    RETURNS TABLE (nodename text, nodeport integer, success boolean, result text) LANGUAGE sql AS
        $$ VALUES ('one', 5432, true, 't'), ('two', 5432, true, 'f') $$;
"""
# With these SQLSTATEs, and in nearly these words.
REFUSED_DDL = r"""
    CREATE FUNCTION refuse() RETURNS event_trigger LANGUAGE plpgsql AS $$
    BEGIN
        IF current_query() ~* 'DETACH\s+PARTITION\s.*\s(CONCURRENTLY|FINALIZE)' THEN
            RAISE EXCEPTION 'this command is not supported on distributed tables' USING ERRCODE = 'XX000';
        ELSIF current_query() ~* 'ALTER\s+TABLE\s+"?logs"?\s+ADD\s+FOREIGN\s+KEY' THEN
            RAISE EXCEPTION 'cannot add NOT VALID foreign key on partitioned table "logs"' USING ERRCODE = '42809';
        END IF;
    END $$;
    CREATE EVENT TRIGGER refuse ON ddl_command_start EXECUTE PROCEDURE refuse();
"""
# A worker refuses a row. The coordinator's COPY keeps its words and nothing else; an INSERT the SQLSTATE, too.
REFUSED_ROWS = r"""
    CREATE FUNCTION refuse_row() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        IF NEW.source_port = 1031 THEN
            RAISE EXCEPTION 'new row for relation "logs_103444" violates check constraint "no_port"'
                USING ERRCODE = CASE WHEN current_query() ~* '^\s*COPY' THEN 'XX000' ELSE '{state}' END;
        END IF;
        RETURN NEW;
    END $$;
"""


def distribute(conn: Connection, *, workers_agree: bool = True) -> None:
    """Make our tables look as if Citus managed them: `logs` on two workers, the reference tables on each of these."""
    conn.execute(CATALOG)
    conn.execute(REFUSED_DDL)
    conn.execute("INSERT INTO pg_dist_partition VALUES ('logs', 'h', 'id')")
    for table in ddl.REFERENCE_TABLES:
        conn.execute("INSERT INTO pg_dist_partition VALUES (%s, 'n', NULL)", [table])
    conn.execute("INSERT INTO pg_dist_shard SELECT 'logs', n FROM generate_series(1, 8) n")
    conn.execute(WORKER_WITH_GRANT if workers_agree else WORKER_WITHOUT_GRANT)


def refuse_row_7(conn: Connection, state: str = "23514") -> None:
    """Make the workers refuse the row of line(7) from now on, in each partition that exists now."""
    conn.execute(REFUSED_ROWS.replace("{state}", state))  # type: ignore[call-overload]
    partitions = conn.execute("SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = 'logs'::regclass")
    for (name,) in partitions.fetchall():
        table = sql.SQL(name)  # quoted by the catalog
        conn.execute(sql.SQL("CREATE TRIGGER worker BEFORE INSERT ON {} FOR EACH ROW EXECUTE PROCEDURE refuse_row()")
                     .format(table))  # fmt: skip
        conn.execute(sql.SQL("ALTER TABLE {} ENABLE ALWAYS TRIGGER worker").format(table))


def record(monkeypatch: pytest.MonkeyPatch, path: Path) -> Callable[[], list[str]]:
    """Record every statement that this process and its children send from now on; return a function that reads them."""
    path.touch()

    def recorded(real: Callable[..., Any]) -> Callable[..., Any]:
        def send(cursor: Any, query: Any, *arguments: Any, **keywords: Any) -> Any:
            text = query.as_string(cursor) if isinstance(query, sql.Composable) else query
            text = text.decode() if isinstance(text, bytes) else text
            descriptor = os.open(path, os.O_WRONLY | os.O_APPEND)
            os.write(descriptor, json.dumps(text).encode() + b"\n")
            os.close(descriptor)
            return real(cursor, query, *arguments, **keywords)

        return send

    for kind, name in ((psycopg.Cursor, "execute"), (psycopg.Cursor, "copy"), (psycopg.ServerCursor, "execute")):
        monkeypatch.setattr(kind, name, recorded(getattr(kind, name)))

    def read() -> list[str]:
        return [" ".join(json.loads(text).split()) for text in path.read_text().splitlines()]

    return read


NAMES = "|".join(ddl.REFERENCE_TABLES)
OURS = "|".join(ddl.TABLES)  # Citus manages all: those that it does not distribute refer to some that it does
ROWS = re.compile(r'\b(?:FROM|JOIN|INTO|UPDATE|COPY|TABLE|ON)\s+"?logs(?:_\w+)?"?\b')  # statements about them
REFUSED = {  # kinds of statements that a cluster refused, or ran slowly
    "GROUPING SETS": re.compile(r"\bGROUPING\s+SETS\b|\b(?:CUBE|ROLLUP)\s*\("),
    "LATERAL": re.compile(r"\bLATERAL\s*\((?:[^()]|\([^()]*\))*\blogs\b"),
    "a correlated subquery": re.compile(r"\(\s*SELECT\s[^()]*\sFROM\s+logs\s+(\w+)\s+WHERE\s+\1\.\w+\s*=\s*\w+\.\w+"),
    "a UNION ALL of no row": re.compile(r"\bWHERE\s+false\b"),
    "names that depend on rows": re.compile(rf'^(?:DELETE\s+FROM|UPDATE|INSERT\s+INTO)\s+"?(?:{NAMES})\b'),
    "DDL": re.compile(r"\bATTACH\s+PARTITION\b|\bCONCURRENTLY\b|\bFINALIZE\b|\blogs\"?\s+ADD\s+FOREIGN\s+KEY\b"),
    "now() on the workers": re.compile(r'"timestamp"\s*[<>]=?\s*(?:date_trunc\([^)]*)?now\(\)'),
}
CHANGES = re.compile(rf'^(?:DELETE\s+FROM|UPDATE|INSERT\s+INTO)\s+"?(?:{OURS})\b')
REFUSED_CHANGES = {  # would have to be computed on each server, which Citus's planner of UPDATE and DELETE refuses
    "now() in a CASE": re.compile(r"\b(?:CASE\b(?:(?!\bEND\b).)*|(?i:coalesce)\s*\((?:[^()]|\([^()]*\))*)\bnow\(\)"),
    "a function that is not immutable": re.compile(
        r"\b(?:extract|date_part|date_trunc|to_jsonb?|to_char)\s*\(|\bRETURNING\b.*\bnow\(\)"
    ),
}
NO_COLUMN = re.compile(rf'\bSELECT\s+FROM\s+(?:public\.)?"?(?:{OURS})\b')
LOCK = re.compile(r"\bFOR\s+(?:NO\s+KEY\s+UPDATE|KEY\s+SHARE|UPDATE|SHARE)\b")


def refused(statements: Sequence[str]) -> list[str]:
    """Return the statements that Citus would refuse, or run slowly, each with the reason."""
    found = [f"{form}: {text}" for text in statements if ROWS.search(text)
             for form, pattern in REFUSED.items() if pattern.search(text)]  # fmt: skip
    found += [f"{form}: {text}" for text in statements if CHANGES.search(text)
              for form, pattern in REFUSED_CHANGES.items() if pattern.search(text)]  # fmt: skip
    found += [f"a SELECT of no column: {text}" for text in statements if NO_COLUMN.search(text)]
    for number, text in enumerate(statements):
        if LOCK.search(text) and re.search(rf"\b(?:{NAMES})\b", text):
            found.append(f"a lock of names: {text}")
        if re.search(r"set_config\('session_replication_role', (?!'origin')", text):  # that is what the workers have
            found.append(f"a setting that stays here: {text}")
        before = " ".join(statements[max(0, number - 2) : number])
        if text.startswith("SET LOCAL") and "citus" not in text and not re.search("multi_shard.*propagate", before):
            found.append(f"a setting out of order: {text}")
    return found


def settings(statements: Sequence[str]) -> list[str]:
    """Return the settings that are passed on to the workers, in their order."""
    return [text for text in statements if text.startswith("SET LOCAL")]
