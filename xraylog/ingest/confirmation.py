"""Detect a database that lost rows (restored from a backup, failed over, replaced), and a copied installation.

Stored lines leave the log, so only the state file next to the buffer remembers that they existed. After a run has
stored its rows, and before it drains the log, it increments a count in the database (a "confirmation") and writes the
same count to the state file. If a later run finds a smaller count, or none, the database is not the one that confirmed.

Each confirmation also writes a random receipt to both sides. If the database has a receipt that the state file does not
know, another installation uses a copy of this state.

`comparison` decides what the two mean. In both modules `state` is what the state file says, and `last` is the last
confirmation in the database.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from loguru import logger

from xraylog import hints
from xraylog.accesslog import installation, logfile
from xraylog.accesslog.installation import Installation, StoredLog
from xraylog.accesslog.logfile import Log, LogFile
from xraylog.accesslog.offline_buffer import Buffer
from xraylog.config import Config
from xraylog.database import confirmations, positions, session
from xraylog.database.confirmations import Confirmation, Confirmer
from xraylog.database.positions import Owner, Position, PositionConflict, PositionUpdate
from xraylog.database.session import Connection
from xraylog.ingest import comparison
from xraylog.ingest.source import Source
from xraylog.load_result import LoadResult
from xraylog.loading.loader import Target
from xraylog.records import Fingerprint, Origin

MAX_RECEIPTS = 50  # kept in the state file: of runs that were killed, or only drained a log


class RunTarget(Target):
    """The database of a run: batches are loaded into it, and it confirms that they are stored."""

    owner: Owner = Owner()  # of the positions
    receipt: str | None = None  # the receipt of this run's confirmations, once there is one
    is_just_compared: bool = False  # whether nothing was stored since it was compared with the state file


def check_database(cfg: Config, target: RunTarget, sources: Sequence[Source], buffer: Buffer) -> Iterator[LoadResult]:
    """Compare the state file with the database, and act on what differs. Raises OSError.

    If the database lacks what it once confirmed, log an error, start a new count there, and yield a result that says
    so. If this installation turns out to be a copy, warn, and give it positions of its own.
    """
    state = installation.read(cfg.buffer_path)
    target.owner = owner(state)
    if state.is_new:
        installation.begin(cfg, state)
    last = last_confirmation(target.conn, cfg, state)
    target.is_just_compared = True
    if comparison.is_older(state, last):
        older = start_in_older_database(cfg, target, state, last)  # if the database goes away, the next run reports it
        logger.error(
            "{}; lines that are still in the log, in rotated logs next to it or in the buffer are loaded now; to load "
            "archives of that time, too: {}",
            comparison.describe_older(cfg, state, last),
            hints.command(cfg, "--keep", "--logfile", "ARCHIVE"),
        )
        installation.write(cfg.buffer_path, older)
        yield LoadResult(older=1)
    elif comparison.is_copy(cfg, state, last):
        separate_copy(with_own_node(cfg), target, state, sources, buffer)


def separate_copy(
    cfg: Config, target: RunTarget, state: Installation, sources: Sequence[Source], buffer: Buffer
) -> None:
    """Let this copy of an installation, and its sources, continue with a node and positions of its own; warn of it."""
    for source in sources:
        source.cfg = cfg
    own = give_own_positions(cfg, target, state, [source.log for source in sources], keep_all=not buffer.is_empty)
    logger.warning("{}; {}", comparison.describe_copy(cfg, state), comparison.advise_copy(cfg))
    installation.write(cfg.buffer_path, start(cfg, target, own))


def start_in_older_database(cfg: Config, target: RunTarget, state: Installation, last: Confirmation) -> Installation:
    """Start a new count in a database that lacks confirmed lines; return the new state, which says when they came."""
    # If a copy has stored lines here meanwhile, its positions may look like ours: take a new id then.
    has_copy = comparison.was_confirmed_by_copy(state, last) or comparison.has_copy_started_here(state, last)
    older = reset(
        state,
        older_at=time.time(),
        older_from=comparison.complete_until(state, last),
        older_to=state.confirmed_at,
        id="" if has_copy else state.id or state.token,
        node=cfg.node,
    )
    target.owner = owner(older)
    if older.id:
        with session.transaction(target.conn, positions.node_lock(cfg.node)):
            leave_receipt(cfg, target)  # so that a copy with this token, or an earlier one, notices this installation
        target.receipt = None
    return start(cfg, target, older)


def reset(state: Installation, **changes: Any) -> Installation:
    """Return a state with a new token and no confirmations; it keeps what the old one says about files."""
    return Installation(
        last_minutes=state.last_minutes,
        last_days=state.last_days,
        reminders=state.reminders,
        unread=state.unread,
        buffered=state.buffered,
        last_batch=state.last_batch,
        machine=installation.machine(),
        host=socket.gethostname(),
        **changes,
    )


def start(cfg: Config, target: RunTarget, state: Installation) -> Installation:
    """Count the first confirmation of a state with a new token; return the state with that count.

    Without it, a database that replaces this one before the first real confirmation would not look older.
    """
    who = confirmer(cfg, target, state)
    with session.transaction(target.conn, positions.node_lock(cfg.node)):
        last = confirmations.confirm(target.conn, who, None)
    return replace(state, confirmed=last.number, confirmed_at=last.at)


def confirmer(cfg: Config, target: RunTarget, state: Installation) -> Confirmer:
    """Return the identity under which this installation's confirmations are counted."""
    source = logfile.path_text(installation.state_path(cfg.buffer_path))
    return Confirmer(target.node_id(cfg.node), source, state.digest, state.owner_id)


