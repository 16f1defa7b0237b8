"""The TLS files of the client, from the config or libpq's defaults in ~/.postgresql: what is wrong, and how to fix it.

libpq and OpenSSL name the file, and their messages are in English, whatever the language of the machine is.
"""

from __future__ import annotations

import errno
import os
import re
import shlex
from collections.abc import Mapping
from pathlib import Path

from xraylog import file_advice

FILES = {"sslcert": "postgresql.crt", "sslkey": "postgresql.key", "sslrootcert": "root.crt"}  # in ~/.postgresql
# Messages of libpq and OpenSSL about TLS, and how to fix each; the first match decides. {file}: the file that it names.
TLS = (
    (r'file "(?P<file>[^"]+)" has group or world access', "chmod 600 {file}"),
    (r'file "(?P<file>[^"]+)" must be owned by', "sudo chown {user} {file}"),
    (r'not private key file "(?P<file>[^"]+)"', "[postgresql] sslkey: the private key of {sslcert} is expected there"),
    (
        r'(?=.*mismatch|.*not match private).*private key file "(?P<file>[^"]+)"',
        "of a pair these print the same: openssl x509 -noout -pubkey -in {sslcert}; openssl pkey -pubout -in {file}",
    ),
    (
        r'private key file "(?P<file>[^"]+)"',
        "if it has a passphrase: [postgresql] sslpassword; openssl pkey -in {file}",
    ),
    (
        r'root certificate file "(?P<file>[^"]+)"',
        "copy the certificate of the authority there that signed the server's, or name it in [postgresql] sslrootcert",
    ),
    (r'certificate file "(?P<file>[^"]+)"', "expected a certificate in PEM: openssl x509 -noout -subject -in {file}"),
    (
        "certificate verify failed",
        (
            "the server's certificate is expired, or not signed by an authority in {sslrootcert}: "
            "openssl s_client -starttls postgres -connect {host}:{port} -CAfile {sslrootcert}"
        ),
    ),
    (r"does not match host name", "[postgresql] host: a name that the certificate has is expected"),
    (
        r"alert (?:unknown ca|bad certificate|certificate|unsupported certificate|decrypt error|access denied)",
        "the server does not accept {sslcert}: openssl x509 -noout -issuer -dates -in {sslcert}",
    ),
    (
        "[Cc]ertificate authentication failed",
        "its CN must be the role's name: openssl x509 -noout -subject -in {sslcert}; or change [postgresql] user",
    ),
    (
        "client certificate",
        "expected one that the server trusts in {sslcert}: openssl x509 -noout -issuer -dates -in {sslcert}",
    ),
)


def how_to_fix(said: str, options: Mapping[str, str]) -> str:
    """Return how to fix what libpq `said`, given the options it had; "" if none of these files is the cause."""
    files = {key: options.get(key) or os.path.expanduser(f"~/.postgresql/{name}") for key, name in FILES.items()}
    missing = [key for key in ("sslcert", "sslkey") if options.get(key) and not os.path.exists(files[key])]
    if missing:
        return "; ".join(f"[postgresql] {key}: there is no {files[key]}" for key in missing)
    if "client certificate" in said and not os.path.exists(files["sslcert"]):
        return (
            f"there is no {files['sslcert']}: put it there, or name it in [postgresql] sslcert, and its key in sslkey"
        )
    if closed := _closed_file(said):
        return file_advice.how_to_fix(Path(closed), PermissionError(errno.EACCES, os.strerror(errno.EACCES)))
    for pattern, to_do in TLS:
        if found := re.search(pattern, said):
            values = {**files, **found.groupdict(), "user": str(os.geteuid())}
            values |= {key: options.get(key) or other for key, other in (("host", "localhost"), ("port", "5432"))}
            return to_do.format(**{key: shlex.quote(text) for key, text in values.items()})
    return ""


def without_noise(said: str) -> str:
    """Return the message; if a file may not be read, with a fixed reason: some builds of OpenSSL give random bytes."""
    return re.sub('":.*', '": Permission denied', said, flags=re.DOTALL) if _closed_file(said) else said


def _closed_file(said: str) -> str | None:
    """Return the file named in this message that exists, but that this user may not read."""
    effective = os.access in os.supports_effective_ids
    for file in map(str, re.findall('file "([^"]+)"', said)):
        if not os.access(file, os.R_OK, effective_ids=effective) and not _is_missing(file):
            return file
    return None


def _is_missing(file: str) -> bool:
    """Return whether a file certainly does not exist; False if this user may not look."""
    try:
        os.stat(file)
    except PermissionError:
        return False
    except OSError:
        return True
    return False
