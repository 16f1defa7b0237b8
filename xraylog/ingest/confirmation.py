"""Notices a database that is older than what it confirmed: restored, failed over, or another one; and a copied machine.

Stored lines leave the log, so nothing but the state file beside the buffer remembers that there were any. Each run
has the database count a confirmation, after its rows and before the log is drained; a later run that finds a smaller
count, or none, has another database in front of it. Each confirmation leaves a receipt on both sides: a run that finds
one that it does not know is not alone with its state.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import datetime, timezone
from typing import Any

from loguru import logger

from xraylog import hints
from xraylog.accesslog import installation, logfile
from xraylog.accesslog.installation import Installation, Stored
from xraylog.accesslog.logfile import Log, LogFile
from xraylog.accesslog.offline_buffer import Buffer
from xraylog.config import Config
from xraylog.database import confirmations, positions, session
from xraylog.database.confirmations import Confirmation, Confirmer
from xraylog.database.positions import Owner, Position, PositionConflict, PositionUpdate
from xraylog.database.session import Connection
from xraylog.ingest.source import Source
from xraylog.load_result import LoadResult
from xraylog.loading.loader import Target
from xraylog.records import Fingerprint, Origin

MAX_RECEIPTS = 50  # each is of a run that was killed, or that only drained a log


def compare(cfg: Config, target: Target, sources: Sequence[Source], buffer: Buffer) -> Iterator[LoadResult]:
    """Log once that the database lacks what it confirmed, and yield a result that says so; or that this installation is
    a copy, which gets positions of its own. Raises OSError.
    """
    known = installation.read(cfg.buffer_path)
    target.owner = owner(known)
    if known.is_new:
        installation.begin(cfg, known)
    there = last_confirmation(target.conn, cfg, known)
    target.is_just_compared = True
    if not is_older(known, there):
        if is_copied(known, there) or is_moved(cfg, known):
            cfg = own_node(cfg)
            for source in sources:
                source.cfg = cfg
            own = separate(cfg, target, known, [source.log for source in sources], keep_all=not buffer.is_empty)
            logger.warning("{}; {}", describe_copy(cfg, known), advise_copy(cfg))
            installation.write(cfg.buffer_path, begin(cfg, target, own))
        return
    older = begin_in_older(cfg, target, known, there)  # if the database goes away here, the next run reports it
    logger.error(
        "{}; what the log, rotated ones beside it or the buffer still have is loaded now; archives of that time add "
        "what they have: {}",
        describe(cfg, known, there),
        hints.command(cfg, "--keep", "--logfile", "ARCHIVE"),
    )
    installation.write(cfg.buffer_path, older)
    yield LoadResult(older=1)


def begin_in_older(cfg: Config, target: Target, known: Installation, there: Confirmation) -> Installation:
    """Begin again in a database that lacks what it had confirmed; return the state that knows which lines those are."""
    older = begun_again(
        known,
        older_at=time.time(),
        older_from=known_until(known, there),
        older_to=known.confirmed_at,
        # What a copy has stored here in the meantime may be where this one's lines end.
        id="" if is_of_a_copy(known, there) or has_begun_here(known, there) else known.id or known.token,
        node=cfg.node,
    )
    target.owner = owner(older)
    if older.id:
        with session.transaction(target.conn, positions.node_lock(cfg.node)):
            leave_receipt(cfg, target)  # a copy that has this token, or one from before, finds that it is not alone
        target.receipt = None
    return begin(cfg, target, older)


def begun_again(known: Installation, **changes: Any) -> Installation:
    """Return a state with a token of its own, of which nothing is confirmed, with what is known of files."""
    return Installation(
        last_minutes=known.last_minutes,
        last_days=known.last_days,
        reminders=known.reminders,
        unread=known.unread,
        buffered=known.buffered,
        last_batch=known.last_batch,
        machine=installation.machine(),
        host=socket.gethostname(),
        **changes,
    )


def begin(cfg: Config, target: Target, known: Installation) -> Installation:
    """Let the database confirm a state with a new token, before it counts; return the state that knows it.

    Otherwise a database that takes the place of this one, before this one has confirmed anything, would lack nothing.
    """
    who = confirmer(cfg, target, known)
    with session.transaction(target.conn, positions.node_lock(cfg.node)):
        there = confirmations.confirm(target.conn, who, None)
    return replace(known, confirmed=there.number, confirmed_at=there.at)


def confirmer(cfg: Config, target: Target, known: Installation) -> Confirmer:
    """Return who this installation is for its confirmations."""
    source = logfile.path_text(installation.state_path(cfg.buffer_path))
    return Confirmer(target.node_id(cfg.node), source, known.digest, known.owner_id)


def owner(known: Installation) -> Owner:
    """Return whose positions are those of this installation."""
    return Owner(known.owner_id, known.is_new)


def last_confirmation(conn: Connection, cfg: Config, known: Installation) -> Confirmation:
    """Return what the database knows of this installation."""
    return confirmations.last_confirmation(conn, known.digest, known.owner_id, cfg.node)


def is_older(known: Installation, there: Confirmation) -> bool:
    """Return whether the database lacks what it had confirmed.

    A count that is large enough may be another installation's, which has the same state. Then the receipts tell, if the
    database has them back to one of this installation.
    """
    if there.number < known.confirmed:
        return True
    has_latest = not latest_receipts(known).isdisjoint(there.receipts)
    return not has_latest and is_of_a_copy(known, there)


def is_of_a_copy(known: Installation, there: Confirmation) -> bool:
    """Return whether another installation surely went on from this one's state: the last receipt is not this one's, and
    an earlier one is, or none of all that there were. Where older ones were left out, nobody can tell.
    """
    ours = {*latest_receipts(known), *known.previous_receipts}
    if not (known.receipt and there.receipts) or there.receipts[0] in ours:
        return False
    none_is_ours = there.has_all_receipts and (there.number >= known.confirmed or not there.number)
    return none_is_ours or not ours.isdisjoint(there.receipts)


def has_begun_here(known: Installation, there: Confirmation) -> bool:
    """Return whether another installation with the same state has come to this older database before."""
    return there.of_owner_at > known.confirmed_at


def is_copied(known: Installation, there: Confirmation) -> bool:
    """Return whether the last confirmation was another installation's, which has the same state."""
    return bool(there.receipts) and there.receipts[0] not in latest_receipts(known)


