"""Send a question to the database: resolve the names in it, run its statements, return the answer."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime, tzinfo
from typing import Any

from xraylog.answers import statements
from xraylog.answers.statements import Statement
from xraylog.database import citus, partitions, reject_reason
from xraylog.database.session import READ_SETTINGS, Connection
from xraylog.questions import extra_columns, fetching, names
from xraylog.questions.catalog import Question
from xraylog.questions.fetching import Row, Rows
from xraylog.questions.present import Answer, Part

# work_mem: enough to group the rows of a day in memory. JIT compiles for longer than it saves (PostgreSQL 10 has none).
# The rest is for a long answer, which is fetched while it is read, and as a whole.
SETTINGS = """
    SELECT set_config(name, value, true)
    FROM pg_settings
    JOIN (VALUES ('jit', 'off'), ('work_mem', '64MB'), ('cursor_tuple_fraction', '1'), ('transaction_timeout', '0'),
                 ('idle_in_transaction_session_timeout', '1h')) wanted (name, value)
        USING (name)
"""
EMPTY = "The database has no row."
STOPPED = "Node {!r} has no row since then, others have; on that machine: parse_logs.py --check"
FIRST_BETWEEN = """
    SELECT min("timestamp") FROM logs WHERE "timestamp" >= to_timestamp(%s) AND "timestamp" < to_timestamp(%s)
"""
LAST_BETWEEN = """
    SELECT max("timestamp") FROM logs WHERE "timestamp" >= to_timestamp(%s) AND "timestamp" < to_timestamp(%s)
"""
NEWEST = """
    SELECT max("timestamp")
    FROM logs
    WHERE "timestamp" >= %(since)s AND "timestamp" < %(until)s
          AND (%(node_id)s::integer IS NULL OR node_id = %(node_id)s)
"""
STORED = "Stored up to {}, the newest row: what xray wrote since waits for the next run of parse_logs.py."
ANY_SINCE = """SELECT EXISTS (SELECT 1 FROM logs WHERE "timestamp" >= %s)"""
ANY_OF_NODE_SINCE = """SELECT EXISTS (SELECT 1 FROM logs WHERE "timestamp" >= %s AND node_id = %s)"""
# For rows outside of daily partitions: in a DEFAULT partition, or in a table without partitions.
FIRST_BEFORE = """
    SELECT min("timestamp") FROM logs WHERE %s::timestamptz IS NULL OR "timestamp" < %s::timestamptz
