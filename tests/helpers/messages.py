"""Find every message that asks the operator to do something, by parsing the source, so that none is forgotten."""

from __future__ import annotations

import ast
import functools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from helpers.site import ROOT

# Exceptions whose text reaches the operator. What argparse refuses is not here: it says what is expected.
RAISED = {"Unusable", "denied", "because", "Unsuitable", "Unavailable", "ReadOnly", "Damaged", "Foreign", "ConfigError",
          "NotWritten", "Plain", "Migrating", "Busy", "UnknownNode", "PositionConflict", "ChecksumMismatch",
          "Unsafe", "Refusal", "Changed", "Unparsed"}  # fmt: skip
LOGGED = {"logger.warning", "logger.error", "complain", "self.complain", "fail", "self.complaints.append"}
# Modules whose functions return, or yield, the text itself.
TEXTS = {"xraylog/hints.py", "xraylog/file_advice.py", "xraylog/database/schema.py", "xraylog/database/table_faults.py",
         "xraylog/database/sequences.py", "xraylog/database/dead_sessions.py", "xraylog/database/optional.py",
         "xraylog/required.py", "xraylog/password_file.py", "xraylog/database/namesakes.py",
         "xraylog/database/lost_names.py", "xraylog/database/digest_columns.py",
         "xraylog/commands/rights.py", "xraylog/ingest/new_users.py", "xraylog/database/reject_reason.py",
         "xraylog/migration/blockers.py"}  # fmt: skip
VARIABLES = {"said", "what", "found", "change", "kept", "who", "to_do"}  # in which a part of a message waits
FINDINGS = "xraylog/commands/"


class Message(NamedTuple):
    """A message in the source: its file, and its text with {} in place of values."""

    path: str
    text: str


@functools.cache
def scan() -> set[Message]:
    """Return all messages that contain words."""
    paths = [*sorted(ROOT.glob("*.py")), *sorted((ROOT / "xraylog").rglob("*.py"))]
    return {
        Message(str(path.relative_to(ROOT)), text)
        for path in paths
        for text in _texts(path)
        if len(re.findall(r"[a-z]{2,}", text)) >= 2
    }


def _texts(path: Path) -> Iterator[str]:
    name = str(path.relative_to(ROOT))
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            if called in LOGGED or called.rpartition(".")[2] in RAISED:
                yield from filter(None, map(_text, node.args))
        elif isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) in VARIABLES:
            yield from filter(None, [_text(node.value)])
        elif isinstance(node, (ast.Return, ast.Yield)) and node.value is not None:
            if isinstance(node.value, ast.Tuple) and len(node.value.elts) == 3 and name.startswith(FINDINGS):
                yield from _to_do(node.value.elts)
            elif name in TEXTS:
                yield from filter(None, [_text(node.value)])


def _to_do(finding: list[ast.expr]) -> Iterator[str]:
    """Yield the two texts of a finding of --check, if it may ask for something."""
    if not (isinstance(finding[2], ast.Constant) and finding[2].value == ""):
        yield from filter(None, map(_text, finding[1:]))


def _text(node: ast.expr) -> str:
    """Return a text with {} in place of values; "" for any other expression."""
    if isinstance(node, ast.Constant):
        return node.value if isinstance(node.value, str) else ""
    if isinstance(node, ast.JoinedStr):
        return "".join(part.value if isinstance(part, ast.Constant) else "{}" for part in node.values)
    if isinstance(node, ast.BinOp):
        return (_text(node.left) or "{}") + (_text(node.right) or "{}")
    if isinstance(node, ast.IfExp):
        return _text(node.body) or _text(node.orelse)
    if (
        isinstance(node, ast.Call)
        and node.args
        and ast.unparse(node.func).rpartition(".")[2] in ("joined", "do", "append")
    ):
        return "; ".join(_text(part) or "{}" for part in node.args)
    return ""