def latest_receipts(known: Installation) -> set[str]:
    """Return the receipts any of which the database may have that has all that it confirmed."""
    return {known.receipt, known.asked, *known.earlier_receipts} - {""}


def is_copy(conn: Connection, cfg: Config, known: Installation) -> bool:
    """Return whether the next run would find that this installation was copied. Changes nothing."""
    there = last_confirmation(conn, cfg, known)
    return not is_older(known, there) and (is_copied(known, there) or is_moved(cfg, known))


def stored_in(known: Installation, origin: Origin, log: Log | None) -> int:
    """Return up to where the state has the log of these lines as stored. `log`: where it is at hand."""
    places = [(Fingerprint(one.head_length, bytes.fromhex(one.head)), one) for one in known.logs]
    found = (
        one.offset for head, one in places if (has(log, head, one) if log is not None else head in origin.fingerprints)
    )
    return max(found, default=0)


def is_moved(cfg: Config, known: Installation) -> bool:
    """Return whether the state came from another machine, which has another name."""
    is_elsewhere = not cfg.node_is_set and known.is_elsewhere and known.node not in ("", cfg.node)
    return is_elsewhere and not known.is_new


def own_node(cfg: Config) -> Config:
    """Return the settings with the host's name as the node, if no other name is set."""
    return cfg if cfg.node_is_set else replace(cfg, node=socket.gethostname())


def separate(cfg: Config, target: Target, known: Installation, logs: Sequence[Log], keep_all: bool) -> Installation:
    """Give an installation positions of its own, which begin where the state says that it was stored, and return what
    it knows from now on.

    Those of logs that are not here, too: they may have been rotated, and keep their lines. The path of such a log is
    not theirs: what is there now was not emptied by anybody. `keep_all`: also those of logs that were drained: batches
    of the buffer may be theirs.
    """
    copy = begun_again(known, node=cfg.node, copied_at=time.time(), logs=known.logs)
    target.owner = owner(copy)
    for node in {cfg.node, known.node or cfg.node}:  # the other one is that of batches which came along
        node_id = target.node_id(node)
        with session.transaction(target.conn, positions.node_lock(node)):
            for stored in known.logs:
                head = Fingerprint(stored.head_length, bytes.fromhex(stored.head))
                is_here = any(has(log, head, stored) for log in logs)
                if keep_all or is_here or not any(is_drained(log, stored) for log in logs):
                    source = stored.source if is_here else f"{stored.source}, before it was copied"
                    start = Position(None, node_id, source, source, 0, 0, owner=target.owner.id)
                    update = PositionUpdate(start, stored.offset, head, bytes.fromhex(stored.tail))
                    positions.insert(target.conn, update)
    return copy


def is_drained(log: Log, stored: Stored) -> bool:
    """Return whether this is the log whose lines were stored up to there, and they have left it."""
    is_it = isinstance(log, LogFile) and logfile.path_text(log.path) == stored.source
    return is_it and (log.is_empty or log.previous_digest is not None)


def has(log: Log, head: Fingerprint, stored: Stored) -> bool:
    """Return whether the log is stored up to there."""
    is_long_enough = log.max_offset is None or log.max_offset >= stored.offset
    return is_long_enough and log.fingerprint(head.length) == head and log.tail(stored.offset).hex() == stored.tail


