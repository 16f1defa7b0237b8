"""Find what operators added to our tables that refuses, hides or drops rows: triggers, rules, policies, constraints.

Each is returned with the statement that removes it, because an error of PL/pgSQL, or of a rule, does not name its
origin.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

import psycopg

from xraylog.database import ddl
from xraylog.database.session import Connection


class Found(NamedTuple):
    """A trigger, rule, policy or index on our tables that is not ours."""

    statement: str  # disables or removes it
    name: str | None  # by which an error names it: that of the function it calls, or of the index
    table: str | None  # None: it applies to all tables


# A trigger on `logs` also exists on each partition: disabling it on `logs` is enough.
OBJECTS = """
    WITH ours AS (
        SELECT c.oid, c.relname AS name FROM pg_class c WHERE c.relname = ANY(%s) AND pg_table_is_visible(c.oid)
        UNION ALL
        SELECT inhrelid, 'logs' FROM pg_inherits WHERE inhparent = to_regclass('logs') AND 'logs' = ANY(%s)
    )
    SELECT DISTINCT ON (o.name, t.tgname)
           format('ALTER TABLE %%s DISABLE TRIGGER %%I', t.tgrelid::regclass, t.tgname), p.proname::text, o.name::text
    FROM pg_trigger t
    JOIN ours o ON o.oid = t.tgrelid
    JOIN pg_proc p ON p.oid = t.tgfoid
    WHERE NOT t.tgisinternal AND t.tgenabled <> 'D'
    ORDER BY o.name, t.tgname, t.tgrelid <> to_regclass('logs')
"""
RULES = """
    SELECT format('DROP RULE %%I ON %%s', r.rulename, c.oid::regclass), NULL, c.relname::text
    FROM pg_rewrite r
    JOIN pg_class c ON c.oid = r.ev_class
    WHERE c.relkind <> 'v' AND c.relname = ANY(%s) AND pg_table_is_visible(c.oid)
    ORDER BY 1
"""
EVENT_TRIGGERS = """
    SELECT format('ALTER EVENT TRIGGER %I DISABLE', e.evtname), p.proname::text, NULL
    FROM pg_event_trigger e
    JOIN pg_proc p ON p.oid = e.evtfoid
    WHERE e.evtenabled <> 'D' AND (e.evtevent LIKE 'ddl_command%' OR e.evtevent = 'sql_drop')
    ORDER BY 1
"""
# Policies do not apply to the owner of a table unless forced; any other role needs BYPASSRLS.
POLICIES = """
    SELECT CASE WHEN pg_has_role(c.relowner, 'USAGE')
                THEN format('ALTER TABLE %%s NO FORCE ROW LEVEL SECURITY', c.oid::regclass)
                ELSE format('ALTER ROLE %%I BYPASSRLS', current_user) END, NULL, c.relname::text
    FROM pg_class c
    WHERE c.relname = ANY(%s) AND pg_table_is_visible(c.oid) AND row_security_active(c.oid)
    ORDER BY 3
"""
CHECKS = """
    SELECT format('ALTER TABLE %%s DROP CONSTRAINT %%I', c.oid::regclass, k.conname), k.conname
    FROM pg_constraint k
    JOIN pg_class c ON c.oid = k.conrelid
    WHERE k.contype = 'c' AND c.relname = ANY(%s) AND pg_table_is_visible(c.oid)
    ORDER BY 1
"""
# A publication of updates and deletes refuses those of a table without a replica identity.
IDENTITIES = """
    SELECT format('ALTER TABLE %%s REPLICA IDENTITY %%s', c.oid::regclass,
                  CASE WHEN k.indrelid IS NULL THEN 'FULL' ELSE 'DEFAULT' END)
    FROM pg_class c
    LEFT JOIN pg_index k ON k.indrelid = c.oid AND k.indisprimary
    WHERE c.relname = ANY(%s) AND c.relkind = 'r' AND pg_table_is_visible(c.oid)
      AND CASE c.relreplident
              WHEN 'd' THEN k.indrelid IS NULL
              WHEN 'i' THEN NOT EXISTS (SELECT FROM pg_index i WHERE i.indrelid = c.oid AND i.indisreplident)
              ELSE c.relreplident = 'n' END
    ORDER BY 1
"""

# The views on some tables, and those on views. OR REPLACE can make two that read each other.
MAX_DEPTH = 100
VIEWS_ON = f"""
    view (oid, depth) AS (
        SELECT r.ev_class, 1
        FROM pg_depend d
        JOIN pg_rewrite r ON d.classid = 'pg_rewrite'::regclass AND r.oid = d.objid
        WHERE d.refclassid = 'pg_class'::regclass AND d.refobjid = ANY(%(tables)s::oid[])
          AND r.ev_class <> d.refobjid
        UNION
        SELECT r.ev_class, depth + 1
        FROM view
        JOIN pg_depend d ON d.refclassid = 'pg_class'::regclass AND d.refobjid = view.oid
        JOIN pg_rewrite r ON d.classid = 'pg_rewrite'::regclass AND r.oid = d.objid
        WHERE r.ev_class <> view.oid AND depth < {MAX_DEPTH}
    )
"""  # noqa: S608  # a constant
# Those on views first.
VIEWS = f"""
    WITH RECURSIVE {VIEWS_ON}
    SELECT CASE c.relkind WHEN 'm' THEN 'materialized view' ELSE 'view' END, c.oid::regclass::text
    FROM view JOIN pg_class c ON c.oid = view.oid
    WHERE c.relkind IN ('v', 'm')
    GROUP BY c.oid, c.relkind
    ORDER BY max(depth) DESC, 2
