"""An answer of any length is printed while it is fetched, and is the same as one that is fetched as a whole."""

from __future__ import annotations

import csv
import io
import json
import signal
import subprocess
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path

import psycopg
import pytest
from helpers.site import Site

import ask_logs
from xraylog.database import dns_names, networks, session
from xraylog.questions import asking, catalog

NOON = datetime(2025, 11, 17, 12, tzinfo=timezone.utc)
DAY = ("--since", "2025-11-17", "--until", "2025-11-17")
MANY = 60_000  # rows: several MB of text, more than any pipe holds

LINES = [
    *(
        f"2025/11/17 10:0{n}:00 from 203.0.113.{n}:1000 accepted tcp:{host}:{port} [in -> {tag}] email: u{n % 3}"
        for n, (host, port, tag) in enumerate(
            [("a.example", 443, "direct"), ("198.51.100.7", 22, "block"), ("b.example", 443, "direct"),
             ("198.51.100.8", 23, "block"), ("a.example", 80, "direct"), ("=cmd\x7f.example", 443, "direct"),
             ("198.51.100.7", 443, "direct"), ("c.example", 443, "warp"), ("198.51.100.9", 22, "direct")]
        )
    ),
    *(f"2025/11/17 11:0{n}:00 from 198.51.100.{n}:9 rejected  proxy/vless/encoding: invalid user" for n in range(5)),
]  # fmt: skip
QUESTIONS = (
    ("online", *DAY), ("online", *DAY, "--by", "5m"), ("sharing", *DAY), ("sharing", "u*", *DAY), ("user", "u1", *DAY),
    ("user", "u*", *DAY), ("client", "203.0.113.0/24", *DAY), ("reached", "*", *DAY), ("reached", "--port", "22", *DAY),
    ("reached", "names.example", *DAY), ("scanners", *DAY), ("ports", *DAY), ("ports", "22-80", *DAY),
    ("outbound", *DAY), ("outbound", "block", *DAY), ("new", *DAY), ("rejected", *DAY),
    ("rejected", *DAY, "--by", "network"), ("traffic", *DAY, "--per", "node"), ("last-seen", "--since", "2025-11-17"),
    ("user", "u*", "--since", "2025-11-16", "--until", "2025-11-16"), ("ports", "--since", "2025-11-01", "--until",
    "2025-11-02"), ("ports", "1", *DAY),
)  # fmt: skip


@pytest.fixture
def asked(site: Site) -> Site:
    """A site with LINES, and with country, provider and names of some addresses."""
    site.append(*(f"{line}\n" for line in LINES))
    site.run()
    with psycopg.connect(**site.database, autocommit=True) as conn:  # type: ignore[arg-type]
        conn.execute(networks.CREATE)
        conn.execute(dns_names.CREATE)
        conn.execute(
            "INSERT INTO networks VALUES ('203.0.113.0/30', 'DE', 1, 'One'), ('198.51.100.0/24', 'NL', 2, '2')"
        )
        conn.execute("INSERT INTO endpoints (address) VALUES ('names.example')")
        conn.execute("""
            INSERT INTO dns_names
            SELECT '2025-11-17', 1, '198.51.100.7', id FROM endpoints WHERE address = 'names.example'
        """)
    return site


@pytest.fixture
def long(site: Site) -> Site:
    """A site with MANY rows, which `reached *` shows one by one."""
    site.append(f"{LINES[0]}\n")
    site.run()
    site.query(
        """
        INSERT INTO logs ("timestamp", action, source_ip, destination_id, destination_port, user_id)
        SELECT l."timestamp" + n * interval '1 ms', 'accepted', '203.0.113.1', l.destination_id, 443, l.user_id
        FROM logs l, generate_series(2, %s) n RETURNING 1
        """,
        MANY,
    )
    return site


@pytest.mark.parametrize("question", QUESTIONS, ids=" ".join)
def test_in_pieces_it_is_the_same(
    asked: Site, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], question: tuple[str, ...]
) -> None:
    def answer(*options: str) -> tuple[str, str]:
        assert ask_logs.main(["--config", str(asked.config), *question, *options]) == 0
        printed, errors = capsys.readouterr()
        return printed, errors

    def answers() -> list[tuple[str, str]]:
        found = []
        for limit in ((), ("--limit", "3"), ("--limit", "0")):
            whole = answer(*limit, "--json")
            found.append(whole)
            parts = {name for name, rows in json.loads(whole[0]).items() if isinstance(rows, list)} - {"notes"}
            found += [answer(*limit, *(("--only", name) if len(parts) > 1 else ()), "--csv") for name in sorted(parts)]
        return found

    expected = answers()
    for piece in (1, 2, 7):
        monkeypatch.setattr(ask_logs, "PIECE", piece)
        assert answers() == expected, piece
    for text, _ in expected[:1]:
        assert text == json.dumps(json.loads(text), indent=1).replace("\x7f", "\\u007f") + "\n"


