"""Whatever is done to a log, in any order, a small model says what the database and the buffer must hold."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import socket
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest
from helpers import faults
from helpers.frozen import Freezer
from helpers.load_paths import LOAD_PATHS
from helpers.site import AT, Site, create_database, drop_database, line, wait_until
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test
from server import Server

from xraylog.database import schema

EQUAL = "u0"  # the user of lines that are all alike
OLDER = "the database is older than the log, or another one: it confirmed"
CUT = re.compile(r"buffer\.jsonl: expected the \d+ bytes that a run left there, found \d+ in whole batches; the lines")
GAP = re.compile(r"ERROR +(.*, bytes .*): expected these lines in this database, or still in the log")
COPIED = "this installation was copied"
OFFLINE = "PostgreSQL is not available"
MARK = b'\n{"mark": '
# What each of two machines has for itself, when one of them was made as a copy of the other.
OF_A_MACHINE = (
    "host",
    "node",
    "equal_at",
    "writer",
    "unmet",
    "half",
    "half_user",
    "rotated",
    "copies",
    "said",
    "may_say",
    "must_say",
    "may_be_cut",
)
Users = Counter[str]


def logged(path: Path) -> Users:
    """Users of the complete lines that are in a log."""
    text = path.read_bytes() if path.exists() else b""
    return Counter(found.decode() for found in re.findall(rb"email: (\S+)\n", text))


def batches(buffer: Path) -> bytes:
    """The whole batches of a buffer: what follows is torn, and still in the log."""
    text = buffer.read_bytes() if buffer.exists() else b""
    text = text[: text.rfind(b"\n") + 1]
    last = text.rfind(MARK)
    return text[: text.find(b"\n", last + 1) + 1] if last >= 0 else b""


def waiting(text: bytes) -> Users:
    """Users in the batches of a buffer."""
    return Counter(found["email"] for found in map(json.loads, text.splitlines()) if "email" in found)


def begins(text: bytes) -> bytes:
    """The header of a buffer: each time that it was empty it gets another one."""
    return text.partition(b"\n")[0]


class Installation(RuleBasedStateMachine):
    """A log, its writer, the runs, the database, and operators who interfere with each of them.

    A line is certain from when it was written: each run leaves it in the database, the buffer or a log. When another
    program empties the log, the lines that no run had met by then are uncertain: they may be there once, or not at
    all. After a restore or a failover, or when an older copy of the buffer is put back, lines are certain that are in
    one of these places; the others are lost, and a run says so, once, if the database had them.

    A copy of the machine has the same paths: the machine at hand has the folder, the other one waits in another.
    """

    server: Server
    with_tables: str

    @initialize(is_named=st.booleans())
    def install(self, is_named: bool) -> None:
        self.folder = Path(tempfile.mkdtemp())
        self.database = create_database(self.server.keywords(), self.with_tables)
        (self.folder / "machine").mkdir()
        self.site = Site(self.folder / "machine", self.database)
        self.site.set("parser", batch_size="7")
        self.host, self.node = "h0", "n1" if is_named else ""
        self.set_node()
        self.other: dict[str, Any] = {}  # what the other machine has, if there is one
        self.may_be_a_copy = False
        self.freezer = Freezer(self.folder / "frozen")
        self.writer: int | None = None
        self.numbers = 0
        self.equal_at = AT
        self.certain: Users = Counter()
        self.uncertain: Users = Counter()
        self.unmet: Users = Counter()  # in the log since the last run that was not struck
        self.half, self.half_user = b"", ""
        self.rotated: list[Path] = []
        self.backups: list[dict[str, str]] = []
        self.copies: list[bytes] = []  # of the buffer
        self.lost: Users = Counter()  # was certain, and is nowhere any more
        self.before: Users = Counter()  # was certain when the database was replaced, and no run has said so yet
        self.never_confirmed: Users = Counter()  # was taken away from the runs
        self.may_say, self.must_say = False, False  # that the database is older
        self.may_be_cut = False  # the buffer, by an older copy in its place
        self.said: list[str] = []
        self.start_generation()

    def teardown(self) -> None:
        if hasattr(self, "site"):
            try:
                self.end_the_copy()
                self.settle()
            finally:
                self.freezer.thaw()
                self.close()
                self.site.drop_backups()
                drop_database(self.database)
                shutil.rmtree(self.folder)

    # --- xray

    def start_generation(self) -> None:
        """A first line that no other log has: lines that look alike from the first on cannot be told apart."""
        self.numbers += 1
        self.write(line(self.numbers), f"u{self.numbers}")

    def write(self, text: str, user: str) -> None:
        self.site.append(text)
        self.certain[user] += 1
        self.unmet[user] += 1

    @rule(count=st.integers(1, 30))
    def append_lines(self, count: int) -> None:
        self.finish_half()
        for _ in range(count):
            self.numbers += 1
            self.write(line(self.numbers), f"u{self.numbers}")

    @rule(count=st.integers(1, 60))
    def append_equal_lines(self, count: int) -> None:
        """Those of a copy are others: no two machines write the same bytes; equal text is of before the copy."""
        self.finish_half()
        for _ in range(count):
            self.write(line(0, self.equal_at), EQUAL)

    def another_moment(self) -> str:
        return f"{AT.partition('.')[0]}.{self.numbers:06}"

    @rule(at=st.integers(1, 60))
    def append_half_a_line(self, at: int) -> None:
        self.finish_half()
        self.numbers += 1
        whole = line(self.numbers).encode()
        self.site.append(whole[:at])
        self.half, self.half_user = whole[at:], f"u{self.numbers}"

    def finish_half(self) -> None:
        if self.half:
            half, self.half = self.half, b""
            self.write(half.decode(), self.half_user)

    @rule()
    def open_or_close_the_log(self) -> None:
        """As xray does after two minutes of silence; an open log is never truncated to nothing."""
        if self.writer is None:
            self.writer = os.open(self.site.log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        else:
            self.close()

    def close(self) -> None:
        if self.writer is not None:
            os.close(self.writer)
            self.writer = None

    # --- the runs

    def run_once(self, *arguments: str, **options: object) -> bool:
        """Return whether the run had the database to the end."""
        before = len(self.site.output())
        with self.freezer.waited_for_a_moment(ended=self.numbers % 2 == 0), pytest.MonkeyPatch.context() as patch:
            patch.setattr(socket, "gethostname", lambda: self.host)
            status = self.site.run_here(*arguments, **options)  # type: ignore[arg-type]
        said = self.site.output()[before:]
        self.judge(status, said)
        if status != -9:
            self.unmet.clear()
        return status != -9 and OFFLINE not in said

    def judge(self, status: int, said: str) -> None:
        """The operator is called where lines are lost, and only there; a run that was killed may have called, too."""
        is_older, gaps, is_cut = OLDER in said, GAP.findall(said), CUT.search(said) is not None
        assert status in (-9, 3 if is_older or gaps or is_cut else 0), said[-3000:]
        assert not is_cut or self.may_be_cut, said[-3000:]
        self.may_be_cut = self.may_be_cut and (status == -9 or not is_cut)
        assert not is_older or self.may_say, said[-3000:]
        assert COPIED not in said or self.may_be_a_copy, said[-3000:]
        assert not gaps or self.lost, said[-3000:]
        if status == -9:
            if is_older:
                self.must_say, self.before = False, self.certain.copy()
            return
        if COPIED in said:
            self.may_be_a_copy = False
        if is_older:
            self.may_say = self.must_say = False
        assert not set(gaps) & set(self.said), said[-3000:]
        if OFFLINE not in said:  # otherwise it may have called before it could store what follows, and calls again
            self.said += gaps

    @rule(load_path=st.sampled_from(LOAD_PATHS), size=st.sampled_from([5, 20_000]))
    def take_another_load_path(self, load_path: str, size: int) -> None:
        self.site.load_path = load_path
        self.site.set("parser", batch_size=size)

    @rule(keep=st.booleans())
    def run_online(self, keep: bool) -> None:
        asks = bool(logged(self.site.log) or waiting(batches(self.site.buffer)))
        if self.run_once(*(["--keep"] if keep else [])):
            self.check()
            assert not (self.must_say and asks), self.site.output()[-3000:]
        else:
            assert self.freezer.has_frozen, self.site.output()[-3000:]

    @rule(keep=st.booleans())
    def run_offline(self, keep: bool) -> None:
        self.site.away()
        self.run_once(*(["--keep"] if keep else []))
        self.site.back()

    @rule(step=st.integers(1, 90), away=st.booleans())
    def run_and_kill(self, step: int, away: bool) -> None:
        if away:
            self.site.away()
        self.run_once(kill_at=step)
        self.site.back()

    @rule(step=st.integers(1, 90))
    def run_and_end_its_session(self, step: int) -> None:
        def end() -> None:
            self.site.query(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE datname = current_database() AND application_name = 'parse_logs'"
            )

        self.run_once(inside=faults.after_step(step, self.folder / "steps", end))

    @rule(at_commit=st.booleans(), number=st.integers(1, 4), keep=st.booleans())
    def run_and_freeze_its_session(self, at_commit: bool, number: int, keep: bool) -> None:
        """It gives up; what the server makes of the last batch is seen when the process goes on."""
        self.freezer.thaw()
        frozen = self.freezer.at_commit(number) if at_commit else self.freezer.in_copy(number)
        self.run_once(*(["--keep"] if keep else []), inside=frozen)

    @precondition(lambda self: self.freezer.has_frozen)
    @rule()
    def let_the_session_go_on(self) -> None:
        self.freezer.thaw()

    # --- the others

    @rule(mode=st.sampled_from(["fast", "immediate"]))
    def restart_the_database(self, mode: str) -> None:
        self.freezer.thaw()
        self.server.stop(mode)
        self.server.start()

    @rule()
    def empty_the_log(self) -> None:
        """What no run had met is gone, or was met by a run that was killed."""
        self.never_confirmed |= logged(self.site.log)
        os.truncate(self.site.log, 0)
        self.half = b""
        self.certain -= self.unmet
        self.uncertain += self.unmet
        self.unmet = Counter()
        self.start_generation()

    @precondition(lambda self: len(self.rotated) < 3)
    @rule()
    def rotate_the_log(self) -> None:
        """Renamed, and created again; xray has opened the new one.

        No later log begins with the lines of this one: that would be the same text under two names, and stored once.
        """
        self.finish_half()
        self.close()
        old = self.site.log.with_name(f"access.log.{self.numbers}")
        self.site.log.rename(old)
        self.rotated.append(old)
        self.unmet = Counter()
        self.start_generation()
        self.equal_at = self.another_moment()

    @precondition(lambda self: self.rotated)
    @rule(keep=st.booleans())
    def load_a_rotated_log(self, keep: bool) -> None:
        unmet = self.unmet.copy()
        old = self.rotated.pop(0)
        self.run_once(*(["--keep"] if keep else []), "--logfile", str(old))
        self.unmet = unmet
        if keep:
            self.rotated.append(old)

    @precondition(lambda self: not self.rotated)
    @rule()
    def change_the_node_name(self) -> None:
        """With a log that was drained: one that keeps its lines is another event."""
        self.finish_half()
        if self.run_once():
            self.node = f"n{self.numbers}"
            self.set_node()

    @precondition(lambda self: not self.node)
    @rule()
    def change_the_name_of_the_host(self) -> None:
        """Also with a log that keeps its lines, a buffer and archives: a container that is recreated."""
        self.host = f"h{self.numbers}"

    def set_node(self) -> None:
        self.site.settings["parser"].pop("node", None)
        self.site.set("parser", **({"node": self.node} if self.node else {}))

    # --- a copy of the machine

    @precondition(lambda self: not (self.other or self.rotated or self.may_say))
    @rule(keep=st.booleans(), has_buffer=st.booleans(), is_renamed=st.booleans())
    def copy_the_machine(self, keep: bool, has_buffer: bool, is_renamed: bool) -> None:
        """When no line waits in its log: both would store it. Its buffer may have some."""
        self.freezer.thaw()
        self.append_lines(2)
        assert self.run_once(*(["--keep"] if keep else [])), self.site.output()[-3000:]
        if self.may_say:
            return
        if has_buffer:
            self.append_lines(9)
            self.run_offline(keep)
        shutil.copytree(self.site.folder, self.folder / "other")
        here = {name: getattr(self, name) for name in OF_A_MACHINE}
        own = {"writer": None, "unmet": Counter(), "rotated": [], "copies": [], "said": self.said.copy()}
        own["equal_at"] = self.another_moment()
        self.other = {**here, **own, "host": f"h{self.numbers}" if is_renamed else self.host}
        self.may_be_a_copy = True

    @precondition(lambda self: self.other)
    @rule()
    def go_to_the_other_machine(self) -> None:
        """What happens next happens there."""
        here = {name: getattr(self, name) for name in OF_A_MACHINE}
        for name, value in self.other.items():
            setattr(self, name, value)
        self.other = here
        between = self.folder / "between"
        for old, new in ((self.site.folder, between), (self.folder / "other", self.site.folder)):
            old.rename(new)
        between.rename(self.folder / "other")
        self.set_node()

    @precondition(lambda self: self.other)
    @rule()
    def end_the_copy(self) -> None:
        """The machine at hand stores what it has, and is gone; the other one goes on alone."""
        if self.other:
            self.settle()
            self.close()
            self.go_to_the_other_machine()
            shutil.rmtree(self.folder / "other")
            self.other = {}
            self.never_confirmed |= self.certain  # or by the one that is gone

    # --- the database is replaced, or the buffer

    @precondition(lambda self: len(self.backups) < 3)
    @rule()
    def take_a_backup(self) -> None:
        self.end_sessions(self.site.database)
        self.backups.append(self.site.back_up())

    @rule(number=st.integers(0, 2), put_back=st.booleans())
    def restore_a_backup(self, number: int, put_back: bool) -> None:
        """Also with a copy of the buffer, in the same moment. Without a backup the database is a new one."""
        backup = self.backups[number % len(self.backups)] if self.backups else {}
        if backup:
            self.end_sessions(backup)
        self.replace_the_database(lambda: self.site.restore(backup), put_back)

    @precondition(lambda self: self.backups)
    @rule(number=st.integers(0, 2))
    def fail_over(self, number: int) -> None:
        """A standby lacks the last commits; a later failover may be the way back."""
        standby = self.backups.pop(number % len(self.backups))
        self.replace_the_database(lambda: self.backups.append(self.site.fail_over(standby)))

    def end_sessions(self, database: dict[str, str]) -> None:
        """No database can be copied that a session is in."""
        self.freezer.thaw()
        others = "FROM pg_stat_activity WHERE datname = %s"
        with psycopg.connect(**{**database, "dbname": "postgres"}, autocommit=True) as conn:  # type: ignore[arg-type]
            conn.execute(f"SELECT pg_terminate_backend(pid) {others}", [database["dbname"]])
            wait_until(lambda: not conn.execute(f"SELECT {others}", [database["dbname"]]).fetchall())

    @precondition(lambda self: len(self.copies) < 3)
    @rule()
    def copy_the_buffer(self) -> None:
        if not batches(self.site.buffer):
            self.append_lines(3)
            self.run_offline(keep=False)
        self.copies.append(batches(self.site.buffer))

    @precondition(lambda self: self.copies)
    @rule(is_imported=st.booleans())
    def put_back_the_buffer(self, is_imported: bool) -> None:
        if is_imported:
            self.run_online(keep=False)
        self.expect_everything()
        self.overwrite_the_buffer(self.copies[0])
        self.take_stock()

    def overwrite_the_buffer(self, copy: bytes) -> bool:
        """With an older copy of it, or when it is empty; return whether it was.

        Its lines may then come from a log that still has them: no copy is put back that has other batches.
        """
        there = batches(self.site.buffer)
        if there and begins(there) != begins(copy):
            return False
        self.never_confirmed |= waiting(there) - waiting(copy)
        self.copies = [other for other in self.copies if copy.startswith(other)] if there else self.copies
        self.site.buffer.write_bytes(copy)
        self.may_be_cut = True
        return True

    def replace_the_database(self, replace: Callable[[], None], put_back: bool = False) -> None:
        self.end_the_copy()
        self.expect_everything()
        if not self.may_say:
            self.before = self.certain.copy()
        replace()
        with contextlib.suppress(IndexError):
            copy = self.copies.pop() if put_back else b""
            # The others may have been loaded from a log by the time that they are put back.
            self.copies = [copy] if copy and self.overwrite_the_buffer(copy) else []
        self.take_stock()
        missing = self.before - self.certain - self.never_confirmed
        self.may_say, self.must_say = True, bool(set(missing) - {EQUAL})

    def places(self) -> tuple[Users, Users, Users]:
        """What is in the database, in the buffer, and in logs."""
        logs = sum(map(logged, [self.site.log, *self.rotated]), Users())
        return self.site.emails(), waiting(batches(self.site.buffer)), logs

    def elsewhere(self) -> Users:
        """What the other machine has in its logs and its buffer."""
        other = self.folder / "other"
        return sum(map(logged, other.glob("access.log*")), waiting(batches(other / "buffer.jsonl")))

    def expect_everything(self) -> None:
        """What is certain is somewhere, whatever struck the runs."""
        nowhere = self.certain - sum(self.places(), self.elsewhere())
        assert not nowhere, f"nowhere {nowhere}\n{self.site.output()[-3000:]}"

    def take_stock(self) -> None:
        """Now that it is not what the runs left: what is somewhere is certain, the rest may come back."""
        possible = self.certain + self.uncertain
        database, buffer, logs = self.places()
        certain = (database | buffer | logs | self.elsewhere()) & possible
        self.lost = (self.lost | self.certain) - certain
        self.certain, self.uncertain = certain, possible - certain
        kept = database | buffer | (logs - logged(self.site.log))
        self.unmet = certain - kept

    # --- what must hold

    def check(self) -> None:
        """After a good run with no rotated log left: all of the log, once."""
        if self.rotated:
            return
        found = self.site.emails()
        missing, surplus = self.certain - found - self.elsewhere(), found - self.certain - self.uncertain
        assert not missing, f"missing {missing}\n{self.site.output()[-3000:]}"
        assert not surplus, f"surplus {surplus}\n{self.site.output()[-3000:]}"
        assert not found or self.site.rejected() == []  # a new database has no tables before there are lines
        assert not self.site.buffered()

    def settle(self) -> None:
        self.freezer.thaw()
        self.append_lines(1)
        while self.rotated:
            self.load_a_rotated_log(keep=False)
        self.run_online(keep=False)


@pytest.fixture
def with_server(own_server: Callable[..., Server]) -> None:
    Installation.server = own_server("max_connections=50")
    with_tables = create_database(Installation.server.keywords())
    with psycopg.connect(**with_tables, autocommit=True) as conn:  # type: ignore[arg-type]
        schema.ensure(conn)
    Installation.with_tables = with_tables["dbname"]


# What failed once: each is a rule, and what it was given.
FOUND: dict[str, list[tuple[str, dict[str, Any]]]] = {
    "the original only drained": [
        ("copy_the_machine", {"keep": True, "has_buffer": False, "is_renamed": False}),
        ("run_online", {"keep": False}),
        ("take_a_backup", {}),
        ("restore_a_backup", {"number": 0, "put_back": False}),
        ("rotate_the_log", {}),
    ],
    "a buffer came along, and the log was rotated": [
        ("copy_the_machine", {"keep": True, "has_buffer": True, "is_renamed": True}),
        ("rotate_the_log", {}),
        ("run_online", {"keep": False}),
        ("take_a_backup", {}),
        ("restore_a_backup", {"number": 0, "put_back": False}),
        ("rotate_the_log", {}),
        ("run_online", {"keep": False}),
    ],
    "lines are kept after others had left the log": [
        ("run_offline", {"keep": True}),
        ("run_and_freeze_its_session", {"at_commit": True, "keep": False, "number": 2}),
        ("append_lines", {"count": 17}),
        ("change_the_node_name", {}),
        ("copy_the_machine", {"keep": True, "has_buffer": False, "is_renamed": False}),
        ("append_half_a_line", {"at": 49}),
        ("run_and_freeze_its_session", {"at_commit": False, "keep": False, "number": 2}),
        ("empty_the_log", {}),
        ("end_the_copy", {}),
        ("run_online", {"keep": False}),
    ],
    "a session ended between a call about lost lines and the commit of those after them": [
        ("append_equal_lines", {"count": 21}),
        ("run_and_freeze_its_session", {"at_commit": False, "keep": True, "number": 3}),
        ("empty_the_log", {}),
        ("restore_a_backup", {"number": 0, "put_back": False}),
        ("run_and_end_its_session", {"step": 80}),
    ],
}


@pytest.mark.usefixtures("with_server")
@pytest.mark.parametrize("found", FOUND)
def test_what_the_model_has_found_is_stored_once(found: str) -> None:
    installation = Installation()
    installation.install(is_named=found.startswith("lines"))
    try:
        for rule_name, values in FOUND[found]:
            getattr(installation, rule_name)(**values)
    finally:
        installation.teardown()


@pytest.mark.usefixtures("with_server")
@pytest.mark.timeout(0)
def test_any_order_of_events_stores_every_line_once(rounds: int) -> None:
    run_state_machine_as_test(
        Installation,
        settings=settings(
            max_examples=rounds,
            derandomize=False,  # on a machine for CI, too: two runs with --steps try different orders
            stateful_step_count=20,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            print_blob=True,
        ),
    )
