"""Positions of several installations in logs that begin alike."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest

from xraylog.database import positions, schema, session
from xraylog.database.positions import NO_TEXT, Owner, Position, PositionConflict, PositionUpdate
from xraylog.records import Fingerprint, Origin

Connection = psycopg.Connection[tuple[Any, ...]]
HEAD, TAIL = Fingerprint(100, b"head"), b"tail"
LOG = Origin("n1", "access.log", [HEAD], None)
ONE, OTHER = Owner(b"one", False), Owner(b"other", False)


@pytest.fixture
def node(conn: Connection) -> int:
    schema.ensure(conn)
    ((number,),) = conn.execute("INSERT INTO nodes (name) VALUES ('n1') RETURNING id").fetchall()
    return int(number)


def find(conn: Connection, node: int, owner: Owner) -> Position:
    """Find the position where the log no longer has the text before it."""
    with session.transaction(conn):
        return positions.find(conn, node, LOG, owner=owner, tail_at=lambda _: NO_TEXT)


def move(conn: Connection, position: Position) -> Position:
    with session.transaction(conn):
        return positions.move(conn, PositionUpdate(position, 100, HEAD, TAIL))


def test_a_position_of_another_installation_that_was_found_stands_in_nobodys_way(conn: Connection, node: int) -> None:
    move(conn, find(conn, node, ONE))
    found = find(conn, node, OTHER)
    assert found.offset == 0
    assert move(conn, found).offset == 100
    assert conn.execute("SELECT count(DISTINCT installation) FROM log_positions").fetchone() == (2,)


def test_one_that_came_since_is_another_runs(conn: Connection, node: int) -> None:
    found = find(conn, node, OTHER)
    move(conn, find(conn, node, ONE))
    with pytest.raises(PositionConflict):
        move(conn, found)


def test_what_another_installation_stored_of_the_same_text_counts(conn: Connection, node: int) -> None:
    move(conn, find(conn, node, ONE))
    with session.transaction(conn):
        found = positions.find(conn, node, LOG, owner=OTHER, tail_at=lambda _: TAIL)
    assert (found.id, found.offset) == (None, 100)
