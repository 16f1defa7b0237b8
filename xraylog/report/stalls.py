"""Find the times at which a node let nobody in, although it does so at that time of other days. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import timedelta
from itertools import accumulate

from xraylog.report.model import ONE_DAY, SLOT, Findings, Gap

MIN_USUAL = 50  # accepted rows of a slow day at that time: with fewer, chance makes gaps
SLOW = 20  # of twenty other days, the second slowest
MIN_DAYS = 2  # to compare with


def find(found: Findings) -> list[Gap]:
    """Return the gaps shorter than a day at whose time nearly all other days have some rows, the newest first."""
    sums = _sums(found)
    stalls = [gap for gap in found.gaps if gap.length < ONE_DAY and _usual(gap, found, sums) >= MIN_USUAL]
    return sorted(stalls, key=lambda gap: gap.since, reverse=True)


def _usual(gap: Gap, found: Findings, sums: Mapping[str, Sequence[int]]) -> int:
    """Return how many accepted rows the node has at the time of the gap on the second slowest of twenty days."""
    since, until = found.window.since, found.window.until
    days = (until - since) // ONE_DAY
    counts = []
    for number in range(-days, days + 1):
        begin, end = gap.since + number * ONE_DAY, gap.until + number * ONE_DAY
        if number and since <= begin and end <= until:
            counts.append(_between(sums[gap.node], begin - since, end - since))
    return sorted(counts)[len(counts) // SLOW] if len(counts) >= MIN_DAYS else 0


def _sums(found: Findings) -> Mapping[str, Sequence[int]]:
    """Return by node how many accepted rows there are before each quarter of an hour, and in total."""
    slots = -((found.window.since - found.window.until) // SLOT)
    rows: dict[str, list[int]] = defaultdict(lambda: [0] * (slots + 1))
    for slot in found.slots:
        if slot.is_accepted:
            rows[slot.node][min(max(0, (slot.start - found.window.since) // SLOT), slots)] += slot.rows
    zeros = [0] * (slots + 2)
    sums = {node: [0, *accumulate(of_node)] for node, of_node in rows.items()}
    return defaultdict(lambda: zeros, sums)


def _between(sums: Sequence[int], begin: timedelta, end: timedelta) -> int:
    """Return the rows of the whole quarters between two times since the window began."""
    first, last = -(-begin // SLOT), end // SLOT
    return max(0, sums[last] - sums[first])