def confirm(cfg: Config, target: Target, stored: Stored | None = None) -> None:
    """Let the database count what is stored by now; remember that it did. Raises OSError.

    `stored`: a log, and how far it is. The receipt is on disk before it is asked for: a run that is killed meanwhile is
    not taken for another installation. One receipt for a run is enough.
    """
    known = installation.read(cfg.buffer_path)
    who = confirmer(cfg, target, known)
    receipt, is_kept = known.receipt, target.receipt == known.receipt
    if not is_kept:
        known = with_receipt_asked(known)
        receipt, is_kept = known.asked, installation.write(cfg.buffer_path, known)
    with session.transaction(target.conn, positions.node_lock(cfg.node)):
        kept = bytes.fromhex(receipt) if is_kept else None
        there = confirmations.confirm(target.conn, who, kept)
    if is_kept:
        before = [*filter(None, [known.receipt, *known.earlier_receipts]), *known.previous_receipts]
        known = replace(known, receipt=receipt, asked="", earlier_receipts=[], previous_receipts=before[:MAX_RECEIPTS])
        target.receipt = receipt
    if stored is not None:
        known = known.with_log(stored)
    installation.write(
        cfg.buffer_path,
        replace(
            known,
            confirmed=there.number,
            confirmed_at=there.at,
            id=known.id or known.token,
            machine=installation.machine(),
            node=cfg.node if cfg.node_is_set else known.node or cfg.node,
            host=socket.gethostname(),
        ),
    )


def raise_if_copied(cfg: Config, target: Target) -> None:
    """Raise PositionConflict if another installation has stored lines as this one since `compare`, if that was a while
    ago. In the transaction that finds a position, which may be the other one's by now.
    """
    is_fresh, target.is_just_compared = target.is_just_compared, False  # one round trip less
    if is_fresh or target.receipt is not None:
        return
    known = installation.read(cfg.buffer_path)
    if is_copied(known, last_confirmation(target.conn, cfg, known)):
        state = installation.state_path(cfg.buffer_path)
        raise PositionConflict(f"{state}: expected no other run with this state, found a copy's, on another machine")


def leave_receipt(cfg: Config, target: Target) -> None:
    """Leave a receipt in the transaction that moves a position away from lines that it stood for, if this run has left
    none: a copy of this machine may still have them in its log, and has to find out that it is one.

    To count a confirmation would make a backup from before look older, although it lacks no line.
    """
    known = installation.read(cfg.buffer_path)
    if not known.confirmed or target.receipt is not None:
        return
    known = with_receipt_asked(known)
    if installation.write(cfg.buffer_path, known):
        confirmations.renew(target.conn, confirmer(cfg, target, known), bytes.fromhex(known.asked))
        target.receipt = known.asked


def with_receipt_asked(known: Installation) -> Installation:
    """Return the state with another receipt to be asked for; the one before it may have been committed."""
    earlier = [*known.earlier_receipts, *filter(None, [known.asked])]
    return replace(known, asked=installation.new_id(), earlier_receipts=earlier[-MAX_RECEIPTS:])


def knows(cfg: Config, stored: Stored | None) -> bool:
    """Return whether the state has this place of a log, or needs none."""
    return stored is None or stored in installation.read(cfg.buffer_path).logs


def known_until(known: Installation, there: Confirmation) -> float:
    """Return until when the database that is older has what it confirmed, in seconds since 1970; 0: nothing.

    Where it has no row of this installation, the time is that of the node, which may be another installation's.
    """
    return there.at if there.at <= known.confirmed_at else 0.0


def describe(cfg: Config, known: Installation, there: Confirmation) -> str:
    """Return which database lacks what."""
    at = known_until(known, there)
    since = f"knows of nothing after {moment(at)}" if at else "knows of nothing"
    return (
        f"node {cfg.node}, {cfg.log_path}: the database is older than the log, or another one: it confirmed lines "
        f"until {moment(known.confirmed_at)}, and {since}; lines stored between these times are missing in it"
    )


def describe_copy(cfg: Config, known: Installation) -> str:
    """Return what was found."""
    state = installation.state_path(cfg.buffer_path)
    since = f"since {moment(known.confirmed_at)} another" if known.confirmed else "another"
    if is_moved(cfg, known):
        return (
            f"node {cfg.node}, {cfg.log_path}: this installation was copied: {state} was written on another machine, "
            f"as that of node {known.node}"
        )
    return (
        f"node {cfg.node}, {cfg.log_path}: this installation was copied: {since} one has stored lines "
        f"as the one of {state}, "
        + ("which was written on another machine" if known.is_elsewhere else "or that file is an older copy")
    )


def advise_copy(cfg: Config) -> str:
    """Return what to do about it."""
    return (
        "it has positions of its own from now on; lines that were in both logs, and not stored when they were copied, "
        "are stored by both; if both machines stay in use, give one of them a name of its own: "
        f"[parser] node in {cfg.path}"
    )


def moment(seconds: float) -> str:
    """Return a time for people."""
    return datetime.fromtimestamp(seconds, timezone.utc).strftime("%Y-%m-%d %H:%M:%S UTC")
