"""The questions: their options, the functions of answers.sql that answer them, and what the answers leave out."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta

HOUR, DAY = timedelta(hours=1), timedelta(days=1)
ADDRESSES = "Not counted as addresses: 0.0.0.0, 127.0.0.1, ::1 and ::, which stand for a unix socket or a proxy."


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


def _user(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("email", metavar="NAME", help="as the log has it; * stands for any characters")


QUESTIONS = (
    Question(
        "user",
        "where one user went, and from where",
        {"destinations": "destinations_of", "networks": "networks_of"},
        DAY,
        _user,
        (ADDRESSES,),
    ),
    Question("rejected", "sources that were rejected", {"sources": "rejected_sources"}),
    Question("traffic", "rows by hour", {"hours": "traffic_by_hour"}),
    Question("last-seen", "when each user was last seen, and from where", {"users": "last_seen"}, 30 * DAY),
)
