"""Every setting is read, checked and refused as config.ini.example says. Needs no server."""

from __future__ import annotations

import contextlib
import importlib.resources
import io
import re
import socket
import tempfile
from collections.abc import Mapping
from datetime import datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfoNotFoundError

import pytest
from helpers.config import written
from helpers.site import ROOT, line
from hypothesis import example, given, settings
from hypothesis import strategies as st

import parse_logs
from xraylog import cli, config
from xraylog.config import Config, ConfigError, time_zone
from xraylog.database import session

EXAMPLE = ROOT / "config.ini.example"
KEY_LINE = re.compile(r"(?P<comment># )?(?P<key>[a-z_]+) = (?P<value>.*)")
# Keys that the example shows in a comment: with the default, or without one, or with one that depends on the machine.
WITH_DEFAULT = {
    "batch_size",
    "truncate_mib",
    "stray_days",
    "api_tags",
    "dns_answers",
    "mask_source",
    "prune_names",
    "drop_old",
    "statement_timeout",
}
WITHOUT_DEFAULT = {"timezone", "node", "format", "output", "prometheus", "level", "file", "days"}
SECTIONS = ("postgresql", "parser", "stats", "privacy", "retention", "migration", "report", "logging")
LEAST: Mapping[str, Mapping[str, str]] = {
    "postgresql": {"host": "127.0.0.1", "dbname": "xray", "user": "xray"},
    "parser": {"logfile": "access.log", "offline_file": "buffer.jsonl"},
}


Changes = Mapping[str, str | None]  # None: without this key


pytestmark = pytest.mark.usefixtures("nothing_of_the_machine")


def text_of(**changes: Changes) -> str:
    """The least that a config file needs, and what is changed in it, by section."""
    merged = {section: {**LEAST.get(section, {}), **changes.get(section, {})} for section in {**LEAST, **changes}}
    return "".join(
        f"[{section}]\n" + "".join(f"{key} = {value}\n" for key, value in keys.items() if value is not None)
        for section, keys in merged.items()
    )


def read(folder: Path, **changes: Changes) -> Config:
    return config.read(written(folder, text_of(**changes)))


def complaints(path: Path) -> list[str]:
    """Return the complaints about the file, without its name, with which each begins."""
    with pytest.raises(ConfigError) as caught:
        config.read(path)
    assert str(caught.value).splitlines() == caught.value.complaints
    assert all(complaint.startswith(f"{path}: ") for complaint in caught.value.complaints)
    return [complaint.removeprefix(f"{path}: ") for complaint in caught.value.complaints]


def complaints_of(folder: Path, **changes: Changes) -> list[str]:
    return complaints(written(folder, text_of(**changes)))


def example_keys(commented: bool) -> dict[str, dict[str, str]]:
    """The keys of the example by section, those that are commented out or the others, each with its value."""
    found: dict[str, dict[str, str]] = {}
    for text in EXAMPLE.read_text().splitlines():
        if text.startswith("["):
            keys = found.setdefault(text.strip("[]"), {})
        elif (match := KEY_LINE.fullmatch(text)) and bool(match["comment"]) == commented:
            keys[match["key"]] = match["value"]
    return found


def documented() -> list[tuple[str, str, str]]:
    """Section, key and default of each row of the document."""
    text = (ROOT / "docs" / "configuration.md").read_text()
    table = text.partition("| section | key | default | meaning |\n")[2].partition("\n\n")[0]
    found, section = [], ""
    for row in table.splitlines()[1:]:
        first, keys, default = (cell.strip() for cell in row.split("|")[1:4])
        section = first or section
        found += [(section, key, default) for key in keys.split(", ")]
    return found


def test_the_document_names_every_key_once() -> None:
    found = [(section, key) for section, key, _ in documented()]
    known = [(section, key) for section, keys in config.KEYS.items() for key in keys]
    assert sorted(pair for pair in found if pair[0] != "postgresql") == sorted(known)


def test_the_example_is_a_good_config(tmp_path: Path) -> None:
    cfg = config.read(written(tmp_path, EXAMPLE.read_bytes()))
    assert cfg.connection.keys() == {"host", "dbname", "user", "password"}
    assert cfg.log_path == Path("/var/log/xray/access.log")
    assert cfg.buffer_path == Path("/var/lib/xraylog/buffer.jsonl")


def test_the_example_names_every_key_and_no_other() -> None:
    active, optional = example_keys(commented=False), example_keys(commented=True)
    assert tuple(active) == tuple(optional) == SECTIONS
    for section, known in config.KEYS.items():
        assert sorted([*active[section], *optional[section]]) == sorted(known)
    keywords = {*active["postgresql"], *optional["postgresql"]}
    assert keywords <= {*config.libpq_keywords(), *config.OUR_POSTGRESQL_KEYS}
    assert keywords >= {"host", "port", "dbname", "user", "password"}
    assert keywords >= {"service", "sslmode", "passfile", "application_name", "connect_timeout", "answer_timeout"}


