"""config.ini becomes a frozen Config; every complaint names file, section, key, expectation and find.

It opens the config file and nothing else, and connects to nothing.
"""

from __future__ import annotations

import configparser
import errno
import os
import re
import shlex
import socket
import stat
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from psycopg import pq

DEFAULT_BATCH_SIZE = 20_000  # rows per COPY and transaction: docs/architecture.md#three-load-paths
DEFAULT_TRUNCATE_MIB = 64
DEFAULT_REPORT_TIMEOUT_S = 300

KEYS: Mapping[str, tuple[str, ...]] = {
    "parser": ("logfile", "offline_file", "batch_size", "timezone", "node", "truncate_mib"),
    "stats": ("format", "output", "prometheus"),
    "privacy": ("mask_source",),
    "retention": ("days", "prune_names"),
    "migration": ("drop_old",),
    "report": ("statement_timeout",),
    "logging": ("level", "file"),
}
LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR")
PREFIXES = re.compile(r"([0-9]{1,2})/([0-9]{1,3})")
BESIDE = re.compile(r"[0-9]+|torn|damaged")
EXAMPLE = Path(__file__).resolve().parent.parent / "config.ini.example"
SYSTEM_ZONE = Path("/etc/localtime")
NAMELESS = "localtime"  # a zone that came from a file of that name, and no link


class ConfigError(Exception):
    """The configuration is wrong; every complaint in it is one line for the operator."""

    def __init__(self, complaints: list[str]) -> None:
        super().__init__("\n".join(complaints))
        self.complaints = complaints


@dataclass(frozen=True, slots=True)
class Config:
    """What one config file says, every value checked."""

    path: Path
    connection: Mapping[str, str] = field(repr=False)  # libpq's keywords; it may hold a password
    log_path: Path
    buffer_path: Path
    batch_size: int  # rows
    zone: ZoneInfo
    node: str
    truncate_above: int  # bytes
    stats_format: str | None  # json, csv, or None: no statistics
    stats_path: Path | None  # None: standard output
    mask_source: tuple[int, int]  # bits of an IPv4 and of an IPv6 source that are kept; 32 and 128: all
    metrics_path: Path | None  # for node_exporter; None: no metrics
    keep_days: int | None  # before today, in UTC; None: nothing is dropped
    prune_names: bool
    drop_old: bool
    report_timeout_s: int  # what one query of a page may take
    log_level: str | None  # None: INFO on a terminal, WARNING otherwise
    own_log_path: Path | None
    warnings: tuple[str, ...] = ()

    @property
    def ours(self) -> Mapping[Path, str]:
        """Our own files, and what each is: read as a log, they would be emptied."""
        files = {self.path: "the config", self.buffer_path: "the offline buffer"}
        others = {
            self.stats_path: "the statistics",
            self.metrics_path: "the metrics",
            self.own_log_path: "our own log",
        }
        return files | {path: what for path, what in others.items() if path is not None}

    def is_ours(self, path: Path) -> str | None:
        """Describe `path` if it is our file or derived from one (a lock, a rotated log, a torn batch); else None."""
        real = Path(os.path.realpath(path))
        if what := {Path(os.path.realpath(own)): what for own, what in self.ours.items()}.get(real):
            return what
        if path.name.endswith(".lock"):
            return "a lock"
        for own, what in self.ours.items():
            if os.path.realpath(path.parent) == os.path.realpath(own.parent) and BESIDE.fullmatch(
                path.name.removeprefix(f"{own.name}.")
            ):
                return f"a file beside {what}"
        return None


def read(path: Path) -> Config:
    """Read and check a config file. Relative paths in it start at the folder that it is in.

    Raises ConfigError with every complaint at once.
    """
    parser = configparser.ConfigParser(interpolation=None, delimiters=("=",), default_section="")
    try:
        text = path.read_text(encoding="utf-8")
        parser.read_string(text)
    except FileNotFoundError:
        raise ConfigError(
            [f"{path}: expected a config file, found nothing; {shlex.join(['cp', str(EXAMPLE), str(path)])}"]
        ) from None
    except UnicodeDecodeError as error:
        raise ConfigError([f"{path}: expected UTF-8, found other bytes at offset {error.start}"]) from None
    except OSError as error:
        raise ConfigError([f"{path}: expected a file that can be read, found: {error.strerror}"]) from None
    except configparser.Error as error:
        raise ConfigError([f"{path}: {_syntax(error)}"]) from None
    return _Reader(path, parser).config()


