"""Containers, other locales, a folder that was removed, what an editor left in the config: it works, or one line mends
it."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.site import ROOT, Site, line, lines, users
from helpers.users import OTHER, as_root, becoming, folder_of

from xraylog.cli import Exit

NAMELESS = 54321  # a user without an entry in passwd


def in_shell(site: Site, script: str, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """A run in a process of its own; `script` ends with exec "$@"."""
    done = subprocess.run(
        ["/bin/sh", "-c", script, "sh", *site.command(*arguments)],
        env={**os.environ, **variables}, capture_output=True, text=True, errors="replace", check=False, cwd="/",
    )  # fmt: skip
    assert "Traceback" not in done.stderr, done.stderr
    return done


# --- who runs it, and where ----------------------------------------------------------------------------------


@as_root
@pytest.mark.parametrize("away", [False, True], ids=["online", "offline"])
def test_a_user_without_a_name_or_a_home(database: dict[str, str], away: bool) -> None:
    with folder_of(NAMELESS, 0o700) as folder:
        site = Site(folder, database)
        site.set("stats", prometheus="xray.prom")
        site.append(*lines(0, 3))
        if away:
            site.away()
        for path in folder.iterdir():
            os.chown(path, NAMELESS, NAMELESS)
        become = becoming(NAMELESS)
        done = subprocess.run([*become, *site.command()], capture_output=True, text=True, check=False, cwd="/")
        assert done.returncode == Exit.DONE, done.stderr
        assert (site.buffered() if away else site.emails()) == users(0, 3)
        if away:
            assert len(done.stderr.splitlines()) == 1
        else:
            assert done.stderr == ""
        checked = subprocess.run([*become, *site.command("--check")], capture_output=True, text=True, check=False)
        assert f"✓ user: {NAMELESS}" in checked.stdout


REMOVED = 'mkdir "$GONE" && cd "$GONE" && rmdir "$GONE" && exec "$@"'


def test_a_folder_that_was_removed_matters_to_relative_paths_only(site: Site) -> None:
    site.append(*lines(0, 3))
    gone = str(site.folder / "gone")
    assert in_shell(site, REMOVED, GONE=gone).stderr == ""
    assert site.emails() == users(0, 3)
    for option, name in (("--logfile", "access.log"), ("--config", "config.ini")):
        done = in_shell(site, REMOVED, option, name, GONE=gone)
        assert done.returncode == 2
        assert done.stderr.splitlines()[-1].endswith(
            f"argument {option}: expected a path, found '{name}' in a folder that was removed; cd to another one, or "
            "type the full path"
        )


@pytest.mark.parametrize("script", ["parse_logs", "migrate_logs_to_partitioned", "report_logs", "ask_logs"])
def test_the_config_in_a_folder_that_was_removed_is_found_nowhere(site: Site, script: str) -> None:
    command = [sys.executable, str(ROOT / f"{script}.py")]
    done = subprocess.run(
        ["/bin/sh", "-c", REMOVED, "sh", *command], env={**os.environ, "GONE": str(site.folder / "gone")},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, "Traceback" in done.stderr) == (2, False)
    assert "'config.ini' in a folder that was removed; cd to another one" in done.stderr


# --- locales and variables -----------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def locales(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, str]]:
    """Variables for locales whose encoding is not UTF-8: C, which Python would change, and a Latin-1 one if it can be
    made."""
    folder = tmp_path_factory.mktemp("locales")
    plain = {"PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    found = {"C": {**plain, "LC_ALL": "C"}}
    name = "de_DE.ISO-8859-1"
    made = subprocess.run(
        ["/usr/bin/env", "localedef", "-i", "de_DE", "-f", "ISO-8859-1", str(folder / name)],
        capture_output=True,
        check=False,
    )
    if made.returncode <= 1 and (folder / name).exists():
        found["Latin-1"] = {**plain, "LC_ALL": name, "LOCPATH": str(folder)}
    return found


@pytest.mark.parametrize("locale", ["C", "Latin-1"])
@pytest.mark.parametrize("name", ["zugriffe-ä.log", "журнал.log"])
def test_letters_in_paths_are_those_of_the_config_in_every_locale(
    site: Site, locales: dict[str, dict[str, str]], locale: str, name: str
) -> None:
    if locale not in locales:
        pytest.skip("no Latin-1 locale can be made here")
    variables = locales[locale]
    site.append(*lines(0, 3), to=site.folder / name)
    site.set("parser", logfile=name, offline_file="puffer-ü.jsonl")
    site.set("stats", prometheus="ä.prom", output="статистика.jsonl")
    assert in_shell(site, 'exec "$@"', "--check", **variables).returncode == Exit.DONE
    done = in_shell(site, 'exec "$@"', **variables)
    assert (done.returncode, done.stderr) == (Exit.DONE, "")
    assert site.emails() == users(0, 3)
    assert (site.folder / name).read_bytes() == b""
    assert {"puffer-ü.jsonl.state", "ä.prom", "статистика.jsonl"} <= set(os.listdir(site.folder))
    assert f'log="{site.folder}/{name}"' in (site.folder / "ä.prom").read_text()
    site.append(line(3), to=site.folder / name)
    site.run()  # in the tests' locale: the same log, the same installation
    assert site.emails() == users(0, 4)
    assert site.query("SELECT count(DISTINCT source) FROM log_positions WHERE source LIKE %s", f"%{name}") == [(1,)]


@pytest.mark.parametrize("variable", ["LOGURU_LEVEL=info", "LOGURU_AUTOINIT=maybe", "LOGURU_ENQUEUE=x"])
def test_variables_of_loguru_end_no_run(site: Site, variable: str) -> None:
    site.append(*lines(0, 3))
    name, _, value = variable.partition("=")
    assert in_shell(site, 'exec "$@"', **{name: value}).stderr == ""
    assert site.emails() == users(0, 3)


@pytest.mark.parametrize("package", ["loguru", "psycopg"])
@pytest.mark.parametrize("script", sorted(path.stem for path in ROOT.glob("*.py")))
def test_an_interrupt_while_the_packages_are_imported_is_one_line(script: str, package: str, tmp_path: Path) -> None:
    (tmp_path / f"{package}.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGINT)\n")
    done = subprocess.run(
        [sys.executable, ROOT / f"{script}.py", "--version"],
        env={**os.environ, "PYTHONPATH": str(tmp_path)}, capture_output=True, text=True, check=False,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell's & lets it be ignored
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (-signal.SIGINT, "", "interrupted\n")


# --- what has to be installed --------------------------------------------------------------------------------


@pytest.mark.parametrize("script", sorted(path.stem for path in ROOT.glob("*.py")))
def test_a_python_without_the_packages_learns_how_to_get_them(script: str) -> None:
    """-S: without any package, as the system's own Python."""
    done = subprocess.run(
        [sys.executable, "-S", str(ROOT / f"{script}.py"), "--check"], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (Exit.OPERATOR, "")
    (said,) = done.stderr.splitlines()
    assert re.match(r"expected the package (loguru|psycopg), found none; ", said)
    assert f" -m pip install -r {ROOT / 'requirements.txt'}" in said


def test_a_variable_that_keeps_psycopg_from_starting_is_named(site: Site) -> None:
    said = in_shell(site, 'exec "$@"', PSYCOPG_IMPL="nonsense").stderr
    assert said.endswith("; unset PSYCOPG_IMPL\n")
    in_shell(site, 'unset PSYCOPG_IMPL; exec "$@"', PSYCOPG_IMPL="nonsense")
    assert site.log.exists() is False


def advice_of_the_systems_python(folder: Path, first: str = "") -> tuple[str, str]:
    """Return what to run in folder/tree, and after which command: where pip may not install for all (PEP 668)."""
    (folder / "EXTERNALLY-MANAGED").touch()
    tree = folder / "tree"
    (tree / "xraylog").mkdir(parents=True)
    (tree / "requirements.txt").write_text("")
    (tree / "xraylog" / "required.py").write_text((ROOT / "xraylog" / "required.py").read_text())
    ask = (
        f"import sys, sysconfig; sysconfig.get_path = lambda _: {str(folder)!r}; sys.prefix = sys.base_prefix; "
        f"sys.path.insert(0, {str(tree / 'xraylog')!r}); import importlib; importlib.import_module = lambda _: None; "
        "import __future__, contextlib, pathlib, shlex; "
        f"{first}import required; print(required.install_command())"
    )
    done = subprocess.run([sys.executable, "-S", "-c", ask], capture_output=True, text=True, check=True)
    run, _, install = done.stdout.strip().removeprefix("run it with ").partition(", after: ")
    return run, install


def test_the_systems_python_gets_an_environment_of_its_own(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    run, install = advice_of_the_systems_python(tmp_path)
    assert run == str(tree / ".venv/bin/python")
    assert install.endswith(f"{run} -m pip install -r {tree / 'requirements.txt'}")
    make, _, _ = install.partition(" && ")
    assert shlex.split(make)[1:] == ["-m", "venv", str(tree / ".venv")]


@as_root
def test_an_environment_whose_python_this_user_may_not_reach_is_recreated() -> None:
    """It is a link into /root, as pyenv makes them: a user like xray's may not follow it."""
    with folder_of(OTHER) as open_to_all, folder_of(0, mode=0o700) as closed:
        (closed / "python3").symlink_to(sys.executable)
        (open_to_all / "tree/.venv/bin").mkdir(parents=True)
        (open_to_all / "tree/.venv/bin/python").symlink_to(closed / "python3")
        # This Python may itself be in a folder of root's: the user is another one after it has started.
        become = f"import os; os.chdir('/'); os.setgid({OTHER}); os.setuid({OTHER}); "
        run, install = advice_of_the_systems_python(open_to_all, first=become)
        own = open_to_all / "tree/.venv"
        assert run == str(own / "bin/python")
        assert f" -m venv --clear {own} && sudo {run} -m pip install " in install


# --- the config ----------------------------------------------------------------------------------------------


def test_a_byte_order_mark_is_no_part_of_the_config(site: Site) -> None:
    site.config.write_bytes(b"\xef\xbb\xbf" + site.config.read_bytes().replace(b"\n", b"\r\n"))
    site.append(*lines(0, 3))
    assert site.run().stderr == ""
    assert site.emails() == users(0, 3)


@pytest.mark.parametrize("encoding", ["utf-16", "cp1252"])
def test_a_config_in_another_encoding_is_converted_as_the_message_says(site: Site, encoding: str) -> None:
    site.set("parser", node="müller")
    site.config.write_bytes(site.config.read_text().encode(encoding))
    said = site.run(status=Exit.CONFIGURATION).stderr
    mode = site.config.stat().st_mode
    subprocess.run(["/bin/sh", "-c", said.partition("to convert it: ")[2]], check=True)
    assert "node = müller" in site.config.read_text()
    assert site.config.stat().st_mode == mode
    site.run()


@pytest.mark.parametrize(
    ("section", "key", "value"),
    [
        ("parser", "logfile", '"{}"'),
        ("parser", "offline_file", "'{}'"),
        ("parser", "timezone", '"UTC"'),
        ("stats", "output", "{} # for us"),
        ("parser", "logfile", "{}   ; the log"),
        ("parser", "logfile", '"{}'),
        ("parser", "logfile", "\u201c{}\u201d"),
        ("parser", "logfile", "`{}`"),
        ("postgresql", "host", '"{}"'),
        ("postgresql", "port", "{} # the second server"),
    ],
)
def test_quotes_and_comments_are_no_part_of_a_value(site: Site, section: str, key: str, value: str) -> None:
    """The line that the message writes is the one that it takes."""
    plain = site.settings[section][key]
    site.append(*lines(0, 3))
    site.set(section, **{key: value.format(plain)})
    (said,) = site.run(status=Exit.CONFIGURATION).stderr.splitlines()
    assert f"{site.config}: [{section}] {key}: expected the value alone, found " in said
    given, _, written = said.partition("; write: ")[2].partition(" = ")
    site.set(section, **{given: written})
    site.run()
    assert site.emails() == users(0, 3)


def test_a_password_in_quotes_is_named_when_it_is_refused(site: Site) -> None:
    site.set("postgresql", password='"wrong"')  # noqa: S106
    site.append(*lines(0, 3))
    (said,) = site.run(status=Exit.OPERATOR).stderr.splitlines()
    assert "change [postgresql] password (its quotes are part of it: a value has none) in " in said
    assert "wrong" not in said
