"""The questions: their options, the functions of answers.sql that answer them, and what the answers leave out."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from xraylog import cli
from xraylog.questions import targets

HOUR, DAY = timedelta(hours=1), timedelta(days=1)
ACCEPTED = "Counted: accepted connections. Left out: those that were rejected, the calls of xray's own API."
ADDRESSES = "Not counted as addresses: 0.0.0.0, 127.0.0.1, ::1 and ::, which stand for a unix socket or a proxy."

NO_API = "Left out: the calls of xray's own API."
FANNED = (
    "addresses: destinations that are no host name. Left out: lines without a user. A scan of a network shows as many "
    "addresses with few ports, a torrent as many of both."
)


def no_options(parser: argparse.ArgumentParser) -> None:
    """Add none."""


@dataclass(frozen=True, slots=True)
class Question:
    """One subcommand."""

    name: str
    help: str
    parts: Mapping[str, str]  # names of tables, and the function that answers each
    window: timedelta | None = DAY  # before --until, unless --since says otherwise; None: it has none
    options: Callable[[argparse.ArgumentParser], None] = no_options
    notes: tuple[str, ...] = field(default=())
    nothing: Callable[[Mapping[str, Any]], str] | None = None  # the note where no row was found
    states_start: bool = False  # a note says from when on there are rows
    needs: tuple[str, ...] = ()  # options of which one has to be given
    narrowed: tuple[str, Mapping[str, str]] | None = None  # an option, and the parts that answer where it is given

    def parts_for(self, values: Mapping[str, Any]) -> Mapping[str, str]:
        """Return the parts that answer, by what was given and by --only."""
        parts = self.narrowed[1] if self.narrowed and values.get(self.narrowed[0]) is not None else self.parts
        return {name: function for name, function in parts.items() if values.get("only") in (None, name)}

    @property
    def choices(self) -> list[str]:
        """Return the names of all parts."""
        return [*dict.fromkeys((*self.parts, *(self.narrowed[1] if self.narrowed else ())))]


def _user(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("email", metavar="NAME", help="as the log has it; * stands for any characters")


def _reached(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("target", metavar="TARGET", nargs="?", type=targets.target,
                        help="a host, an address, a network as in 198.51.100.0/24, or *.telegram.org")  # fmt: skip
    parser.add_argument("--port", type=cli.number(0, 65535), metavar="N", help="this port only")
    parser.add_argument("--at", metavar="TIME", help="around this moment, in place of --since and --until")
    parser.add_argument("--within", metavar="TIME", default="5m", help="to each side of --at (default: 5m)")


def _ports(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("ports", metavar="PORTS", nargs="?", type=targets.ports,
                        help="the users of these: 22, or 6881-6889,51413")  # fmt: skip


def _outbound(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("tag", metavar="TAG", nargs="?", help="users and destinations of this one, as the log has it")


def _traffic(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--by", choices=("hour", "day"), default="hour", help="of the log's zone (default: hour)")
    parser.add_argument("--per", choices=("node", "outbound", "inbound"), help="count each node or tag by itself")


QUESTIONS = (
    Question(
        "user",
        "where one user went, and from where",
        {"destinations": "destinations_of", "networks": "networks_of"},
        DAY,
        _user,
        (ADDRESSES,),
    ),
    Question(
        "reached",
        "who reached a host, an address, a network or a port",
        {"users": "users_that_reached", "connections": "connections_to"},
        DAY,
        _reached,
        (targets.NAMES, targets.MASKED),
        targets.nothing,
        needs=("target", "port"),
    ),
    Question(
        "scanners",
        "users that fan out: most addresses without a name, then most destinations",
        {"users": "users_that_fan_out"},
        HOUR,
        notes=(FANNED, NO_API),
    ),
    Question(
        "ports",
        "rows and users by port of the destination, or the users of some ports",
        {"ports": "rows_by_port"},
        DAY,
        _ports,
        (NO_API,),
        narrowed=("ports", {"users": "users_of_ports"}),
    ),
    Question(
        "outbound",
        "who and what went out by a tag, as by block; without a tag, all of them",
        {"outbounds": "rows_by_outbound"},
        DAY,
        _outbound,
        (ACCEPTED,),
        targets.nothing_by_tag,
        narrowed=("tag", {"users": "users_by_outbound", "destinations": "destinations_by_outbound"}),
    ),
    Question(
        "new",
        "destinations that nobody contacted before, most users first",
        {"destinations": "new_destinations"},
        DAY,
        notes=(NO_API,),
        states_start=True,
    ),
    Question("rejected", "sources that were rejected", {"sources": "rejected_sources"}),
    Question(
        "traffic",
        "rows, users and addresses by hour or day, by node or tag",
        {"periods": "traffic"},
        DAY,
        _traffic,
        (ACCEPTED, ADDRESSES),
        narrowed=("per", {"periods": "traffic_per"}),
    ),
    Question("last-seen", "when each user was last seen, and from where", {"users": "last_seen"}, 30 * DAY),
)
