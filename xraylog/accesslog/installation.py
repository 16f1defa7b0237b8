"""The state file beside the buffer: which installation this is, and what its database confirmed last.

A database can be restored from a backup, and a machine can be copied. Neither knows; this file does.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import secrets
from dataclasses import asdict, dataclass, field
from pathlib import Path

from loguru import logger

from xraylog import atomic_file, safe_open

MAX_BYTES = 1 << 16  # our own file has less than 1 KiB; a larger one is another program's


def new_id() -> str:
    """Return an id that nobody else has."""
    return secrets.token_hex(16)


@dataclass(frozen=True, slots=True)
class Installation:
    """What an installation knows of itself. Times are seconds since 1970, 0 for never."""

    token: str = field(default_factory=new_id)  # by which its database knows it
    confirmed: int = 0  # how many confirmations of this database arrived here
    confirmed_at: float = 0.0  # when the last of them was committed, by the server's clock
    older_at: float = 0.0  # when a database was found to lack what it had confirmed
    older_from: float = 0.0  # the lines that it lacks were stored from then
    older_to: float = 0.0  # until then
    last_minutes: dict[str, list[object]] = field(
        default_factory=dict
    )  # of logs that ended in a repeated hour, by path

    @property
    def digest(self) -> bytes:
        """What the database keeps of the token."""
        return hashlib.sha256(self.token.encode()).digest()


def state_path(buffer: Path) -> Path:
    """Return the path of the state file."""
    return buffer.with_name(f"{buffer.name}.state")


def read(buffer: Path) -> Installation:
    """Return what the installation with this buffer knows; a new one where nothing is known. Raises OSError."""
    try:
        descriptor = safe_open.open_file(state_path(buffer), os.O_RDONLY | os.O_NONBLOCK)
    except FileNotFoundError:
        return Installation()
    with open(descriptor, "rb") as file:
        text = file.read(MAX_BYTES)
    with contextlib.suppress(ValueError, TypeError):
        known = Installation(**json.loads(text))
        if all(isinstance(value, type(default)) for value, default in zip(_values(known), _values(), strict=True)):
            return known
    logger.warning("{}: expected our state, found another text; it is written again", state_path(buffer))
    return Installation()


def write(buffer: Path, known: Installation) -> None:
    """Replace the state file. A full disk must not keep the log from being drained: it is a warning."""
    path = state_path(buffer)
    try:
        atomic_file.replace(path, json.dumps(asdict(known)).encode() + b"\n", mode=0o600)
    except OSError as error:
        logger.warning("{}: expected to replace it, found: {}; the next run tries again", path, error.strerror)


def _values(known: Installation | None = None) -> list[object]:
    return list(asdict(known or Installation()).values())
