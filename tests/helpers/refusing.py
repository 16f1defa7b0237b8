"""Run a server that refuses every session with an error, as PostgreSQL or a pooler does."""

from __future__ import annotations

import contextlib
import multiprocessing
import shutil
import socket
import ssl
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

SSL_REQUEST, GSS_REQUEST = 80877103, 80877104


class Answer(NamedTuple):
    """An ErrorResponse. Without a SQLSTATE, it is the answer of a program that is not PostgreSQL."""

    words: str
    state: str | None
    severity: str = "FATAL"
    function: str = "auth_failed"

    def message(self) -> bytes:
        if self.state is None:
            return self.words.encode()
        fields = {"S": self.severity, "V": "FATAL", "C": self.state, "M": self.words, "F": "auth.c", "L": "1",
                  "R": self.function}  # fmt: skip
        body = b"".join(f"{key}{value}\0".encode() for key, value in fields.items()) + b"\0"
        return b"E" + struct.pack("!I", len(body) + 4) + body


@contextlib.contextmanager
def server(answer: Answer, tls: ssl.SSLContext | None = None) -> Iterator[str]:
    """Run the server in the block; yield its port."""
    with socket.create_server(("127.0.0.1", 0)) as door:
        # A process: libpq's ping lets no other thread work.
        process = multiprocessing.get_context("fork").Process(target=_serve, args=(door, answer, tls), daemon=True)
        process.start()
        try:
            yield str(door.getsockname()[1])
        finally:
            process.kill()
            process.join()


def _serve(door: socket.socket, answer: Answer, tls: ssl.SSLContext | None) -> None:
    while True:
        with contextlib.suppress(OSError), contextlib.closing(door.accept()[0]) as client:
            _refuse(client, answer, tls)


def _refuse(client: socket.socket, answer: Answer, tls: ssl.SSLContext | None) -> None:
    length, kind = struct.unpack("!II", client.recv(8, socket.MSG_WAITALL))
    while kind in (SSL_REQUEST, GSS_REQUEST):
        if kind == SSL_REQUEST and tls is not None:
            client.sendall(b"S")
            client = tls.wrap_socket(client, server_side=True)
        else:
            client.sendall(b"N")
        length, kind = struct.unpack("!II", client.recv(8))
    client.recv(length - 8)
    client.sendall(answer.message())
    client.close()


def certificate(folder: Path, name: str) -> tuple[Path, Path]:
    """Create a self-signed certificate and its key."""
    cert, key = folder / f"{name}.crt", folder / f"{name}.key"
    openssl = shutil.which("openssl") or "openssl"
    kind = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2", "-subj", f"/CN={name}"]
    subprocess.run([openssl, "req", "-x509", *kind, "-keyout", key, "-out", cert], check=True, capture_output=True)
    key.chmod(0o600)
    return cert, key
