"""Send a question to the database: resolve the names in it, run its statements, return the answer."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime, tzinfo
from typing import Any

from xraylog.answers import statements
from xraylog.answers.statements import Statement
from xraylog.database import citus, dns_names, partitions, reject_reason
from xraylog.database.session import READ_SETTINGS, Connection
from xraylog.printed import unescaped
from xraylog.questions import extra_columns, fetching, targets
from xraylog.questions.catalog import Question
from xraylog.questions.fetching import Row, Rows
from xraylog.questions.present import Answer, Part

MAX_USERS = 20  # that match a pattern
MAX_ADDRESSES = 1_000  # of a name: the statements compare each destination with all of them
MANY_USERS = "The first {} users whose names fit are shown; for the others, narrow the pattern."
MANY_ADDRESSES = (
    "Clients contacted more than {0:,} addresses of this name; {0:,} are counted. For all: a shorter window (--since, "
    "--until), a name without *, or the network."
)
MANY_NAMES = "More than {0:,} destinations have this name in letters, and not as the DNS has it; {0:,} are counted."
# work_mem: enough to group the rows of a day in memory. JIT compiles for longer than it saves (PostgreSQL 10 has none).
# The rest is for a long answer, which is fetched while it is read, and as a whole.
SETTINGS = """
    SELECT set_config(name, value, true)
    FROM pg_settings
    JOIN (VALUES ('jit', 'off'), ('work_mem', '64MB'), ('cursor_tuple_fraction', '1'), ('transaction_timeout', '0'),
                 ('idle_in_transaction_session_timeout', '1h')) wanted (name, value)
        USING (name)
"""
NODES = "SELECT name, id FROM nodes ORDER BY name"
SIMILAR_USERS = """
    SELECT email::text FROM users WHERE email COLLATE "default" ILIKE %s ORDER BY email LIMIT %s
"""
NAMES_IN_LETTERS = """
    SELECT address::text FROM endpoints WHERE address COLLATE "default" ILIKE ANY (%s::text[]) ORDER BY 1 LIMIT %s
"""
EMPTY = "The database has no row."
OF_NODE = "Counted: rows of node {!r} alone."
STOPPED = "Node {!r} has no row since then, others have; on that machine: parse_logs.py --check"
USERS_LIKE = "SELECT email::text FROM users WHERE email LIKE %s ORDER BY email LIMIT %s"
FIRST_BETWEEN = """
    SELECT min("timestamp") FROM logs WHERE "timestamp" >= to_timestamp(%s) AND "timestamp" < to_timestamp(%s)
"""
LAST_BETWEEN = """
    SELECT max("timestamp") FROM logs WHERE "timestamp" >= to_timestamp(%s) AND "timestamp" < to_timestamp(%s)
"""
ANY_SINCE = """SELECT EXISTS (SELECT 1 FROM logs WHERE "timestamp" >= %s)"""
ANY_OF_NODE_SINCE = """SELECT EXISTS (SELECT 1 FROM logs WHERE "timestamp" >= %s AND node_id = %s)"""
# For rows outside of daily partitions: in a DEFAULT partition, or in a table without partitions.
FIRST_BEFORE = """
    SELECT min("timestamp") FROM logs WHERE %s::timestamptz IS NULL OR "timestamp" < %s::timestamptz
