"""Real servers: Debian's v2ray, and an xray that comes as a Python package."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import xray_core

from helpers.site import wait_until

START = "import sys, xray; xray.startFromJSON(open(sys.argv[1]).read())"


def command(name: str) -> list[str]:
    """Return the command of "xray" or "v2ray", without the path of its configuration. Skips the test without one."""
    if name == "v2ray":
        return [program("v2ray"), "-config"]
    try:
        return [str(xray_core.fetch()), "-c", START]
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"needs a real xray: {error}; python scripts/xray_core.py fetches it")


def program(name: str) -> str:
    """Return the path of a program that is a package of Debian's, too; CI may not do without it."""
    found = shutil.which(name)
    if found is None:
        give_up = pytest.fail if os.environ.get("CI") else pytest.skip
        give_up(f"needs a real {name}: apt-get install {name}")
    return found


@contextlib.contextmanager
def running(command: list[str], path: Path, config: dict[str, Any]) -> Iterator[None]:
    """Write the configuration and start a server, which has ended at the end."""
    path.write_text(json.dumps(config))
    output = path.with_suffix(".out")
    with (
        output.open("w") as said,
        subprocess.Popen([*command, path], stdout=said, stderr=said, env={**os.environ, "TZ": "UTC"}) as process,
    ):
        try:
            # not by connecting: a socks inbound writes a line about that
            wait_until(lambda: process.poll() is not None or " started\n" in output.read_text())
            assert process.poll() is None, output.read_text()
            yield
            process.terminate()
            assert process.wait(600) == 0, output.read_text()
        finally:
            process.kill()


def free_ports(count: int) -> list[int]:
    """Return ports of this machine that nobody listens on."""
    with contextlib.ExitStack() as held:
        probes = [held.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [probe.getsockname()[1] for probe in probes]
