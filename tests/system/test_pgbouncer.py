"""Runs, answers and pages through a real pgbouncer in transaction mode, set up as docs/many-nodes.md says."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers import daemons
from helpers.documents import BLOCKS
from helpers.load_paths import ATTACH, LOAD_PATHS
from helpers.site import AT, Site, day, lines, users

from xraylog.cli import Exit

PGBOUNCER = daemons.found("pgbouncer")
NOBODY = "nobody"  # pgbouncer does not run as root


@pytest.fixture
def pooled(site: Site) -> Iterator[Site]:
    """The site's runs go through a pooler that has two sessions for them."""
    if PGBOUNCER is None:
        pytest.skip("needs pgbouncer: apt-get install pgbouncer")
    (settings,) = (block.text for block in BLOCKS if block.page == "docs/many-nodes.md" and "pool_mode" in block.text)
    server = site.database
    with tempfile.TemporaryDirectory(prefix="xraylog-pgbouncer-") as name:
        folder, port = Path(name), daemons.free_port()
        folder.chmod(0o755)
        (folder / "users").write_text(f'"{server["user"]}" "{server["password"]}"\n')
        config = folder / "pgbouncer.ini"
        config.write_text(
            f"[databases]\n* = host={server['host']} port={server['port']}\n[pgbouncer]\n"
            f"listen_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\nauth_type = md5\n"
            f"auth_file = {folder}/users\n{settings.replace('default_pool_size = 20', 'default_pool_size = 2')}"
        )
        command = [PGBOUNCER, "-q", *(["-u", NOBODY] if os.geteuid() == 0 else []), str(config)]
        with daemons.listening(command, port, folder / "output"):
            site.set("postgresql", host="127.0.0.1", port=port)
            yield site


@pytest.mark.parametrize("load_path", LOAD_PATHS)
def test_each_load_path_stores_each_line_once(pooled: Site, load_path: str) -> None:
    pooled.append(*lines(0, 50))
    pooled.run()
    pooled.load_path = load_path
    pooled.append(*lines(50, 100, day(1) if load_path == ATTACH else AT), "damaged\n")
    pooled.run()
    assert pooled.emails() == users(0, 100)
    assert pooled.query("SELECT count(*) FROM rejected_lines") == [(1,)]
    assert "✗" not in pooled.run("--check").stdout


def test_an_outage_is_buffered_and_imported(pooled: Site) -> None:
    pooled.append(*lines(0, 20))
    pooled.run()
    server = pooled.settings["postgresql"]["port"]
    pooled.away()
    pooled.append(*lines(20, 40))
    pooled.run()
    assert pooled.buffered() == users(20, 40)
    pooled.back()
    pooled.set("postgresql", port=server)
    pooled.run()
    assert pooled.emails() == users(0, 40)


def test_answers_and_the_page_are_read(pooled: Site) -> None:
    pooled.append(*lines(0, 3))
    pooled.run()
    found = pooled.run("user", "u1", "--since", "2025-11-17", "--until", "2025-11-18", script="ask_logs").stdout
    assert "203.0.113.2" in found
    page = pooled.folder / "page.html"
    pooled.run("--output", str(page), "--days", "1", "--until", "2025-11-17", script="report_logs")
    assert "u1" in page.read_text()


def test_a_startup_parameter_that_it_refuses_is_named(pooled: Site) -> None:
    pooled.set("postgresql", options="-c work_mem=8MB")
    pooled.append(*lines(0, 3))
    said = pooled.run(status=Exit.OPERATOR).stderr
    assert "unsupported startup parameter: options" in said
    assert pooled.buffered() == users(0, 3)