def test_every_key_of_the_example_has_a_comment_of_its_own() -> None:
    text = EXAMPLE.read_text().splitlines()
    bare = [
        key
        for key, above in zip(text[1:], text, strict=False)
        if KEY_LINE.fullmatch(key) and (not above.startswith("# ") or KEY_LINE.fullmatch(above))
    ]
    assert bare == []


def test_the_example_shows_the_defaults(tmp_path: Path) -> None:
    """What is commented out with a fixed default changes nothing when it is uncommented."""
    shown = example_keys(commented=True)
    fixed = {section: {k: v for k, v in shown[section].items() if k not in WITHOUT_DEFAULT} for section in config.KEYS}
    assert {key for keys in fixed.values() for key in keys} == WITH_DEFAULT
    assert read(tmp_path, **fixed) == read(tmp_path)
    defaults = {(section, key): default for section, key, default in documented()}
    for section, keys in fixed.items():
        for key, value in keys.items():
            assert defaults[section, key] == value, key
    assert defaults["postgresql", "answer_timeout"] == shown["postgresql"]["answer_timeout"]
    assert read(tmp_path, postgresql={"answer_timeout": shown["postgresql"]["answer_timeout"]}) == read(tmp_path)
    for key in ("application_name", "connect_timeout"):
        assert shown["postgresql"][key] == session.DEFAULTS[key]


@pytest.mark.parametrize(
    ("section", "key"), [(section, key) for section, keys in example_keys(commented=True).items() for key in keys]
)
def test_a_key_of_the_example_may_be_uncommented(tmp_path: Path, section: str, key: str) -> None:
    text = EXAMPLE.read_text()
    section_at = text.index(f"[{section}]")
    uncommented = text[:section_at] + text[section_at:].replace(f"# {key} = ", f"{key} = ", 1)
    assert uncommented != text
    config.read(written(tmp_path, uncommented))


def test_what_is_left_out_has_a_default(tmp_path: Path) -> None:
    cfg = read(tmp_path)
    assert cfg.connection == LEAST["postgresql"]
    assert cfg.answer_timeout_s == 60
    assert cfg.batch_size == 20_000
    assert cfg.zone.key == "UTC"
    assert cfg.node == socket.gethostname()
    assert cfg.truncate_above == 64 * 1024 * 1024
    assert cfg.stray_days == 45
    assert (cfg.stats_format, cfg.stats_path) == (None, None)
    assert cfg.mask_source == (32, 128)
    assert (cfg.keep_days, cfg.prune_names) == (None, False)
    assert cfg.drop_old is False
    assert (cfg.log_level, cfg.own_log_path) == (None, None)
    assert cfg.warnings == ()


def test_a_key_without_a_value_is_left_out(tmp_path: Path) -> None:
    empty = {section: dict.fromkeys(keys, "") for section, keys in config.KEYS.items()}
    empty["parser"] = {**empty["parser"], **LEAST["parser"]}
    assert read(tmp_path, **empty, postgresql={"port": "", "sslmode": ""}) == read(tmp_path)


def test_what_is_given_is_taken(tmp_path: Path) -> None:
    cfg = read(
        tmp_path,
        parser={"batch_size": "1", "timezone": "Asia/Tokyo", "node": "Köln 1", "truncate_mib": "1000"},
        stats={"format": "CSV", "output": "rows.csv"},
        privacy={"mask_source": "24/48"},
        retention={"days": "36500", "prune_names": "yes"},
        migration={"drop_old": "yes"},
        logging={"level": "debug", "file": "own.log"},
    )
    assert (cfg.batch_size, cfg.zone.key, cfg.node, cfg.truncate_above) == (1, "Asia/Tokyo", "Köln 1", 1000 << 20)
    assert (cfg.stats_format, cfg.stats_path) == ("csv", tmp_path / "rows.csv")
    assert cfg.mask_source == (24, 48)
    assert (cfg.keep_days, cfg.prune_names) == (36_500, True)
    assert cfg.drop_old is True
    assert (cfg.log_level, cfg.own_log_path) == ("DEBUG", tmp_path / "own.log")


@pytest.mark.parametrize("bits", [(0, 0), (32, 64), (24, 128), (32, 128)])
def test_a_mask_keeps_any_number_of_bits(tmp_path: Path, bits: tuple[int, int]) -> None:
    assert read(tmp_path, privacy={"mask_source": "{}/{}".format(*bits)}).mask_source == bits


@pytest.mark.parametrize("bits", ["33/64", "24/129", "-1/48", "24"])
def test_a_mask_keeps_no_more_bits_than_there_are(tmp_path: Path, bits: str) -> None:
    (complaint,) = complaints_of(tmp_path, privacy={"mask_source": bits})
    assert "[privacy] mask_source: expected none, or prefix lengths for IPv4 and IPv6, 0/0 to 32/128" in complaint


def test_the_default_config_is_config_ini_in_the_current_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    written(tmp_path, text_of(stats={"format": "json"}))
    monkeypatch.chdir(tmp_path)
    assert parse_logs.main([]) == 0
    assert capsys.readouterr().out.startswith('{"run_started_at"')


