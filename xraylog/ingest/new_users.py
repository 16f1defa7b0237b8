"""Warn if there is a new user for nearly every line: then the email field has more than the email in it.

Text after the email counts as a part of it, unless it is a known field (`xraylog/accesslog/suffixes.py`). If a fork of
xray appends an unknown counter, each line makes a new user, and nothing fails. Pure, except for `note`.
"""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Collection

from xraylog.accesslog import installation
from xraylog.config import Config
from xraylog.ingest import reminders
from xraylog.load_result import LoadResult
from xraylog.records import Records

MIN_NEW = 1_000  # new users in one run, or in consecutive runs; fewer do no harm
SAMPLED_ROWS = 50  # of each batch, the last
MAX_SAMPLE = 200  # emails
LABEL = re.compile(r"(?:^|[\s,;|&?])([A-Za-z][\w.-]{0,30} ?[:=])")
SHARE = 0.9  # part of the sampled emails that must have a label in common
LOOK = "SELECT email FROM users ORDER BY id DESC LIMIT 5"


class EmailSample:
    """Some emails of a run, enough to find what they have in common."""

    def __init__(self) -> None:
        self.emails: dict[str, None] = {}  # an ordered set

    def add(self, records: Records) -> None:
        """Add a few emails of these records."""
        if len(self.emails) < MAX_SAMPLE:
            emails = (route.email for route in records.routes[-SAMPLED_ROWS:])
            self.emails.update(dict.fromkeys(email for email in emails if email is not None))


def note(cfg: Config, total: LoadResult, emails: Collection[str]) -> str | None:
    """Count the new users of this run; return a warning if there are too many, at most once a day, otherwise None.

    The state file adds up consecutive runs, because cron runs of a few hundred lines are each too small to tell. The
    count ends with a run that has few new users: in a new installation every user is new once.
    """
    known = installation.read(cfg.buffer_path, warn=False).new_users
    users, rows = total.new_names.get("users", 0), total.rows + total.imported
    counted = [users, rows] if _are_many(users, rows) else []
    match known:
        case [int(before), int(rows_before)] if counted or not rows:
            counted = [before + users, rows_before + rows]
    installation.update(cfg.buffer_path, new_users=counted)
    said = warning(counted[0], counted[1], emails) if counted and rows else None
    return said if said and reminders.note(cfg, "new users", time.time()).is_due else None


def warning(users: int, rows: int, emails: Collection[str]) -> str | None:
    """Return the warning if there are at least MIN_NEW users, and more than one for two rows; otherwise None."""
    if users < MIN_NEW or not _are_many(users, rows):
        return None
    fields = common_fields(emails)
    cause = f"fields that a fork of xray appends to the email, here: {fields}" if fields else "emails that change"
    return (
        f"{users} new users in {rows} rows, nearly one for each line; the likely cause: {cause}; "
        f"docs/log-format.md names the fields that are known, and cut; to look at the users: {LOOK}"
    )


def _are_many(users: int, rows: int) -> bool:
    return 2 * users > rows


def common_fields(emails: Collection[str]) -> str:
    """Return the fields that nearly all of these emails have, in order, with `*` for each value: it may be private."""
    labels = [dict.fromkeys(LABEL.findall(email)) for email in emails]
    count = Counter(label for found in labels for label in found)
    common = {label for label, emails_with_it in count.items() if emails_with_it >= SHARE * len(labels)}
    longest = next((found for found in labels if common <= found.keys()), {})
    return " ".join(f"{label}{' ' if label.endswith(':') else ''}*" for label in longest if label in common)
