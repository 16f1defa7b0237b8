"""What the benchmarks load, and what they compare us with, is what they say it is."""

from __future__ import annotations

import sys
from datetime import datetime, timezone
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from helpers.site import ROOT, SAMPLES

sys.path.insert(0, str(ROOT / "benchmarks"))

import lines as generated  # the path comes first
import networks  # the path comes first
import parse  # the path comes first

from xraylog.accesslog.grammar import Grammar  # the path comes first
from xraylog.records import AccessRecord  # the path comes first

NOW = datetime(2026, 11, 23, 12, tzinfo=timezone.utc)


@pytest.mark.parametrize("sample", sorted(SAMPLES.iterdir()), ids=lambda path: path.name)
def test_the_regular_expression_knows_the_lines_that_are_rows(sample: Path) -> None:
    grammar = Grammar(ZoneInfo("UTC"), NOW)
    for line in sample.read_bytes().split(b"\n")[:-1]:
        is_row = isinstance(grammar.parse_line(line), AccessRecord)
        assert bool(parse.LINE.fullmatch(line)) == is_row, line


def test_the_log_of_the_benchmarks_is_the_same_every_time_and_all_of_it_rows() -> None:
    text = list(generated.lines(2_000))
    assert text == list(generated.lines(2_000))
    grammar = Grammar(ZoneInfo("UTC"), NOW)
    for line in text:
        assert isinstance(grammar.parse_line(line.encode()), AccessRecord), line
        assert parse.LINE.fullmatch(line.rstrip("\n").encode()), line


def test_the_networks_to_be_loaded_are_rows_of_copy_from_files_and_generated(tmp_path: Path) -> None:
    path = tmp_path / "networks.csv"
    path.write_text("198.51.100.0/24,AU\n")
    for part in (*networks.parts_of([path]), *networks.generated(2)):
        chunks = list(part.rows)
        assert chunks
        assert all(len(row.split("\t")) == 4 for chunk in chunks for row in chunk.splitlines())
