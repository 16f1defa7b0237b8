"""Compare the parser with the whole grammar as one regular expression, in lines per second.

    python benchmarks/parse.py [LOG]

Both sides run in one process, on the given log or on 500,000 lines of benchmarks/lines.py; the best of five rounds
counts. The regular expression is applied line by line and only matches: it converts, checks and stores nothing.
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

from xraylog.accesslog.parser import Parser  # noqa: E402

COUNT, ROUNDS, GOAL = 500_000, 5, 1.4
LINE = re.compile(  # every shape that is a row: tests/unit/test_benchmarks.py holds it against the grammar
    rb"""
    (?P<at>\d{4}/\d\d/\d\d\ \d\d:\d\d:\d\d(?:\.\d{1,6})?)[ ]
    (?:
        api\ {1,16}from\ {1,16}(?P<api>\S+)\ {1,16}api\ {0,16}->\ {0,16}api\ {0,16}
    |
        (?:from\ {1,16})?
        (?:
            (?:(?:tcp|udp)\ {0,16}:\ {0,16})?
            (?P<source>\d{1,3}(?:\.(?:\d{1,3}|\*)){3}|\[[0-9a-fA-F:.]+(?:%[^\]]+)?(?:/\d{1,3})?\]|\[Masked\ IPv[46]\])
            \ {0,16}:\ {0,16}(?P<port>\d{1,5})
        |
            @\S*|unix:\S*|
        )
        \ {1,16}
        (?:
            rejected\ (?:\ ?Insecure\ encryption\ ?email:\ ?(?P<rejected_email>.*)|(?P<reason>.*))
        |
            (?P<accepted>accepted)\ {1,16}
            (?:
                (?:(?P<protocol>tcp|udp)\ {0,16}:\ {0,16}|//\ {0,16})?
                (?P<host>\[[^\]]+\]|[^\s:/\[\]]+)\ {0,16}:\ {0,16}(?P<to_port>\d{1,5})
            |
                (?:(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*):)?//(?:[^/?\#\s]*@)?
                (?P<url_host>\[[^\]]+\]|[^\s:/?\#\[\]]*)(?::(?P<url_port>\d*))?(?:[/?\#]\S*)?
            |
                /\S*|\*
            )
            (?:\ {1,16}\[(?:(?P<inbound>.*?)\ {0,16}(?:->|>>|==>)\ {0,16})?(?P<outbound>.*?)\](?=\ {1,16}email|\ *\Z))?
            (?:\ {1,16}email\ ?:\ ?(?P<email>.*?))?
            \ *
        )
    )
    """,
    re.VERBOSE | re.DOTALL,
)


def best(action: Callable[[], int]) -> float:
    """Return the seconds of the fastest round, because the noise of a busy machine only adds time."""
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