def refuse_ours(cfg: Config, logs: Sequence[Path]) -> None:
    """Raise ConfigError if one of the logs is one of our own files: it would be emptied."""
    for path in logs:
        real = _real("--logfile", path)
        if (found := cfg.is_ours(path)) and not _is_device(real):
            raise ConfigError([f"--logfile: expected xray's log, found {found}, {path}"])


def refuse_for_output(cfg: Config, path: Path) -> None:
    """Raise ConfigError if a page cannot be put there: it is no file, or another of our files, or the log."""
    real = _real("--output", path)
    # Not by Path's own methods: in a folder that this user may not enter they raise.
    is_other = os.path.exists(real) and not os.path.isfile(real)
    found = "a folder" if os.path.isdir(real) else "no regular file" if is_other else ""
    if not found and not os.path.isdir(real.parent):
        found = f"no folder {real.parent}"
    if found:
        raise ConfigError([f"--output: expected a file, or a place for one, found {found}, {path}"])
    if what := "xray's log" if real == _real("logfile", cfg.log_path) else cfg.is_ours(path):
        raise ConfigError([f"--output: expected a file of its own, found {what}, {path}"])


def _lock(real: Path) -> Path:
    """Where the lock of a log or buffer lies, as long as its folder may be written: see locks.py."""
    return Path(f"{real}.lock")


def _real(named_by: str, path: Path) -> Path:
    """Return the path without links. Raises ConfigError if they lead in a circle.

    Not by Path.resolve: it raises RuntimeError there, and from Python 3.13 on nothing.
    """
    try:
        os.stat(path)
    except OSError as error:
        if error.errno == errno.ELOOP:
            found = f"{path}: {error.strerror}"
            raise ConfigError([f"{named_by}: expected the path of a file, found {found}"]) from error
    return Path(os.path.realpath(path))


def _is_device(real: Path) -> bool:
    return real.parts[1:2] == ("dev",)


def refuse_nameless_zone(cfg: Config) -> None:
    """Raise ConfigError for a zone that a browser cannot know: this machine's, if nothing tells its name."""
    if cfg.zone.key == NAMELESS:
        raise ConfigError([f"{cfg.path}: [parser] timezone: expected a name, for {SYSTEM_ZONE} tells none, found none"])


def _syntax(error: configparser.Error) -> str:
    """Return what is wrong with the file's form. Never the line's own text: it may be the password."""
    if isinstance(error, configparser.MissingSectionHeaderError):
        return f"line {error.lineno}: expected a [section] first, found something else"
    if isinstance(error, configparser.DuplicateOptionError):
        key = _named(error.option, _keys(error.section))
        return f"line {error.lineno}: [{error.section}] {key}: expected once, found again"
    if isinstance(error, configparser.DuplicateSectionError):
        return f"line {error.lineno}: [{error.section}]: expected once, found again"
    if isinstance(error, configparser.ParsingError):
        places = ", ".join(str(number) for number, _ in error.errors)
        return f"line {places}: expected 'key = value', found something else"
    return "expected the form of an INI file, found something else"


