"""Look up the names in a question: its node, its users, and the addresses and spellings of its target."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from xraylog.answers.statements import Statement
from xraylog.database import dns_names
from xraylog.database.session import Connection
from xraylog.printed import unescaped
from xraylog.questions import targets
from xraylog.questions.catalog import Question

MAX_USERS = 20  # that match a pattern
MAX_ADDRESSES = 1_000  # of a name: the statements compare each destination with all of them
MANY_USERS = "The first {} users whose names fit are shown; for the others, narrow the pattern."
MANY_ADDRESSES = (
    "Clients contacted more than {0:,} addresses of this name; {0:,} are counted. For all: a shorter window (--since, "
    "--until), a name without *, or the network."
)
MANY_NAMES = "More than {0:,} destinations have this name in letters, and not as the DNS has it; {0:,} are counted."
NODES = "SELECT name, id FROM nodes ORDER BY name"
SIMILAR_USERS = """
    SELECT email::text FROM users WHERE email COLLATE "default" ILIKE %s ORDER BY email LIMIT %s
"""
NAMES_IN_LETTERS = """
    SELECT address::text FROM endpoints WHERE address COLLATE "default" ILIKE ANY (%s::text[]) ORDER BY 1 LIMIT %s
"""
OF_NODE = "Counted: rows of node {!r} alone."
USERS_LIKE = "SELECT email::text FROM users WHERE email LIKE %s ORDER BY email LIMIT %s"
IDS_OF = "SELECT id FROM users WHERE email = ANY (%s::text[])"
NAMES_OF = "SELECT email::text FROM users WHERE email = ANY (%s::text[])"
USER = "SELECT email::text FROM users WHERE email = %s"


class Unknown(Exception):
    """A name does not exist; the message says which names do."""


@dataclass(frozen=True, slots=True)
class Named:
    """A question whose names are looked up."""

    values: Mapping[str, Any]  # by parameter, with ids of the names
    users: Sequence[str | None]  # each has rows of its own in every part; [None]: the question names no user
    notes: Sequence[str]
    are_all: bool  # otherwise only the first users, addresses or spellings are counted


def look_up(conn: Connection, known: Mapping[str, Statement], question: Question, values: Mapping[str, Any]) -> Named:
    """Look up all names of a question. Raises Unknown."""
    notes, are_all = [], True
    values = {**values, "node_id": find_node(conn, values.get("node"))}
    if values["node_id"] is not None:
        notes.append(OF_NODE.format(values["node"]))
    if question.by_name:
        addresses, are_all_addresses, of_addresses = addresses_of(conn, known, values)
        spellings, are_all_spellings, of_spellings = names_in_letters(conn, values.get("target"))
        values["also"] = [*addresses, *spellings]
        are_all = are_all_addresses and are_all_spellings
        notes += of_addresses + of_spellings
    if values.get("emails"):
        values["emails"] = names_in(conn, values["emails"])
    users = find_users(conn, values["email"]) if "email" in values else None
    alone = find_users(conn, values["alone"]) if values.get("alone") is not None else None
    if alone is not None:
        ids = conn.execute(IDS_OF, [alone[:MAX_USERS]]).fetchall()
        values["user_ids"] = [user_id for (user_id,) in ids]
    if len(users or alone or ()) > MAX_USERS:
        are_all = False
        notes.append(MANY_USERS.format(MAX_USERS))
    return Named(values, users[:MAX_USERS] if users else [None], notes, are_all)


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