@pytest.mark.parametrize(
    "password",
    ["100%", "%(user)s", "%%", "a#b", "#a", "a ; b", ";", "a=b", "=", "a:b", ":", "'quoted'", '"', "[x]", "a  b", "ü€"],
)
def test_every_character_of_a_password_is_a_plain_one(tmp_path: Path, password: str) -> None:
    assert read(tmp_path, postgresql={"password": password}).connection["password"] == password


def test_every_keyword_of_libpq_is_passed_on(tmp_path: Path) -> None:
    given = {**dict.fromkeys(config.libpq_keywords(), "x"), "port": "5433"}
    assert {"sslmode", "service", "passfile", "application_name", "connect_timeout"} <= given.keys()
    assert read(tmp_path, postgresql=given).connection == given


@pytest.mark.parametrize("missing", ["host", "dbname", "user"])
def test_a_database_to_connect_to_is_required(tmp_path: Path, missing: str) -> None:
    (complaint,) = complaints_of(tmp_path, postgresql={missing: None})
    assert complaint.startswith(f"[postgresql] {missing}: expected ")
    assert complaint.endswith(", found none")


def test_an_address_will_do_for_a_host(tmp_path: Path) -> None:
    given = {"host": None, "hostaddr": "127.0.0.1"}
    assert read(tmp_path, postgresql=given).connection["hostaddr"] == "127.0.0.1"


@pytest.mark.parametrize("key", ["logfile", "offline_file"])
@pytest.mark.parametrize("value", [None, "", "   "])
def test_the_log_and_the_offline_file_are_required(tmp_path: Path, key: str, value: str | None) -> None:
    assert complaints_of(tmp_path, parser={key: value}) == [f"[parser] {key}: expected the path of a file, found none"]


def test_relative_paths_start_at_the_folder_of_the_config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also when the config itself was named by a relative path, and cron's folder is another."""
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "etc").mkdir()
    written(
        tmp_path / "etc",
        text_of(
            parser={"logfile": "../access.log", "offline_file": "b.jsonl"},
            stats={"output": "sub/s.csv"},
            logging={"file": "/var/log/own.log"},
        ),
    )
    monkeypatch.chdir(tmp_path / "elsewhere")
    cfg = config.read(Path("../etc/config.ini"))
    assert (cfg.log_path, cfg.buffer_path) == (tmp_path / "access.log", tmp_path / "etc/b.jsonl")
    assert (cfg.stats_path, cfg.own_log_path) == (tmp_path / "etc/sub/s.csv", Path("/var/log/own.log"))


def test_a_tilde_is_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert read(tmp_path, parser={"logfile": "~/access.log"}).log_path == tmp_path / "home/access.log"


def test_a_home_folder_of_nobody_is_a_complaint(tmp_path: Path) -> None:
    (complaint,) = complaints_of(tmp_path, parser={"logfile": "~nobody-of-this-name/access.log"})
    assert complaint.startswith("[parser] logfile: expected ")
    assert "~nobody-of-this-name" in complaint


@pytest.mark.parametrize("variable", ["Asia/Tokyo", ":Asia/Tokyo"])
def test_the_zone_is_that_of_the_variable_tz(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    monkeypatch.setenv("TZ", variable)
    assert read(tmp_path).zone.key == "Asia/Tokyo"
    assert read(tmp_path, parser={"timezone": "Europe/Berlin"}).zone.key == "Europe/Berlin"


def test_without_tz_the_zone_is_the_systems_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    zone = tmp_path / "share/zoneinfo/Asia/Tokyo"
    zone.parent.mkdir(parents=True)
    zone.touch()
    (tmp_path / "localtime").symlink_to(zone)
    monkeypatch.setattr(time_zone, "SYSTEM_ZONE", tmp_path / "localtime")
    for variable in (None, ""):
        monkeypatch.delenv("TZ") if variable is None else monkeypatch.setenv("TZ", variable)
        assert read(tmp_path).zone.key == "Asia/Tokyo"


def test_the_systems_zone_may_be_a_copy_without_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tokyo = importlib.resources.files("tzdata").joinpath("zoneinfo", "Asia", "Tokyo").read_bytes()
    (tmp_path / "localtime").write_bytes(tokyo)
    monkeypatch.setattr(time_zone, "SYSTEM_ZONE", tmp_path / "localtime")
    monkeypatch.delenv("TZ")
    found = read(tmp_path)
    assert datetime(2025, 11, 17, tzinfo=found.zone).utcoffset() == timedelta(hours=9)
    with pytest.raises(ConfigError, match=r"\[parser\] timezone: expected the name of a zone, .*localtime has none"):
        config.refuse_nameless_zone(found)  # a page needs one: a browser knows zones by their names alone


def test_a_system_without_a_zone_is_in_utc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time_zone, "SYSTEM_ZONE", tmp_path / "nothing")
    monkeypatch.delenv("TZ")
    assert read(tmp_path).zone.key == "UTC"


