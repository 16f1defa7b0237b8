"""Print an answer, in one of its forms, on standard output."""

from __future__ import annotations

import contextlib
import sys

from xraylog.printed import complain, write, write_all
from xraylog.questions import present
from xraylog.questions.present import Answer


def print_answer(answer: Answer, form: str, has_limit: bool) -> None:
    """Print the answer as "json", "csv" or "table". Of a CSV, the window and the notes go to standard error."""
    if form == "json":
        write_all(sys.stdout, present.as_json(answer))
    elif form == "csv":
        is_cut_known = answer.is_whole or not has_limit  # otherwise only after the last row
        if is_cut_known:
            complain(*present.notes_for_csv(answer))
        write_all(sys.stdout, present.as_csv(answer))
        if not is_cut_known:
            complain(*present.notes_for_csv(answer))
    else:
        write(sys.stdout, present.as_table(answer))


def print_while_fetched(answer: Answer, form: str, has_limit: bool) -> None:
    """Print a long answer. If that breaks off, say so, and leave nothing that a program could take for all of it."""
    try:
        print_answer(answer, form, has_limit)
    except BaseException:
        if form == "csv":
            with contextlib.suppress(OSError):
                write(sys.stdout, present.CSV_BROKEN_OFF)
        complain("expected to print the whole answer, it breaks off: what was printed is not all of it")
        raise
