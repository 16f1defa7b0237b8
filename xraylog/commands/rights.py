"""--check for privileges: whether the role may do all that a run does, and which GRANT is missing."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta, timezone

from xraylog.commands.finding import Finding
from xraylog.config import Config
from xraylog.database import ddl, partitions, refusals, session
from xraylog.database.session import Connection
from xraylog.maintenance import prune

RIGHTS = """
    SELECT c.relname, pg_has_role(c.relowner, 'USAGE'),
           has_table_privilege(c.oid, 'SELECT'), has_table_privilege(c.oid, 'INSERT'),
           has_table_privilege(c.oid, 'UPDATE'), has_table_privilege(c.oid, 'DELETE'),
           ARRAY(SELECT d.objid::regclass::text
                 FROM pg_depend d JOIN pg_class s ON s.oid = d.objid
                 WHERE d.refobjid = c.oid AND d.deptype = 'a'
                   AND CASE WHEN s.relkind = 'S' THEN NOT has_sequence_privilege(s.oid, 'USAGE') END),
           quote_ident(pg_get_userbyid(c.relowner)),
           (SELECT rolsuper FROM pg_roles r WHERE r.oid = c.relowner)
    FROM pg_class c
    WHERE c.relname = ANY(%s) AND c.relkind IN ('r', 'p', 'v', 'm', 'f') AND pg_table_is_visible(c.oid)
    ORDER BY c.relname
"""
NEEDED = {
    **dict.fromkeys(ddl.REFERENCE_TABLES, ("SELECT", "INSERT")),
    "logs": ("INSERT",),
    "log_positions": ("SELECT", "INSERT", "UPDATE", "DELETE"),
    "rejected_lines": ("INSERT",),
}
IN_SCHEMA = """
    SELECT quote_ident(current_schema()), coalesce(has_schema_privilege(current_schema(), 'CREATE'), false),
           quote_ident(current_user)
"""
MAY_CREATE_PARTITIONS = """
    SELECT coalesce(has_schema_privilege(current_schema(), 'CREATE'), false)
           AND coalesce((SELECT pg_has_role(relowner, 'USAGE') FROM pg_class WHERE oid = to_regclass('logs')), true)
"""
# Of the schemas that the search_path names, "$user" apart.
CLOSED_SCHEMAS = """
    SELECT quote_ident(nspname) FROM pg_namespace
    WHERE nspname = ANY(SELECT trim(name, ' "')
                        FROM unnest(string_to_array(current_setting('search_path'), ',')) AS name)
      AND NOT has_schema_privilege(oid, 'USAGE')
    ORDER BY nspname = 'public' DESC, nspname
"""
SOURCE = "SELECT source FROM pg_settings WHERE name = 'search_path'"
FROM_OUTSIDE = ("database", "user", "database user", "client")


def findings(conn: Connection, cfg: Config) -> Iterator[Finding]:
    """Yield whether the privileges suffice; otherwise the statements that grant them."""
    trouble, for_partitions = [], []
    ((place, may_create, role),) = conn.execute(IN_SCHEMA)
    found = conn.execute(RIGHTS, [list(ddl.TABLES)]).fetchall()
    for name, owner, *granted, sequences, owner_name, is_superuser in found:
        has = dict(zip(("SELECT", "INSERT", "UPDATE", "DELETE"), granted, strict=True))
        needed = {*NEEDED[name], *_for_retention(name, cfg)}
        lacking = [right for right in has if right in needed and not has[right]]
        if lacking:
            trouble.append(f"GRANT {', '.join(lacking)} ON {name} TO {role}")
        trouble += [f"GRANT USAGE ON SEQUENCE {sequence} TO {role}" for sequence in sequences]
        if name == "logs" and not owner:
            become = f"ALTER TABLE logs OWNER TO {role}" if is_superuser else f"GRANT {owner_name} TO {role}"
            for_partitions.append(f"only the owner of logs can make partitions: {become}")
    if place is None:
        trouble.append(_schema_advice(conn, role))
    elif not may_create:  # each new day is a new table
        for_partitions.append(f"GRANT CREATE ON SCHEMA {place} TO {role}")
    enough = "enough for a run"
    if for_partitions and len(found) == len(ddl.TABLES) and partitions_exist(conn):
        enough += "; partitions are made by another role, and today's and tomorrow's are there"
    else:
        trouble += for_partitions
    statements = [f"as their owner, or a superuser of PostgreSQL: {trouble[0]}", *trouble[1:]] if trouble else []
    yield "rights", "not enough for a run" if trouble else enough, "; ".join(statements)


def may_create_partitions(conn: Connection) -> bool:
    """Return whether this role may make partitions: another that is to make them makes no new day in a trial."""
    return conn.execute(MAY_CREATE_PARTITIONS).fetchone() == (True,)


def _for_retention(table: str, cfg: Config) -> tuple[str, ...]:
    """Return the rights that [retention] needs in addition to those of a run."""
    if not cfg.keep_days:
        return ()
    if table == "rejected_lines" or (cfg.prune_names and table in prune.TABLES):
        return "SELECT", "DELETE"
    return ("SELECT",) if table == "logs" and cfg.prune_names else ()


def partitions_exist(conn: Connection, days: int = 2) -> bool:
    """Return whether the partitions from today on exist that a role which may only insert needs next."""
    if conn.execute("SELECT to_regclass('logs') IS NULL").fetchone() == (True,):
        return False
    today = datetime.now(timezone.utc).date()
    return not partitions.Partitions(conn).missing(str(today + timedelta(days=step)) for step in range(days))


def _schema_advice(conn: Connection, role: str) -> str:
    """Return what gives this role a schema: a GRANT on one, or a search_path that contains one."""
    for (closed,) in conn.execute(CLOSED_SCHEMAS):
        return f"the schema may not be used: GRANT USAGE, CREATE ON SCHEMA {closed} TO {role}"
    ((source,),) = conn.execute(SOURCE)
    if source in FROM_OUTSIDE:
        return f"no schema of the search_path is there: {session.to_reset(conn, 'search_path', 'DEFAULT', source)}"
    return f"no schema of the search_path is there: {refusals.new_schema(role)}"
