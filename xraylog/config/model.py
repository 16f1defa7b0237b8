"""The keys of a config file, and their checked values."""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from zoneinfo import ZoneInfo

from xraylog import safe_path
from xraylog.config import same_file

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
# What libpq reads: keyword, variable, default and description of each file.
LIBPQ_FILES = (
    ("passfile", "PGPASSFILE", "~/.pgpass", "libpq's password file"),
    ("servicefile", "PGSERVICEFILE", "~/.pg_service.conf", "libpq's service file"),
    ("sslkey", "PGSSLKEY", "~/.postgresql/postgresql.key", "the key for TLS"),
    ("sslcert", "PGSSLCERT", "~/.postgresql/postgresql.crt", "a certificate for TLS"),
    ("sslrootcert", "PGSSLROOTCERT", "~/.postgresql/root.crt", "a certificate for TLS"),
    ("sslcrl", "PGSSLCRL", "~/.postgresql/root.crl", "a revocation list for TLS"),
)
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
        """Describe `path` if it is our file, libpq's, or derived from ours (a lock, a torn batch); else None.

        Under each of its names: a hard link of config.ini is config.ini.
        """
        names = same_file.names(path)
        for own, what in {**libpq_files(self.connection), **self.own_files}.items():
            if names & same_file.names(own):
                return what
        folders = {safe_path.without_links(own).parent for own in (path, self.log_path, *self.own_files)}
        if any(has_name(path, folder, lambda other: other.suffix == ".lock") for folder in folders):
            return "a lock"
        for own, what in self.own_files.items():
            if is_beside(path, safe_path.without_links(own)):
                return f"a file beside {what}"
        real = safe_path.without_links(path)
        if os.path.exists(f"{real}.state") or (real.suffix == ".state" and os.path.exists(real.with_suffix(""))):
            return "the offline buffer of another installation, which imports it itself, or its state"
        return None


def libpq_files(connection: Mapping[str, str]) -> Mapping[Path, str]:
    """Return the files that libpq reads for a connection, each with a description: passwords, keys, certificates."""
    return {
        Path(os.path.abspath(os.path.expanduser(connection.get(keyword) or os.environ.get(variable) or default))): what
        for keyword, variable, default, what in LIBPQ_FILES
    }


def is_beside(path: Path, own: Path) -> bool:
    """Return whether `path`, under any of its names, is derived from our file `own`."""
    return has_name(path, own.parent, functools.partial(is_derived, own=own))


def has_name(path: Path, folder: Path, is_meant: Callable[[Path], bool]) -> bool:
    """Return whether a path is meant, as it is or without links, or is a hard link of a file in `folder` that is."""
    place, real = safe_path.without_links(path.parent) / path.name, safe_path.without_links(path)
    return is_meant(place) or is_meant(real) or same_file.linked(path, folder, is_meant)


def is_derived(path: Path, own: Path) -> bool:
    """Return whether `path` is where runs or logrotate put what belongs to our file `own`, as in buffer.jsonl.state."""
    prefix, _, suffix = path.name.rpartition(".")
    return path.parent == own.parent and prefix == own.name and DERIVED_SUFFIX.fullmatch(suffix) is not None