@pytest.mark.parametrize("name", ["Mars/Olympus", "CET-1CEST", "Europe", "/etc/passwd", "../x", "europe/berlin\tx"])
def test_an_unknown_zone_is_a_complaint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    expected = "[parser] timezone: expected an IANA zone name like Europe/Berlin, found "
    assert complaints_of(tmp_path, parser={"timezone": name}) == [expected + repr(name)]
    monkeypatch.setenv("TZ", name)
    assert complaints_of(tmp_path) == [expected + repr(name) + " (from the variable TZ)"]


def test_where_the_data_of_zones_is_missing_its_package_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def without_data(key: str) -> None:
        raise ZoneInfoNotFoundError(key)

    monkeypatch.setattr(time_zone, "ZoneInfo", without_data)
    (complaint,) = complaints_of(tmp_path, parser={"timezone": "Europe/Berlin"})
    assert "pip install tzdata" in complaint


NUMBERS = [
    ("parser", "batch_size", 1_000_000),
    ("parser", "truncate_mib", 1 << 30),
    ("parser", "stray_days", 36_500),
    ("postgresql", "port", 65535),
    ("postgresql", "answer_timeout", 86_400),
    ("retention", "days", 36_500),
]


NO_NUMBERS = ["0", "-1", "+1", "1.5", "many", "1_000", "1 000", "0x10", "1e3", "٣", "²", str(10**30), "1" + "0" * 5000,
              "0" * 19 + "1" + "0" * 30]  # fmt: skip


@pytest.mark.parametrize("text", NO_NUMBERS, ids=lambda text: ascii(text)[:40])
@pytest.mark.parametrize(("section", "key", "most"), NUMBERS)
def test_a_bad_number_is_a_complaint(tmp_path: Path, section: str, key: str, most: int, text: str) -> None:
    expected = f"[{section}] {key}: expected a whole number from 1 to {most}, found {text!r}"
    assert complaints_of(tmp_path, **{section: {key: text}}) == [expected]


@pytest.mark.parametrize(("section", "key", "most"), NUMBERS)
def test_the_limits_of_a_number_are_good(tmp_path: Path, section: str, key: str, most: int) -> None:
    for good in (1, most):
        read(tmp_path, **{section: {key: str(good)}})
    assert len(complaints_of(tmp_path, **{section: {key: str(most + 1)}})) == 1


def test_several_hosts_have_several_ports(tmp_path: Path) -> None:
    several = {"host": "a,b", "port": "5432,5433"}
    assert read(tmp_path, postgresql=several).connection["port"] == "5432,5433"
    assert len(complaints_of(tmp_path, postgresql={**several, "port": "5432,many"})) == 1


@pytest.mark.parametrize(
    ("section", "key", "found", "likely"),
    [
        ("stats", "format", "jsn", "json"),
        ("stats", "format", "xml", None),
        ("logging", "level", "WARN", "WARNING"),
        ("logging", "level", "42", None),
        ("retention", "prune_names", "perhaps", None),
        ("migration", "drop_old", "perhaps", None),
    ],
)
def test_a_choice_that_is_none_is_a_complaint(
    tmp_path: Path, section: str, key: str, found: str, likely: str | None
) -> None:
    (complaint,) = complaints_of(tmp_path, **{section: {key: found}})
    assert complaint.startswith(f"[{section}] {key}: expected ")
    assert f", found {found!r}" in complaint
    assert complaint.endswith(f" (did you mean {likely}?)") == (likely is not None)


@pytest.mark.parametrize(
    ("section", "key", "likely"),
    [
        ("postgresql", "pasword", "password"),
        ("postgresql", "databse", None),
        ("parser", "batchsize", "batch_size"),
        ("parser", "password", None),
        ("stats", "outputs", "output"),
        ("retention", "day", "days"),
        ("migration", "dropold", "drop_old"),
        ("logging", "filename", "file"),
    ],
)
def test_an_unknown_key_is_a_complaint_with_the_likely_spelling(
    tmp_path: Path, section: str, key: str, likely: str | None
) -> None:
    (complaint,) = complaints_of(tmp_path, **{section: {key: "x"}})
    assert re.match(rf"\[{section}\] {key}: expected .*, found an unknown key", complaint)
    if likely:
        assert complaint.endswith(f"(did you mean {likely}?)")


@pytest.mark.parametrize(
    ("section", "key", "home"),
    [("parser", "sslmode", "[postgresql]"), ("stats", "batch_size", "[parser]"), ("postgresql", "days", "[retention]")],
)
def test_a_key_in_the_wrong_section_is_a_complaint_with_the_right_one(
    tmp_path: Path, section: str, key: str, home: str
) -> None:
    (complaint,) = complaints_of(tmp_path, **{section: {key: "x"}})
    assert complaint.endswith(f"found an unknown key (it belongs in {home})")


