"""Values of a line as they are stored: names, ports; and why one cannot be. Pure: no files, no database, no clock."""

from __future__ import annotations

import functools
import re

MAX_CHARACTERS = 255  # of a host, tag or email
LAST_PORT = 65535
PORT = re.compile(rb"\d{1,5}")


class ParseError(Exception):
    """A line that cannot be stored, and why. Never leaves grammar and parser."""


class UnstorableValue(ParseError):
    """The line's form is right, and one of its names is none that a column could hold."""


@functools.lru_cache(maxsize=1 << 10)
def port(value: bytes) -> int:
    """Return a port to store. Raises ParseError."""
    if PORT.fullmatch(value) and int(value) <= LAST_PORT:
        return int(value)
    raise ParseError(f"expected a port up to {LAST_PORT}, found {excerpt(value)}")


def name(what: str, value: bytes) -> str | None:
    """Return a host, tag or email to store; None for an empty one. Raises UnstorableValue."""
    if not value:
        return None
    if len(value) > 4 * MAX_CHARACTERS:  # not decoded: characters can take four times the room of their bytes
        raise UnstorableValue(f"expected at most {MAX_CHARACTERS} characters in the {what}, found {len(value)} bytes")
    try:
        text = value.decode()
    except UnicodeDecodeError:
        raise UnstorableValue(f"expected UTF-8 in the {what}, found {excerpt(value)}") from None
    if "\0" in text:
        raise UnstorableValue(f"expected text in the {what}, found a NUL byte")
    if len(text) > MAX_CHARACTERS:
        raise UnstorableValue(f"expected at most {MAX_CHARACTERS} characters in the {what}, found {len(text)}")
    return text


def excerpt(value: bytes) -> str:
    """Return bytes as a message shows them: printable, and short."""
    return repr(value[:80])[1:] + (" …" if len(value) > 80 else "")