"""
IDS_OF = "SELECT id FROM users WHERE email = ANY (%s::text[])"
NAMES_OF = "SELECT email::text FROM users WHERE email = ANY (%s::text[])"
USER = "SELECT email::text FROM users WHERE email = %s"


class Unknown(Exception):
    """A name does not exist; the message says which names do."""


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
    notes, are_all = list(question.notes_for(values)), True
    _begin(conn, zone)
    known = statements.read(citus.has_logs(conn), reject_reason.exists(conn))
    values = {**values, "node_id": find_node(conn, values.get("node"))}
    if values["node_id"] is not None:
        notes.append(OF_NODE.format(values["node"]))
    if question.by_name:
        addresses, are_all, more = addresses_of(conn, known, values)
        names, are_all_names, more_of_names = names_in_letters(conn, values.get("target"))
        values = {**values, "also": [*addresses, *names]}
        are_all = are_all and are_all_names
        notes += more + more_of_names
    if values.get("emails"):
        values = {**values, "emails": names_in(conn, values["emails"])}
    users = find_users(conn, values["email"]) if "email" in values else [None]
    if (alone := values.get("alone")) is not None:
        alone = find_users(conn, alone)
        ids = conn.execute(IDS_OF, [alone[:MAX_USERS]]).fetchall()
        values = {**values, "user_ids": [user_id for (user_id,) in ids]}
    parts = [
        _part(conn, name, known[function], values, users[:MAX_USERS], limit, piece)
        for name, function in question.parts_for(values).items()
    ]
    has_rows = any(map(has_log_rows, parts))
    if question.states_start:
        notes.insert(0, start_note(conn, zone))
    if not has_rows:
        notes = end_notes(conn, zone, values) + notes
    parts, more = with_extra_columns(conn, known, question, parts, values)
    notes += more
    if len(users if alone is None else alone) > MAX_USERS:
        are_all = False
        notes.append(MANY_USERS.format(MAX_USERS))
    if question.no_rows_note and not has_rows and (note := question.no_rows_note(values)):
        notes.insert(0, note)
    until = values["until"] if question.has_end else None
    return Answer(question.name, values["since"], until, zone, parts, [*dict.fromkeys(notes)], not are_all)


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


def addresses_of(
    conn: Connection, known: Mapping[str, Statement], values: Mapping[str, Any]
) -> tuple[list[str], bool, list[str]]:
    """Return the addresses that had the name in `target`, whether these are all, and notes about them.

    Of an address: only the note that says which names it had.
    """
    target = values.get("target")
    is_address = target is not None and targets.address(target) is not None
    if target is None or (targets.address(target.partition("/")[0]) and not is_address):
        return [], True, []
    is_readable, complaints = dns_names.TABLE.readable(conn)
    if not is_readable:
        return [], True, complaints
    if is_address:
        ((_, names),) = conn.execute(known["names_of"].text, {**values, "addresses": [target]})
        return [], True, targets.called(target, names or [])
    statement = f"{known['addresses_named'].text}\nLIMIT %(limit)s"
    found = [address for (address,) in conn.execute(statement, {**values, "limit": MAX_ADDRESSES + 1})]
    are_all = len(found) <= MAX_ADDRESSES
    addresses = found[:MAX_ADDRESSES]
    notes = targets.also_counted(addresses) + ([] if are_all else [MANY_ADDRESSES.format(MAX_ADDRESSES)])
    return addresses, are_all, notes


def names_in_letters(conn: Connection, target: str | None) -> tuple[list[str], bool, list[str]]:
    """Return the destinations whose name is spelled in letters (not xn--…), whether these are all, and notes."""
    patterns = [like(pattern) for pattern in targets.spelled(target)]
    notes = targets.part_of_letters(target)
    if not patterns:
        return [], True, notes
    found = [name for (name,) in conn.execute(NAMES_IN_LETTERS, [patterns, MAX_ADDRESSES + 1])]
    if len(found) <= MAX_ADDRESSES:
        return found, True, notes
    return found[:MAX_ADDRESSES], False, [*notes, MANY_NAMES.format(MAX_ADDRESSES)]


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


def find_node(conn: Connection, name: str | None) -> int | None:
    """Return the id of a node. Raises Unknown."""
    if name is None:
        return None
    ids: dict[str, int] = dict(conn.execute(NODES).fetchall())
    if name not in ids:
        raise Unknown(f"--node: expected one of {', '.join(map(repr, ids)) or 'no node'}, found {name!r}")
    return ids[name]


def find_users(conn: Connection, pattern: str) -> list[str]:
    """Return the user of this name, as stored or as printed; or those that match a pattern, up to one too many."""
    found = conn.execute(USER, [pattern]).fetchall() or conn.execute(USER, [unescaped(pattern)]).fetchall()
    if not found and "*" in pattern:
        found = conn.execute(USERS_LIKE, [like(pattern), MAX_USERS + 1]).fetchall()
    if not found:
        similar = conn.execute(SIMILAR_USERS, [f"%{like(pattern.strip())}%", 5]).fetchall()
        hint = f"; there are {', '.join(repr(name) for (name,) in similar)}" if similar else "; for all: last-seen"
        raise Unknown(f"expected the name of a user, or a pattern, found {pattern!r}{hint}")
    return [name for (name,) in found]


def names_in(conn: Connection, lines: Sequence[str]) -> list[str]:
    """Return the user names in these lines: with the blanks around it, or as printed, only if there is such a user."""
    forms = {line: (line, line.strip(), unescaped(line.strip())) for line in lines}
    unsure = [form for each in forms.values() if len(set(each)) > 1 for form in each]
    existing = {name for (name,) in conn.execute(NAMES_OF, [unsure])} if unsure else set()
    names = (next((form for form in each if form in existing), each[1]) for each in forms.values())
    return [*dict.fromkeys(names)]


def like(pattern: str) -> str:
    """Return a pattern with * as a pattern of LIKE."""
    for sign in ("\\", "%", "_"):
        pattern = pattern.replace(sign, f"\\{sign}")
    return pattern.replace("*", "%")
