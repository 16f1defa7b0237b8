"""The state file next to the buffer: which installation this is, and what its database last confirmed.

A database cannot tell that it was restored from a backup, nor a machine that it was copied: this file can.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import os
import re
import secrets
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from loguru import logger

from xraylog import atomic_file, file_advice, safe_open
from xraylog.config import Config

MAX_BYTES = 1 << 16  # our own file has less than 20 KiB; a larger one is another program's
MAX_LOGS = 50
MAX_SIZE = 1 << 62  # bytes
MAX_TIME = datetime.max.replace(tzinfo=timezone.utc).timestamp()
HEXADECIMAL = re.compile(r"(?:[0-9a-f]{2})*")
NO_TEXT = re.compile("[\0\ud800-\udfff]")
PIPED = "-"  # the source of piped text
Value = TypeVar("Value")
MACHINE_ID = Path("/etc/machine-id")  # machine-id(5): empty or missing in many containers


def new_id() -> str:
    """Return a random id."""
    return secrets.token_hex(16)


class StoredLog(NamedTuple):
    """How far a log was stored when the database last confirmed it. Digests are hexadecimal."""

    source: str
    offset: int
    head_length: int
    head: str
    tail: str


@dataclass(frozen=True, slots=True)
class Installation:
    """The contents of the state file. Times are seconds since 1970, 0 for never."""

    token: str = field(default_factory=new_id)  # identifies the installation to its database
    confirmed: int = 0  # the count of confirmations that this database reached
    confirmed_at: float = 0.0  # when the last of them was committed, by the server's clock
    older_at: float = 0.0  # when a database was found to lack lines that it had confirmed
    older_from: float = 0.0  # the missing lines were stored from this time
    older_to: float = 0.0  # to this time
    # By path of the log: the minute of the last line, if it was in a repeated hour (ingest/last_minutes.py).
    last_minutes: dict[str, list[object]] = field(default_factory=dict)
    last_days: dict[str, str] = field(default_factory=dict)  # by path of the log: the latest day of its lines
    id: str = ""  # the owner of its positions; empty in the state of an older version: the token is
    receipt: str = ""  # of the last confirmation
    earlier_receipts: list[str] = field(default_factory=list)  # sent after it, maybe committed, before `asked`
    previous_receipts: list[str] = field(default_factory=list)  # of confirmations before it, the latest first
    asked: str = ""  # the receipt that was sent last, and may have been committed
    machine: str = ""  # a digest of the machine's id; empty: it has none
    node: str = ""  # under which lines were last stored
    host: str = ""  # the host's name at that time
    copied_at: float = 0.0  # when this installation was found to be a copy
    reminders: dict[str, list[float]] = field(default_factory=dict)  # when noticed first, and when warned of last
    new_users: list[int] = field(default_factory=list)  # [new users, rows] of the latest runs with too many new users
    unread: dict[str, int] = field(default_factory=dict)  # by path of the log: bytes seen but not stored
    buffered: int = 0  # size of the buffer when lines that are in it last left a log
    last_batch: str = ""  # digest of the last batch in the buffer at that time
    logs: tuple[StoredLog, ...] = ()  # how far each is stored: a copy of this machine begins there

    @property
    def values(self) -> dict[str, Any]:
        """Return the fields by name, as they are written to the file; asdict would copy what is in them."""
        return {of.name: getattr(self, of.name) for of in fields(self)}

    @property
    def digest(self) -> bytes:
        """The digest of the token, which is all that the database keeps of it."""
        return hashlib.sha256(self.token.encode()).digest()

    @property
    def owner_id(self) -> bytes:
        """The id under which the database keeps its positions."""
        return hashlib.sha256(b"installation " + (self.id or self.token).encode()).digest()

    @property
    def is_new(self) -> bool:
        """Return whether this is a new installation, or one whose state was lost."""
        return not (self.confirmed or self.older_at or self.copied_at)

    @property
    def is_elsewhere(self) -> bool:
        """Return whether the state was written on another machine, as far as machine ids show."""
        here = machine()
        return bool(here and self.machine and here != self.machine)

    def with_log(self, log: StoredLog) -> Installation:
        """Return the state with the latest place of this log."""
        same = (log.source, log.head) if log.source == PIPED else log.source  # texts that were piped are many
        others = [known for known in self.logs if same not in (known.source, (known.source, known.head))]
        return replace(self, logs=(*others, log)[-MAX_LOGS:])


def machine() -> str:
    """Return a digest of this machine's id, which is confidential (machine-id(5)); empty if it has none."""
    try:
        with os.fdopen(safe_open.open_file(MACHINE_ID, os.O_RDONLY | os.O_NONBLOCK), "rb") as file:
            text = file.read(MAX_BYTES).strip()
    except OSError:
        return ""
    return hashlib.sha256(b"xraylog " + text).hexdigest()[:32] if text not in (b"", b"uninitialized") else ""


def state_path(buffer: Path) -> Path:
    """Return the path of the state file that belongs to a buffer."""
    return buffer.with_name(f"{buffer.name}.state")


