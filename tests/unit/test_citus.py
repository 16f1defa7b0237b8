"""What Citus's coordinator says for a worker: an outage passes by itself, whatever the SQLSTATE; a refusal does not."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from helpers import citus
from psycopg import errors

from xraylog.database import refusals, session

PACKAGE = Path(refusals.__file__).parents[1]
ON_ONE_SERVER = {  # forms that Citus refuses, and why it never meets them
    ("database/citus.py", "a UNION ALL of no row"): "the pattern by which it is removed",
    ("report/traffic.py", "a UNION ALL of no row"): "removed where `logs` is distributed",
    ("report/traffic.py", "now() on the workers"): "the days to read are named by constants",
    ("database/detach.py", "DDL"): "there a day is dropped at once",
    ("loading/foreign_keys.py", "a SELECT of no column"): "there names are counted, and not locked",
    ("loading/foreign_keys.py", "a lock of names"): "there names are counted, and not locked",
}

TO_WORKER = "connection to the remote node xray@127.0.0.1:6401 failed with the following error: "
AWAY = [
    ("58030", "failed to COPY to shard 102027 on 127.0.0.1:6402"),
    ("58030", "failed to complete COPY on 127.0.0.1:6402"),
    ("XX000", "SSL SYSCALL error: EOF detected"),
    ("XX000", "terminating connection due to administrator command"),
    ("XX000", "server closed the connection unexpectedly\n\tThis probably means the server terminated abnormally"),
    ("XX000", "could not acquire the lock required to colocate distributed table logs_2025_11_17"),
    ("08006", f"{TO_WORKER}Connection refused"),
]
FOR_THE_OPERATOR = [
    ("XX000", 'new row for relation "logs_2025_11_17_103444" violates check constraint "no_port_7"'),
    ("XX000", "failure on connection marked as essential: 127.0.0.1:6402"),
    ("08006", f"{TO_WORKER}fe_sendauth: no password supplied"),
    ("08006", f'{TO_WORKER}FATAL:  no pg_hba.conf entry for host "127.0.0.1", user "postgres"'),
]


def error(state: str, words: str) -> psycopg.Error:
    return errors.lookup(state)(words)


@pytest.mark.parametrize(("state", "words"), AWAY)
def test_a_worker_that_is_away_is_an_outage(state: str, words: str) -> None:
    assert session.is_temporary(error(state, words))
    assert refusals.describe(words, {}, state) is not None


@pytest.mark.parametrize(("state", "words"), FOR_THE_OPERATOR)
def test_what_a_worker_refuses_is_for_the_operator(state: str, words: str) -> None:
    assert not session.is_temporary(error(state, words))


def test_it_names_the_place_of_the_password_for_the_workers() -> None:
    refusal = refusals.describe(f"{TO_WORKER}fe_sendauth: no password supplied", {"user": "xray"}, "08006")
    assert refusal is not None
    assert "INSERT INTO pg_dist_authinfo VALUES (0, 'xray', 'password=…')" in refusal.to_do


def statements() -> Iterator[tuple[str, str]]:
    """Yield each text in the source of the product, without the migration, which refuses what Citus manages."""
    for path in sorted(PACKAGE.rglob("*.py")):
        if "migration" not in path.parts:
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Constant) and isinstance(node.value, str):
                    yield str(path.relative_to(PACKAGE)), " ".join(node.value.split())


def test_no_statement_of_the_product_is_in_a_form_that_citus_refuses() -> None:
    """Whether a test sends it or not. The order of settings shows only when they are sent."""
    refused = {(name, form.split(":")[0]): form for name, text in statements() for form in citus.refused([text])}
    found = {place: form for place, form in refused.items() if place[1] != "a setting out of order"}
    assert {place: form for place, form in found.items() if place not in ON_ONE_SERVER} == {}
    assert found.keys() == ON_ONE_SERVER.keys()
