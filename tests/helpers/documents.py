"""Read the documents for the tests: fenced blocks, links, headings; and decide how to test a single block."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from psycopg.pq.abc import PGresult

from helpers.site import ROOT
from xraylog.database import dns_names, networks

PAGES = sorted(
    str(path.relative_to(ROOT))
    for pattern in ("*.md", "docs/*.md", "benchmarks/*.md")
    for path in ROOT.glob(pattern)
)  # fmt: skip
FENCE = re.compile(r"^(?P<indent> *)```(?P<language>\S*)\n(?P<text>.*?)^(?P=indent)```$", re.MULTILINE | re.DOTALL)
NUMBERS = {20, 21, 23, 26, 700, 701, 1700}  # oids of the types that psql aligns to the right


@dataclass(frozen=True)
class Block:
    """A fenced block of a document."""

    page: str
    line: int
    language: str
    text: str
    answer: str | None = None  # what the page shows that psql or ask_logs.py prints

    def statements(self) -> list[str]:
        """Return the statements of SQL; what follows on a line after the semicolon belongs to the one before it."""
        return [part for part in re.findall(r"[^;]+(?:;[^\n]*|\Z)", self.text) if part.strip()]

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


@dataclass(frozen=True)
class Decision:
    """How to test a block that cannot simply be run."""

    reason: str = ""
    left_out: bool = False
    status: int = 0  # of a command
    before: tuple[str, ...] = ()  # statements that make the case that the page speaks of

    def needs(self, statement: str) -> int:
        """Return the first version of PostgreSQL that has the syntax of a statement."""
        return max((version for words, version in SYNTAX.items() if words in statement), default=10)


SYNTAX = {
    "SET ON PARAMETER": 15,
    "CONCURRENTLY": 14,
    "INCLUDE (": 11,
    "SET jit": 11,
    "CREATE INDEX ON logs": 11,
    "ADD FOREIGN KEY": 11,
}


def run_by(test: str) -> Decision:
    """Return the decision that another test covers a block: `file::name`."""
    file, _, name = test.partition("::")
    assert f"def {name}(" in (ROOT / "tests" / file).read_text(), test
    return Decision(f"run by {test}", left_out=True)


def day_of(day: str) -> str:
    """Return the statement that creates the partition for a day in October 2025."""
    first, following = f"2025-10-{day}", f"2025-10-{int(day) + 1:02}"
    return (
        f"CREATE TABLE logs_2025_10_{day} PARTITION OF logs "
        f"FOR VALUES FROM ('{first} 00:00:00+00') TO ('{following} 00:00:00+00')"
    )


RECENT_ROWS = (
    "CREATE TABLE logs_recent PARTITION OF logs FOR VALUES FROM ('2026-01-01') TO ('2100-01-01')",
    "INSERT INTO logs (\"timestamp\", action, node_id) SELECT now(), 'accepted', min(id) FROM nodes",
)

SOME_NETWORKS = (
    "INSERT INTO networks VALUES ('203.0.113.0/24', 'AU', NULL, NULL), ('203.0.113.0/25', NULL, 64496, 'Example, Inc.')"
)

# By page and words in the block; the first entry that fits decides. A block without an entry is simply run.
DECISIONS: dict[tuple[str, str], Decision] = {
    ("README.md", "CREATE DATABASE xray"): run_by(
        "integration/test_documents.py::test_both_pages_that_create_the_database_say_the_same"
    ),
    ("docs/install.md", "CREATE DATABASE xray"): run_by("integration/test_documents.py::installation"),
    ("docs/install.md", "DROP DATABASE xray"): run_by(
        "integration/test_documents.py::test_what_installation_creates_in_the_server_the_page_removes"
    ),
    ("docs/report.md", "openssl passwd"): run_by(
        "system/test_nginx.py::test_the_page_is_read_with_the_password_and_not_without"
    ),
    ("docs/networks.md", "npm pack"): run_by("integration/questions/test_networks.py::test_a_real_file_is_loaded"),
    ("docs/networks.md", "names_of"): Decision("a run has created it", before=(dns_names.CREATE,)),
    ("docs/networks.md", "places_of"): Decision("a load has created it", before=(networks.CREATE, SOME_NETWORKS)),
    ("docs/many-nodes.md", "AS node"): Decision("it asks for the last day", before=RECENT_ROWS),
    ("docs/many-nodes.md", "create_distributed_table"): run_by(
        "integration/ingest/test_nodes.py::test_the_document_distributes_every_table_of_names"
    ),
    ("docs/metrics.md", "AS time"): Decision("it asks for the last day", before=RECENT_ROWS),
    ("docs/migration.md", "--undo"): Decision("this logs was never migrated", status=3),
    ("Schema.md", "DETACH PARTITION logs_default"): run_by(
        "integration/database/test_partitions.py"
        "::test_rows_of_a_new_day_in_a_default_partition_are_reported_and_schema_md_moves_them"
    ),
    ("Schema.md", "CREATE TABLE "): run_by(
        "integration/database/test_schema.py::test_the_statements_of_schema_md_make_what_the_code_makes"
    ),
    ("docs/operations.md", "logs_set_aside"): run_by(
        "integration/ingest/test_too_many_days.py::test_the_small_days_can_be_set_aside_as_the_page_says"
    ),
    ("docs/operations.md", "DROP TABLE logs_2025_10_01"): Decision("there is such a day", before=(day_of("01"),)),
    ("docs/operations.md", "DROP TABLE logs_2025_10_02"): Decision("there is such a day", before=(day_of("02"),)),
}

# Programs that a test cannot run as they are: tests/helpers/standins has one of each of these names.
STAND_INS = {
    "apt-get": "needs root and the network",
    "chown": "the user xray is not on this machine",
    "docker": "is not on every machine",
    "git": "needs the network",
    "install": "the user xray is not on this machine",
    "journalctl": "systemd does not run everywhere where the tests do",
    "lz4": "is not on every machine",
    "mypy": "CI runs it",
    "pip": "needs the network",
    "pre-commit": "is not among the tests' packages",
    "ps": "xray does not run on this machine",
    "psql": "is not on every machine",
    "python3": "is the tests' own, which has the packages",
    "ruff": "CI runs it",
    "runuser": "the user xray is not on this machine",
    "setfacl": "the user xray is not on this machine",
    "ssh": "there is no other machine",
    "sudo": "the user xray is not on this machine",
    "systemctl": "systemd does not run everywhere where the tests do",
    "test": "stands for scripts/test, scripts/demo and benchmarks/run, which take minutes: CI runs them",
}


def decision(block: Block) -> Decision:
    """Return the first decision that fits a block; None if it can simply be run."""
    found = (decided for (page, words), decided in DECISIONS.items() if block.page == page and words in block.text)
    return next(found, Decision())


def unused_decisions() -> list[tuple[str, str]]:
    """Return the decisions that fit no block any more."""
    return [
        (page, words)
        for page, words in DECISIONS
        if not any(block.page == page and words in block.text for block in BLOCKS)
    ]


def read_blocks(page: str) -> Iterator[Block]:
    """Yield the blocks of a page in their order."""
    text = (ROOT / page).read_text()
    for match in FENCE.finditer(text):
        indent, language = len(match["indent"]), match["language"]
        body = "".join(line[indent:] for line in match["text"].splitlines(keepends=True))
        answer = None
        following = FENCE.match(text, match.end() + 2)
        if following and following["language"] == "text":
            has_table = language == "sql" and re.match(r".*\n-[-+]+\n", following["text"])
            answer = following["text"] if has_table or (language == "bash" and "ask_logs.py" in body) else None
        yield Block(page, text.count("\n", 0, match.start()) + 1, language, body, answer)


BLOCKS = [block for page in PAGES for block in read_blocks(page)]


def outside_of_fences(page: str) -> list[str]:
    """Return the lines of a page that are in no block. Inside a list, a line may be indented."""
    lines = FENCE.sub("", (ROOT / page).read_text()).splitlines()
    found, in_list = [], False
    for line in lines:
        in_list = bool(re.match(r" *(?:[-*]|\d+\.) ", line)) or (in_list and (not line or line.startswith(" ")))
        if not in_list:
            found.append(line)
    return found


def links(page: str) -> list[str]:
    """Return where the links and pictures of a page lead, as far as that is in the repository."""
    text = FENCE.sub("", (ROOT / page).read_text())
    text = re.sub(r"`[^`\n]*`", "", text)
    found = re.findall(r"\]\(([^)\s]+)\)", text) + re.findall(r'(?:src|href)="([^"]+)"', text)
    return [target for target in found if not re.match(r"\w+:", target)]


def anchors(path: Path) -> set[str]:
    """Return the names that GitHub gives to the headings of a page."""
    found: set[str] = set()
    for heading in re.findall(r"^#+ (.*)$", FENCE.sub("", path.read_text()), re.MULTILINE):
        text = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading).lower()
        name = "".join(char for char in text if char in " -_" or unicodedata.category(char)[0] in "LN").replace(
            " ", "-"
        )
        found.add(next(one for one in (name, *(f"{name}-{n}" for n in range(1, 99))) if one not in found))
    return found


def as_psql_prints(result: PGresult) -> list[str]:
    """Return an answer as psql shows it, without blanks at the ends of lines."""
    columns = range(result.nfields)
    names = [(result.fname(column) or b"").decode() for column in columns]
    rows = [[(result.get_value(row, column) or b"").decode() for column in columns] for row in range(result.ntuples)]
    widths = [max(len(name), *(len(row[column]) for row in rows)) for column, name in enumerate(names)]
    right = [result.ftype(column) in NUMBERS for column in columns]
    found = [[centred(name, width) for name, width in zip(names, widths, strict=True)]]
    for row in rows:
        cells = zip(row, widths, right, strict=True)
        found.append([cell.rjust(width) if to_right else cell.ljust(width) for cell, width, to_right in cells])
    lines = [" " + " | ".join(row) for row in found]
    lines.insert(1, "+".join("-" * (width + 2) for width in widths))
    return [line.rstrip() for line in [*lines, f"({len(rows)} row{'s' if len(rows) != 1 else ''})"]]


def centred(name: str, width: int) -> str:
    """Return a heading as psql centres it: of an odd number of blanks, one more is on the right."""
    left = (width - len(name)) // 2
    return " " * left + name + " " * (width - len(name) - left)
