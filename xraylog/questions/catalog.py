"""The questions of ask_logs.py: their options, the functions of answers.sql that answer them, and their notes."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from xraylog import cli
from xraylog.questions import targets
from xraylog.questions.extra_columns import ExtraColumns, names, places

HOUR, DAY = timedelta(hours=1), timedelta(days=1)
WITHIN = "5m"
ACCEPTED = "Counted: accepted connections. Left out: those that were rejected, the calls of xray's own API."
ONLINE = (
    "Counted: users who were let in during the window. Left out: connections that began before it, because xray writes "
    "a row when one begins. online_since is looked for up to 6 hours back; after a pause of 30 minutes it begins anew."
)
OVER_TIME = (
    "Counted: users who were let in during the period; at_once: the most of them in five minutes. Left out: periods "
    "without users."
)
SEEN = "Without a time: users who were not let in during the window, and names that the database does not know."
LET_IN = "Left out: rejected connections, though some name a user, whose client is too old."
OF_USER = (
    "Counted: accepted connections. Those that were rejected, and name the user, are in the table rejected alone: "
    "the client is too old."
)
SHARING = (
    "simultaneous: networks (/24, /48; IPv4 and IPv6 each by itself) in one slot of ten minutes. A phone that leaves "
    "its Wi-Fi has two in one slot; a shared account has them in many slots."
)
ADDRESSES = "Not counted as addresses: 0.0.0.0, 127.0.0.1, ::1 and ::, which stand for a unix socket or a proxy."

REJECTED = (
    "reason: what xray's words come to, by a fixed catalogue; not recorded: the row is older than that, or has none. "
    "Left out: lines that are no rows."
)
FANNED = (
    "addresses: destinations that are no host name. Left out: lines without a user. A scan of a network shows as many "
    "addresses with few ports, a torrent as many of both."
)


def no_options(parser: argparse.ArgumentParser) -> None:
    """Add no options."""


@dataclass(frozen=True, slots=True)
class OtherForm:
    """Another form of a question, which is answered if one of its options is given."""

    option: str
    parts: Mapping[str, str]  # by name of each table of the answer: the function that returns it
    is_chosen_by_value: bool = False  # the value of the option names the only part to return
    window: timedelta | None = None  # replaces that of the question
    notes: tuple[str, ...] | None = None  # replace those of the question


@dataclass(frozen=True, slots=True)
class Question:
    """One subcommand of ask_logs.py."""

    name: str
    help: str
    parts: Mapping[str, str]  # by name of each table of the answer: the function that returns it
    window: timedelta = DAY  # before --until, unless --since says otherwise
    options: Callable[[argparse.ArgumentParser], None] = no_options
    notes: tuple[str, ...] = field(default=())
    no_rows_note: Callable[[Mapping[str, Any]], str | None] | None = None  # returns the note if no row was found
    states_start: bool = False  # add a note that says from when on there are rows
    states_end: bool = False  # add a note that says up to when there are rows, if the window ends now
    needs: Mapping[str, str] = field(default_factory=dict)  # at least one must be given: options, as they are typed
    other_form: OtherForm | None = None
    extra_columns: tuple[ExtraColumns, ...] = ()  # shown if the optional table that they come from has rows
    by_name: bool = False  # also count the addresses that the target's name had
    has_end: bool = True  # whether --until changes the answer

    def form_for(self, values: Mapping[str, Any]) -> OtherForm | None:
        """Return the other form if the options ask for it."""
        return self.other_form if self.other_form and values.get(self.other_form.option) is not None else None

    def parts_for(self, values: Mapping[str, Any]) -> Mapping[str, str]:
        """Return the parts of the answer to these options, by name."""
        form = self.form_for(values)
        parts = form.parts if form else self.parts
        if form and form.is_chosen_by_value:
            chosen = values[form.option]
            parts = {chosen: parts[chosen]}
        return {name: function for name, function in parts.items() if values.get("only") in (None, name)}

    def notes_for(self, values: Mapping[str, Any]) -> tuple[str, ...]:
        """Return the notes about the parts of the answer to these options."""
        form = self.form_for(values)
        return self.notes if form is None or form.notes is None else form.notes

    def length_for(self, values: Mapping[str, Any]) -> timedelta:
        """Return the length of the window if --since is not given."""
        given: timedelta | None = values.get("length")
        form = self.form_for(values)
        return given or (form and form.window) or self.window

    def requirement_of(self, part: str) -> str:
        """Return which option this part requires or excludes, as in "with --by reason" or "without TARGET"."""
        form = self.other_form or OtherForm("", {})
        typed = "--by" if form.option == "by" else form.option.upper()
        if part not in form.parts:
            return f"without {typed}"
        return f"with {typed} {part}" if form.is_chosen_by_value else f"with {typed}"

    @property
    def choices(self) -> list[str]:
        """Return the names of all parts."""
        return [*dict.fromkeys((*self.parts, *(self.other_form.parts if self.other_form else ())))]


def _user(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("email", metavar="NAME", help="as the log or an answer has it; * stands for any characters")


def _client(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("client", metavar="ADDRESS", type=targets.client,
                        help="of clients: an address, or a network as in 203.0.113.0/24")  # fmt: skip
    _around(parser)


def _reached(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("target", metavar="TARGET", nargs="?", type=targets.target,
                        help="a host, an address, a network as in 198.51.100.0/24, or *.telegram.org")  # fmt: skip
    parser.add_argument("--port", type=cli.number(0, 65535), metavar="N", help="this port only")
    _around(parser)


def _around(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--at", metavar="TIME", help="around this moment, in place of --since and --until")
    parser.add_argument("--within", metavar="TIME", help=f"to each side of --at (default: {WITHIN})")


def _ports(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("ports", metavar="PORTS", nargs="?", type=targets.ports,
                        help="the users of these: 22, or 6881-6889,51413")  # fmt: skip


def _outbound(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("tag", metavar="TAG", nargs="?", help="users and destinations of this one, as the log has it")


def _minutes(text: str) -> timedelta:
    return timedelta(minutes=cli.number(1, 7 * 24 * 60)(text))


def _online(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--minutes", dest="length", type=_minutes, metavar="N",
                        help="before --until, unless there is --since (default: 5)")  # fmt: skip
    parser.add_argument(
        "--by", choices=("5m", "hour", "day"), help="how many users there were over time (default: a day)"
    )


def _sharing(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("alone", metavar="NAME", nargs="?", help="this user alone; * stands for any characters")
    parser.add_argument("--by", choices=("simultaneous", "addresses", "networks"), default="simultaneous",
                        help="the order: networks at the same time, or addresses or networks of the window "
                        "(default: simultaneous)")  # fmt: skip


def _rejected(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--by", choices=("reason", "network"), help="count by reason, or by network (/24, /48) and reason"
    )


def _last_seen(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--users", dest="emails", type=cli.lines_of, metavar="FILE",
                        help="these users, one name a line, also those never seen; -: standard input")  # fmt: skip


def _traffic(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--by", choices=("hour", "day"), default="hour", help="of the log's zone (default: hour)")
    parser.add_argument("--per", choices=("node", "outbound", "inbound"), help="count each node or tag by itself")


QUESTIONS = (
    Question(
        "online",
        "who is online, from where, since when; or how many were, over time",
        {"users": "online"},
        timedelta(minutes=5),
        _online,
        (ONLINE, LET_IN, ADDRESSES),
        other_form=OtherForm("by", {"periods": "users_over_time"}, window=DAY, notes=(OVER_TIME, LET_IN)),
        states_end=True,
        extra_columns=(ExtraColumns("users", "addresses", {"countries": "country", "providers": "provider"}),),
    ),
    Question(
        "sharing",
        "who shares an account",
        {"users": "sharing"},
        HOUR,
        _sharing,
        (SHARING, LET_IN, ADDRESSES),
        targets.no_rows_of_user,
        extra_columns=(
            ExtraColumns(
                "users", "email", {"countries": "countries", "providers": "providers"}, "places_of_users", "networks"
            ),
        ),
    ),
    Question(
        "user",
        "where one user went, when, by which ports and tags, and from where",
        {
            "destinations": "destinations_of",
            "ports": "ports_of",
            "outbound": "outbound_tags_of",
            "addresses": "addresses_of",
            "networks": "networks_of",
            "days": "days_of",
            "rejected": "rejected_of",
            "total": "total_of",
        },
        DAY,
        _user,
        (OF_USER, ADDRESSES),
        extra_columns=(
            places("addresses", "address"),
            places("networks", "network"),
            places("rejected", "source_ip"),
            names("destinations"),
        ),
    ),
    Question(
        "client",
        "which users connect from an address or a network, and what was rejected from there",
        {"users": "users_from", "rejected": "rejected_from"},
        DAY,
        _client,
        (ADDRESSES, targets.MASKED_CLIENTS),
        targets.no_rows_from_client,
        extra_columns=(places("rejected", "source_ip"),),
    ),
    Question(
        "reached",
        "who reached a host, an address, a network or a port",
        {"users": "users_that_reached", "connections": "connections_to"},
        DAY,
        _reached,
        (ACCEPTED, targets.NAMES, targets.MASKED),
        targets.no_rows_of_target,
        needs={"target": "TARGET", "port": "--port"},
        extra_columns=(names("connections"),),
        by_name=True,
    ),
    Question(
        "scanners",
        "users that fan out: most addresses without a name, then most destinations",
        {"users": "users_that_fan_out"},
        HOUR,
        notes=(FANNED, ACCEPTED),
    ),
    Question(
        "ports",
        "rows and users by port of the destination, or the users of some ports",
        {"ports": "rows_by_port"},
        DAY,
        _ports,
        (ACCEPTED,),
        other_form=OtherForm("ports", {"users": "users_of_ports"}),
    ),
    Question(
        "outbound",
        "who and what went out by a tag, as by block; without a tag, all of them",
        {"outbounds": "rows_by_outbound"},
        DAY,
        _outbound,
        (ACCEPTED,),
        targets.no_rows_by_tag,
        other_form=OtherForm("tag", {"users": "users_by_outbound", "destinations": "destinations_by_outbound"}),
    ),
    Question(
        "new",
        "destinations that nobody contacted before, most users first",
        {"destinations": "new_destinations"},
        DAY,
        notes=(ACCEPTED,),
        states_start=True,
        extra_columns=(names("destinations"),),
    ),
    Question(
        "rejected",
        "sources that were rejected, and why; or how many, by reason or by network",
        {"sources": "rejected_sources"},
        DAY,
        _rejected,
        (REJECTED, ADDRESSES),
        other_form=OtherForm(
            "by", {"reason": "rejected_reasons", "network": "rejected_networks"}, is_chosen_by_value=True
        ),
        extra_columns=(places("sources", "source_ip"), places("network", "network")),
    ),
    Question(
        "traffic",
        "rows, users and addresses by hour or day, by node or tag",
        {"periods": "traffic"},
        DAY,
        _traffic,
        (ACCEPTED, ADDRESSES),
        other_form=OtherForm("per", {"periods": "traffic_per"}),
    ),
    Question(
        "last-seen",
        "when each user was last seen, and from where",
        {"users": "last_seen"},
        30 * DAY,
        _last_seen,
        (SEEN, LET_IN),
        other_form=OtherForm("emails", {"users": "last_seen_of"}),
        has_end=False,
    ),
)
