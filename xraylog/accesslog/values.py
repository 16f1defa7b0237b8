"""Convert the names and ports of a line to what is stored. Pure: no files, no database, no clock."""

from __future__ import annotations

import functools
import re

MAX_CHARACTERS = 255  # in a host, tag or email
LAST_PORT = 65535
PORT = re.compile(rb"\d{1,5}")


class ParseError(Exception):
    """Why a line cannot be stored. Only raised and caught within the grammar and the parser."""


class UnstorableValue(ParseError):
    """The syntax of the line is right, but one of its names does not fit its column."""


@functools.lru_cache(maxsize=1 << 10)
def port(value: bytes) -> int:
    """Return a port as it is stored. Raises ParseError."""
    if PORT.fullmatch(value) and int(value) <= LAST_PORT:
        return int(value)
    raise ParseError(f"expected a port up to {LAST_PORT}, found {excerpt(value)}")


def name(what: str, value: bytes) -> str | None:
    """Return a host, tag or email as it is stored; None if it is empty. Raises UnstorableValue."""
    if not value:
        return None
    if len(value) > 4 * MAX_CHARACTERS:  # too long in any case; a str can take four times the memory of its bytes
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
    """Return bytes as a message quotes them: printable, and at most 80 of them."""
    return repr(value[:80])[1:] + (" …" if len(value) > 80 else "")
