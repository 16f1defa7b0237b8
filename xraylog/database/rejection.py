"""Why the database rejects a name or a row, and the statements after which it accepts such a one.

A reason may quote a name, which a client chose. So what the statements depend on is kept beside it, not read out of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import psycopg

from xraylog.database import ddl, interference, narrow_columns, session
from xraylog.database.session import Connection

# SQLSTATEs, and the class of those of constraints.
TOO_LONG, UNIQUE_VIOLATION, CONSTRAINT_CLASS = "22001", "23505", "23"


@dataclass(frozen=True, slots=True)
class Rejection:
    """Why the database rejects a name or a row."""

    reason: str  # as it is kept in rejected_lines
    sqlstate: str | None = None
    constraint: str | None = None  # its name, if the server says it
    message: str = ""  # the server's words, which name a constraint or an index in quotes
    column: tuple[str, str] | None = None  # the table and the column that takes the name for another one

    @classmethod
    def of(cls, error: psycopg.Error) -> Rejection:
        """Return the rejection that an error of the server means."""
        message = session.message(error)
        return cls(message, error.sqlstate, error.diag.constraint_name, message)

    @property
    def is_by_operator(self) -> bool:
        """Return whether the operator's choice is the cause: a constraint, or a column too short for a name.

        Any other value that a column cannot hold is the fault of the line.
        """
        return self.sqlstate is not None and (self.sqlstate == TOO_LONG or self.sqlstate.startswith(CONSTRAINT_CLASS))


class Refusals:
    """Keeps the first rejection of a run that a choice of the operator's causes: it is worth a warning."""

    def __init__(self) -> None:
        self.first: Rejection | None = None

    def note(self, rejection: Rejection) -> None:
        """Keep this rejection if it is the first that the operator causes."""
        if self.first is None and rejection.is_by_operator:
            self.first = rejection


def of_other_spellings(conn: Connection, table: str, names: Iterable[str]) -> dict[str, Rejection]:
    """Return why a reference table refuses these names without an error: it has some that it takes for the same.

    The cause is a unique index of the operator's or, as in citext and char(n), the type or collation of the column.
    """
    column = ddl.REFERENCE_TABLES[table]
    indexes = ", ".join(f'"{found.name}"' for found in interference.unique_indexes(conn, [table]))
    by = f"under the unique index {indexes}" if indexes else "by the type or the collation of the column"
    place = None if indexes else (table, column)

    def found(name: str) -> Rejection:
        reason = f"{table}.{column} holds another spelling of {name!r}, {by} (SQLSTATE {UNIQUE_VIOLATION})"
        return Rejection(reason, UNIQUE_VIOLATION, message=by, column=place)

    return {name: found(name) for name in names}


def statements_to_allow(conn: Connection, rejection: Rejection) -> Sequence[str]:
    """Return the statements after which the tables accept such a name or row; none if they are not known."""
    if rejection.sqlstate == TOO_LONG:
        return [found.statement for found in narrow_columns.find(conn, [*ddl.REFERENCE_TABLES])]
    if rejection.column is not None:
        table, column = rejection.column
        return [f'ALTER TABLE {table} ALTER {column} TYPE text COLLATE "default"']
    return interference.constraints(conn, rejection.message)