"""  # noqa: S608  # a constant
# Views, and foreign keys.
DEPENDENTS = f"""
    WITH RECURSIVE {VIEWS_ON}, statement (text, depth) AS (
        SELECT format('DROP %%s %%s', CASE c.relkind WHEN 'm' THEN 'MATERIALIZED VIEW' ELSE 'VIEW' END,
                      c.oid::regclass), max(depth)
        FROM view JOIN pg_class c ON c.oid = view.oid
        WHERE c.relkind IN ('v', 'm')
        GROUP BY c.oid, c.relkind
        UNION ALL
        SELECT format('ALTER TABLE %%s DROP CONSTRAINT %%I', k.conrelid::regclass, k.conname), 0
        FROM pg_constraint k
        WHERE k.contype = 'f' AND k.confrelid = ANY(%(tables)s::oid[])
    )
    SELECT text FROM statement ORDER BY depth DESC, text
"""  # noqa: S608  # a constant
# Ours are the primary keys, and those of the columns with the names in reference tables.
UNIQUE_INDEXES = """
    SELECT CASE WHEN k.oid IS NULL THEN format('DROP INDEX %%s', i.indexrelid::regclass)
                ELSE format('ALTER TABLE %%s DROP CONSTRAINT %%I', c.oid::regclass, k.conname) END,
           x.relname::text, c.relname::text
    FROM pg_index i
    JOIN pg_class c ON c.oid = i.indrelid
    JOIN pg_class x ON x.oid = i.indexrelid
    LEFT JOIN pg_constraint k ON k.conindid = x.oid AND k.contype IN ('u', 'x') AND k.conrelid = c.oid
    WHERE c.relname = ANY(%s) AND pg_table_is_visible(c.oid) AND (i.indisunique OR i.indisexclusion)
      AND NOT i.indisprimary
      AND NOT EXISTS (SELECT FROM pg_attribute a
                      WHERE a.attrelid = c.oid AND a.attname = ANY(%s) AND i.indkey::text = a.attnum::text
                        AND i.indpred IS NULL)
    ORDER BY 3, 2
"""


def triggers(conn: Connection, tables: Sequence[str] = tuple(ddl.TABLES)) -> list[Found]:
    """Return the triggers on these tables, and on partitions of logs, that are not ours."""
    return [Found(*row) for row in conn.execute(OBJECTS, [list(tables)] * 2)]


def rules(conn: Connection, tables: Sequence[str] = tuple(ddl.TABLES)) -> list[Found]:
    """Return the rules on these tables. COPY into `logs` and `rejected_lines` bypasses them."""
    return [Found(*row) for row in conn.execute(RULES, [list(tables)])]


def policies(conn: Connection, tables: Sequence[str] = tuple(ddl.TABLES)) -> list[Found]:
    """Return what exempts this role from row-level security, which hides rows and does not work with COPY."""
    return [Found(*row) for row in conn.execute(POLICIES, [list(tables)])]


def constraints(conn: Connection, message: str) -> list[str]:
    """Return the statements that drop the CHECK constraints and unique indexes that this message names."""
    named = [*conn.execute(CHECKS, [list(ddl.TABLES)]), *(index[:2] for index in unique_indexes(conn))]
    return [statement for statement, name in named if f'"{name}"' in message]


def unique_indexes(conn: Connection, tables: Sequence[str] = tuple(ddl.TABLES)) -> list[Found]:
    """Return the unique indexes that are not ours."""
    ours = [*ddl.REFERENCE_TABLES.values(), "id"]
    return [Found(*row) for row in conn.execute(UNIQUE_INDEXES, [list(tables), ours])]


def culprits(conn: Connection, error: psycopg.Error) -> list[str]:
    """Return the statements that remove what raised this error, if its context or kind shows what that was."""
    if isinstance(error, psycopg.errors.FeatureNotSupported):  # INSERT ... RETURNING into a table with a rule
        return [rule.statement for rule in rules(conn)]
    if isinstance(error, psycopg.errors.ObjectNotInPrerequisiteState):
        return [statement for (statement,) in conn.execute(IDENTITIES, [list(ddl.TABLES)])]
    called = [*triggers(conn), *(Found(*row) for row in conn.execute(EVENT_TRIGGERS))]
    context = error.diag.context or ""
    return [one.statement for one in called if re.search(rf"\b{re.escape(one.name or '')}\(", context)]


def dependents(conn: Connection, tables: Sequence[int]) -> list[str]:
    """Return the statements that remove what prevents these tables, given by oid, from being dropped."""
    return [statement for (statement,) in conn.execute(DEPENDENTS, {"tables": [*tables]})]


def views(conn: Connection, table: int) -> list[tuple[str, str]]:
    """Return the views on this table, by its oid, and on these, in the order in which they can be dropped.

    Each is what it is called by DROP, and its name, quoted.
    """
    return [(kind, name) for kind, name in conn.execute(VIEWS, {"tables": [table]})]


def removals(conn: Connection, table: str) -> list[str]:
    """Return the statements that remove what may drop or hide rows of this table without an error."""
    return [one.statement for one in (*triggers(conn, [table]), *rules(conn, [table]), *policies(conn, [table]))]
