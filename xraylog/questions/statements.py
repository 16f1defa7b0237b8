"""The SELECT of each function of answers.sql, to be sent as it is: a role that may only read creates no functions.

A parameter is named with its function, `users_of.since`; here it becomes one of psycopg. The two helpers are
expressions, which the planner substitutes for their calls; here that happens to the text.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

FILE = Path(__file__).with_name("answers.sql")
FUNCTION = re.compile(
    r"^CREATE OR REPLACE FUNCTION (?P<name>\w+)\((?P<parameters>.*?)\)\n"
    r"RETURNS (?P<returns>.*?)\nLANGUAGE sql [A-Z ]+ AS \$\$\n(?P<body>.*?)\n\$\$;$",
    re.DOTALL | re.MULTILINE,
)
# One a line: a parameter with its type and default, or a column of the answer.
PARAMETER = re.compile(r'^\s*"?(?P<name>\w+)"?\s+(?P<type>[a-z0-9]+(?:\[\])?)(?:\s+DEFAULT\b.*?)?,?$', re.MULTILINE)
ROWS = "FROM logs l"  # how each statement begins to read
ROWS_OF_NODE = "FROM (SELECT * FROM logs WHERE node_id = %(node_id)s) l"


@dataclass(frozen=True, slots=True)
class Statement:
    """One SELECT."""

    name: str  # of the function
    parameters: Mapping[str, str]  # name and type
    columns: tuple[str, ...]
    text: str  # with %(name)s for each

    def of_node(self) -> str:
        """Return the text that reads the rows of one node, %(node_id)s."""
        return self.text.replace(ROWS, ROWS_OF_NODE)


@functools.cache
def read() -> dict[str, Statement]:
    """Return the statements of answers.sql by the name of their function."""
    found = list(FUNCTION.finditer(FILE.read_text(encoding="utf-8")))
    helpers = {
        function["name"]: (function["parameters"].split()[0], function["body"].strip().removeprefix("SELECT "))
        for function in found
        if not function["returns"].startswith("TABLE")
    }
    return {function["name"]: _statement(function, helpers) for function in found if function["name"] not in helpers}


def _statement(function: re.Match[str], helpers: Mapping[str, tuple[str, str]]) -> Statement:
    name = function["name"]
    types = {parameter["name"]: parameter["type"] for parameter in PARAMETER.finditer(function["parameters"])}
    columns = tuple(column["name"] for column in PARAMETER.finditer(function["returns"]))
    text = re.sub(r"--.*", "", function["body"]).replace("%", "%%")
    for helper, (parameter, expression) in helpers.items():
        text = _substituted(text, helper, parameter, expression.replace("%", "%%"))
    for parameter, kind in types.items():
        text = re.sub(rf"\b{name}\.{parameter}\b", f"%({parameter})s::{kind}", text)
    return Statement(name, types, columns, text)


def _substituted(text: str, helper: str, parameter: str, expression: str) -> str:
    """Return the text with each call of a helper as its expression, inner calls first."""
    while (at := text.rfind(f"{helper}(")) >= 0:
        begin = at + len(helper) + 1
        end = _closing(text, begin)
        argument = text[begin:end]
        value = re.sub(rf"(?<![\w.]){parameter}(?!\w)", f"({argument})".replace("\\", r"\\"), expression)
        text = f"{text[:at]}({value}){text[end + 1 :]}"
    return text


def _closing(text: str, begin: int) -> int:
    """Return where the bracket closes that was opened before `begin`."""
    depth = 1
    for place in range(begin, len(text)):
        depth += {"(": 1, ")": -1}.get(text[place], 0)
        if depth == 0:
            return place
    raise ValueError(f"expected a closing bracket after {text[:begin][-40:]!r}, found none")
