"""Find the times when a node let nobody in, although it usually does at that time of day. Pure."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import timedelta
from itertools import accumulate

from xraylog.report.model import Findings, Gap
from xraylog.report.window import ONE_DAY, SLOT

MIN_USUAL = 50  # accepted rows that even a slow day has at that time; with fewer, gaps occur by chance
SLOW_SHARE = 20  # a slow day is the slowest one after leaving out one in twenty
MIN_DAYS = 2  # other days that are needed for a comparison


def find(found: Findings) -> list[Gap]:
    """Return the gaps shorter than a day at a time of day when nearly all other days have rows, the newest first."""
    others = _rows_of_other_days(found)
    stalls = [gap for gap, counts in others if len(counts) >= MIN_DAYS and _slow(counts) >= MIN_USUAL]
    return sorted(stalls, key=lambda gap: gap.since, reverse=True)


def unknown(found: Findings) -> list[Gap]:
    """Return the gaps shorter than a day of nodes with too few other days to compare with, the newest first."""
    loaded = {node.name for node in found.nodes if node.stored and node.last}
    gaps = [gap for gap, counts in _rows_of_other_days(found) if len(counts) < MIN_DAYS and gap.node in loaded]
    return sorted(gaps, key=lambda gap: gap.since, reverse=True)


def usual(found: Findings) -> set[str]:
    """Return the nodes that let nobody in at the end of the window, when on most other days they do not either."""
    others = _rows_of_other_days(found)
    last = [(gap.node, counts) for gap, counts in others if gap.until == found.known_until]
    return {node for node, counts in last if len(counts) >= MIN_DAYS and not statistics.median_high(counts)}


def _slow(counts: Sequence[int]) -> int:
    """Return the rows of a slow day: the count at a twentieth of the sorted counts."""
    return sorted(counts)[len(counts) // SLOW_SHARE]


def _rows_of_other_days(found: Findings) -> list[tuple[Gap, Sequence[int]]]:
    """Return each gap shorter than a day, with the accepted rows of its node at that time on each other day.

    Days without any accepted row are left out, because they are not usual: the node was down, or did not exist yet.
    """
    sums = _sums(found)
    outages = defaultdict[str, list[Gap]](list)
    for gap in found.gaps:
        if gap.length >= ONE_DAY or found.is_before_first(gap):
            outages[gap.node].append(gap)
    short = [gap for gap in found.gaps if gap not in outages[gap.node]]
    return [(gap, _counts(gap, found, sums[gap.node], outages[gap.node])) for gap in short]


def _counts(gap: Gap, found: Findings, sums: Sequence[int], outages: Sequence[Gap]) -> list[int]:
    since, until = found.window.since, found.window.until
    days = (until - since) // ONE_DAY + 1
    counts = []
    for number in range(-days, days + 1):
        begin, end = gap.since + number * ONE_DAY, gap.until + number * ONE_DAY
        is_outage = any(begin < other.until and end > other.since for other in outages)
        if number and since <= begin and end <= until and not is_outage:
            counts.append(_between(sums, begin - since, end - since))
    return counts


def _sums(found: Findings) -> Mapping[str, Sequence[int]]:
    """Return cumulative counts by node: how many accepted rows precede each quarter of an hour; the last one is all."""
    slots = -((found.window.since - found.window.until) // SLOT)
    rows: dict[str, list[int]] = defaultdict(lambda: [0] * (slots + 1))
    for slot in found.slots:
        if slot.is_accepted:
            rows[slot.node][min(max(0, (slot.start - found.window.since) // SLOT), slots)] += slot.rows
    zeros = [0] * (slots + 2)
    sums = {node: [0, *accumulate(of_node)] for node, of_node in rows.items()}
    return defaultdict(lambda: zeros, sums)


def _between(sums: Sequence[int], begin: timedelta, end: timedelta) -> int:
    """Return the rows of the whole quarters between two times, given as differences from the start of the window."""
    first, last = -(-begin // SLOT), end // SLOT
    return max(0, sums[last] - sums[first])
