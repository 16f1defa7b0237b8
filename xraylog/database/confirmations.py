"""What an installation had its database confirm: a row of log_positions for each, with a count and a receipt.

A smaller count than the installation remembers: the database was restored, or is another one. A receipt that it does
not know: another installation has the same token, which is a copy.
"""

from __future__ import annotations

from typing import NamedTuple

from xraylog.database.session import Connection


class Confirmation(NamedTuple):
    """How often an installation had this database confirm what is stored."""

    number: int
    at: float  # seconds since 1970; 0: never
    receipt: bytes | None = None  # that came with the last one


# A count is no place in a file: stored_from is -1, and it is kept for longer than a month. Its tail is the receipt.
SELECT_CONFIRMATION = """
    SELECT coalesce(max(p.position) FILTER (WHERE p.stored_from = -1 AND p.head = %(digest)s), 0),
           coalesce(extract(epoch FROM coalesce(
               max(p.updated_at) FILTER (WHERE p.stored_from = -1 AND p.head = %(digest)s),
               max(p.updated_at) FILTER (WHERE n.name = %(node)s))), 0)::float8,
           (array_agg(p.tail) FILTER (WHERE p.stored_from = -1 AND p.head = %(digest)s))[1]
    FROM log_positions p JOIN nodes n ON n.id = p.node_id
"""

UPDATE_CONFIRMATION = """
    UPDATE log_positions SET position = position + 1, tail = coalesce(%(receipt)s, tail), updated_at = now()
    WHERE stored_from = -1 AND head = %(digest)s
    RETURNING position, extract(epoch FROM updated_at)::float8
"""

RENEW_RECEIPT = """
    UPDATE log_positions SET tail = %(receipt)s WHERE stored_from = -1 AND head = %(digest)s
"""

INSERT_CONFIRMATION = """
    INSERT INTO log_positions (node_id, source, position, head_length, head, stored_from, tail)
    VALUES (%(node_id)s, %(source)s, 1, 0, %(digest)s, -1, %(receipt)s)
    RETURNING position, extract(epoch FROM updated_at)::float8
"""


def last_confirmation(conn: Connection, digest: bytes, node: str) -> Confirmation:
    """Return the last confirmation; without one, when the database last stored anything of the node."""
    (found,) = conn.execute(SELECT_CONFIRMATION, {"digest": digest, "node": node})
    return Confirmation(*found)


def renew(conn: Connection, digest: bytes, receipt: bytes) -> None:
    """Leave another receipt for what is confirmed already."""
    conn.execute(RENEW_RECEIPT, {"digest": digest, "receipt": receipt})


def confirm(conn: Connection, node_id: int, source: str, digest: bytes, receipt: bytes | None) -> Confirmation:
    """Count one more confirmation. `receipt`: None leaves the last one, because nobody could keep a new one."""
    values = {"node_id": node_id, "source": source, "digest": digest, "receipt": receipt}
    for found in conn.execute(UPDATE_CONFIRMATION, values):
        return Confirmation(*found)
    (found,) = conn.execute(INSERT_CONFIRMATION, values)
    return Confirmation(*found)
