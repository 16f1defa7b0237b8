"""Print, on a terminal, in a mail or to our own log: without passwords, and without anything that controls a terminal.

A terminal obeys control characters: they clear it, retitle it, and some type into it. Overrides of the writing
direction show text in another order than it has. Both may come from anywhere: the log, a lock file, file names, the
server.
"""

from __future__ import annotations

import atexit
import contextlib
import errno
import functools
import os
import re
import sys
from collections.abc import Iterator, Mapping
from typing import TextIO

# C0, DEL and C1; the marks, embeddings, overrides and isolates of Unicode's bidirectional algorithm (UAX #9); line and
# paragraph separators. Joiners stay: Persian names need them.
UNPRINTABLE = re.compile("[\0-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")
# As _escape and the error handler "backslashreplace" write it; neither NUL nor surrogates, which no name has.
SHOWN_ESCAPE = re.compile(
    r"\\x(?!00)([0-9a-f]{2})|\\u(?!0000|d[89a-f])([0-9a-f]{4})|\\U(000[1-9a-f][0-9a-f]{4}|0010[0-9a-f]{4})"
)
# A connection string with a password, as a URI or as pairs. Bounded, because a client can choose the text.
CREDENTIALS = re.compile(
    r"""(?P<before>:/{1,2})[^\s/:"']{0,200}:(?![0-9]{1,5}[/?#])\S{0,2000}@
        |(?P<key>(?:passw(?:or)?d|\bpwd)\ *=\ *)(?:'[^']{0,2000}'|[^\s*'&]\S{0,2000})""",
    re.IGNORECASE | re.VERBOSE,
)
# In the place of another value: without a scheme, with blanks, as in YAML.
MISPLACED = re.compile(r"[^\s:@]:[^:@]+@[\w.\[-]|passw(?:or)?d\ *[:=]|\bpwd\ *[:=]", re.IGNORECASE | re.VERBOSE)
HIDDEN = "***"
STANDARD_OUTPUT = "standard output"
SHORT = 4  # characters: what is shorter is hidden as a word of its own only, because it is in many others


def printable(text: str, keep: str = "") -> str:
    """Return text with control characters as escapes, except those in `keep`, and with passwords hidden."""
    text = CREDENTIALS.sub(_hide_credentials, text)
    return UNPRINTABLE.sub(lambda found: found[0] if found[0] in keep else _escape(found[0]), text)


def say(*texts: object, to: TextIO | None = None, keep: str = "") -> None:
    """Print each text on a line of its own, on standard output unless `to` is another stream. Raises OSError."""
    for text in texts:
        write(to or sys.stdout, f"{printable(str(text), keep)}\n")


def complain(*texts: object) -> None:
    """Print each text on a line of its own, on standard error, if that is open."""
    if sys.stderr is not None:
        say(*texts, to=sys.stderr)


def write(stream: TextIO | None, text: str) -> None:
    """Write a text at once; to a closed stream, nothing.

    If the reader has left, the rest goes nowhere, and the program continues to its own exit status. Raises OSError for
    other errors of standard output, with the file that it leads to as the second name; an error of standard error could
    not be reported.
    """
    if stream is None:
        return
    try:
        _write_encoded(stream, text)
        stream.flush()
    except OSError as error:
        leads_to = _place(stream)
        _write_nowhere(stream)
        if error.errno != errno.EPIPE and stream is not sys.stderr:
            raise OSError(error.errno, error.strerror, STANDARD_OUTPUT, None, leads_to) from error


def _write_encoded(stream: TextIO, text: str) -> None:
    """Write escapes for letters that the encoding of the stream lacks: a locale may be one without UTF-8."""
    try:
        stream.write(text)
    except UnicodeEncodeError:
        encoding = stream.encoding
        stream.write(text.encode(encoding, "backslashreplace").decode(encoding))


@functools.cache  # once is enough
def prepare_streams() -> None:
    """Let no other file get the number of a standard stream that is closed: `/dev/stdout` would be the database.

    What is written there fails. And let Python's own last flush find a reader that has left to be no error.
    """
    for number, flags in enumerate((os.O_WRONLY, os.O_RDONLY, os.O_RDONLY)):  # the other way round
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, flags)  # gets the lowest number that is free
    atexit.register(_flush)


def _flush() -> None:
    """Write what argparse printed."""
    with contextlib.suppress(OSError):
        write(sys.stdout, "")
    write(sys.stderr, "")


def _place(stream: TextIO) -> str | None:
    """Return the file that a stream leads to; None for a terminal, a pipe or a device."""
    with contextlib.suppress(OSError, ValueError):
        path = os.readlink(f"/proc/self/fd/{stream.fileno()}")
        return path if os.path.isfile(path) else None
    return None


def _write_nowhere(stream: TextIO) -> None:
    with contextlib.suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)


def _escape(character: str) -> str:
    number = ord(character)
    return f"\\x{number:02x}" if number < 0x100 else f"\\u{number:04x}"


def escaped(text: str) -> str:
    """Return text with control characters as escapes. Hides no passwords: for names, which are data."""
    return UNPRINTABLE.sub(lambda found: _escape(found[0]), text)


def unescaped(text: str) -> str:
    """Return the text that an escaped text may stand for."""
    return SHOWN_ESCAPE.sub(lambda found: chr(int(found[1] or found[2] or found[3], 16)), text)


# --- passwords -------------------------------------------------------------------------------------------------


def has_credentials(value: str) -> bool:
    """Return whether a value of a setting looks like a connection string with a password."""
    return CREDENTIALS.search(value) is not None or MISPLACED.search(value) is not None


def passwords(keywords: Mapping[str, str]) -> set[str]:
    """Return the passwords among libpq's keywords and in its variable, in whatever key of that name."""
    found = {value for key, value in keywords.items() if "password" in key.lower()}
    return {*found, os.environ.get("PGPASSWORD", "")} - {""}


def without_passwords(message: str, keywords: Mapping[str, str]) -> str:
    """Return a message of libpq or the server without the passwords that are in the keywords, also in a wrong one."""
    if not keywords:
        return message
    for secret in sorted(_secrets(keywords), key=len, reverse=True):
        pattern = re.escape(secret)
        message = re.sub(pattern if len(secret) >= SHORT else rf"(?<!\w){pattern}(?!\w)", HIDDEN, message)
    return message


def _secrets(keywords: Mapping[str, str]) -> Iterator[str]:
    """Yield the passwords, and values with one in them, as libpq and psycopg print them: quoted, a part of a list."""
    known = passwords(keywords)
    wrong = {value for value in keywords.values() if value in known or has_credentials(value)}
    parts = {part for value in wrong for part in re.split(r"[\s,]+", value)}
    for text in (known | wrong | parts) - {""}:
        escaped = text.replace("\\", r"\\")
        yield from {text, escaped, escaped.replace("'", r"\'"), repr(text)[1:-1]}


def _hide_credentials(found: re.Match[str]) -> str:
    return f"{found['before']}{HIDDEN}@" if found["before"] else f"{found['key']}{HIDDEN}"
