"""Format an answer as a table for people, as CSV or as JSON. Names in it may be bytes that a client chose."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, tzinfo
from typing import Any

from xraylog.printed import escaped, printable

# A spreadsheet takes a cell that begins so for a formula (OWASP, "CSV Injection").
FORMULA = tuple("=+-@\t\r\uff1d\uff0b\uff0d\uff20")  # the last four: = + - @ in full width, as in Japanese


@dataclass(frozen=True, slots=True)
class Part:
    """One table of an answer."""

    name: str
    columns: tuple[str, ...]
    rows: Sequence[tuple[Any, ...]]
    is_cut: bool = False  # whether the limit left out rows


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer to a question: its window, its tables, and notes about what it leaves out."""

    question: str
    since: datetime
    until: datetime | None  # None: up to now
    zone: tzinfo
    parts: Sequence[Part]
    notes: Sequence[str] = field(default=())
    is_cut: bool = False  # whether rows are missing for another reason than --limit; a note says why


def as_table(answer: Answer) -> str:
    """Return aligned columns, with times in the answer's zone, to the second."""
    blocks = [f"{window(answer)}\n"]
    for part in answer.parts:
        title = f"{part.name}\n" if len(answer.parts) > 1 else ""
        blocks.append(f"{title}{_aligned(part, answer.zone)}{_count(part)}\n")
    blocks += [f"{printable(note)}\n" for note in answer.notes]
    return "\n".join(blocks)


def as_csv(answer: Answer) -> str:
    """Return one table with a header. `answer` must have exactly one part."""
    (part,) = answer.parts
    rows = [part.columns, *([_cell(value, answer.zone) for value in row] for row in part.rows)]
    return "".join(f"{','.join(map(_quoted, row))}\n" for row in rows)


def as_json(answer: Answer) -> str:
    """Return one JSON object, in which a part is an array of objects. ASCII, so that it cannot control a terminal."""
    found: Mapping[str, Any] = {
        "question": answer.question,
        "since": _plain(answer.since, answer.zone),
        "until": _plain(answer.until, answer.zone),
        "notes": list(answer.notes),
        **{
            part.name: [
                {column: _plain(value, answer.zone) for column, value in zip(part.columns, row, strict=True)}
                for row in part.rows
            ]
            for part in answer.parts
        },
        "is_cut": answer.is_cut or any(part.is_cut for part in answer.parts),
    }
    return json.dumps(found, indent=1).replace("\x7f", "\\u007f") + "\n"


def notes_for_csv(answer: Answer) -> list[str]:
    """Return what a CSV does not contain: the window, which tables are cut off, and the notes."""
    return [window(answer), *(_count(part) for part in answer.parts if part.is_cut), *answer.notes]


def window(answer: Answer) -> str:
    """Return the window in words."""
    since = _shown(answer.since, answer.zone)
    if answer.until is None:
        return f"since {since} ({answer.zone})"
    return f"{since} to {_shown(answer.until, answer.zone)} ({answer.zone})"


def _count(part: Part) -> str:
    count = f"{len(part.rows)} row{'' if len(part.rows) == 1 else 's'}"
    return f"{count}, and there are more: --limit" if part.is_cut else count


def _aligned(part: Part, zone: tzinfo) -> str:
    if not part.rows:
        return ""
    cells = [[_shown(value, zone) for value in row] for row in part.rows]
    widths = [max(map(_width, column)) for column in zip(part.columns, *cells, strict=True)]
    is_number = [all(isinstance(value, int | None) for value in column) for column in zip(*part.rows, strict=True)]
    lines = [_line(part.columns, widths, is_number), "  ".join("-" * width for width in widths)]
    lines += [_line(row, widths, is_number) for row in cells]
    return "".join(f"{line.rstrip()}\n" for line in lines)


def _line(cells: Iterable[str], widths: Iterable[int], is_number: Iterable[bool]) -> str:
    padded = []
    for cell, width, right in zip(cells, widths, is_number, strict=True):
        blanks = " " * (width - _width(cell))
        padded.append(blanks + cell if right else cell + blanks)
    return "  ".join(padded)


def _width(text: str) -> int:
    """Return how many columns of a terminal a text takes."""
    return sum(
        0 if unicodedata.combining(sign) else 2 if unicodedata.east_asian_width(sign) in "WF" else 1 for sign in text
    )


def _shown(value: Any, zone: tzinfo) -> str:
    if isinstance(value, datetime):
        return value.astimezone(zone).isoformat(" ", "seconds")
    return escaped(_text(value, zone))


def _cell(value: Any, zone: tzinfo) -> str:
    text = escaped(_text(value, zone))
    return f"'{text}" if isinstance(value, str | list) and text.startswith(FORMULA) else text


def _quoted(cell: str) -> str:
    """Return a cell of CSV. One with a semicolon is quoted, too: where it parts cells, what follows is no formula."""
    return '"' + cell.replace('"', '""') + '"' if any(sign in cell for sign in ',;"') else cell


def _text(value: Any, zone: tzinfo) -> str:
    if value is None:
        return ""
    if isinstance(value, list):
        return ", ".join(_text(item, zone) for item in value)
    return value.astimezone(zone).isoformat(" ") if isinstance(value, datetime) else str(value)


def _plain(value: Any, zone: tzinfo) -> Any:
    """Return a value as a type that JSON has."""
    if isinstance(value, datetime):
        return value.astimezone(zone).isoformat()
    if isinstance(value, list):
        return [_plain(item, zone) for item in value]
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)
