"""Lines parsed per second, beside the full grammar as one regular expression, line by line.

    python benchmarks/parse.py [LOG]

Both sides in one process, on the log given or on 200,000 lines of benchmarks/lines.py, the best of five rounds. The
regular expression only matches: it converts, checks and stores nothing.
"""

from __future__ import annotations

import platform
import re
import sys
import time
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path
from zoneinfo import ZoneInfo

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]

from lines import lines  # noqa: E402  # the path comes first

from xraylog.parser import Parser  # noqa: E402

COUNT, ROUNDS, GOAL = 200_000, 5, 1.4
LINE = re.compile(
    rb"""
    (?P<at>\d{4}/\d\d/\d\d\ \d\d:\d\d:\d\d(?:\.\d{1,6})?)
    \ (?:from\ )?(?:(?:tcp|udp):)?(?P<source>\[[^\]\s]*\]|[^\s:]*|unix|@[^\s]*):?(?P<port>\d{0,5})
    \ (?P<action>accepted|rejected)
    \ (?:(?P<protocol>tcp|udp|https?|ftp):(?://)?|//)?(?P<host>\[[^\]\s]*\]|[^\s:/]*)(?::(?P<to_port>\d{1,5}))?(?:/\S*)?
    (?:\ \[(?:(?P<inbound>.*?)\ (?:->|>>|==>)\ )?(?P<outbound>.*?)\](?=\ email:|\Z))?
    (?:\ email:\ ?(?P<email>.*))?
    """,
    re.VERBOSE | re.DOTALL,
)


def best(action: Callable[[], int]) -> float:
    """Seconds: the noise of a busy machine only ever adds time."""
    seconds = []
    for _ in range(ROUNDS):
        begun = time.process_time()
        assert action() > 0
        seconds.append(time.process_time() - begun)
    return min(seconds)


def main() -> None:
    """Measure both, print both."""
    text = Path(sys.argv[1]).read_bytes() if sys.argv[1:] else "".join(lines(COUNT)).encode()
    separate = text.split(b"\n")[:-1]
    print(f"{len(separate):,} lines, {len(text):,} bytes, Python {platform.python_version()}")

    def expression() -> int:
        return sum(1 for line in separate if LINE.fullmatch(line))

    def parser() -> int:
        whole = Parser(ZoneInfo("UTC"), datetime.now(timezone.utc))
        return sum(len(batch.records) for batch in whole.batches([(0, text)], 20_000))

    one, other = len(separate) / best(expression), len(separate) / best(parser)
    print(f"regular expression {one:>9,.0f} lines/s, {expression():,} matched")
    print(f"parser             {other:>9,.0f} lines/s, {parser():,} rows")
    print(f"parser ÷ regular expression: {other / one:.2f} (goal {GOAL})")


if __name__ == "__main__":
    main()