"""


@contextlib.contextmanager
def ask(
    conn: Connection,
    question: Question,
    values: Mapping[str, Any],
    zone: tzinfo,
    limit: int | None,
    piece: int | None = None,
) -> Iterator[Answer]:
    """Yield the answer. `values`: by parameter. `limit`: of rows in a part, None for no limit. Raises Unknown.

    `piece`: how many rows to fetch at once; if there are more, they are fetched while they are read, inside of the
    block. None: all rows are fetched before.
    """
    with conn.transaction():
        yield _answer(conn, question, values, zone, limit, piece)


def _answer(
    conn: Connection,
    question: Question,
    values: Mapping[str, Any],
    zone: tzinfo,
    limit: int | None,
    piece: int | None,
) -> Answer:
    """Return the answer, with the first piece of each part."""
    _begin(conn, zone)
    known = statements.read(citus.has_logs(conn), reject_reason.exists(conn))
    named = names.look_up(conn, known, question, values)
    values = named.values
    parts = [
        _part(conn, name, known[function], values, named.users, limit, piece)
        for name, function in question.parts_for(values).items()
    ]
    first_notes = _notes_about_rows(conn, zone, question, values, any(map(has_log_rows, parts)))
    parts, last_notes = with_extra_columns(conn, known, question, parts, values)
    notes = dict.fromkeys([*first_notes, *question.notes_for(values), *named.notes, *last_notes])
    until = values["until"] if question.has_end else None
    return Answer(question.name, values["since"], until, zone, parts, [*notes], not named.are_all)


def _notes_about_rows(
    conn: Connection, zone: tzinfo, question: Question, values: Mapping[str, Any], has_rows: bool
) -> Iterator[str]:
    """Yield what an answer without rows proves, and from when on the database has any."""
    if question.no_rows_note and not has_rows and (note := question.no_rows_note(values)):
        yield note
    if not has_rows:
        yield from end_notes(conn, zone, values)
    if question.states_start:
        yield start_note(conn, zone)
    if question.states_end and values["is_now"] and not question.form_for(values):
        yield from known_note(conn, zone, values)


def _begin(conn: Connection, zone: tzinfo) -> None:
    conn.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
    conn.execute(READ_SETTINGS)
    conn.execute("SELECT set_config('timezone', %s, true)", [str(zone)])
    conn.execute(SETTINGS)


def has_log_rows(part: Part) -> bool:
    """Return whether a table reports any row of `logs`: a total of 0 does not, nor a user who was never seen.

    The first piece shows it: there are few totals, and users who were never seen come last.
    """
    rows = (dict(zip(part.columns, row, strict=True)) for row in part.rows.first)
    return any(row.get("rows", row.get("last", True)) not in (0, None) for row in rows)


def with_extra_columns(
    conn: Connection,
    known: Mapping[str, Statement],
    question: Question,
    parts: list[Part],
    values: Mapping[str, Any],
) -> tuple[list[Part], list[str]]:
    """Return the parts with the columns that optional tables add, and the notes about these columns."""

    def ask_about(function: str, keys: list[str]) -> list[Row]:
        statement = known[function]
        of_keys = {**values, next(iter(statement.parameters)): keys}
        return conn.execute(_text(statement, values), of_keys).fetchall()

    notes = []
    shown = [one for one in question.extra_columns if any(part.name == one.part and part.rows for part in parts)]
    for table in {one.table.name: one.table for one in shown}.values():
        is_readable, complaints = table.readable(conn)
        notes += complaints
        if is_readable:
            wanted = [one for one in shown if one.table is table]
            parts = extra_columns.add(parts, wanted, ask_about)
            notes.append(extra_columns.note(wanted))
    return parts, notes


def _text(statement: Statement, values: Mapping[str, Any]) -> str:
    conditions = {"node_id": statements.OF_NODE, "user_ids": statements.OF_USERS}
    return statement.narrowed(*(text for name, text in conditions.items() if values.get(name) is not None))


def _part(
    conn: Connection,
    title: str,
    statement: Statement,
    values: Mapping[str, Any],
    users: Sequence[str | None],
    limit: int | None,
    piece: int | None,
) -> Part:
    """Return the table of a statement; of several users, with a column `user`."""
    text = f"{_text(statement, values)}\nLIMIT %(limit)s"
    wanted = {**values, "limit": None if limit is None else limit + 1}
    each = [(user, fetching.fetch(conn, text, {**wanted, "email": user}, piece)) for user in users]
    if len(users) == 1:
        return Part(title, statement.columns, Rows([rows for _, rows in each], limit, piece))
    sources = [_with_user(user, rows) for user, rows in each]
    return Part(title, ("user", *statement.columns), Rows(sources, limit, piece))


def _with_user(user: str | None, rows: Iterable[Row]) -> Iterator[Row]:
    return ((user, *row) for row in rows)


def start_note(conn: Connection, zone: tzinfo) -> str:
    """Return the note that says from when on there are rows: everything contacted earlier counts as new."""
    first = first_row(conn)
    if first is None:
        return EMPTY
    since = first.astimezone(zone).isoformat(" ", "seconds")
    return f"The database has rows from {since} on: what was contacted before that alone counts as new."


def known_note(conn: Connection, zone: tzinfo, values: Mapping[str, Any]) -> Iterator[str]:
    """Yield the note that says up to when lines are stored, unless the window has no row: see `end_notes`."""
    (newest,) = conn.execute(NEWEST, values).fetchone() or (None,)
    if newest is not None:
        yield STORED.format(newest.astimezone(zone).isoformat(" ", "seconds"))


def end_notes(conn: Connection, zone: tzinfo, values: Mapping[str, Any]) -> list[str]:
    """Return the note that all rows are older than the window, if they are: then an empty answer proves nothing.

    Of one node: that it has none since then, while others have.
    """
    since, node_id = values["since"], values["node_id"]
    if conn.execute(ANY_SINCE, [since]).fetchone() == (True,):
        if node_id is None or conn.execute(ANY_OF_NODE_SINCE, [since, node_id]).fetchone() == (True,):
            return []
        return [STOPPED.format(values["node"])]
    for bounds in reversed(partitions.read_bounds(conn)):
        (last,) = conn.execute(LAST_BETWEEN, bounds).fetchone() or (None,)
        if last is not None:
            newest = last.astimezone(zone).isoformat(" ", "seconds")
            return [
                f"The newest row is from {newest}, before this window; why there is none since: parse_logs.py --check"
            ]
    return [] if first_row(conn) else [EMPTY]


def first_row(conn: Connection) -> datetime | None:
    """Return the time of the first row. No index has the times of all days, so search day by day."""
    first: datetime | None = None
    for bounds in partitions.read_bounds(conn):
        (first,) = conn.execute(FIRST_BETWEEN, bounds).fetchone() or (None,)
        if first is not None:
            break
    (earlier,) = conn.execute(FIRST_BEFORE, [first, first]).fetchone() or (None,)
    return earlier or first
