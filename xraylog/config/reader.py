"""Read config.ini into a frozen Config. Each complaint names file and key, what was expected and what was found.

It opens no other file, and no connection.
"""

from __future__ import annotations

import configparser
import functools
import os
import re
import shlex
import socket
import stat
from collections.abc import Container, Iterator
from pathlib import Path
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from psycopg import pq

from xraylog import file_advice, safe_path
from xraylog.config import spelling, time_zone
from xraylog.config.files import conflicts, open_settings, real_path
from xraylog.config.model import KEYS, OUR_POSTGRESQL_KEYS, Config, ConfigError, libpq_files
from xraylog.printed import has_credentials, passwords

DEFAULT_BATCH_SIZE = 20_000  # rows per COPY and transaction: docs/architecture.md#three-load-paths
DEFAULT_TRUNCATE_MIB = 64
DEFAULT_STRAY_DAYS = 45
DEFAULT_ANSWER_TIMEOUT_S, DEFAULT_REPORT_TIMEOUT_S = 60, 300

NAMES, NUMBERS = ("host", "hostaddr", "dbname", "user"), ("port", *OUR_POSTGRESQL_KEYS)  # in [postgresql]
LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR")
PREFIXES = re.compile(r"([0-9]{1,2})/([0-9]{1,3})")
QUOTES = "\"'`\u201c\u201d\u2018\u2019\u201e\u00ab\u00bb"  # also those that editors and web pages put in their place
COMMENT = re.compile(r"\s+[#;]\s.*")
EXAMPLE = Path(__file__).resolve().with_name("config.ini.example")


def read(path: Path) -> Config:
    """Read and check a config file. Relative paths in it start at the file's own folder.

    Raises ConfigError with all complaints at once.
    """
    parser = configparser.ConfigParser(interpolation=None, delimiters=("=",), default_section="")
    try:
        with os.fdopen(open_settings(path), encoding="utf-8-sig") as file:
            text = file.read()
        parser.read_string(text)
    except FileNotFoundError:
        made = "" if os.path.isdir(path.parent) else f"{file_advice.make_folder(path.parent)} && "
        copy = shlex.join(["cp", str(EXAMPLE), str(path)])
        raise ConfigError([f"{path}: expected a config file, found nothing; {made}{copy}"]) from None
    except UnicodeDecodeError as error:
        raise ConfigError(
            [f"{path}: expected UTF-8, found other bytes at offset {error.start}; {_convert(path, error.object)}"]
        ) from None
    except OSError as error:
        to_do = "" if isinstance(error, safe_path.Unsafe) else f"; {file_advice.how_to_fix(path, error)}"
        raise ConfigError([f"{path}: expected a file that can be read, found: {error.strerror}{to_do}"]) from None
    except configparser.Error as error:
        raise ConfigError([f"{path}: {_syntax(error)}"]) from None
    return _Reader(path, parser).config()


def _syntax(error: configparser.Error) -> str:
    """Return what is wrong with the syntax, without quoting any line: it may contain the password."""
    if isinstance(error, configparser.MissingSectionHeaderError):
        return f"line {error.lineno}: expected a [section] first, found something else"
    if isinstance(error, configparser.DuplicateOptionError):
        key = _shown_key(error.option, _keys(error.section))
        return f"line {error.lineno}: {_shown_section(error.section)} {key}: expected once, found again"
    if isinstance(error, configparser.DuplicateSectionError):
        name = error.section if error.section in (*KEYS, "postgresql") else "…"  # it may be the password
        return f"line {error.lineno}: [{name}]: expected once, found again"
    if isinstance(error, configparser.ParsingError):
        places = ", ".join(str(number) for number, _ in error.errors)
        return f"line {places}: expected 'key = value', found something else"
    return "expected the form of an INI file, found something else"


def _convert(path: Path, text: bytes) -> str:
    """Return the command that converts a file to UTF-8 from the likely encoding, and keeps the file's mode."""
    encoding = "UTF-16" if text[:2] in (b"\xff\xfe", b"\xfe\xff") else "WINDOWS-1252"
    name, old = shlex.quote(str(path)), shlex.quote(f"{path}.old")
    return f"to convert it: cp -p {name} {old} && iconv -f {encoding} -t UTF-8 {old} >{name}"


