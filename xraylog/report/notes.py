"""Write the notes at the top of the page: what an operator should look at first. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta

from xraylog.report import stalls, wording
from xraylog.report.model import Findings, Gap
from xraylog.report.run_history import Runs

# Between runs, if they usually have shorter pauses. A machine without any run in the window only writes pages.
MAX_PAUSE = timedelta(hours=1)
LATE = 1.5  # times the usual pause, if that is longer


def of(found: Findings, runs: Runs, written: datetime) -> Iterator[tuple[str, Sequence[str]]]:
    """Yield each note with the names that follow it, if any. `written`: when the page is written."""
    if not found.rows:
        yield "No rows in these days.", ()
    is_over = found.window.until < written
    longest = max(MAX_PAUSE, LATE * runs.pause)
    if runs.last and not is_over and found.window.since <= runs.last <= written - longest:
        yield _without_runs(runs.last, found), ()
    usual = stalls.usual(found)
    silent = [] if is_over else [name for name in found.silent if name not in usual]
    if silent:
        yield "Nobody was let in during the last hour:", silent
    if is_over and found.absent:
        yield "Nobody was let in during these days, but there were runs:", found.absent
    if interrupted := [name for name in found.interrupted if name not in silent]:
        yield "Nobody was let in for a day or more:", interrupted
    if stalled := [_described(gap, found) for gap in stalls.find(found) if gap.node not in silent]:
        yield "Nobody was let in, at a time at which other days have connections:", stalled
    if unclear := [_described(gap, found) for gap in stalls.unknown(found) if gap.node not in silent]:
        yield "Nobody was let in, and there are too few other days to say whether that is usual:", unclear
    if runs.unreadable:
        yield "Unknown, because it cannot be read:", runs.unreadable
    if runs.buffer_bytes:
        size = wording.size(runs.buffer_bytes)
        yield f"{size} in the offline buffer: the next run that reaches PostgreSQL imports them.", ()
    if runs.offline:
        yield f"Runs that did not reach PostgreSQL: {wording.count(runs.offline)} of {wording.count(runs.count)}.", ()
    for complaint in found.complaints:
        yield complaint, ()
    if not found.has_snapshot:
        yield "Citus has no common snapshot: what was stored meanwhile may be in some numbers and not in others.", ()
    if found.rejected_lines:
        yield (
            f"Unparsed lines: {wording.count(found.rejected_lines)}. They are in rejected_lines, each with the reason.",
            (),
        )


def _described(gap: Gap, found: Findings) -> str:
    zone = found.window.zone
    first, last = (moment.astimezone(zone).date() for moment in (gap.since, gap.until))
    since, until = (wording.clock(moment, zone) for moment in (gap.since, gap.until))
    return f"{gap.node} from {first} {since} to {until if first == last else f'{last} {until}'}"


def _without_runs(last: datetime, found: Findings) -> str:
    since = f"{last.astimezone(found.window.zone).date()} {wording.clock(last, found.window.zone)}"
    return f"No run of this machine since {since}: its lines from then on are not counted. Run parse_logs.py -v."