def owner(state: Installation) -> Owner:
    """Return the owner under which this installation stores its positions."""
    return Owner(state.owner_id, state.is_new)


def last_confirmation(conn: Connection, cfg: Config, state: Installation) -> Confirmation:
    """Return the last confirmation of this installation that the database has."""
    return confirmations.last_confirmation(conn, state.digest, state.owner_id, cfg.node)


def is_copy(conn: Connection, cfg: Config, state: Installation) -> bool:
    """Return whether the next run would find that this installation is a copy. Changes nothing."""
    last = last_confirmation(conn, cfg, state)
    return not comparison.is_older(state, last) and comparison.is_copy(cfg, state, last)


def stored_in(state: Installation, origin: Origin, log: Log | None) -> int:
    """Return how far the state says the log with this origin is stored. `log`: the log itself, if it is open."""
    places = [(Fingerprint(one.head_length, bytes.fromhex(one.head)), one) for one in state.logs]
    found = (
        one.offset
        for head, one in places
        if (has_text_of(log, head, one) if log is not None else head in origin.fingerprints)
    )
    return max(found, default=0)


def with_own_node(cfg: Config) -> Config:
    """Return the settings with the host name as the node, unless the config sets a name."""
    return cfg if cfg.node_is_set else replace(cfg, node=socket.gethostname())


def give_own_positions(
    cfg: Config, target: RunTarget, state: Installation, logs: Sequence[Log], keep_all: bool
) -> Installation:
    """Give a copied installation positions of its own, where the state says each log was stored; return its new state.

    Logs that are not here get one, too, because they may have been rotated; but not under their own path: a new log may
    be there, and would seem to have been emptied by another program. `keep_all`: also give positions to logs that have
    been drained, because batches in the buffer may belong to them.
    """
    copy = reset(state, node=cfg.node, copied_at=time.time(), logs=state.logs)
    target.owner = owner(copy)
    for node in {cfg.node, state.node or cfg.node}:  # the old name is that of batches that were copied along
        node_id = target.node_id(node)
        with session.transaction(target.conn, positions.node_lock(node)):
            for stored in state.logs:
                head = Fingerprint(stored.head_length, bytes.fromhex(stored.head))
                is_here = any(has_text_of(log, head, stored) for log in logs)
                if keep_all or is_here or not any(is_drained(log, stored) for log in logs):
                    source = stored.source if is_here else f"{stored.source}, before it was copied"
                    start = Position.start(node_id, source, target.owner)
                    update = PositionUpdate(start, stored.offset, head, bytes.fromhex(stored.tail))
                    positions.insert(target.conn, update)
    return copy