def started(site: Site, *form: str) -> subprocess.Popen[str]:
    command = site.command("reached", "*", "--only", "connections", *DAY, *form, script="ask_logs")
    signals = ["env", "--default-signal=INT"]  # a shell starts its background jobs without SIGINT
    return subprocess.Popen([*signals, *command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def sessions(site: Site) -> list[int]:
    found = site.query("SELECT pid FROM pg_stat_activity WHERE application_name = 'ask_logs'")
    return [pid for (pid,) in found if isinstance(pid, int)]


@pytest.fixture
def broken_off(long: Site, request: pytest.FixtureRequest) -> Iterator[tuple[int, str, str]]:
    """Exit status, output and errors of an answer whose session ends while it is printed."""
    with started(long, *request.param) as process:
        assert process.stdout is not None
        begin = process.stdout.read(1000)
        (pid,) = sessions(long)  # it is still fetching: the reader has read next to nothing
        long.query("SELECT pg_terminate_backend(%s)", pid)
        rest, errors = process.communicate()
        yield process.returncode, begin + rest, errors


@pytest.mark.parametrize("broken_off", [("--json",), ("--csv",)], indirect=True, ids=["json", "csv"])
def test_one_that_breaks_off_is_an_error_and_looks_like_one(broken_off: tuple[int, str, str]) -> None:
    status, printed, errors = broken_off
    assert status == 1
    complaints = errors.splitlines()[-2:]
    assert complaints[0] == "expected to print the whole answer, it breaks off: what was printed is not all of it"
    assert "SQLSTATE 57P01" in complaints[1] or "connection" in complaints[1]
    assert "Traceback" not in errors
    assert "error ignored" not in errors
    assert 1000 < printed.count("\n") < MANY
    if printed.startswith("{"):
        with pytest.raises(json.JSONDecodeError):
            json.loads(printed)
    else:
        with pytest.raises(csv.Error, match="unexpected end of data"):
            list(csv.reader(io.StringIO(printed), strict=True))


@pytest.mark.parametrize("form", ["--json", "--csv"])
def test_one_that_is_interrupted_looks_like_it(long: Site, form: str) -> None:
    with started(long, form) as process:
        assert process.stdout is not None
        begin = process.stdout.read(1000)
        process.send_signal(signal.SIGINT)
        rest, errors = process.communicate()
    assert process.returncode == 1
    assert errors.splitlines()[-1] == "interrupted"
    assert begin + rest != ""
    assert not (begin + rest).endswith("}\n")
    assert form == "--json" or rest.endswith('"the answer breaks off here')


def test_whoever_has_read_enough_ends_it(long: Site) -> None:
    """As `head` does. No row is fetched for nobody."""
    with started(long, "--csv") as process:
        assert process.stdout is not None
        process.stdout.read(1000)
        process.stdout.close()
        assert process.wait() == 0
        assert process.stderr is not None
        assert "breaks off" not in process.stderr.read()


def test_a_full_disk_is_an_error_as_before(long: Site) -> None:
    with Path("/dev/full").open("w") as full:
        command = long.command("reached", "*", "--only", "connections", *DAY, "--csv", script="ask_logs")
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 3
    assert "standard output: No space left on device; not all was printed; " in done.stderr


def test_a_reader_who_pauses_is_waited_for(asked: Site) -> None:
    """Whatever time the role has between its statements: it is a person who reads."""
    (question,) = [question for question in catalog.QUESTIONS if question.name == "ports"]
    values = {"since": NOON - timedelta(days=1), "until": NOON, "node": None}
    keywords = {**asked.database, "options": "-c idle_in_transaction_session_timeout=60000"}
    with (
        session.connect(keywords, to_write=False) as conn,
        asking.ask(conn, question, values, timezone.utc, None, 1) as found,
    ):
        assert not found.is_whole
        assert conn.execute("SHOW idle_in_transaction_session_timeout").fetchone() == ("1h",)
        assert len(list(found.parts[0].rows)) == 4


def test_few_rows_are_in_memory_at_once(long: Site) -> None:
    """All of them took 100 MB and more."""
    command = long.command("reached", "*", "--only", "connections", *DAY, "--json", script="ask_logs")
    most = "import resource; print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, file=__import__('sys').stderr)"
    script = f"import runpy, sys; sys.argv = {command[1:]!r}\ntry: runpy.run_path({command[1]!r}, run_name='__main__')"
    kib = []
    for limit in ("10", str(MANY - 1)):
        text = script.replace("'--json'", f"'--json', '--limit', '{limit}'") + f"\nfinally: {most}"
        done = subprocess.run(
            [command[0], "-c", text], capture_output=True, text=True, check=True, cwd=Path(command[1]).parent
        )
        kib.append(int(done.stderr))
    assert kib[1] - kib[0] < 20_000
