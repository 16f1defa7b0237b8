"""nginx shows the page as docs/report.md sets it up: with a password, and to the group of the page's folder alone."""

from __future__ import annotations

import base64
import grp
import http.client
import os
import pty
import re
import tempfile
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from email.message import Message
from pathlib import Path

import pytest
from helpers import daemons
from helpers.documents import BLOCKS, Block
from helpers.site import Site, lines

PASSWORD = "correct horse"  # noqa: S105  # of a test
NGINX = daemons.found("nginx")


@dataclass(frozen=True)
class Machine:
    """A folder in place of the root of a machine, which the user of nginx's workers may enter."""

    root: Path
    port: int

    def here(self, text: str) -> str:
        """Return a text of the page with the paths of this machine, and root in place of the user xray."""
        return re.sub(r"/(?:var|etc)/", lambda match: f"{self.root}{match[0]}", text).replace("-o xray", "-o root")

    def ask(self, password: str | None) -> tuple[int, Message, bytes]:
        """Return status, headers and body of the answer to a request for the page."""
        credentials = base64.b64encode(f"alice:{password}".encode()).decode()
        headers = {} if password is None else {"Authorization": f"Basic {credentials}"}
        with closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)) as connection:
            connection.request("GET", "/xraylog/report.html", headers=headers)
            with connection.getresponse() as answer:
                return answer.status, answer.headers, answer.read()


def block(words: str) -> Block:
    (found,) = (block for block in BLOCKS if block.page == "docs/report.md" and words in block.text)
    return found


def type_in(command: str, typed: str) -> None:
    """Run a command on a terminal; answer each prompt for a password."""
    child, terminal = pty.fork()
    if child == 0:
        os.execv("/bin/sh", ["sh", "-euc", command])  # noqa: S606  # what the page has for a shell
    said = b""
    while True:
        try:
            said += os.read(terminal, 4096)
        except OSError:  # Linux: the other end is closed
            break
        if said.endswith(b"assword: "):
            os.write(terminal, f"{typed}\n".encode())
            said = b""
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0, said


@pytest.fixture
def machine() -> Iterator[Machine]:
    """nginx at work, with the location of the page."""
    if NGINX is None or os.geteuid() or "www-data" not in {group.gr_name for group in grp.getgrall()}:
        pytest.skip("needs nginx, root, and the group www-data")
    with tempfile.TemporaryDirectory(prefix="xraylog-nginx-") as name:
        machine = Machine(Path(name), daemons.free_port())
        machine.root.chmod(0o755)
        for folder in ("etc/nginx", "var/lib"):
            (machine.root / folder).mkdir(parents=True)
        for words in ("-m 2750", "openssl passwd"):
            type_in(machine.here(block(words).text), PASSWORD)
        settings = machine.root / "nginx.conf"
        settings.write_text(f"""
user www-data;
daemon off;
pid {name}/pid;
error_log stderr;
events {{}}
http {{
    access_log off;
    server {{
        listen 127.0.0.1:{machine.port};
        {machine.here(block("auth_basic_user_file").text)}
    }}
}}
""")
        with daemons.listening([NGINX, "-c", str(settings), "-e", "stderr"], machine.port, machine.root / "output"):
            yield machine


def test_the_page_is_read_with_the_password_and_not_without(site: Site, machine: Machine) -> None:
    (options,) = re.findall(r"report_logs\.py --config \S+ (--output .*)", machine.here(block("--mode 640").text))
    site.append(*lines(0, 3))
    site.run()
    for _ in range(2):  # the second page replaces the first
        site.run(*options.split(), script="report_logs", umask=0o077)
        status, headers, body = machine.ask(PASSWORD)
        assert status == 200
        assert b"</html>" in body
    assert headers["Content-Security-Policy"] == "frame-ancestors 'none'"
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert [machine.ask(password)[0] for password in (None, "wrong")] == [401, 401]
    site.run(*options.replace("--mode 640", "").split(), script="report_logs")
    assert machine.ask(PASSWORD)[0] == 403
