"""The keys of a config file, and their checked values."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from zoneinfo import ZoneInfo

from xraylog import safe_open

KEYS: Mapping[str, tuple[str, ...]] = {
    "parser": (
        "logfile",
        "offline_file",
        "batch_size",
        "timezone",
        "node",
        "truncate_mib",
        "stray_days",
        "api_tags",
        "dns_answers",
    ),
    "stats": ("format", "output", "prometheus"),
    "privacy": ("mask_source",),
    "retention": ("days", "prune_names"),
    "migration": ("drop_old",),
    "report": ("statement_timeout",),
    "logging": ("level", "file"),
}
# Of the section [postgresql], whose other keys are libpq's.
OUR_POSTGRESQL_KEYS = ("answer_timeout",)
BESIDE = re.compile(r"[0-9]+|torn|damaged|state")


class ConfigError(Exception):
    """The configuration is wrong; every complaint in it is one line for the operator."""

    def __init__(self, complaints: list[str]) -> None:
        super().__init__("\n".join(complaints))
        self.complaints = complaints


@dataclass(frozen=True, slots=True)
class Config:
    """The settings of one config file, every value checked."""

    path: Path
    connection: Mapping[str, str] = field(repr=False)  # libpq's keywords; it may hold a password
    answer_timeout_s: int  # how long a run waits for the server while nothing moves on the connection
    log_path: Path
    buffer_path: Path
    batch_size: int  # rows
    zone: ZoneInfo
    node: str
    node_is_set: bool  # False: `node` is the host's name
    truncate_above: int  # bytes
    stray_days: int  # a line further than that from the lines around it is unparsed
    api_tags: tuple[str, ...]  # outbound tags of xray's own API and metrics
    dns_answers: bool  # keep the names that addresses had
    stats_format: str | None  # json, csv, or None: no statistics
    stats_path: Path | None  # None: standard output
    mask_source: tuple[int, int]  # bits of an IPv4 and of an IPv6 source that are kept; 32 and 128: all
    metrics_path: Path | None  # for node_exporter; None: no metrics
    keep_days: int | None  # before today, in UTC; None: nothing is dropped
    prune_names: bool
    drop_old: bool
    report_timeout_s: int  # how long one query of a page may take
    log_level: str | None  # None: INFO on a terminal, WARNING otherwise
    own_log_path: Path | None
    warnings: tuple[str, ...] = ()

    @property
    def ours(self) -> Mapping[Path, str]:
        """Our own files, with what each is: if one were read as a log, it would be emptied."""
        files = {self.path: "the config", self.buffer_path: "the offline buffer"}
        others = {
            self.stats_path: "the statistics",
            self.metrics_path: "the metrics",
            self.own_log_path: "our own log",
        }
        return files | {path: what for path, what in others.items() if path is not None}

    def is_ours(self, path: Path) -> str | None:
        """Describe `path` if it is our file or derived from one (a lock, a rotated log, a torn batch); else None."""
        real = safe_open.without_links(path)
        if what := {safe_open.without_links(own): what for own, what in self.ours.items()}.get(real):
            return what
        if path.name.endswith(".lock"):
            return "a lock"
        for own, what in self.ours.items():
            if safe_open.without_links(path.parent) == safe_open.without_links(own.parent) and BESIDE.fullmatch(
                path.name.removeprefix(f"{own.name}.")
            ):
                return f"a file beside {what}"
        return None
