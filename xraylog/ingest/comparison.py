"""Compare the state file with the last confirmation in the database: what each verdict means, and its message.

Is the database older than the state, or another one? Is this installation a copy of the one that confirmed? `state` is
what the state file says, and `last` is the last confirmation in the database. Nothing is changed here.
"""

from __future__ import annotations

from datetime import datetime, timezone

from xraylog.accesslog import installation
from xraylog.accesslog.installation import Installation
from xraylog.config import Config
from xraylog.database.confirmations import Confirmation


def is_older(state: Installation, last: Confirmation) -> bool:
    """Return whether the database lacks lines that it confirmed.

    A count that is high enough may have been raised by a copy of this installation. Then the receipts decide, if they
    reach back to one of this installation's own.
    """
    if last.number < state.confirmed:
        return True
    has_latest = not latest_receipts(state).isdisjoint(last.receipts)
    return not has_latest and was_confirmed_by_copy(state, last)


def was_confirmed_by_copy(state: Installation, last: Confirmation) -> bool:
    """Return whether a copy of this installation has surely confirmed lines here since.

    It has if the last receipt is not ours but an earlier one is; or if none is ours and the database still has every
    receipt. If the database has dropped old receipts, nobody can tell.
    """
    ours = {*latest_receipts(state), *state.previous_receipts}
    if not (state.receipt and last.receipts) or last.receipts[0] in ours:
        return False
    none_is_ours = last.has_all_receipts and (last.number >= state.confirmed or not last.number)
    return none_is_ours or not ours.isdisjoint(last.receipts)


def has_copy_started_here(state: Installation, last: Confirmation) -> bool:
    """Return whether a copy with the same state was the first to find that this database is older."""
    return last.of_owner_at > state.confirmed_at


def is_copy(cfg: Config, state: Installation, last: Confirmation) -> bool:
    """Return whether this installation is a copy: of one that stored lines since, or that was on another machine."""
    return is_copied(state, last) or is_moved(cfg, state)


def is_copied(state: Installation, last: Confirmation) -> bool:
    """Return whether the last confirmation was made by a copy of this installation."""
    return bool(last.receipts) and last.receipts[0] not in latest_receipts(state)


def latest_receipts(state: Installation) -> set[str]:
    """Return the receipts that can be the last one in a database that has everything it confirmed."""
    return {state.receipt, state.asked, *state.earlier_receipts} - {""}


def is_moved(cfg: Config, state: Installation) -> bool:
    """Return whether the state file was written on another machine, under another node name."""
    is_elsewhere = not cfg.node_is_set and state.is_elsewhere and state.node not in ("", cfg.node)
    return is_elsewhere and not state.is_new


def complete_until(state: Installation, last: Confirmation) -> float:
    """Return up to when an older database has all confirmed lines, in seconds since 1970; 0 if it has none.

    Without a row of this installation, this is when the node last stored anything; another installation may have.
    """
    return last.at if last.at <= state.confirmed_at else 0.0


def describe_older(cfg: Config, state: Installation, last: Confirmation) -> str:
    """Return the message that says from when until when lines are missing in the database."""
    at = complete_until(state, last)
    since = f"has nothing after {moment(at)}" if at else "has nothing"
    return (
        f"node {cfg.node}, {cfg.log_path}: the database is older than the log, or another one: it confirmed lines "
        f"until {moment(state.confirmed_at)}, but {since}; lines stored between these times are missing in it"
    )


def describe_copy(cfg: Config, state: Installation) -> str:
    """Return the message that says how it shows that this installation was copied."""
    path = installation.state_path(cfg.buffer_path)
    since = f"since {moment(state.confirmed_at)} another" if state.confirmed else "another"
    if is_moved(cfg, state):
        return (
            f"node {cfg.node}, {cfg.log_path}: this installation was copied: {path} was written on another machine, "
            f"as that of node {state.node}"
        )
    return (
        f"node {cfg.node}, {cfg.log_path}: this installation was copied: {since} one has stored lines "
        f"as the one of {path}, "
        + ("which was written on another machine" if state.is_elsewhere else "or that file is an older copy")
    )


def advise_copy(cfg: Config) -> str:
    """Return the message that says what a copied installation does, and what the operator should do."""
    return (
        "it has positions of its own from now on; lines that were in both logs, and not stored when they were copied, "
        "are stored by both; if both machines stay in use, give one of them a name of its own: "
        f"[parser] node in {cfg.path}"
    )


def moment(seconds: float) -> str:
    """Return a time for a message, in UTC."""
    return datetime.fromtimestamp(seconds, timezone.utc).strftime("%Y-%m-%d %H:%M:%S UTC")
