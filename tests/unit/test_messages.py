"""No message without an advice that was followed: a new one fails here until its test is named."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers import messages
from helpers.advice import NOTHING, TESTED, beginnings
from helpers.messages import Message, scan
from helpers.site import ROOT


def complaint(message: Message) -> str:
    """Return what is wrong with the entry of a message; "" if nothing is."""
    found = [TESTED[message.path][words] for words in beginnings(message)]
    if len(found) != 1:
        return f"{message}: expected one entry in helpers/advice.py, found {len(found)}"
    file, _, name = found[0].partition("::")
    if found[0].startswith(NOTHING) or f"def {name}(" in (ROOT / "tests" / file).read_text():
        return ""
    return f"{message}: there is no test {found[0]}"


def test_each_message_has_a_test_that_does_what_it_says() -> None:
    assert list(filter(None, map(complaint, sorted(scan())))) == []


def test_each_entry_is_about_a_message() -> None:
    found = {(message.path, words) for message in scan() for words in beginnings(message)}
    assert [(path, words) for path, texts in TESTED.items() for words in texts if (path, words) not in found] == []


def test_a_new_message_is_noticed() -> None:
    assert complaint(Message("xraylog/cli.py", "something new is wrong; what to do: rm {}"))


def test_a_message_that_waits_in_a_variable_is_found_whatever_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "xraylog").mkdir()
    (tmp_path / "new.py").write_text(
        "def other():\n    anything = 'no message at all'\n\n\n"
        "def report(path):\n    anything = f'{path} is wrong'\n    logger.error('{}', anything)\n"
    )
    monkeypatch.setattr(messages, "ROOT", tmp_path)
    assert scan.__wrapped__() == {Message("new.py", "{} is wrong")}
