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
         "xraylog/database/lost_names.py", "xraylog/database/column_types.py", "xraylog/database/lost_columns.py",
         "xraylog/database/child_tables.py",
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
    for scope in _scopes(ast.parse(path.read_text())):
        variables = [(node.targets[0], node.value) for node in scope if isinstance(node, ast.Assign)]
        parts = [*_parts(scope, name)]
        whole = {part.id for part in parts if isinstance(part, ast.Name)}  # variables that hold a whole message
        for target, value in variables:
            if isinstance(target, ast.Name) and target.id in VARIABLES | whole:
                parts.append(value)
        yield from filter(None, map(_text, parts))


def _scopes(tree: ast.AST) -> list[list[ast.AST]]:
    """Return the nodes of each outer function, and those that are in none."""
    outside: list[ast.AST] = []
    scopes = [outside]
    waiting = [tree]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.FunctionDef):
            scopes.append(list(ast.walk(node)))
        else:
            outside.append(node)
            waiting += ast.iter_child_nodes(node)
    return scopes


def _parts(scope: list[ast.AST], name: str) -> Iterator[ast.expr]:
    """Yield the expressions in a scope of the file `name` that are messages, or parts of one."""
    for node in scope:
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            if called in LOGGED or called.rpartition(".")[2] in RAISED:
                for part in node.args:
                    yield from part.elts if isinstance(part, ast.List) else [part]
        elif isinstance(node, (ast.Return, ast.Yield)) and node.value is not None:
            if isinstance(node.value, ast.Tuple) and len(node.value.elts) == 3 and name.startswith(FINDINGS):
                yield from _to_do(node.value.elts)
            elif name in TEXTS:
                yield node.value


def _to_do(finding: list[ast.expr]) -> list[ast.expr]:
    """Return the two texts of a finding of --check, if it may ask for something."""
    asks_nothing = isinstance(finding[2], ast.Constant) and finding[2].value == ""
    return [] if asks_nothing else finding[1:]


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
