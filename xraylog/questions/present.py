"""Format an answer as a table for people, as CSV or as JSON. Names in it may be bytes that a client chose."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, tzinfo
from typing import Any

from xraylog.printed import escaped, printable
from xraylog.questions.fetching import Row, Rows

# A spreadsheet takes a cell that begins so for a formula (OWASP, "CSV Injection").
FORMULA = tuple("=+-@\t\r\uff1d\uff0b\uff0d\uff20")  # the last four: = + - @ in full width, as in Japanese

# Written where a CSV breaks off: a quote that no other one closes is an error to whatever reads it as a table.
CSV_BROKEN_OFF = '"the answer breaks off here'


@dataclass(frozen=True, slots=True)
class Part:
    """One table of an answer."""

    name: str
    columns: tuple[str, ...]
    rows: Rows


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

    @property
    def is_whole(self) -> bool:
        """Return whether all rows are fetched; otherwise this is done while they are printed."""
        return all(part.rows.is_whole for part in self.parts)


def as_table(answer: Answer) -> str:
    """Return aligned columns, with times in the answer's zone, to the second."""
    blocks = [f"{window(answer)}\n"]
    for part in answer.parts:
        title = f"{part.name}\n" if len(answer.parts) > 1 else ""
        blocks.append(f"{title}{_aligned(part, answer.zone)}{_count(part)}\n")
    blocks += [f"{printable(note)}\n" for note in answer.notes]
    return "\n".join(blocks)


def as_csv(answer: Answer) -> Iterator[str]:
    """Yield the lines of one table, first its header. `answer` must have exactly one part."""
    (part,) = answer.parts
    yield _csv_line(part.columns)
    for row in part.rows:
        yield _csv_line([_cell(value, answer.zone) for value in row])


def as_json(answer: Answer) -> Iterator[str]:
    """Yield the pieces of one JSON object, in which a part is an array of objects, as `json.dumps` would write it.

    ASCII, so that it cannot control a terminal. Only the last piece makes it JSON.
    """
    begin = {
        "question": answer.question,
        "since": _plain(answer.since, answer.zone),
        "until": _plain(answer.until, answer.zone),
        "notes": list(answer.notes),
    }
    yield _dumped(begin).removesuffix("\n}")
    for part in answer.parts:
        yield f",\n {_dumped(part.name)}: ["
        between = "\n"
        for row in part.rows:
            yield between + _dumped_row(part, row, answer.zone)
            between = ",\n"
        yield "]" if between == "\n" else "\n ]"
    is_cut = answer.is_cut or any(part.rows.is_cut for part in answer.parts)
    yield f',\n "is_cut": {_dumped(is_cut)}\n}}\n'


def _dumped_row(part: Part, row: Row, zone: tzinfo) -> str:
    found = {column: _plain(value, zone) for column, value in zip(part.columns, row, strict=True)}
    return "  " + _dumped(found).replace("\n", "\n  ")


def _dumped(value: Any) -> str:
    return json.dumps(value, indent=1).replace("\x7f", "\\u007f")


def notes_for_csv(answer: Answer) -> list[str]:
    """Return what a CSV does not contain: the window, which tables are cut off, and the notes."""
    return [window(answer), *(_count(part) for part in answer.parts if part.rows.is_cut), *answer.notes]


def window(answer: Answer) -> str:
    """Return the window in words."""
    since = _shown(answer.since, answer.zone)
    if answer.until is None:
        return f"since {since} ({answer.zone})"
    return f"{since} to {_shown(answer.until, answer.zone)} ({answer.zone})"


def _count(part: Part) -> str:
    count = f"{len(part.rows)} row{'' if len(part.rows) == 1 else 's'}"
    return f"{count}, and there are more: --limit" if part.rows.is_cut else count


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


def _csv_line(cells: Iterable[str]) -> str:
    return f"{','.join(map(_quoted, cells))}\n"


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