class _Reader:
    """Collects complaints while it takes the values out one by one."""

    def __init__(self, path: Path, parser: configparser.ConfigParser) -> None:
        self.path = path
        self.parser = parser
        self.complaints: list[str] = []
        self.files: dict[tuple[str, str], Path] = {}  # by section and key

    def config(self) -> Config:
        self.refuse_continued()
        self.refuse_unknown()
        stats_format = self.one_of("stats", "format", ("json", "csv"))
        config: dict[str, object] = dict(  # noqa: C408  # reads like the call that it is for
            path=self.path,
            connection=self.connection(),
            log_path=self.required_path("parser", "logfile"),
            buffer_path=self.required_path("parser", "offline_file"),
            batch_size=self.number("parser", "batch_size", DEFAULT_BATCH_SIZE, at_most=1_000_000),
            zone=self.zone(),
            node=self.node(),
            truncate_above=self.number("parser", "truncate_mib", DEFAULT_TRUNCATE_MIB, at_most=1 << 30) << 20,
            stats_format=stats_format,
            stats_path=self.file("stats", "output"),
            mask_source=self.mask(),
            metrics_path=self.metrics(),
            keep_days=self.number("retention", "days", 0, at_most=36_500) or None,
            prune_names=self.yes_or_no("retention", "prune_names"),
            drop_old=self.yes_or_no("migration", "drop_old"),
            report_timeout_s=self.number("report", "statement_timeout", DEFAULT_REPORT_TIMEOUT_S, at_most=86_400),
            log_level=self.one_of("logging", "level", LEVELS),
            own_log_path=self.file("logging", "file"),
            warnings=self.warnings(),
        )
        self.refuse_one_file_twice()
        if self.complaints:
            raise ConfigError(self.complaints)
        return Config(**config)  # type: ignore[arg-type]  # a dict, so that every complaint is heard first

    def get(self, section: str, key: str) -> str:
        text = self.parser.get(section, key, fallback="").strip()
        if "\0" in text:
            self.complain(section, key, "text", "a NUL byte in it")
        return text.replace("\0", "")

    def complain(self, section: str, key: str, expected: str, found: str) -> None:
        self.complaints.append(f"{self.path}: [{section}] {key}: expected {expected}, found {found}")

    def refuse_continued(self) -> None:
        """Refuse indented lines: each belongs to the value above it, with which a password there would be shown."""
        for section in self.parser.sections():
            for key, value in self.parser[section].items():
                if "\n" in value:
                    named = _named(key, _keys(section))
                    self.complain(section, named, "a value on one line", "an indented line after it")
                    self.parser[section][key] = value.partition("\n")[0]

    def refuse_unknown(self) -> None:
        """Refuse unknown keys: each is a misspelt one, whose value would be missed in silence."""
        for section in self.parser.sections():
            if section not in KEYS and section != "postgresql":
                known = ("postgresql", *KEYS)
                self.complaints.append(
                    f"{self.path}: [{section}]: expected one of the sections {', '.join(known)}, "
                    f"found an unknown one{_likely(section, known)}"
                )
                continue
            keys = _keys(section)
            for key in self.parser[section]:
                if key not in keys:
                    what = "a keyword of libpq" if section == "postgresql" else f"one of {', '.join(keys)}"
                    self.complain(section, _named(key, keys), what, f"an unknown key{_likely(key, keys)}")

    def refuse_one_file_twice(self) -> None:
        """Refuse that the log, the buffer, the statistics, the metrics and our own log are written into one another."""
        found = dict(self.real_files())
        seen: dict[Path, str] = {}
        for (section, key), real in found.items():
            if real in seen and not _is_device(real):
                self.complain_of_file(section, key, f"another file than {seen[real]}")
            seen.setdefault(real, f"[{section}] {key}")
        locked = {_lock(real): key for (_, key), real in found.items() if key in ("logfile", "offline_file")}
        for (section, key), real in found.items():
            if real in locked:
                self.complain_of_file(section, key, f"another file than the lock of [parser] {locked[real]}")

    def real_files(self) -> Iterator[tuple[tuple[str, str], Path]]:
        for (section, key), path in self.files.items():
            try:
                yield (section, key), _real(f"{self.path}: [{section}] {key}", path)
            except ConfigError as error:
                self.complaints += error.complaints

    def complain_of_file(self, section: str, key: str, expected: str) -> None:
        self.complain(section, key, expected, repr(str(self.files[section, key])))

    def connection(self) -> dict[str, str]:
        """Return libpq's keywords as they are; values are checked by libpq itself, except the port."""
        given = dict(self.parser["postgresql"]) if self.parser.has_section("postgresql") else {}
        given = {key: value for key, value in given.items() if value}
        if "service" not in given:
            for key in ("host", "dbname", "user"):
                if not given.get(key) and not (key == "host" and given.get("hostaddr")):
                    self.complain("postgresql", key, "a value (or the key service)", "none")
        for key in ("host", "dbname"):
            if "://" in given.get(key, "") or (
                key == "dbname" and "=" in given.get(key, "")
            ):  # libpq would print it whole
                self.complain("postgresql", key, "a name", "a connection string: use the keys of this section")
                given[key] = ""
        for port in given.get("port", "").split(","):
            if port and not _is_number(port, 65535):
                self.complain("postgresql", "port", "a whole number from 1 to 65535", repr(port))
        return given

    def number(self, section: str, key: str, default: int, at_most: int) -> int:
        text = self.get(section, key)
        if not text:
            return default
        if _is_number(text, at_most):
            return int(text)
        self.complain(section, key, f"a whole number from 1 to {at_most}", repr(text))
        return default

    def one_of(self, section: str, key: str, choices: tuple[str, ...]) -> str | None:
        text = self.get(section, key)
        for choice in choices:
            if text.lower() == choice.lower():
                return choice
        if text:
            self.complain(section, key, f"{', '.join(choices)} or nothing", repr(text) + _likely(text, choices))
        return None

    def yes_or_no(self, section: str, key: str) -> bool:
        text = self.get(section, key).lower()
        if text and text not in self.parser.BOOLEAN_STATES:
            self.complain(section, key, "true or false", repr(text))
        return self.parser.BOOLEAN_STATES.get(text, False)

    def file(self, section: str, key: str) -> Path | None:
        text = self.get(section, key)
        if not text:
            return None
        try:
            path = Path(os.path.abspath(self.path.parent / Path(text).expanduser()))
        except RuntimeError:
            self.complain(section, key, "a user who has a home folder", repr(text))
            return self.path
        self.files[section, key] = path
        return path

    def metrics(self) -> Path | None:
        path = self.file("stats", "prometheus")
        if path is not None and path.suffix != ".prom":
            self.complain("stats", "prometheus", "a file FILE.prom, for node_exporter reads no other", repr(path.name))
        return path

    def required_path(self, section: str, key: str) -> Path:
        path = self.file(section, key)
        if path is None:
            self.complain(section, key, "the path of a file", "none")
            return self.path
        return path

    def node(self) -> str:
        name = self.get("parser", "node") or socket.gethostname()
        if len(name) > 255:
            self.complain("parser", "node", "at most 255 characters", f"{len(name)}")
        return name

    def zone(self) -> ZoneInfo | None:
        text, origin = self.get("parser", "timezone"), ""
        try:
            if not text:
                text, origin = os.environ.get("TZ", "").removeprefix(":"), " (from the variable TZ)"
            if text and text != str(SYSTEM_ZONE):
                return ZoneInfo(text)
            return system_zone()
        except (ZoneInfoNotFoundError, ValueError, OSError):
            advice = "" if _zones_are_there() else " (no time zone data here: pip install tzdata)"
            self.complain("parser", "timezone", "an IANA zone name like Europe/Berlin", repr(text) + origin + advice)
            return None

    def mask(self) -> tuple[int, int]:
        text = self.get("privacy", "mask_source").lower()
        if text in ("", "none"):
            return 32, 128
        found = PREFIXES.fullmatch(text)
        if found and int(found[1]) <= 32 and int(found[2]) <= 128:
            return int(found[1]), int(found[2])
        expected = "none, or prefix lengths for IPv4 and IPv6, 0/0 to 32/128, like 24/48"
        self.complain("privacy", "mask_source", expected, repr(text))
        return 32, 128

    def warnings(self) -> tuple[str, ...]:
        if self.get("postgresql", "password") and self.path.stat().st_mode & stat.S_IROTH:
            return (f"{self.path} holds a password and others may read it; chmod 600 {self.path}",)
        return ()


