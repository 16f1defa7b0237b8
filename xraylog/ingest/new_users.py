"""Users that appear nearly as fast as lines: the email is something else than a user. Pure, except for `note`.

What stands after the email is part of it, unless it is known not to be (`xraylog/accesslog/suffixes.py`). A fork that
appends a counter which nobody has met makes a new user of each line, and nothing fails.
"""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Collection
from dataclasses import replace

from xraylog.accesslog import installation
from xraylog.config import Config
from xraylog.ingest import reminders
from xraylog.load_result import LoadResult
from xraylog.records import Records

MIN_NEW = 1_000  # new users of a run, or of runs in a row; fewer are no harm
SAMPLED_ROWS = 50  # the last ones of a batch
MAX_SAMPLE = 200  # emails
LABEL = re.compile(r"(?:^|[\s,;|&?])([A-Za-z][\w.-]{0,30} ?[:=])")
SHARE = 0.9  # of the sampled emails have a label in common, if they are made by a program
LOOK = "SELECT email FROM users ORDER BY id DESC LIMIT 5"


class EmailSample:
    """Some of the emails of a run: enough to see what they have in common."""

    def __init__(self) -> None:
        self.emails: dict[str, None] = {}  # an ordered set

    def add(self, records: Records) -> None:
        """Take a few of these."""
        if len(self.emails) < MAX_SAMPLE:
            emails = (route.email for route in records.routes[-SAMPLED_ROWS:])
            self.emails.update(dict.fromkeys(email for email in emails if email is not None))


def note(cfg: Config, total: LoadResult, emails: Collection[str]) -> str | None:
    """Count the new users of this run; return what to say if they are many, once a day, or None.

    Cron runs of a few hundred lines add up: each of them is small. The state file keeps the count, until a run has
    fewer new users for its rows: those of a new installation are new once.
    """
    known = installation.read(cfg.buffer_path, warn=False)
    users, rows = total.new_names.get("users", 0), total.rows + total.imported
    counted = [users, rows] if _are_many(users, rows) else []
    match known.new_users:
        case [int(before), int(rows_before)] if counted or not rows:
            counted = [before + users, rows_before + rows]
    if counted != known.new_users:
        installation.write(cfg.buffer_path, replace(known, new_users=counted))
    said = warning(counted[0], counted[1], emails) if counted and rows else None
    return said if said and reminders.note(cfg, "new users", time.time()).is_due else None


def warning(users: int, rows: int, emails: Collection[str]) -> str | None:
    """Return what to say if there is more than one new user for two rows, and they are many; None otherwise."""
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
    """Return the fields that nearly all of these emails have, in their order, each value as `*`: it may be a name."""
    labels = [dict.fromkeys(LABEL.findall(email)) for email in emails]
    count = Counter(label for found in labels for label in found)
    common = {label for label, emails_with_it in count.items() if emails_with_it >= SHARE * len(labels)}
    longest = next((found for found in labels if common <= found.keys()), {})
    return " ".join(f"{label}{' ' if label.endswith(':') else ''}*" for label in longest if label in common)
