"""The confirmations of each installation: a row of log_positions with a count and receipts (ingest/confirmation.py).

A smaller count than the installation remembers: the database was restored, or is another one. A last receipt that it
does not know: another installation has the same token, so one is a copy. Then the count may be the copy's, and the
earlier receipts show whether the database has everything that this installation had confirmed.
"""

from __future__ import annotations

from typing import NamedTuple

from xraylog.database import session
from xraylog.database.session import Connection

RECEIPT_BYTES = 16
KEPT_BYTES = 64 * RECEIPT_BYTES  # receipts kept in the row


class Confirmation(NamedTuple):
    """How many confirmations of an installation this database has counted."""

    number: int
    at: float  # seconds since 1970; 0: never
    tail: bytes | None = None  # the receipts of the latest ones, the last one first
    of_owner_at: float = 0  # when a confirmation of this owner, under any token, was last written

    @property
    def receipts(self) -> list[str]:
        """The receipts, the last one first, hexadecimal."""
        tail = self.tail or b""
        return [tail[start : start + RECEIPT_BYTES].hex() for start in range(0, len(tail), RECEIPT_BYTES)]

    @property
    def has_all_receipts(self) -> bool:
        """Return whether there is a receipt for each count, which older versions did not keep.

        The first confirmation in an older database has none.
        """
        return len(self.tail or b"") < KEPT_BYTES and len(self.receipts) + 1 >= self.number


# Such a row is no position: stored_from is -1, so it is kept for longer than a month. Its tail has the receipts. It is
# known by the digest of the token alone: where stored_from was dropped by hand, a run adds it with 0 in each row.
SELECT_CONFIRMATION = """
    SELECT coalesce(max(p.position) FILTER (WHERE p.head_length = 0 AND p.head = %(digest)s), 0),
           coalesce(extract(epoch FROM coalesce(
               max(p.updated_at) FILTER (WHERE p.head_length = 0 AND p.head = %(digest)s),
               max(p.updated_at) FILTER (WHERE n.name = %(node)s))), 0)::float8,
           (array_agg(p.tail) FILTER (WHERE p.head_length = 0 AND p.head = %(digest)s))[1],
           coalesce(extract(epoch FROM
               max(p.updated_at) FILTER (WHERE p.stored_from = -1 AND p.installation = %(owner)s)), 0)::float8
    FROM log_positions p JOIN nodes n ON n.id = p.node_id
"""

UPDATE_CONFIRMATION = """
    UPDATE log_positions
    SET position = position + 1, updated_at = now(), stored_from = -1,
        tail = coalesce(substring(%(receipt)s::bytea || coalesce(tail, '') FOR %(kept)s), tail),
        installation = %(owner)s::bytea
    WHERE head_length = 0 AND head = %(digest)s
    RETURNING position, updated_at
"""

RENEW_RECEIPT = """
    UPDATE log_positions SET tail = substring(%(receipt)s::bytea || coalesce(tail, '') FOR %(kept)s)
    WHERE head_length = 0 AND head = %(digest)s OR stored_from = -1 AND installation = %(owner)s
    RETURNING head = %(digest)s
"""

INSERT_CONFIRMATION = """
    INSERT INTO log_positions (node_id, source, position, head_length, head, stored_from, tail, installation)
    VALUES (%(node_id)s, %(source)s, %(count)s, 0, %(digest)s, -1, %(receipt)s, %(owner)s::bytea)
    RETURNING position, updated_at
"""


def last_confirmation(conn: Connection, digest: bytes, owner: bytes, node: str) -> Confirmation:
    """Return the last confirmation. Without one, `at` is when the database last stored anything of the node."""
    (found,) = session.answer(conn, SELECT_CONFIRMATION, {"digest": digest, "owner": owner, "node": node})
    return Confirmation(*found)


class Confirmer(NamedTuple):
    """The installation whose confirmations are counted."""

    node_id: int
    source: str  # the path of its state file, for people
    digest: bytes  # of its token
    owner: bytes  # whose positions are its own


def renew(conn: Connection, confirmer: Confirmer, receipt: bytes) -> None:
    """Write a new receipt without counting, under each token that this installation has had."""
    values = {**confirmer._asdict(), "receipt": receipt, "kept": KEPT_BYTES}
    if not any(is_it for (is_it,) in conn.execute(RENEW_RECEIPT, values)):
        conn.execute(INSERT_CONFIRMATION, {**values, "count": 0})


def confirm(conn: Connection, confirmer: Confirmer, receipt: bytes | None) -> Confirmation:
    """Count one more confirmation. `receipt`: None if the state file cannot keep a new one."""
    values = {**confirmer._asdict(), "receipt": receipt, "kept": KEPT_BYTES}
    found = [*conn.execute(UPDATE_CONFIRMATION, values)] or conn.execute(INSERT_CONFIRMATION, {**values, "count": 1})
    ((number, at),) = found
    return Confirmation(number, at.timestamp())
