"""--check for other users of the machine: which user runs us, and which files a run would refuse because of them."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from xraylog import safe_open, safe_path
from xraylog.accesslog import discovery, installation, lockfile, logfile
from xraylog.commands.finding import Finding
from xraylog.config import Config


def findings(cfg: Config, logs: Sequence[Path]) -> Iterator[Finding]:
    """Yield what was checked, what was found, and what to do ("" if nothing)."""
    yield from map(_user_of, filter(discovery.is_live, logs))
    refused = [text for path in _ours(cfg, logs) if (text := safe_open.why_unsafe(path)) is not None]
    for text in dict.fromkeys(refused):
        yield "files", text, "until then a run exits with status 3, or 78: docs/security.md"
    if not refused:
        yield "files", "no other user decides which ones are opened", ""


def _user_of(log: Path) -> Finding:
    """Return which user runs us and, for root, whose log it is."""
    runs = safe_path.user_name(os.geteuid())
    try:
        owner = safe_path.user_name(log.stat().st_uid)
    except OSError:
        owner = runs
    if os.geteuid() or owner == runs:
        return "user", runs, ""
    advice = f"better run as {owner}: runuser -u {owner} -- COMMAND (docs/security.md)"
    return "user", f"{runs}, and {log} belongs to {owner}; {advice}", ""


def _ours(cfg: Config, logs: Sequence[Path]) -> Iterator[Path]:
    """Yield each file that a run opens to write, except the log, for which other rules apply."""
    yield from (path for path in cfg.own_files if path != cfg.path)
    yield cfg.buffer_path.with_name(f"{cfg.buffer_path.name}.torn")
    yield installation.state_path(cfg.buffer_path)
    for path in (*filter(discovery.is_live, logs), cfg.buffer_path):
        try:
            yield lockfile.lock_path(path, cfg.buffer_path.parent)
        except logfile.Unusable:  # because of a link, which is in its path
            yield path
