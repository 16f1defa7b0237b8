"""What is wrong with a file is named, with the command that mends it: here each one is typed, and the next run is good.

Runs are bound by permissions also where the tests are root's: without the right to pass them by.
"""

from __future__ import annotations

import os
import resource
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from helpers.site import Site, lines, users
from helpers.users import OTHER, as_root

from xraylog.cli import Exit

BOUND = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"] if os.geteuid() == 0 else []


@pytest.fixture
def placed(site: Site) -> Site:
    """Each of its files has a folder of its own."""
    for folder in ("log", "var", "out"):
        (site.folder / folder).mkdir(mode=0o700)
    site.log, site.buffer = site.folder / "log" / "access.log", site.folder / "var" / "buffer.jsonl"
    site.set("parser", logfile=str(site.log), offline_file=str(site.buffer))
    site.set("stats", output="out/stats.jsonl", prometheus="out/xray.prom")
    site.append(*lines(0, 3))
    return site


def run(site: Site, *arguments: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run([*BOUND, *site.command(*arguments)], capture_output=True, text=True, check=False, cwd="/")
    assert "Traceback" not in done.stderr, done.stderr
    return done


def type_it(advice: str) -> None:
    """What the operator does, as root."""
    subprocess.run(["/bin/sh", "-c", advice.removeprefix("sudo ")], check=True)


def removed(*parts: str) -> Callable[[Site], None]:
    return lambda site: site.folder.joinpath(*parts).rmdir()


def of_another(*parts: str, mode: int) -> Callable[[Site], None]:
    def give(site: Site) -> None:
        path = site.folder.joinpath(*parts)
        if not path.exists():
            path.write_text('{"token": "0123"}' if path.suffix == ".state" else "")
        path.chmod(mode)
        os.chown(path, OTHER, OTHER)

    return give


# What is wrong; what of it is named; the command.
FAULTS: dict[str, tuple[Callable[[Site], None], str, str]] = {
    "no folder of the buffer": (removed("var"), "{}/var", "install -d -o USER -m 700 {}/var"),
    "no folder of the statistics": (removed("out"), "{}/out", "install -d -o USER -m 700 {}/out"),
    "lock of the log left by root": (
        of_another("log", "access.log.lock", mode=0o600),
        "{}/log/access.log.lock",
        "chown -h USER {}/log/access.log.lock",
    ),
    "lock of the buffer left by root": (
        of_another("var", "buffer.jsonl.lock", mode=0o600),
        "{}/var/buffer.jsonl.lock",
        "chown -h USER {}/var/buffer.jsonl.lock",
    ),
    "folder of the buffer of another": (of_another("var", mode=0o755), "{}/var", "chown -h USER {}/var"),
    "state left by root": (
        of_another("var", "buffer.jsonl.state", mode=0o600),
        "{}/var/buffer.jsonl.state",
        "chown -h USER {}/var/buffer.jsonl.state",
    ),
    "statistics left by root": (
        of_another("out", "stats.jsonl", mode=0o600), "{}/out/stats.jsonl", "chown -h USER {}/out/stats.jsonl"
    ),
}  # fmt: skip


@as_root
@pytest.mark.parametrize("fault", FAULTS)
def test_the_file_is_named_and_the_command_mends_it(placed: Site, fault: str) -> None:
    arrange, named, command = FAULTS[fault]
    arrange(placed)
    named, command = named.format(placed.folder), command.format(placed.folder).replace("USER", "root")
    checked = run(placed, "--check")
    assert checked.returncode == Exit.OPERATOR
    shown = [text for text in checked.stdout.splitlines() if text.startswith("✗")]
    assert [text for text in shown if named in text and command in text], checked.stdout
    done = run(placed)
    is_missing = fault.startswith("no folder of the buffer")
    assert done.returncode in (Exit.OPERATOR, *([Exit.FAILED] if is_missing else []))
    said = done.stderr.splitlines()
    assert [text for text in said if named in text and f"what to do: {command}" in text], done.stderr
    subprocess.run(["/bin/sh", "-c", command], check=True)
    done = run(placed)
    assert (done.returncode, done.stderr) == (Exit.DONE, "")
    assert placed.emails() == users(0, 3)


def test_a_lock_that_is_a_link_to_nowhere(placed: Site) -> None:
    (placed.log.parent / "access.log.lock").symlink_to("/nonexistent/lock")
    mend = f"it is a link to /nonexistent/lock, where nothing can be created; what to do: rm {placed.log}.lock"
    assert mend in placed.run("--check", status=Exit.OPERATOR).stdout.replace("sudo ", "")
    said = placed.run(status=Exit.OPERATOR).stderr
    assert mend in said.replace("sudo ", "")
    assert "offline_file" not in said
    type_it(said.partition("what to do: ")[2])
    placed.run()
    assert placed.emails() == users(0, 3)


def test_a_log_that_leads_to_a_folder_that_is_not_there_is_no_success(placed: Site) -> None:
    placed.log.unlink()
    placed.log.symlink_to("gone/access.log")
    said = placed.run(status=Exit.OPERATOR).stderr
    assert f"{placed.log.parent}/gone: expected the folder of an access log, found none; " in said
    checked = placed.run("--check", status=Exit.OPERATOR).stdout
    assert said.partition("/gone: ")[2].strip() in checked
    type_it(said.partition("; or: ")[2])
    placed.run()


def test_a_folder_in_the_place_of_the_state(placed: Site) -> None:
    placed.buffer.with_name("buffer.jsonl.state").mkdir()
    for option in ("--check", "-q"):
        done = placed.run(option, status=Exit.OPERATOR)
        assert f"{placed.buffer}.state" in done.stdout + done.stderr
        assert f"ls -la {placed.buffer}.state" in done.stdout + done.stderr


@pytest.fixture
def attribute() -> Iterator[Callable[[Path, str], None]]:
    """Sets what chattr sets, where the tests may."""
    changed: list[Path] = []

    def change(path: Path, letter: str) -> None:
        done = subprocess.run(["/usr/bin/env", "chattr", f"+{letter}", str(path)], capture_output=True, check=False)
        if done.returncode:
            pytest.skip("these tests, or this file system, cannot set attributes")
        changed.append(path)

    yield change
    for path in changed:
        subprocess.run(["/usr/bin/env", "chattr", "-ia", str(path)], check=True)


@pytest.mark.parametrize("letter", ["i", "a"])
def test_an_attribute_of_the_log_is_named(placed: Site, attribute: Callable[[Path, str], None], letter: str) -> None:
    """Its lines are stored; no owner and no mode explains why they stay."""
    attribute(placed.log, letter)
    seen = f"chattr +{letter} forbids to change {placed.log}, as lsattr -d {placed.log} shows"
    advice = f"{seen}; what to do: chattr -{letter} {placed.log}"
    assert advice in placed.run("--check", status=Exit.OPERATOR).stdout
    (said,) = placed.run().stderr.splitlines()
    assert f"{placed.log} is not writable: its lines are stored, but stay in it; " in said
    assert advice in said
    type_it(said.partition("what to do: ")[2])
    placed.append(*lines(3, 4))
    assert placed.run().stderr == ""
    assert placed.emails() == users(0, 4)
    assert placed.log.read_bytes() == b""


@pytest.mark.parametrize("name", ["var/buffer.jsonl.state", "var/buffer.jsonl", "out/stats.jsonl"])
def test_check_sees_an_attribute_of_our_files(placed: Site, attribute: Callable[[Path, str], None], name: str) -> None:
    placed.away()
    placed.run()
    placed.back()
    path = placed.folder / name
    if not path.exists():
        path.write_text('{"token": "0123"}')
    attribute(path, "i")
    checked = placed.run("--check", status=Exit.OPERATOR).stdout
    assert f"chattr +i forbids to change {path}, as lsattr -d {path} shows; what to do: chattr -i {path}" in checked


def test_an_attribute_of_the_buffers_folder_is_named(placed: Site, attribute: Callable[[Path, str], None]) -> None:
    attribute(placed.buffer.parent, "i")
    said = placed.run(status=Exit.OPERATOR).stderr
    folder = placed.buffer.parent
    assert f"chattr +i forbids to change {folder}, as lsattr -d {folder} shows; what to do: chattr -i {folder}" in said
    type_it(said.partition("what to do: ")[2])
    placed.run()
    assert placed.emails() == users(0, 3)


@as_root
def test_a_log_of_another_user_names_the_user_to_run_as(placed: Site) -> None:
    placed.log.chmod(0o600)
    os.chown(placed.log, OTHER, OTHER)
    os.chown(placed.log.parent, OTHER, OTHER)
    done = run(placed)
    assert done.returncode == Exit.OPERATOR
    runs = " ".join(placed.command())
    assert f"{placed.log}: expected a log that can be read, found: Permission denied; nothing was read; " in done.stderr
    assert f"run as nobody, whose it is: runuser -u nobody -- {runs}" in done.stderr


def test_a_log_that_its_own_user_may_not_read(placed: Site) -> None:
    placed.log.chmod(0)
    done = run(placed)
    assert done.returncode == Exit.OPERATOR
    said = done.stderr.partition("what to do: ")[2].strip()
    assert said.endswith(f"chmod u+rwX {placed.log}")
    type_it(said)
    assert run(placed).returncode == Exit.DONE
    assert placed.emails() == users(0, 3)


# --- what is no log ------------------------------------------------------------------------------------------


def test_a_folder_as_log_names_the_files_in_it(placed: Site) -> None:
    placed.set("parser", logfile=str(placed.log.parent))
    for option, status in (("--check", Exit.OPERATOR), ("-v", Exit.OPERATOR)):
        done = placed.run(option, status=status)
        said = done.stdout + done.stderr
        assert f"{placed.log.parent}: expected a log in a file, found a folder" in said
        assert f"name the file in it, [parser] logfile in {placed.config}: ls -la {placed.log.parent}" in said


STREAMS = {
    "/dev/stdout": "a link to /dev/stdout, which is where a process prints",
    "/dev/stderr": "a link to /dev/stderr, which is where a process prints",
    "/proc/1/fd/1": "",  # of another user, or our own
}


@pytest.mark.parametrize("piped", [False, True])
@pytest.mark.parametrize("stream", STREAMS)
def test_a_log_that_leads_to_a_stream_names_where_xray_prints(placed: Site, stream: str, piped: bool) -> None:
    """As in images of xray for containers; whatever our own output is, a file even, it is no log."""
    placed.log.unlink()
    placed.log.symlink_to(stream)
    checked = placed.run("--check", status=Exit.OPERATOR)
    assert "docker logs NAME | " in checked.stdout
    done = placed.run(status=Exit.OPERATOR, **({"cwd": "/"} if piped else {}))
    expected = STREAMS[stream]
    assert f"{placed.log}: expected a log" in done.stderr
    assert expected in done.stderr
    pipe = " ".join([*placed.command(), "--logfile -"])
    assert f"journalctl -u xray -o cat | {pipe}; in a container: docker logs NAME | {pipe}" in done.stderr
    assert placed.rejected() == []


def test_a_log_that_goes_nowhere_is_named_in_xrays_config(placed: Site) -> None:
    placed.log.unlink()
    placed.log.symlink_to("/dev/null")
    for option in ("--check", "-v"):
        done = placed.run(option, status=Exit.OPERATOR)
        said = done.stdout + done.stderr
        assert f"{placed.log}: expected a log in a file, found a device" in said
        assert "xray's log goes nowhere: name a file, \"access\" in xray's config and [parser] logfile in " in said


def test_a_named_pipe_as_log_is_to_be_piped_in(placed: Site) -> None:
    placed.log.unlink()
    os.mkfifo(placed.log)
    said = placed.run(status=Exit.OPERATOR).stderr
    assert f"{placed.log}: expected a log in a file, found a pipe" in said
    piped = said.partition("pipe it in: ")[2].strip()
    writer = subprocess.Popen(["/bin/sh", "-c", f"cat >{placed.log}"], stdin=subprocess.PIPE)
    reader = subprocess.Popen(["/bin/sh", "-c", piped])
    writer.communicate("".join(lines(0, 3)).encode())
    assert reader.wait() == Exit.DONE
    assert placed.emails() == users(0, 3)


def test_a_pipe_of_the_shell_as_log_is_to_be_piped_in(placed: Site) -> None:
    """As in `--logfile <(zcat OLD)` or `zcat OLD | … --logfile /dev/stdin`: it has no name to be read by again."""
    text = "".join(lines(0, 3))
    said = subprocess.run(
        placed.command("--logfile", "/dev/stdin"), input=text, capture_output=True, text=True, check=False
    ).stderr
    assert "/dev/stdin: expected a log in a file, found a pipe" in said
    command, piped = said.partition("pipe it in: ")[2].strip().split(" | ")
    assert command == "COMMAND"
    assert subprocess.run(["/bin/sh", "-c", piped], input=text, text=True, check=False).returncode == Exit.DONE
    assert placed.emails() == users(0, 3)


@pytest.mark.parametrize(
    ("section", "key"),
    [("parser", "offline_file"), ("stats", "output"), ("stats", "prometheus"), ("logging", "file")],
)
def test_a_folder_in_the_place_of_our_file_is_no_green_light(placed: Site, section: str, key: str) -> None:
    folder = placed.folder / "folder.prom"
    folder.mkdir()
    placed.set(section, **{key: str(folder)})
    checked = placed.run("--check", status=Exit.OPERATOR).stdout
    assert [text for text in checked.splitlines() if text.startswith("✗") and str(folder) in text], checked
    done = placed.run(status=Exit.CONFIGURATION if section == "logging" else Exit.OPERATOR)
    assert str(folder) in done.stderr
    assert "a folder" in done.stderr or "Is a directory" in done.stderr


@pytest.mark.parametrize("limit", [1, 64, 1000, 2000])
def test_a_limit_on_the_size_of_files_doubles_no_line(site: Site, limit: int) -> None:
    """It cut the mark short that replaces the stored lines: the rest of them was there, and read again."""

    def limited() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))

    # Line coverage writes files too, in the measured process: under this limit it ends in a traceback.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_")}
    site.append(*lines(0, 20))
    done = site.run(status=Exit.FAILED, preexec_fn=limited, env=environment)
    assert "name a file" not in done.stderr
    advice = done.stderr.splitlines()[-1].rsplit("what to do: ", 1)[1]
    site.run(status=Exit.FAILED, preexec_fn=limited, env=environment)
    unlimited = ["/bin/sh", "-c", f'{advice}; exec "$@"', "-", *site.command()]
    shell = subprocess.run(unlimited, preexec_fn=limited, env=environment, check=False)
    assert shell.returncode == Exit.DONE
    assert site.emails() == users(0, 20)
    assert site.log.stat().st_size == 0