def is_drained(log: Log, stored: StoredLog) -> bool:
    """Return whether `log` is this stored log, and its stored lines have been taken out of it."""
    is_it = isinstance(log, LogFile) and logfile.path_text(log.path) == stored.source
    return is_it and (log.is_empty or log.previous_digest is not None)


def has_text_of(log: Log, head: Fingerprint, stored: StoredLog) -> bool:
    """Return whether `log` has all the text of this stored log, as its beginning and its last lines show."""
    is_long_enough = log.max_offset is None or log.max_offset >= stored.offset
    return is_long_enough and log.fingerprint(head.length) == head and log.tail(stored.offset).hex() == stored.tail


def confirm(cfg: Config, target: RunTarget, stored: StoredLog | None = None) -> None:
    """Increment the count in the database, and write it to the state file. Raises OSError.

    `stored`: a log, and how far it is stored. The receipt is on disk before the database gets it, so that a run that
    is killed in between is not taken for a copy. A run needs only one receipt.
    """
    state = installation.read(cfg.buffer_path)
    who = confirmer(cfg, target, state)
    receipt, is_kept = state.receipt, target.receipt == state.receipt
    if not is_kept:
        state = with_receipt_asked(state)
        receipt, is_kept = state.asked, installation.write(cfg.buffer_path, state)
    with session.transaction(target.conn, positions.node_lock(cfg.node)):
        kept = bytes.fromhex(receipt) if is_kept else None
        last = confirmations.confirm(target.conn, who, kept)
    if is_kept:
        before = [*filter(None, [state.receipt, *state.earlier_receipts]), *state.previous_receipts]
        state = replace(state, receipt=receipt, asked="", earlier_receipts=[], previous_receipts=before[:MAX_RECEIPTS])
        target.receipt = receipt
    if stored is not None:
        state = state.with_log(stored)
    installation.write(
        cfg.buffer_path,
        replace(
            state,
            confirmed=last.number,
            confirmed_at=last.at,
            id=state.id or state.token,
            machine=installation.machine(),
            node=cfg.node if cfg.node_is_set else state.node or cfg.node,
            host=socket.gethostname(),
        ),
    )


def raise_if_copied(cfg: Config, target: RunTarget) -> None:
    """Raise PositionConflict if a copy of this installation has stored lines since `check_database`.

    Call it in the transaction that finds a position: that position may be the copy's by now.
    """
    is_fresh, target.is_just_compared = target.is_just_compared, False  # one round trip less
    if is_fresh or target.receipt is not None:
        return
    state = installation.read(cfg.buffer_path)
    if comparison.is_copied(state, last_confirmation(target.conn, cfg, state)):
        path = installation.state_path(cfg.buffer_path)
        raise PositionConflict(f"{path}: expected no other run with this state, found a copy's, on another machine")


def leave_receipt(cfg: Config, target: RunTarget) -> None:
    """Leave a receipt, unless this run has left one, in the transaction that moves a position away from stored lines.

    A copy of this machine may still have those lines in its log, and must be able to find out that it is a copy. The
    count is not incremented: a backup from before this run would look older, although it lacks no line.
    """
    state = installation.read(cfg.buffer_path)
    if not state.confirmed or target.receipt is not None:
        return
    state = with_receipt_asked(state)
    if installation.write(cfg.buffer_path, state):
        confirmations.renew(target.conn, confirmer(cfg, target, state), bytes.fromhex(state.asked))
        target.receipt = state.asked


def with_receipt_asked(state: Installation) -> Installation:
    """Return the state with a new receipt to write to the database. The previous one may have been committed."""
    earlier = [*state.earlier_receipts, *filter(None, [state.asked])]
    return replace(state, asked=installation.new_id(), earlier_receipts=earlier[-MAX_RECEIPTS:])


def is_recorded(cfg: Config, stored: StoredLog | None) -> bool:
    """Return whether the state file says that this log is stored exactly up to here, or need not say it."""
    return stored is None or stored in installation.read(cfg.buffer_path).logs
