"""Read the SELECT of each function from answers.sql. It is sent by itself: a role that may only read has no functions.

In answers.sql a parameter has the name of its function, `users_of.since`; here it becomes a parameter of psycopg. Calls
of helpers, which return no table, are replaced by their expression, and calls of other functions by their SELECT. In
the database, the planner does the same.

If Citus distributes `logs`, some functions are read from answers_citus.sql instead.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from xraylog.database import citus
from xraylog.database.ddl import REJECT_REASON

FILE = Path(__file__).with_name("answers.sql")
FILE_FOR_CITUS = Path(__file__).with_name("answers_citus.sql")
FUNCTION = re.compile(
    r"^CREATE OR REPLACE FUNCTION (?P<name>\w+)\((?P<parameters>.*?)\)\n"
    r"RETURNS (?P<returns>.*?)\nLANGUAGE sql [A-Z ]+ AS \$\$\n(?P<body>.*?)\n\$\$;$",
    re.DOTALL | re.MULTILINE,
)
# A line with a parameter, its type and its default, or with a column of the answer.
PARAMETER = re.compile(r'^\s*"?(?P<name>\w+)"?\s+(?P<type>[a-z0-9]+(?:\[\])?)(?:\s+DEFAULT\b.*?)?,?$', re.MULTILINE)
ROWS = "FROM logs l"  # in each statement that reads `logs`
NARROWED_ROWS = "FROM (SELECT * FROM logs WHERE {}) l"
REASON = f"l.{REJECT_REASON}"
OF_NODE = "node_id = %(node_id)s"
OF_USERS = "user_id = ANY (%(user_ids)s::bigint[])"


@dataclass(frozen=True, slots=True)
class Statement:
    """The SELECT of one function of answers.sql."""

    name: str  # of the function
    parameters: Mapping[str, str]  # name and type
    columns: tuple[str, ...]
    text: str  # with %(name)s for each

    def narrowed(self, *conditions: str) -> str:
        """Return the text that reads only rows that meet these conditions: OF_NODE, OF_USERS."""
        if not conditions:
            return self.text
        return self.text.replace(ROWS, NARROWED_ROWS.format(" AND ".join(conditions)))

    def changed(self, change: Callable[[str], str]) -> Statement:
        """Return the same statement with another text."""
        return replace(self, text=change(self.text))


@functools.cache
def read(is_distributed: bool = False, has_reject_reason: bool = True) -> dict[str, Statement]:
    """Return the statements by the name of their function.

    `is_distributed`: in a form that Citus accepts. `has_reject_reason`: whether `logs` has that column.
    """
    found = list(FUNCTION.finditer(FILE.read_text(encoding="utf-8")))
    if is_distributed:
        found += FUNCTION.finditer(FILE_FOR_CITUS.read_text(encoding="utf-8"))
    helpers = {
        function["name"]: _helper(function)
        for function in reversed(found)  # callers before the helpers that they call
        if not function["returns"].startswith("TABLE")
    }
    statements: dict[str, Statement] = {}
    for function in found:
        if function["name"] not in helpers:
            called = functools.partial(_with_calls, called=list(statements.values()))
            statements[function["name"]] = _statement(function, helpers).changed(called)
    if is_distributed:
        statements = {name: statement.changed(citus.without_planner_help) for name, statement in statements.items()}
    if not has_reject_reason:
        statements = {name: statement.changed(_without_reason) for name, statement in statements.items()}
    return statements


def _without_reason(text: str) -> str:
    return text.replace(REASON, "NULL::text")


def _with_calls(text: str, called: Iterable[Statement]) -> str:
    """Replace each call of another function, with parameters of the same names, by its SELECT."""
    for statement in called:
        parameters = ", ".join(f"%({name})s::{kind}" for name, kind in statement.parameters.items())
        text = text.replace(f"FROM {statement.name}({parameters}) ", f"FROM (\n{statement.text}\n) ")
    return text


def _helper(function: re.Match[str]) -> tuple[list[str], str]:
    """Return the parameter names and the expression of a helper function."""
    names = [parameter.split()[0] for parameter in function["parameters"].split(",")]
    return names, function["body"].strip().removeprefix("SELECT ").replace("%", "%%")


def _statement(function: re.Match[str], helpers: Mapping[str, tuple[list[str], str]]) -> Statement:
    name = function["name"]
    types = {parameter["name"]: parameter["type"] for parameter in PARAMETER.finditer(function["parameters"])}
    columns = tuple(column["name"] for column in PARAMETER.finditer(function["returns"]))
    text = re.sub(r"--.*", "", function["body"]).replace("%", "%%")
    for helper, (parameters, expression) in helpers.items():
        text = _substituted(text, helper, parameters, expression)
    for parameter, kind in types.items():
        text = re.sub(rf"\b{name}\.{parameter}\b", f"%({parameter})s::{kind}", text)
    return Statement(name, types, columns, text)


def _substituted(text: str, helper: str, parameters: list[str], expression: str) -> str:
    """Replace each call of a helper by its expression, inner calls first."""
    while (at := text.rfind(f"{helper}(")) >= 0:
        arguments, end = _arguments(text, at + len(helper) + 1)
        value = _with_arguments(expression, dict(zip(parameters, arguments, strict=True)))
        text = f"{text[:at]}({value}){text[end + 1 :]}"
    return text


def _with_arguments(expression: str, values: Mapping[str, str]) -> str:
    """Return the expression with the arguments in place of its parameters."""
    return re.sub(rf"(?<![\w.])(?:{'|'.join(values)})(?!\w)", lambda name: f"({values[name[0]]})", expression)


def _arguments(text: str, begin: int) -> tuple[list[str], int]:
    """Return the arguments of a call, whose text begins at `begin`, and the index of the closing parenthesis."""
    depth, arguments = 1, [""]
    for place in range(begin, len(text)):
        depth += {"(": 1, ")": -1}.get(text[place], 0)
        if depth == 0:
            return [argument.strip() for argument in arguments], place
        if text[place] == "," and depth == 1:
            arguments.append("")
        else:
            arguments[-1] += text[place]
    raise ValueError(f"expected a closing bracket after {text[:begin][-40:]!r}, found none")
