"""The three ways into `logs` for logs of a test's size: what decides between them is how many rows there are.

python tests/helpers/load_paths.py WAY [what parse_logs.py takes]
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from xraylog.loading import attach, foreign_keys

NEVER = 1 << 60  # rows
BY_DAY, AS_A_SET, ROW_BY_ROW = WAYS = ("by day", "as a set", "row by row")


def take(way: str) -> None:
    """From here on this process takes this way, wherever it is open."""
    foreign_keys.MIN_BULK_ROWS = NEVER if way == ROW_BY_ROW else 1
    attach.MIN_ATTACH_ROWS = 1 if way == BY_DAY else NEVER


if __name__ == "__main__":
    import parse_logs

    take(sys.argv[1])
    sys.exit(parse_logs.main(sys.argv[2:]))