def with_known_node(cfg: Config) -> Config:
    """Return the settings with the node of earlier runs, if the config sets none.

    A new host name does not make another node of this installation; a new machine id does.
    """
    known = Installation()
    with contextlib.suppress(OSError):  # the run reports it
        known = known if cfg.node_is_set else read(cfg.buffer_path, warn=False)
    if known.node in ("", cfg.node) or known.is_elsewhere:
        return cfg
    if known.host != cfg.node:
        logger.warning(
            "the host name is now {}, and [parser] node is not set: lines are still stored under the earlier name, {}; "
            "to choose another one, set node in {}",
            cfg.node,
            known.node,
            cfg.path,
        )
    return replace(cfg, node=known.node)


def begin(cfg: Config, known: Installation) -> None:
    """Write the state of a new installation before it stores the first line.

    It keeps id and node, because the host may have another name at the next run.
    """
    node = cfg.node if cfg.node_is_set else known.node or cfg.node
    write(cfg.buffer_path, replace(known, node=node, host=socket.gethostname(), machine=machine()))


def read(buffer: Path, warn: bool = True) -> Installation:
    """Return the state next to this buffer; a new one if there is none. Raises OSError.

    `warn`: whether to log that the file is damaged.
    """
    try:
        descriptor = safe_open.open_file(state_path(buffer), os.O_RDONLY | os.O_NONBLOCK)
    except FileNotFoundError:
        return Installation()
    try:
        with open(descriptor, "rb") as file:
            text = file.read(MAX_BYTES)
    except OSError as error:  # a folder
        error.filename = str(state_path(buffer))
        raise
    with contextlib.suppress(ValueError, TypeError, AttributeError, RecursionError):
        if (known := _read(json.loads(text))) is not None:
            return known
    if warn:
        logger.warning("{}: expected our state file, found other text; it is replaced", state_path(buffer))
    return Installation()


def update(buffer: Path, **changes: Any) -> OSError | None:
    """Replace these fields of the state if they differ; return None, or log the error and return it.

    Raises OSError if the file cannot be read. That it is damaged is reported at the beginning of a run.
    """
    known = read(buffer, warn=False)
    changed = replace(known, **changes)
    return None if changed == known else why_not_written(buffer, changed)


def with_latest(values: Mapping[str, Value], key: str, value: Value, most: int) -> dict[str, Value]:
    """Return the values with this one as the latest; of more than `most`, without the earliest."""
    return dict([*without(values, key).items(), (key, value)][-most:])


def without(values: Mapping[str, Value], key: str) -> dict[str, Value]:
    """Return the values except this one."""
    return {other: value for other, value in values.items() if other != key}


def write(buffer: Path, known: Installation) -> bool:
    """Replace the state file; return whether that worked. A full disk must not keep the log from being drained."""
    return why_not_written(buffer, known) is None


def why_not_written(buffer: Path, known: Installation) -> OSError | None:
    """Replace the state file; return None, or log the error and return it."""
    path = state_path(buffer)
    try:
        atomic_file.replace(path, json.dumps(known.values).encode() + b"\n", mode=0o600)
    except OSError as error:
        advice = file_advice.how_to_fix(path, error, file_advice.Needs.FOLDER)
        what = f"{path}: expected to replace it, found: {error.strerror}"
        logger.warning("{}; the next run tries again; {}", what, advice)
        return error
    return None


def _read(values: dict[str, Any]) -> Installation | None:
    """Return the state, written by this, an older or a later version; None if the values are not a state."""
    names = {of.name for of in fields(Installation)} & values.keys()
    known = Installation(**{name: values[name] for name in names})
    known = replace(known, logs=tuple(StoredLog(*log) for log in known.logs))
    pairs = zip(known.values.values(), Installation().values.values(), strict=True)
    logs = (zip(log, StoredLog("", 0, 0, "", ""), strict=True) for log in known.logs)
    fits = all(type(value) is type(default) for value, default in itertools.chain(pairs, *logs))
    return known if fits and "token" in names and _is_well_formed(known) else None


def _is_well_formed(known: Installation) -> bool:
    """Return whether the state looks as we write it: other users may have written the file."""
    receipts = (known.receipt, known.asked, *known.earlier_receipts, *known.previous_receipts)
    digests = (digest for log in known.logs for digest in (log.head, log.tail))
    texts = (*known.last_days.values(), *receipts)
    return (
        all(isinstance(text, str) for text in texts)
        and all(HEXADECIMAL.fullmatch(text) for text in (*receipts, *digests))
        and all(type(number) is int for number in known.unread.values())
        and _is_plain(known.values)
    )


def _is_plain(value: object) -> bool:
    """Return whether a value, with all that it contains, is text that PostgreSQL takes, or a number in range."""
    match value:
        case dict():
            return all(_is_plain(key) and _is_plain(part) for key, part in value.items())
        case list() | tuple():
            return all(map(_is_plain, value))
        case str():
            return NO_TEXT.search(value) is None
        case float():
            return 0 <= value <= MAX_TIME
        case int():
            return 0 <= value < MAX_SIZE
        case _:
            return False
