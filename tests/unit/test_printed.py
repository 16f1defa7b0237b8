"""Nothing that we print acts on a terminal, or shows another order than the text has."""

from __future__ import annotations

import ast
import io
import unicodedata
from pathlib import Path

import pytest
from helpers.site import ROOT
from hypothesis import given
from hypothesis import strategies as st
from loguru import logger

from xraylog import printed
from xraylog.printed import printable, say, without_passwords
from xraylog.telemetry import run_log


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("access.log, alice, друг, کاربر\u200cیک, 🙂 \\n", "access.log, alice, друг, کاربر\u200cیک, 🙂 \\n"),
        ("\x1b]0;title\x07\x1b[2J", r"\x1b]0;title\x07\x1b[2J"),
        ("a\r\nb\tc\0\x7f\x9b1m", r"a\x0d\x0ab\x09c\x00\x7f\x9b1m"),
        ("\u202egol.ssecca\u202c \u2066x\u2069 \u200f\u061c", r"\u202egol.ssecca\u202c \u2066x\u2069 \u200f\u061c"),
        ("one\u2028two", r"one\u2028two"),
    ],
)
def test_what_acts_is_an_escape(text: str, expected: str) -> None:
    assert printable(text) == expected


@given(st.text())
def test_no_text_acts(text: str) -> None:
    shown = printable(text)
    assert not [one for one in shown if unicodedata.category(one) in ("Cc", "Zl", "Zp")]
    assert not [one for one in shown if unicodedata.bidirectional(one) in ("LRE", "RLE", "LRO", "RLO", "PDF", "LRI")]
    assert printable(shown) == shown


def test_each_text_has_its_line(capsys: pytest.CaptureFixture[str]) -> None:
    say("one\ntwo", 3)
    say("SELECT 1\n\x1b;", keep="\n")
    assert capsys.readouterr().out == "one\\x0atwo\n3\nSELECT 1\n\\x1b;\n"


def test_a_message_is_one_line_and_a_traceback_has_no_escape_sequence(capsys: pytest.CaptureFixture[str]) -> None:
    run_log.to_stderr("INFO")
    logger.info("{}", "of a lock:\n\x1b[2J\u202e")
    logger.opt(exception=ValueError("\x1b[2J")).error("unexpected")
    first, second, *traceback = capsys.readouterr().err.splitlines()
    logger.remove()
    assert first.endswith(r"INFO    of a lock:\x0a\x1b[2J\u202e")
    assert second.endswith("ERROR   unexpected")
    assert traceback[-1] == r"ValueError: \x1b[2J"


SOURCES = [*ROOT.glob("*.py"), *(ROOT / "xraylog").rglob("*.py")]
# Numbers, and names of the columns, for a program.
PRINTS = {"xraylog/printed.py", "xraylog/telemetry/stats.py"}


def test_there_is_no_other_way_to_print() -> None:
    for path in SOURCES:
        name = str(path.relative_to(ROOT))
        tree = ast.parse(path.read_text())
        calls = [ast.unparse(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)]
        assert name in PRINTS or "print" not in calls, name
        assert name == "xraylog/telemetry/run_log.py" or "logger.add" not in calls, name
        assert not {"sys.stdout.write", "sys.stderr.write"} & set(calls), name


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('host "postgresql://xray:Zq7xK@h/db" is', 'host "postgresql://***@h/db" is'),
        ("postgres://xray:a@b:Zq7xK@h", "postgres://***@h"),
        ("host=h password=Zq7xK x", "host=h password=*** x"),
        ("password = 'a Zq7xK' x", "password = *** x"),
        ("https://example.com:443/a@b and http://h", "https://example.com:443/a@b and http://h"),
        ("it holds a password and others may read it", "it holds a password and others may read it"),
    ],
)
def test_a_connection_string_is_shown_without_its_password(text: str, expected: str) -> None:
    assert printable(text) == expected
    assert printable(expected) == expected


@pytest.mark.parametrize(
    ("keywords", "message", "expected"),
    [
        ({"password": "Zq7xK", "sslmode": "Zq7xK"}, 'invalid sslmode value: "Zq7xK"', 'invalid sslmode value: "***"'),
        ({"password": "Zq7xK"}, 'host "xZq7xKx" is', 'host "x***x" is'),
        ({"password": "a"}, 'a host "a" at all', '*** host "***" at all'),
        ({"password": "one,two", "host": "one,two"}, 'host "one", host "two"', 'host "***", host "***"'),
        ({"sslpassword": "Zq7xK"}, 'service "Zq7xK"', 'service "***"'),
        (
            {"host": "x://u:a b@h"},
            'host "x://u:a b@h"',
            'host "***"',
        ),  # no URI, but meant as one
        ({}, "said", "said"),
    ],
)
def test_libpqs_message_is_shown_without_the_password(keywords: dict[str, str], message: str, expected: str) -> None:
    assert without_passwords(message, keywords) == expected


def test_a_stream_without_a_descriptor_leads_to_no_file(tmp_path: Path) -> None:
    assert printed._place(io.StringIO()) is None
    with (tmp_path / "file").open("w") as stream:
        assert printed._place(stream) == str(tmp_path / "file")
