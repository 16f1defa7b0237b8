"""What we print, on a terminal, in a mail or in our own log: text of others cannot act there, or read as another text.

A terminal obeys control characters: they clear it, retitle it, some type into it. Overrides of the writing direction
show a text in another order than it is. Both may come from anywhere: the log, a lock file, the names of files, the
server.
"""

from __future__ import annotations

import re
import sys
from typing import TextIO

# C0, DEL and C1; the marks, embeddings, overrides and isolates of Unicode's bidirectional algorithm (UAX #9); line and
# paragraph separators. Joiners stay: Persian names need them.
UNPRINTABLE = re.compile("[\0-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")


def printable(text: str, keep: str = "") -> str:
    """Return text in which such characters are escapes, except those in `keep`."""
    return UNPRINTABLE.sub(lambda found: found[0] if found[0] in keep else _escape(found[0]), text)


def say(*texts: object, to: TextIO | None = None, keep: str = "") -> None:
    """Print each text on a line of its own, on standard output unless `to` is another stream."""
    stream = to or sys.stdout
    for text in texts:
        print(printable(str(text), keep), file=stream)


def complain(*texts: object) -> None:
    """Print each text on a line of its own, on standard error, if that is open."""
    if sys.stderr is not None:
        say(*texts, to=sys.stderr)


def _escape(character: str) -> str:
    number = ord(character)
    return f"\\x{number:02x}" if number < 0x100 else f"\\u{number:04x}"
