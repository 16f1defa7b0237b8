"""Tables that exist only if the operator wants them: whether one exists, and what this role may do with it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from psycopg.sql import SQL, Identifier

from xraylog.database import session
from xraylog.database.session import Connection, Unsuitable

# One row if the search path has such a table, none otherwise.
STATE = """
    SELECT (SELECT count(*) FROM pg_attribute a
            WHERE a.attrelid = c.oid AND a.attname = ANY (%(columns)s) AND NOT a.attisdropped)
           = cardinality(%(columns)s),
           has_table_privilege(c.oid, 'SELECT'),
           (SELECT bool_and(has_table_privilege(c.oid, name)) FROM unnest(%(rights)s::text[]) AS name),
           CASE c.relkind WHEN 'v' THEN 'VIEW' WHEN 'm' THEN 'MATERIALIZED VIEW' END
    FROM pg_class c
    WHERE c.oid = to_regclass(%(table)s) AND c.relkind IN ('r', 'v', 'm', 'f', 'p')
"""
IS_FILLED = "SELECT EXISTS (SELECT 1 FROM {})"
MAY_CREATE = "SELECT current_schema(), has_schema_privilege(current_schema(), 'CREATE')"


@dataclass(frozen=True, slots=True)
class OptionalTable:
    """A table that exists only if the operator wants it."""

    name: str
    columns: Sequence[str]
    create: str  # the statements that create it, each with its semicolon
    rights: Sequence[str]  # the privileges that a role needs to write it

    def state(self, conn: Connection) -> State:
        """Return whether the table exists, and what this role may do with it. Changes nothing."""
        values = {"table": self.name, "columns": list(self.columns), "rights": list(self.rights)}
        row = conn.execute(STATE, values).fetchone()
        return State() if row is None else State(True, *row)

    def readable(self, conn: Connection) -> tuple[bool, list[str]]:
        """Return whether the table has rows that this role may read, and a note if it may not. Changes nothing."""
        found = self.state(conn)
        if found.is_there and not found.may_read:
            role = Identifier(conn.info.user).as_string(conn)
            grant = f"as the owner of {self.name}: GRANT SELECT ON {self.name} TO {role}"
            return False, [f"Without what {self.name} has; {grant}"]
        if not found.is_readable:
            return False, []
        ((is_filled,),) = conn.execute(SQL(IS_FILLED).format(Identifier(self.name)))
        return is_filled, []

    def lacking(self, conn: Connection) -> str | None:
        """Return what prevents this role from writing the table, with the statements that fix it; None if nothing does.

        Changes nothing.
        """
        found, role = self.state(conn), Identifier(conn.info.user).as_string(conn)
        grant = f"GRANT {', '.join(self.rights)} ON {self.name} TO {role}"
        if found.exists and not found.has_our_columns:
            return (
                f"{self.name}: expected the columns {', '.join(self.columns)}, found another application's table; use "
                f"a schema of our own, as a superuser: CREATE SCHEMA xraylog AUTHORIZATION {role}; "
                "then [postgresql] options = -c search_path=xraylog"
            )
        if found.exists and found.kind_of_view:
            return (
                f"{self.name}: expected a table, found a view, which is not written; as its owner: "
                f"ALTER {found.kind_of_view} {self.name} RENAME TO {self.name}_old"
            )
        if found.exists and not found.may_write:
            return f"{self.name}: expected the right to write it, found none; as its owner: {grant}"
        if found.exists:
            return None
        ((schema, may_create),) = conn.execute(MAY_CREATE)
        if may_create:
            return None
        where = "a schema" if schema is None else f"schema {Identifier(schema).as_string(conn)}"
        return (
            f"{self.name}: expected the table, or the right to create it in {where}, found neither; as its owner: "
            f"{' '.join(self.create.split())} {grant}"
        )

    def ensure(self, conn: Connection) -> None:
        """Create the table if it is missing; call this in a transaction. Raises Unsuitable if this role cannot."""
        if lacking := self.lacking(conn):
            raise Unsuitable(lacking)
        if not self.state(conn).exists:
            conn.execute("SELECT pg_advisory_xact_lock(%s)", [session.lock_key(self.name)])  # of two, one creates it
            if not self.state(conn).exists:
                conn.execute(self.create)


@dataclass(frozen=True, slots=True)
class State:
    """What exists under the name of an optional table, and what this role may do with it."""

    exists: bool = False
    has_our_columns: bool = False
    may_read: bool = False
    may_write: bool = False
    kind_of_view: str | None = None  # as ALTER has it; a question may read one

    @property
    def is_there(self) -> bool:
        """Return whether the table exists, and is not another application's."""
        return self.exists and self.has_our_columns

    @property
    def is_readable(self) -> bool:
        """Return whether the table exists, and this role may read it."""
        return self.is_there and self.may_read