class _Reader:
    """Checks the values one by one, and collects the complaints. For a wrong value it returns a harmless one."""

    def __init__(self, path: Path, parser: configparser.ConfigParser) -> None:
        self.path = path
        self.parser = parser
        self.complaints: list[str] = []
        self.files: dict[tuple[str, str], Path] = {}  # by section and key

    def config(self) -> Config:
        self.refuse_continued()
        self.refuse_passwords()
        self.refuse_unknown()
        self.refuse_decorated()
        stats_format = self.one_of("stats", "format", ("json", "csv"))
        config: dict[str, object] = dict(  # noqa: C408  # reads like the call of Config below
            path=self.path,
            connection=self.connection(),
            answer_timeout_s=self.number("postgresql", "answer_timeout", DEFAULT_ANSWER_TIMEOUT_S, maximum=86_400),
            log_path=self.required_path("parser", "logfile"),
            buffer_path=self.required_path("parser", "offline_file"),
            batch_size=self.number("parser", "batch_size", DEFAULT_BATCH_SIZE, maximum=1_000_000),
            zone=self.zone(),
            node=self.node(),
            node_is_set=bool(self.get("parser", "node")),
            truncate_above=self.number("parser", "truncate_mib", DEFAULT_TRUNCATE_MIB, maximum=1 << 30) << 20,
            stray_days=self.number("parser", "stray_days", DEFAULT_STRAY_DAYS, maximum=36_500),
            api_tags=tuple(tag.strip() for tag in (self.get("parser", "api_tags") or "api").split(",")),
            dns_answers=self.yes_or_no("parser", "dns_answers"),
            stats_format=stats_format,
            stats_path=self.file("stats", "output"),
            mask_source=self.mask(),
            metrics_path=self.metrics(),
            keep_days=self.number("retention", "days", 0, maximum=36_500) or None,
            prune_names=self.yes_or_no("retention", "prune_names"),
            drop_old=self.yes_or_no("migration", "drop_old"),
            report_timeout_s=self.number("report", "statement_timeout", DEFAULT_REPORT_TIMEOUT_S, maximum=86_400),
            log_level=self.one_of("logging", "level", LEVELS),
            own_log_path=self.file("logging", "file"),
            warnings=self.warnings(),
        )
        self.refuse_one_file_twice()
        if self.complaints:
            raise ConfigError(self.complaints)
        return Config(**config)  # type: ignore[arg-type]  # a dict, so that all complaints are collected first

    def get(self, section: str, key: str) -> str:
        text = self.parser.get(section, key, fallback="").strip()
        if "\0" in text:
            self.complain(section, key, "text", "a NUL byte in it")
        return text.replace("\0", "")

    def complain(self, section: str, key: str, expected: str, found: str) -> None:
        self.complaints.append(
            f"{self.path}: {_shown_section(section, self.secrets)} {key}: expected {expected}, found {found}"
        )

    def refuse_continued(self) -> None:
        """Refuse indented lines: they continue the value above, and a complaint about it could show their password."""
        for section in self.parser.sections():
            for key, value in self.parser[section].items():
                if "\n" in value:
                    self.complain(section, self.shown(section, key), "a value on one line", "an indented line after it")
                    self.parser[section][key] = value.partition("\n")[0]

    def refuse_passwords(self) -> None:
        """Refuse a password in the place of another value, because complaints and messages show other values.

        Other values for libpq may be equal to the password: database, host and user may have one name, which is the
        password, too. `printed.without_passwords` hides it in libpq's messages.
        """
        for section in self.parser.sections():
            for key, value in self.parser[section].items():
                is_name = section == "postgresql" and key in NAMES
                has_password = has_credentials(value) or (
                    value in self.secrets and (section != "postgresql" or key in NUMBERS)
                )
                if has_password and "password" not in key:
                    found = "a connection string: use the keys of this section" if is_name else "a password"
                    self.complain(section, self.shown(section, key), "a name" if is_name else "a value", found)
                    self.parser[section][key] = ""

    def refuse_decorated(self) -> None:
        """Refuse quotes around a value and comments after it: they would become a part of it, say of a file's name.

        A password may contain them, and so may libpq's options.
        """
        for section in self.parser.sections():
            for key, value in self.parser[section].items():
                if "password" in key or key == "options" or key not in _keys(section):
                    continue
                plain = COMMENT.sub("", value).strip(QUOTES)
                if plain != value and not ({plain, value} & self.secrets or has_credentials(value)):
                    what = "quotes round it" if value.strip(QUOTES) != value else "a comment after it"
                    self.complain(section, key, "the value alone", f"{what}; write: {key} = {plain}")
                    self.parser[section][key] = plain

    @functools.cached_property
    def secrets(self) -> set[str]:
        """The values of all keys with "password" in their name, and of PGPASSWORD."""
        return {*()}.union(*(passwords(dict(self.parser[section])) for section in self.parser.sections()))

    def shown(self, section: str, key: str) -> str:
        """Return a key as complaints show it: hidden if it may be a password. configparser has made it lower case."""
        beginnings = {secret.lower().partition("=")[0].strip() for secret in self.secrets}
        is_secret = key in beginnings and key not in _keys(section)
        return "a key that is a password" if is_secret else _shown_key(key, _keys(section))

    def refuse_unknown(self) -> None:
        """Refuse unknown sections and keys: they are probably misspelt, and would be ignored silently."""
        for section in self.parser.sections():
            if section not in KEYS and section != "postgresql":
                known = ("postgresql", *KEYS)
                self.complaints.append(
                    f"{self.path}: {_shown_section(section, self.secrets)}: expected one of the sections "
                    f"{', '.join(known)}, found an unknown one{spelling.likely(section, known)}"
                )
                continue
            keys = _keys(section)
            for key in self.parser[section]:
                if key not in keys:
                    what = "a keyword of libpq" if section == "postgresql" else f"one of {', '.join(keys)}"
                    others = {name: _keys(name) for name in ("postgresql", *KEYS)}
                    hint = spelling.belongs(key, others) or spelling.likely(key, keys)
                    self.complain(section, self.shown(section, key), what, f"an unknown key{hint}")

    def refuse_one_file_twice(self) -> None:
        """Refuse one file for two purposes: log, buffer, other outputs and the config would overwrite each other."""
        of_libpq = libpq_files(dict(self.parser["postgresql"]) if self.parser.has_section("postgresql") else {})
        for place, expected in conflicts(safe_path.without_links(self.path), dict(self.real_files()), of_libpq):
            self.complain_about_file(*place, expected)

    def real_files(self) -> Iterator[tuple[tuple[str, str], Path]]:
        for (section, key), path in self.files.items():
            try:
                yield (section, key), real_path(f"{self.path}: [{section}] {key}", path)
            except ConfigError as error:
                self.complaints += error.complaints

    def complain_about_file(self, section: str, key: str, expected: str) -> None:
        self.complain(section, key, expected, repr(str(self.files[section, key])))

    def connection(self) -> dict[str, str]:
        """Return libpq's keywords with their values, of which only the port is checked: libpq checks the others."""
        given = dict(self.parser["postgresql"]) if self.parser.has_section("postgresql") else {}
        given = {key: value for key, value in given.items() if value and key not in OUR_POSTGRESQL_KEYS}
        if "service" not in given:
            for key in ("host", "dbname", "user"):
                if not given.get(key) and not (key == "host" and given.get("hostaddr")):
                    self.complain("postgresql", key, "a value (or the key service)", "none")
        for key in ("host", "dbname"):
            # libpq would print such a value whole, with the password in it.
            if "://" in given.get(key, "") or (key == "dbname" and "=" in given.get(key, "")):
                self.complain("postgresql", key, "a name", "a connection string: use the keys of this section")
                given[key] = ""
        for port in given.get("port", "").split(","):
            if port and not _is_number(port, 65535):
                self.complain("postgresql", "port", "a whole number from 1 to 65535", repr(port))
        return given

    def number(self, section: str, key: str, default: int, maximum: int) -> int:
        text = self.get(section, key)
        if not text:
            return default
        if _is_number(text, maximum):
            return int(text)
        self.complain(section, key, f"a whole number from 1 to {maximum}", repr(text))
        return default

    def one_of(self, section: str, key: str, choices: tuple[str, ...]) -> str | None:
        text = self.get(section, key)
        for choice in choices:
            if text.lower() == choice.lower():
                return choice
        if text:
            self.complain(section, key, f"{', '.join(choices)} or nothing", repr(text) + spelling.likely(text, choices))
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
            # The name has the same bytes as in the config, whatever the encoding of the locale is.
            name = Path(os.fsdecode(text.encode())).expanduser()
            path = Path(os.path.abspath(self.path.parent / name))
        except RuntimeError:
            found = f"{text!r}, and nothing tells where that is; write the full path"
            self.complain(section, key, "a path, or a user who has a home folder", found)
            return self.path
        if not path.name:  # the root folder
            self.complain(section, key, "the path of a file", repr(text))
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
            return time_zone.of_name(text)
        except (ZoneInfoNotFoundError, ValueError, OSError):
            advice = "" if time_zone.has_data() else " (no time zone data here: pip install tzdata)"
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


def _keys(section: str) -> tuple[str, ...]:
    return (*libpq_keywords(), *OUR_POSTGRESQL_KEYS) if section == "postgresql" else KEYS.get(section, ())


def _shown_section(name: str, secrets: Container[str] = ()) -> str:
    """Return a section as complaints show it: an unknown one is hidden if it may be a password."""
    if name in KEYS or name == "postgresql" or not (has_credentials(name) or name in secrets):
        return f"[{name}]"
    return "a section that is a password"


def _shown_key(key: str, known: tuple[str, ...]) -> str:
    """Return a key as complaints show it. In `password: 12=3`, what precedes "=" is not a key but half a password."""
    word = re.match(r"\w*", key)
    if word is None or word[0] == key or word[0] in known:
        return word[0] if word else key
    return "a key that is not one word"


def _is_number(text: str, maximum: int) -> bool:
    return text.isascii() and text.isdecimal() and len(text) < 20 and 1 <= int(text) <= maximum
