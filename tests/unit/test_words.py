"""Plain English: words that have to be read twice stay out of comments, docstrings, messages and documents."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

# What a native speaker would not write here, and what to write instead.
WORDS = {
    r"(?<!left )(?<!nothing )behind(?! (?:pgbouncer|NAT|a proxy|a firewall))": "after, past",
    r"but for": "except, except for",
    r"(?:is|are|was|were|be) (?:said|told)(?! apart)": "is logged, is reported",
    r"(?:tells?|told) of": "reports, shows",
    r"so many": "N, this many",
    r"somebody": "another session, another program, you",
    r"of ours": "our own",
    r"(?:put|puts|putting) (?:all )?aside": "buffer, spool",
    r"taken over": "adopted, kept",
    r"ma(?:de|ke|kes|king) (?:it |them )?(?:again|anew)": "recreate",
    r"for ever": "forever",
    r"(?:sees?|saw) to it": "make sure",
    r"in all(?= *(?:[.,;:)]|$))": "in total",
    r"all in all": "in total",
    r", for (?:it|they|there|we|nobody|none)": "because",
    r"(?-i:Else)": "Otherwise",
    r"his|him": "its, their",
    r"stands? in the way": "prevents, blocks",
    r"be rid of": "remove",
    r"begun": "started",
    r"rejected lines?": "unparsed lines: rejected is what xray does to a connection",
    r"lines? not understood": "unparsed lines",
}
PATTERNS = {re.compile(rf"\b(?:{word})\b", re.IGNORECASE | re.MULTILINE): better for word, better in WORDS.items()}
ANY = re.compile(rf"\b(?:{'|'.join(WORDS)})\b", re.IGNORECASE | re.MULTILINE)

SUFFIXES = {".py", ".md", ".sql", ".example", ".toml", ".txt", ".yaml", ".html", ".css", ".js", ".service", ".timer",
            ".cron", ""}  # fmt: skip
NOT_OURS = {".git", ".venv", ".demo", "samples", "node_modules", "build", "dist"}

# A phrase that may stay in one file, with the reason.
ALLOWED = {
    ("tests/unit/test_words.py", None): "it names the words",
}


def our_files() -> list[str]:
    """Return each text file of the repository, as a path from its root."""
    found = []
    for path in ROOT.rglob("*"):
        parts = path.relative_to(ROOT).parts
        hidden = any(part.startswith(".") and part not in (".ci", ".pre-commit-config.yaml") for part in parts)
        if not hidden and not NOT_OURS & set(parts) and path.suffix in SUFFIXES and path.is_file():
            found.append("/".join(parts))
    return sorted(found)


def prose(path: Path) -> Iterator[tuple[int, str]]:
    """Yield what people read in a file, each piece with the line where it begins."""
    text = path.read_text()
    if path.suffix != ".py":
        yield 1, text
        return
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.lineno, node.value
        elif isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
            yield node.lineno, node.name.replace("_", " ")
    yield from comments(text)


# A string that has such a thing is read by people, too, and tokenize takes ten times as long.
COMMENT = re.compile(r"(?:^ *|  )#(.*)")


def comments(source: str) -> Iterator[tuple[int, str]]:
    """Yield the comments; those on lines that follow each other are one text, because a phrase may be broken."""
    first, last, words = 0, -1, ""
    for line, text in enumerate(source.splitlines(), 1):
        if (found := COMMENT.search(text)) is None:
            continue
        if line != last + 1:
            yield first, words
            first, words = line, ""
        last, words = line, f"{words}\n{found[1].lstrip('# ')}"
    yield first, words


def complaints(name: str) -> list[str]:
    """Return each place of a file that has a word of the list, with what to write instead."""
    found = []
    for first, text in prose(ROOT / name):
        joined = re.sub(r" *\n *(?:#|--)? *", "\n", text)
        one_line = joined.replace("\n", " ")
        for pattern, better in PATTERNS.items() if ANY.search(one_line) else ():
            for match in pattern.finditer(one_line):
                line = first + joined.count("\n", 0, match.start())
                if (name, None) not in ALLOWED and (name, match[0]) not in ALLOWED:
                    found.append(f"{name}:{line}: {match[0]!r}; better: {better}")
    return found


def test_every_text_is_in_plain_words() -> None:
    assert [complaint for name in our_files() for complaint in complaints(name)] == []


# Ruff's D401 knows verbs in a wrong form, but takes a docstring without any.
NO_VERBS = re.compile(
    r"(?:What|Who|Which|Whether|Where|When|How|As|For|From|In|On|At|With|Without|Before|After|And|Also|It|Is|Have|Has|The|A"
    r"|An|One|No|All|Only|Every|Each|Bytes|Rows|Lines|Names|Numbers|Days|Ids|Bounds|Errors)\b"
)
PRODUCT = ("xraylog/*.py", "xraylog/**/*.py", "*.py", "scripts/*.py", "benchmarks/*.py")


def test_a_docstring_says_in_the_imperative_what_a_function_does() -> None:
    """A property and a parameter list are things, and may be named."""
    for path in sorted({path for pattern in PRODUCT for path in ROOT.glob(pattern)}):
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.FunctionDef) or node.name.startswith("__"):
                continue
            is_property = any("property" in ast.unparse(decorator) for decorator in node.decorator_list)
            found = ast.get_docstring(node) or ""
            assert is_property or not NO_VERBS.match(found), f"{path}:{node.lineno}, {node.name}: {found}"
