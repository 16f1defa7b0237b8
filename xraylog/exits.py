"""Exit statuses of a run. argparse's own is 2."""

from __future__ import annotations

DONE, FAILED, OPERATOR, BUSY, CONFIGURATION = 0, 1, 3, 75, 78
