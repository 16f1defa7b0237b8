"""Print to a terminal, a mail or our own log, without passwords and without control characters.

A terminal obeys control characters: they clear it, change its title, and some even type into it. Overrides of the
writing direction show text in the wrong order. Both can be anywhere in our input: in the log, a lock file, a file name,
or a message of the server.
"""

from __future__ import annotations

import atexit
import contextlib
import errno
import functools
import itertools
import os
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from typing import TextIO

# C0, DEL and C1; the marks, embeddings, overrides and isolates of Unicode's bidirectional algorithm (UAX #9); line and
# paragraph separators. Joiners are kept, because Persian names need them.
UNPRINTABLE = re.compile("[\0-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")
# Escapes as _escape and the error handler "backslashreplace" write them, except NUL and surrogates: no name has these.
SHOWN_ESCAPE = re.compile(
    r"\\x(?!00)([0-9a-f]{2})|\\u(?!0000|d[89a-f])([0-9a-f]{4})|\\U(000[1-9a-f][0-9a-f]{4}|0010[0-9a-f]{4})"
)
# A connection string with a password, as a URI or as key=value pairs. Bounded, because a client can choose the text.
CREDENTIALS = re.compile(
    r"""(?P<before>:/{1,2})[^\s/:"']{0,200}:(?![0-9]{1,5}[/?#])\S{0,2000}@
        |(?P<key>(?:passw(?:or)?d|\bpwd)\ *=\ *)(?:'[^']{0,2000}'|[^\s*'&]\S{0,2000})""",
    re.IGNORECASE | re.VERBOSE,
)
# A password in the place of another value: a URI without its scheme, or with spaces and colons, as in YAML.
MISPLACED = re.compile(r"[^\s:@]:[^:@]+@[\w.\[-]|passw(?:or)?d\ *[:=]|\bpwd\ *[:=]", re.IGNORECASE | re.VERBOSE)
HIDDEN = "***"
STANDARD_OUTPUT = "standard output"
AT_ONCE = 1_000  # texts
SHORT = 4  # characters; a shorter password is hidden only where it is a whole word, because many words contain it


def printable(text: str, keep: str = "") -> str:
    """Return text with control characters as escapes, except those in `keep`, and with passwords hidden."""
    text = CREDENTIALS.sub(_hide_credentials, text)
    return UNPRINTABLE.sub(lambda found: found[0] if found[0] in keep else _escape(found[0]), text)


def say(*texts: object, to: TextIO | None = None, keep: str = "") -> None:
    """Print each text on a line of its own, on standard output unless `to` is another stream. Raises OSError."""
    for text in texts:
        write(to or sys.stdout, f"{printable(str(text), keep)}\n")


def complain(*texts: object) -> None:
    """Print each text on a line of its own, on standard error; do nothing if that is closed."""
    if sys.stderr is not None:
        say(*texts, to=sys.stderr)


def write(stream: TextIO | None, text: str) -> bool:
    """Write a text and flush it; return whether it can still be read. Do nothing if the stream is closed.

    If the reader has left, as `head` does, all further output is dropped, and the program continues to its usual exit
    status. Raises OSError for other errors of standard output, with the file to which it is redirected as `filename2`;
    errors of standard error are ignored, because they could not be reported.
    """
    if stream is None:
        return False
    try:
        _write_encoded(stream, text)
        stream.flush()
    except OSError as error:
        leads_to = _place(stream)
        _write_nowhere(stream)
        if error.errno != errno.EPIPE and stream is not sys.stderr:
            raise OSError(error.errno, error.strerror, STANDARD_OUTPUT, None, leads_to) from error
        return False
    return True


def write_all(stream: TextIO | None, texts: Iterable[str]) -> None:
    """Write texts, many at a time, until the reader has left. Raises OSError, and what yielding one raises."""
    rest = iter(texts)
    while text := "".join(itertools.islice(rest, AT_ONCE)):
        if not write(stream, text):
            return


def _write_encoded(stream: TextIO, text: str) -> None:
    """Write a text, with escapes for characters that the stream's encoding lacks: the locale may not be UTF-8."""
    try:
        stream.write(text)
    except UnicodeEncodeError:
        encoding = stream.encoding
        stream.write(text.encode(encoding, "backslashreplace").decode(encoding))


@functools.cache  # because once is enough
def flush_at_exit() -> None:
    """Flush what was printed when the program ends, without an error if the reader has left: Python would report it."""
    atexit.register(_flush)


def _flush() -> None:
    """Flush what argparse printed."""
    with contextlib.suppress(OSError):
        write(sys.stdout, "")
    write(sys.stderr, "")


def _place(stream: TextIO) -> str | None:
    """Return the regular file to which a stream is redirected; None for a terminal, a pipe or a device."""
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
    """Return text with control characters as escapes. Does not hide passwords: it is for names, which are data."""
    return UNPRINTABLE.sub(lambda found: _escape(found[0]), text)


def unescaped(text: str) -> str:
    """Replace escapes by the characters that they may stand for: a text can also have had them from the start."""
    return SHOWN_ESCAPE.sub(lambda found: chr(int(found[1] or found[2] or found[3], 16)), text)


# --- passwords -------------------------------------------------------------------------------------------------


def has_credentials(value: str) -> bool:
    """Return whether a value of a setting looks like a connection string with a password."""
    return CREDENTIALS.search(value) is not None or MISPLACED.search(value) is not None


def passwords(keywords: Mapping[str, str]) -> set[str]:
    """Return the passwords in PGPASSWORD and among libpq's keywords: the values of all keys with "password" in them."""
    found = {value for key, value in keywords.items() if "password" in key.lower()}
    return {*found, os.environ.get("PGPASSWORD", "")} - {""}


def without_passwords(message: str, keywords: Mapping[str, str]) -> str:
    """Return a message of libpq or the server without any password that is in the keywords, even under a wrong key."""
    if not keywords:
        return message
    for secret in sorted(_secrets(keywords), key=len, reverse=True):
        pattern = re.escape(secret)
        message = re.sub(pattern if len(secret) >= SHORT else rf"(?<!\w){pattern}(?!\w)", HIDDEN, message)
    return message


def _secrets(keywords: Mapping[str, str]) -> Iterator[str]:
    """Yield the passwords, and values that contain one, as libpq and psycopg may print them: escaped, or in parts."""
    known = passwords(keywords)
    wrong = {value for value in keywords.values() if value in known or has_credentials(value)}
    parts = {part for value in wrong for part in re.split(r"[\s,]+", value)}
    for text in (known | wrong | parts) - {""}:
        escaped = text.replace("\\", r"\\")
        yield from {text, escaped, escaped.replace("'", r"\'"), repr(text)[1:-1]}


def _hide_credentials(found: re.Match[str]) -> str:
    return f"{found['before']}{HIDDEN}@" if found["before"] else f"{found['key']}{HIDDEN}"
