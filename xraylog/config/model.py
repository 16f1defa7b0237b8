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
# Keys of the section [postgresql]; all other keys there are keywords of libpq.
OUR_POSTGRESQL_KEYS = ("answer_timeout",)
DERIVED_SUFFIX = re.compile(r"[0-9]+|torn|damaged|state")


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
    stray_days: int  # a line whose time differs by more than this from the lines around it counts as unparsed
    api_tags: tuple[str, ...]  # outbound tags of xray's own API and metrics
    dns_answers: bool  # store which names resolved to which addresses
    stats_format: str | None  # json, csv, or None: no statistics
    stats_path: Path | None  # None: standard output
    mask_source: tuple[int, int]  # how many bits of IPv4 and IPv6 sources are kept; 32 and 128: all
    metrics_path: Path | None  # for node_exporter; None: no metrics
    keep_days: int | None  # days before today (UTC) that retention keeps; None: it drops nothing
    prune_names: bool
    drop_old: bool
    report_timeout_s: int  # the time limit of each query for a page
    log_level: str | None  # None: INFO on a terminal, WARNING otherwise
    own_log_path: Path | None
    warnings: tuple[str, ...] = ()

    @property
    def own_files(self) -> Mapping[Path, str]:
        """Our own files, each with a description. None may be read as a log, because a log is emptied."""
        files = {self.path: "the config", self.buffer_path: "the offline buffer"}
        others = {
            self.stats_path: "the statistics",
            self.metrics_path: "the metrics",
            self.own_log_path: "our own log",
        }
        return files | {path: what for path, what in others.items() if path is not None}

    def describe_own_file(self, path: Path) -> str | None:
        """Describe `path` if it is our file or derived from one (a lock, a rotated log, a torn batch); else None."""
        real = safe_open.without_links(path)
        if what := {safe_open.without_links(own): what for own, what in self.own_files.items()}.get(real):
            return what
        if path.name.endswith(".lock"):
            return "a lock"
        for own, what in self.own_files.items():
            if is_derived(safe_open.without_links(path.parent) / path.name, safe_open.without_links(own)):
                return f"a file beside {what}"
        return None


def is_derived(path: Path, own: Path) -> bool:
    """Return whether `path` is where runs or logrotate put what belongs to our file `own`, as in buffer.jsonl.state."""
    prefix, _, suffix = path.name.rpartition(".")
    return path.parent == own.parent and prefix == own.name and DERIVED_SUFFIX.fullmatch(suffix) is not None
