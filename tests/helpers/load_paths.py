"""Choose one of the three load paths for the small logs of tests; normally the number of rows decides.

python tests/helpers/load_paths.py LOAD_PATH [what parse_logs.py takes]
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # a run of this file as a script needs no pytest
    import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from xraylog.loading import attach, foreign_keys

NEVER = 1 << 60  # rows
ATTACH, KEYS_IN_BULK, ROW_BY_ROW = LOAD_PATHS = ("attach", "keys in bulk", "row by row")


THRESHOLDS = ((foreign_keys, "MIN_BULK_ROWS"), (attach, "MIN_ATTACH_ROWS"))  # what `take` changes


def take_until_undone(monkeypatch: pytest.MonkeyPatch, load_path: str) -> None:
    """Make this process use this load path until the end of a test."""
    for module, name in THRESHOLDS:
        monkeypatch.setattr(module, name, getattr(module, name))
    take(load_path)


def take(load_path: str) -> None:
    """Make this process use this load path from now on, wherever it is possible."""
    foreign_keys.MIN_BULK_ROWS = NEVER if load_path == ROW_BY_ROW else 1
    attach.MIN_ATTACH_ROWS = 1 if load_path == ATTACH else NEVER


if __name__ == "__main__":
    import parse_logs

    take(sys.argv[1])
    sys.exit(parse_logs.main(sys.argv[2:]))