def libpq_keywords() -> tuple[str, ...]:
    """Return what [postgresql] may contain: the keywords of the libpq that psycopg uses."""
    return tuple(option.keyword.decode() for option in pq.Conninfo.get_defaults())


def system_zone() -> ZoneInfo:
    """Return the system's zone, by its name if /etc/localtime tells it; UTC if there is none."""
    if not SYSTEM_ZONE.exists():
        return ZoneInfo("UTC")
    target = os.path.realpath(SYSTEM_ZONE)
    if "/zoneinfo/" in target:
        return ZoneInfo(target.partition("/zoneinfo/")[2])
    with SYSTEM_ZONE.open("rb") as data:
        return ZoneInfo.from_file(data, key=NAMELESS)


def _keys(section: str) -> tuple[str, ...]:
    return libpq_keywords() if section == "postgresql" else KEYS.get(section, ())


def _named(key: str, known: tuple[str, ...]) -> str:
    """Return a key as complaints show it: in `password: 12=3` the part before "=" is no key, but half a password."""
    word = re.match(r"\w*", key)
    if word is None or word[0] == key or word[0] in known:
        return word[0] if word else key
    return "a key that is not one word"


def _is_number(text: str, at_most: int) -> bool:
    return text.isascii() and text.isdecimal() and len(text) < 20 and 1 <= int(text) <= at_most


def _zones_are_there() -> bool:
    try:
        ZoneInfo("Europe/Berlin")
    except ZoneInfoNotFoundError:
        return False
    return True


def _likely(word: str, known: tuple[str, ...]) -> str:
    import difflib  # only where something is wrong: a good run need not import it

    close = difflib.get_close_matches(word, known, n=1)
    return f" (did you mean {close[0]}?)" if close else ""