@pytest.mark.parametrize(
    ("section", "likely"), [("stat", "stats"), ("Parser", "parser"), ("postgres", "postgresql"), ("xyz", None)]
)
def test_an_unknown_section_is_a_complaint_with_the_likely_spelling(
    tmp_path: Path, section: str, likely: str | None
) -> None:
    (complaint,) = complaints_of(tmp_path, **{section: {"x": "y"}})
    assert re.match(rf"\[{section}\]: expected one of the sections .*, found an unknown one", complaint)
    if likely:
        assert complaint.endswith(f"(did you mean {likely}?)")


@pytest.mark.parametrize("keys", ["", "node = n1\n"])
def test_a_section_default_is_as_unknown_as_any_other(tmp_path: Path, keys: str) -> None:
    """To configparser it is a special one, whose keys are in every section."""
    (complaint,) = complaints(written(tmp_path, text_of() + "[DEFAULT]\n" + keys))
    assert complaint.startswith("[DEFAULT]: expected one of the sections ")


def test_a_long_node_name_is_a_complaint(tmp_path: Path) -> None:
    assert read(tmp_path, parser={"node": "n" * 255}).node == "n" * 255
    (complaint,) = complaints_of(tmp_path, parser={"node": "n" * 256})
    assert complaint == "[parser] node: expected at most 255 characters, found 256"


EVERYTHING_WRONG = """
[postgresql]
host = 127.0.0.1
port = many
pasword = Zq7xK
[parser]
batch_size = 0
timezone = Mars/Olympus
truncate_mib = -1
offline_file =
[stat]
format = json
[stats]
format = xml
[migration]
drop_old = perhaps
[logging]
level = LOUD
"""


def test_every_complaint_is_reported_at_once_with_status_78_and_nothing_is_touched(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = written(tmp_path, EVERYTHING_WRONG)
    (tmp_path / "access.log").write_text(line(1))
    before = snapshot(tmp_path)
    assert parse_logs.main(["--config", str(path), "--logfile", str(tmp_path / "access.log")]) == 78
    told = capsys.readouterr()
    places = re.findall(rf"^{re.escape(str(path))}: (\[\w+\](?: \w+)?): expected .+, found .+$", told.err, re.MULTILINE)
    assert len(places) == len(told.err.splitlines())
    assert sorted(places) == [
        "[logging] level",
        "[migration] drop_old",
        "[parser] batch_size",
        "[parser] logfile",
        "[parser] offline_file",
        "[parser] timezone",
        "[parser] truncate_mib",
        "[postgresql] dbname",
        "[postgresql] pasword",
        "[postgresql] port",
        "[postgresql] user",
        "[stat]",
        "[stats] format",
    ]
    assert told.out == ""
    assert snapshot(tmp_path) == before


def snapshot(folder: Path) -> dict[str, tuple[int, int]]:
    return {str(path): (path.stat().st_size, path.stat().st_mtime_ns) for path in (folder, *folder.rglob("*"))}


def test_a_missing_config_is_a_complaint(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (complaint,) = complaints(tmp_path / "config.ini")
    assert complaint == f"expected a config file, found nothing; cp {EXAMPLE.resolve()} {tmp_path / 'config.ini'}"
    assert parse_logs.main(["--config", str(tmp_path / "config.ini")]) == 78
    assert "Traceback" not in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_config_that_cannot_be_read_is_a_complaint(tmp_path: Path) -> None:
    assert complaints(tmp_path) == [
        f"expected a file that can be read, found: Is a directory; name a file in it, which has: ls -la {tmp_path}"
    ]


def test_a_config_that_is_not_utf_8_is_a_complaint(tmp_path: Path) -> None:
    text = text_of(postgresql={"password": "pässwort"})
    (complaint,) = complaints(written(tmp_path, text.encode("latin-1")))
    assert complaint.startswith(f"expected UTF-8, found other bytes at offset {text.index('ä')}; to convert it: cp -p ")


def test_an_empty_config_lacks_what_is_required(tmp_path: Path) -> None:
    said = complaints(written(tmp_path, ""))
    assert [complaint.partition(":")[0] for complaint in said] == [
        "[postgresql] host",
        "[postgresql] dbname",
        "[postgresql] user",
        "[parser] logfile",
        "[parser] offline_file",
    ]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("password = x\n", "line 1: expected a [section] first, found something else"),
        ("[postgresql]\n\npassword x\n", "line 3: expected 'key = value', found something else"),
        ("[parser]\nx\n[stats]\ny\n", "line 2, 4: expected 'key = value', found something else"),
        ("[postgresql]\nhost = a\nhost = b\n", "line 3: [postgresql] host: expected once, found again"),
        ("[postgresql]\nHost = a\nhost = b\n", "line 3: [postgresql] host: expected once, found again"),
        ("[stats]\n[parser]\n[stats]\n", "line 3: [stats]: expected once, found again"),
        ("[stats]\na b = 1\na b = 2\n", "line 3: [stats] a key that is not one word: expected once, found again"),
    ],
)
def test_a_mistake_in_the_form_is_reported_with_its_line(tmp_path: Path, text: str, said: str) -> None:
    assert complaints(written(tmp_path, text)) == [said]


printable = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\r\n"), max_size=20)


