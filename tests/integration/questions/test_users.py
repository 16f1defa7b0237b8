"""Questions about users, each answered for a few lines whose numbers can be counted by eye."""

from __future__ import annotations

import json
from typing import Any

import pytest
from helpers.site import Site

DAY = ("--since", "2025-11-17", "--until", "2025-11-17")


def line(at: str, source: str, user: str, host: str = "a.example:443", tags: str = "in -> direct") -> str:
    return f"2025/11/17 {at} from {source}:1000 accepted tcp:{host} [{tags}] email: {user}"


@pytest.fixture
def ask(site: Site) -> Any:
    """Load these lines, and return the answer of a question about them."""

    def answer(lines: list[str], *arguments: str) -> Any:
        site.append(*(f"{line}\n" for line in lines))
        site.run()
        return json.loads(site.run(*arguments, "--json", script="ask_logs").stdout)

    return answer


def rows(part: list[dict[str, Any]]) -> list[tuple[Any, ...]]:
    return [tuple(row.values()) for row in part]


def moment(time: str) -> str:
    return f"2025-11-17T{time}+00:00"


# --- traffic -----------------------------------------------------------------------------------------------

TRAFFIC = [
    line("09:59:59", "203.0.113.1", "ann"),
    line("10:00:00", "203.0.113.1", "ann", tags="in -> block"),
    line("10:10:00", "[::ffff:203.0.113.1]", "ann"),  # the same address
    line("10:20:00", "203.0.113.2", "ann"),
    line("10:59:59", "127.0.0.1", "bob"),  # no client's address
    "2025/11/17 10:30:00 from 127.0.0.1:1 accepted tcp:127.0.0.1:0 [api -> api]",
    "2025/11/17 10:40:00 from 203.0.113.9:1 rejected  proxy/vless/encoding: invalid request version",
]


def test_traffic_by_hour_counts_neither_rejections_nor_calls_of_the_api(ask: Any) -> None:
    found = ask(TRAFFIC, "traffic", *DAY)
    assert rows(found["periods"]) == [(moment("09:00:00"), 1, 1, 1), (moment("10:00:00"), 4, 2, 2)]
    assert any("rejected" in note and "API" in note for note in found["notes"])


@pytest.mark.parametrize(
    ("per", "names"),
    [
        ("outbound", [("direct", 4, 2, 2), ("block", 1, 1, 1)]),
        ("inbound", [("in", 5, 2, 2)]),
        ("node", [("n1", 5, 2, 2)]),
    ],
)
def test_traffic_of_a_day_by_name(ask: Any, per: str, names: list[tuple[Any, ...]]) -> None:
    found = ask(TRAFFIC, "traffic", *DAY, "--by", "day", "--per", per)
    assert rows(found["periods"]) == [(moment("00:00:00"), *name) for name in names]
