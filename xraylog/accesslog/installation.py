"""The state file beside the buffer: which installation this is, and what its database confirmed last.

A database can be restored from a backup, and a machine can be copied. Neither knows; this file does.
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
from dataclasses import dataclass, field, fields, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, NamedTuple

from loguru import logger

from xraylog import atomic_file, file_advice, safe_open
from xraylog.config import Config

MAX_BYTES = 1 << 16  # our own file has less than 20 KiB; a larger one is another program's
MAX_LOGS = 50
MAX_SIZE = 1 << 62  # bytes
MAX_TIME = datetime.max.replace(tzinfo=timezone.utc).timestamp()
HEXADECIMAL = re.compile(r"(?:[0-9a-f]{2})*")
NO_TEXT = re.compile("[\0\ud800-\udfff]")
PIPED = "-"  # the source of what was piped in
MACHINE_ID = Path("/etc/machine-id")  # machine-id(5): empty or missing in many containers


def new_id() -> str:
    """Return an id that nobody else has."""
    return secrets.token_hex(16)


class StoredLog(NamedTuple):
    """Up to where a log was stored when the database last confirmed it. Digests are hexadecimal."""

    source: str
    offset: int
    head_length: int
    head: str
    tail: str


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
    last_days: dict[str, str] = field(default_factory=dict)  # the latest one of the lines of each log, by path
    id: str = ""  # whose positions are its own; in a state of an older version it is the token
    receipt: str = ""  # of the last confirmation that arrived here
    earlier_receipts: list[str] = field(default_factory=list)  # that were asked for since then
    previous_receipts: list[str] = field(default_factory=list)  # of confirmations before it, the latest first
    asked: str = ""  # the receipt of one that was asked for, and may have been committed
    machine: str = ""  # a digest of the machine's id; empty: it has none
    node: str = ""  # under which its lines were stored last
    host: str = ""  # the name that the machine had then
    copied_at: float = 0.0  # when another installation was found to have the same state
    reminders: dict[str, list[float]] = field(default_factory=dict)  # when each was noticed first, and told last
    new_users: list[int] = field(default_factory=list)  # and rows, of the last runs in which they were nearly as many
    unread: dict[str, int] = field(default_factory=dict)  # bytes that a run saw in a log and did not store, by path
    buffered: int = 0  # bytes of the buffer, when lines that are in it left a log last
    last_batch: str = ""  # of the buffer then
    logs: tuple[StoredLog, ...] = ()  # those that keep their lines matter: a copy of the machine begins there

    @property
    def values(self) -> dict[str, Any]:
        """Return each field by its name, as the state file has it; asdict would copy all that is in them."""
        return {of.name: getattr(self, of.name) for of in fields(self)}

    @property
    def digest(self) -> bytes:
        """What the database keeps of the token."""
        return hashlib.sha256(self.token.encode()).digest()

    @property
    def owner_id(self) -> bytes:
        """What its positions are kept under."""
        return hashlib.sha256(b"installation " + (self.id or self.token).encode()).digest()

    @property
    def is_new(self) -> bool:
        """Return whether nothing is known of it: it is new, or its state was lost."""
        return not (self.confirmed or self.older_at or self.copied_at)

    @property
    def is_elsewhere(self) -> bool:
        """Return whether it was written on another machine, as far as their ids tell."""
        here = machine()
        return bool(here and self.machine and here != self.machine)

    def with_log(self, log: StoredLog) -> Installation:
        """Return it with this log's latest place."""
        same = (log.source, log.head) if log.source == PIPED else log.source  # texts that were piped are many
        others = [known for known in self.logs if same not in (known.source, (known.source, known.head))]
        return replace(self, logs=(*others, log)[-MAX_LOGS:])


def machine() -> str:
    """Return a digest of this machine's id, which is not to be shown to others; empty if it has none."""
    try:
        with os.fdopen(safe_open.open_file(MACHINE_ID, os.O_RDONLY | os.O_NONBLOCK), "rb") as file:
            text = file.read(MAX_BYTES).strip()
    except OSError:
        return ""
    return hashlib.sha256(b"xraylog " + text).hexdigest()[:32] if text not in (b"", b"uninitialized") else ""


def state_path(buffer: Path) -> Path:
    """Return the path of the state file."""
    return buffer.with_name(f"{buffer.name}.state")


def with_known_node(cfg: Config) -> Config:
    """Return the settings with the node under which this installation goes on, if `node` is not set: another name of
    the host does not make it another one. A machine with another id is one.
    """
    known = Installation()
    with contextlib.suppress(OSError):  # the run tells
        known = known if cfg.node_is_set else read(cfg.buffer_path, warn=False)
    if known.node in ("", cfg.node) or known.is_elsewhere:
        return cfg
    if known.host != cfg.node:
        logger.warning(
            "this host's name is {}, and [parser] node is not set: its lines were stored as those of node {} before, "
            "and still are; to choose another name, set node in {}",
            cfg.node,
            known.node,
            cfg.path,
        )
    return replace(cfg, node=known.node)


def begin(cfg: Config, known: Installation) -> None:
    """Write the state of an installation that has confirmed nothing, before it stores lines: under its id, and under a
    node's name which may be that of the host, and another one next time.
    """
    node = cfg.node if cfg.node_is_set else known.node or cfg.node
    write(cfg.buffer_path, replace(known, node=node, host=socket.gethostname(), machine=machine()))


def read(buffer: Path, warn: bool = True) -> Installation:
    """Return what the installation with this buffer knows; a new one where nothing is known. Raises OSError."""
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
        logger.warning("{}: expected our state, found another text; it is written again", state_path(buffer))
    return Installation()


def write(buffer: Path, known: Installation) -> bool:
    """Replace the state file; return whether it was. A full disk must not keep the log from being drained."""
    path = state_path(buffer)
    try:
        atomic_file.replace(path, json.dumps(known.values).encode() + b"\n", mode=0o600)
    except OSError as error:
        advice = file_advice.mend(path, error, file_advice.Needs.FOLDER)
        what = f"{path}: expected to replace it, found: {error.strerror}"
        logger.warning("{}; the next run tries again; {}", what, advice)
        return False
    return True


def _read(values: dict[str, Any]) -> Installation | None:
    """Return the state, of this version, an older or a later one; None if it is none."""
    names = {of.name for of in fields(Installation)} & values.keys()
    known = Installation(**{name: values[name] for name in names})
    known = replace(known, logs=tuple(StoredLog(*log) for log in known.logs))
    pairs = zip(known.values.values(), Installation().values.values(), strict=True)
    logs = (zip(log, StoredLog("", 0, 0, "", ""), strict=True) for log in known.logs)
    fits = all(type(value) is type(default) for value, default in itertools.chain(pairs, *logs))
    return known if fits and "token" in names and _is_well_formed(known) else None


def _is_well_formed(known: Installation) -> bool:
    """Return whether all that is in it is as we write it; others may have written it."""
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
    """Return whether a value, and what is in it, is text that PostgreSQL takes, or a number in its range."""
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