assignments = st.tuples(
    st.sampled_from([*(key for keys in config.KEYS.values() for key in keys), "host", "port", "dbname", "user", "x"]),
    printable | st.integers().map(str),
)


section_texts = st.tuples(st.sampled_from([*SECTIONS, "DEFAULT", "x"]), st.lists(assignments, max_size=5)).map(
    lambda section: f"[{section[0]}]\n" + "".join(f"{key} = {value}\n" for key, value in section[1])
)


@given(st.binary() | st.lists(section_texts | printable).map(lambda parts: "\n".join(parts).encode()))
@example(text_of(parser={"timezone": "\0"}).encode())
@example(text_of(parser={"logfile": "~no-such-user/x"}).encode())
@settings(deadline=None)
def test_no_file_makes_it_raise_anything_but_complaints(content: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder, contextlib.suppress(ConfigError):
        assert isinstance(config.read(written(Path(folder), content)), Config)


NOTHING_NEW = "INFO    "  # the line about an empty log is an INFO, and needs no database


@pytest.mark.parametrize(
    ("terminal", "level", "arguments", "says_info"),
    [
        (False, "", (), False),
        (True, "", (), True),
        (False, "INFO", (), True),
        (True, "WARNING", (), False),
        (False, "", ("-v",), True),
        (False, "ERROR", ("-v",), True),
        (True, "DEBUG", ("-q",), False),
    ],
)
def test_the_level_is_info_on_a_terminal_and_warning_otherwise(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    terminal: bool,
    level: str,
    arguments: tuple[str, ...],
    says_info: bool,
) -> None:
    monkeypatch.setattr(cli, "on_a_terminal", lambda: terminal)
    path = written(tmp_path, text_of(logging={"level": level, "file": "own.log"}))
    assert parse_logs.main(["--config", str(path), *arguments]) == 0
    told = capsys.readouterr().err
    assert (NOTHING_NEW in told) == says_info
    assert (tmp_path / "own.log").read_text() == told


def test_without_a_file_the_log_goes_to_stderr_only(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = written(tmp_path, text_of())
    (tmp_path / "access.log").touch()
    assert parse_logs.main(["--config", str(path), "-v"]) == 0
    assert NOTHING_NEW in capsys.readouterr().err
    made = {entry.name for entry in tmp_path.iterdir()}
    assert made == {"config.ini", "access.log", "access.log.lock", "buffer.jsonl.lock"}


def test_a_log_file_that_cannot_be_written_is_a_complaint(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = written(tmp_path, text_of(logging={"file": "."}))
    assert parse_logs.main(["--config", str(path)]) == 78
    assert f"{path}: [logging] file: expected a file that can be written, found: " in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == [path]


MARKER = "zq7xk"  # at both ends of every secret here, to find also a part of it, in whatever case


@pytest.mark.parametrize(("mode", "warned"), [(0o600, False), (0o644, True), (0o604, True), (0o400, False)])
def test_a_password_that_others_may_read_is_a_warning(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], mode: int, warned: bool
) -> None:
    path = written(tmp_path, text_of(postgresql={"password": "Zq7xK"}))
    path.chmod(mode)
    (tmp_path / "access.log").touch()
    assert parse_logs.main(["--config", str(path)]) == 0
    told = capsys.readouterr().err
    assert ("WARNING" in told and f"chmod 600 {path}" in told) == warned
    assert bool(told) == warned


@pytest.mark.parametrize("password", [None, ""])
def test_a_config_without_a_password_may_be_read_by_others(tmp_path: Path, password: str | None) -> None:
    path = written(tmp_path, text_of(postgresql={"password": password}))
    path.chmod(0o644)
    assert config.read(path).warnings == ()


def output_of(path: Path, *arguments: str) -> tuple[int, str]:
    """Exit status, and all that a run says and writes: stdout, stderr, its own log and the statistics."""
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        status = parse_logs.main(["--config", str(path), *arguments])
    written_files = [path.parent / name for name in ("own.log", "stats.jsonl")]
    return status, said.getvalue() + "".join(file.read_text() for file in written_files if file.exists())


BROKEN = {
    "before any section": "password = SECRET\n",
    "no equals sign": "[postgresql]\npassword SECRET\n",
    "a colon": "[postgresql]\npassword: SECRET\n",
    "a colon, and an equals sign in it": "[postgresql]\npassword: SECRET=x\n",
    "a colon and an equals sign, twice": "[postgresql]\npassword: SECRET=x\npassword: SECRET=x\n",
    "twice": "[postgresql]\npassword = SECRET\npassword = SECRET\n",
    "a section twice": "[postgresql]\npassword = SECRET\n[postgresql]\npassword = SECRET\n",
    "a section without its bracket": "[postgresql\npassword = SECRET\n",
    "a misspelt key": "[postgresql]\npasword = SECRET\n",
    "a misspelt section": "[postgres]\npassword = SECRET\n",
    "in another section": "[parser]\npassword = SECRET\n",
    "in the section DEFAULT": "[DEFAULT]\npassword = SECRET\n",
    "indented under a bad port": "[postgresql]\nport = 5432\n  password = SECRET\n",
    "indented under a bad number": "[parser]\nbatch_size = 1\n  password = SECRET\n",
    "beside bad values": EVERYTHING_WRONG.replace("pasword = Zq7xK", "password = SECRET"),
    "bytes that are not UTF-8": b"[postgresql]\npassword = SECRET\xff\n",
    "as a section": "[SECRET]\n[postgresql]\npassword = SECRET\n",
    "a URI as a section": "[postgresql://u:SECRET@h/d]\n",
    "as a key": "[postgresql]\nSECRET = 1\npassword = SECRET\n",
    "as a port": "[postgresql]\nport = SECRET\npassword = SECRET\n",
    "as a number": "[postgresql]\nanswer_timeout = SECRET\npassword = SECRET\n",
    "as sslmode": "[postgresql]\nsslmode = SECRET\npassword = SECRET\n",
    "as the log": "[postgresql]\npassword = SECRET\n[parser]\nlogfile = SECRET\noffline_file = SECRET\n",
    "as the node": "[postgresql]\npassword = SECRET\n[parser]\nnode = SECRET\n",
    "as everything": "[postgresql]\npassword = SECRET\n"
    "[parser]\nbatch_size = SECRET\ntimezone = SECRET\n[stats]\nformat = SECRET\nprometheus = SECRET\n"
    "[privacy]\nmask_source = SECRET\n[retention]\nprune_names = SECRET\n[logging]\nlevel = SECRET\n",
    "a URI as a number": "[parser]\nbatch_size = postgresql://u:SECRET@h/d\n",
    "a URI as the log": "[parser]\nlogfile = postgresql://u:SECRET@h/d\n",
    "required keys missing": "[postgresql]\npassword = SECRET\n",
}


secrets = st.text(st.characters(exclude_categories=("C", "Z")), max_size=10).map(lambda text: f"Zq7xK{text}Zq7xK")


@pytest.mark.parametrize("text", BROKEN.values(), ids=BROKEN.keys())
@given(secret=secrets)
@example(secret="Zq7xK%(user)s=:#[x]{}<red>{secret}%s\\Zq7xK")  # noqa: S106  # what formats and markup might eat
@example(secret='Zq7xK""Zq7xK')  # noqa: S106
@settings(deadline=None, max_examples=20)
def test_no_complaint_has_the_password(text: str | bytes, secret: str) -> None:
    content = (text if isinstance(text, bytes) else text.encode()).replace(b"SECRET", secret.encode())
    with tempfile.TemporaryDirectory() as folder:
        status, said = output_of(written(Path(folder), content), "-v")
    assert status == 78
    assert "expected" in said
    assert MARKER not in said.casefold()


def test_a_config_does_not_show_its_password(tmp_path: Path) -> None:
    assert MARKER not in repr(read(tmp_path, postgresql={"password": "Zq7xK"})).casefold()


def test_one_file_for_two_things_is_refused(tmp_path: Path) -> None:
    """The statistics row would be written into xray's log, and the log would be taken for the buffer."""
    (tmp_path / "link.log").symlink_to("access.log")
    config_path = tmp_path / "config.ini"
    config_path.write_text(
        "[postgresql]\nservice = x\n[parser]\nlogfile = access.log\noffline_file = link.log\n"
        "[stats]\nformat = json\noutput = access.log\n[logging]\nfile = own.log\n"
    )
    with pytest.raises(config.ConfigError) as refused:
        config.read(config_path)
    assert [complaint.partition(": ")[2] for complaint in refused.value.complaints] == [
        f"[parser] offline_file: expected another file than [parser] logfile, found '{tmp_path}/link.log'",
        f"[stats] output: expected another file than [parser] logfile, found '{tmp_path}/access.log'",
    ]


@pytest.mark.parametrize(
    ("section", "key"), [("parser", "logfile"), ("parser", "offline_file"), ("stats", "output"), ("logging", "file")]
)
def test_the_config_is_no_file_for_anything_else(tmp_path: Path, section: str, key: str) -> None:
    """A row of statistics was appended to it, and no later run could read it."""
    (tmp_path / "link.ini").symlink_to("config.ini")
    for name in ("config.ini", "link.ini"):
        found = f"[{section}] {key}: expected another file than the config itself, found '{tmp_path}/{name}'"
        assert complaints_of(tmp_path, **{section: {key: name}}) == [found]


@pytest.mark.parametrize(("own", "what"), [
    ("config.ini", "the config itself"), (".pgpass", "libpq's password file"), ("a.key", "the key for TLS"),
    ("buffer.jsonl", "[parser] offline_file"), ("buffer.jsonl.state", "one beside [parser] offline_file"),
    ("access.log.lock", "the lock of [parser] logfile"),
])  # fmt: skip
def test_a_hard_link_is_the_file_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, own: str, what: str) -> None:
    """The row of a run was appended to the config, or to the passwords, under another name."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("PGPASSFILE")
    (tmp_path / own).touch()
    (tmp_path / "rows").hardlink_to(tmp_path / own)
    found = complaints_of(tmp_path, postgresql={"sslkey": f"{tmp_path}/a.key"}, stats={"output": "rows"})
    assert found == [f"[stats] output: expected another file than {what}, found '{tmp_path}/rows'"]


@pytest.mark.parametrize("suffix", ["state", "torn", "damaged"])
def test_what_is_beside_the_buffer_is_no_file_for_anything_else(tmp_path: Path, suffix: str) -> None:
    """A row in the state file made the next run forget what it had confirmed."""
    (tmp_path / "link").symlink_to("buffer.jsonl")
    found = complaints_of(tmp_path, parser={"offline_file": "link"}, stats={"output": f"buffer.jsonl.{suffix}"})
    wanted = f"another file than one beside [parser] offline_file, found '{tmp_path}/buffer.jsonl.{suffix}'"
    assert found == [f"[stats] output: expected {wanted}"]


def test_our_own_lock_is_no_file_for_anything_else(tmp_path: Path) -> None:
    """A run writes its name into a lock, over what is there; and a lock that is renamed or replaced locks nothing."""
    (tmp_path / "there").mkdir()
    (tmp_path / "access.log").symlink_to("there/real.log")
    found = complaints_of(
        tmp_path,
        parser={"logfile": "access.log", "offline_file": "there/real.log.lock"},
        stats={"output": "there/real.log.lock.lock"},
    )
    expected, lock = "expected another file than the lock of", f"{tmp_path}/there/real.log.lock"
    assert found == [
        f"[parser] offline_file: {expected} [parser] logfile, found '{lock}'",
        f"[stats] output: {expected} [parser] offline_file, found '{lock}.lock'",
    ]


@pytest.mark.parametrize("root", ["/", "//", "/usr/.."])
def test_the_root_folder_is_no_file(tmp_path: Path, root: str) -> None:
    """Nothing can be beside it: a run ended with an error of Python."""
    keys = {"parser": {"logfile": root, "offline_file": root}, "stats": {"output": root}, "logging": {"file": root}}
    assert complaints_of(tmp_path, **keys) == [
        f"[{section}] {key}: expected the path of a file, found '{root}'" for section in keys for key in keys[section]
    ]


@pytest.mark.parametrize(
    ("key", "value"),
    [("host", "postgresql://u:Zq7xK@h/db"), ("dbname", "postgres://u:Zq7xK@h/db"), ("dbname", "x password=Zq7xK")],
)
def test_a_connection_string_in_the_place_of_a_name_is_refused_and_not_shown(
    tmp_path: Path, key: str, value: str
) -> None:
    """libpq would print it whole, with its password, in every message."""
    keys = {"host": "h", "dbname": "d", "user": "u", key: value}
    text = "".join(f"{name} = {setting}\n" for name, setting in keys.items())
    (tmp_path / "config.ini").write_text(f"[postgresql]\n{text}[parser]\nlogfile = a\noffline_file = b\n")
    with pytest.raises(config.ConfigError, match="expected a name, found a connection string") as refused:
        config.read(tmp_path / "config.ini")
    assert "Zq7xK" not in str(refused.value)


@pytest.mark.parametrize("key", ["port", "connect_timeout", "application_name", "sslmode", "logfile", "level"])
@pytest.mark.parametrize("value", [
    "xray:Zq7xK@db", "//xray:Zq7xK@db", "postgresql://xray:Zq7xK and more@db", "password: Zq7xK", "passwd=Zq7xK",
    "pwd = Zq7xK", "postgresql://db/x?sslpassword=Zq7xK", "PGPASSWORD=Zq7xK", f"postgresql://xray:{'Zq7xK' * 100}@db",
])  # fmt: skip
def test_a_password_in_the_place_of_another_value_is_not_shown(tmp_path: Path, key: str, value: str) -> None:
    sections: dict[str, dict[str, str]] = {
        "postgresql": {"host": "h", "dbname": "d", "user": "u"}, "parser": {"logfile": "a", "offline_file": "b"},
        "logging": {"file": "own.log"},
    }  # fmt: skip
    sections[{"logfile": "parser", "level": "logging"}.get(key, "postgresql")][key] = value
    text = "".join(
        f"[{name}]\n" + "".join(f"{one} = {of}\n" for one, of in keys.items()) for name, keys in sections.items()
    )
    (tmp_path / "config.ini").write_text(text)
    with pytest.raises(config.ConfigError) as refused:
        config.read(tmp_path / "config.ini")
    assert "Zq7xK" not in str(refused.value)


def test_a_section_that_is_a_password_twice_is_not_shown(tmp_path: Path) -> None:
    (tmp_path / "config.ini").write_text("[postgresql]\npassword = Zq7xK\n[Zq7xK]\n[Zq7xK]\n")
    with pytest.raises(config.ConfigError, match=r"line 4: \[…\]: expected once, found again") as refused:
        config.read(tmp_path / "config.ini")
    assert "Zq7xK" not in str(refused.value)
