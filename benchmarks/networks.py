"""Measure the lookup of addresses in the table `networks`, and how long files are read and loaded.

    python benchmarks/networks.py [FILE ...] [--networks 600000] [--addresses 1000] [--pg-bin DIR]

With files, these are loaded (docs/networks.md says where to get them); without, generated networks, each with a country
and a provider. The addresses are drawn at random from all of IPv4 and 2000::/3, half of each if the files have both.
The result is the median of five times for the statement that ask_logs.py sends, from the call to the last row.
"""

from __future__ import annotations

import random
import statistics
import time
from ipaddress import ip_address
from pathlib import Path

import psycopg
from stage import arguments, staged

from xraylog.answers import statements
from xraylog.database import networks
from xraylog.networks import files

GOAL, TIMES = 50, 5  # milliseconds for the median; how often each is asked
GIST = """
    SELECT a.address, count(n.network)
    FROM unnest(%(addresses)s::inet[]) AS a (address)
    LEFT JOIN networks n ON n.network >>= a.address
    GROUP BY a.address
"""


def main() -> None:
    """Load, ask, print."""
    parser = arguments("Milliseconds to look addresses up.")
    parser.add_argument("files", type=Path, nargs="*", metavar="FILE")
    parser.add_argument("--networks", type=int, default=600_000)
    parser.add_argument("--addresses", type=int, default=1_000)
    options = parser.parse_args()
    with staged(options.pg_bin) as stage:
        stage.database("networks")
        begun = time.monotonic()
        parts = parts_of(options.files) if options.files else generated(options.networks // 2)
        read = time.monotonic()
        with stage.connect("networks") as conn:
            counts = networks.replace(conn, parts)
            loaded = time.monotonic()
            print(f"{counts.networks:,} networks; {stage.versions}")
            print(f"read in {read - begun:.1f} s, loaded in {loaded - read:.1f} s")
            ask_all(conn, drawn(options.addresses))


def parts_of(paths: list[Path]) -> list[networks.Part]:
    """Return the networks in these files."""
    found = [files.read(path) for path in paths]
    return [networks.Part(file.rows(), file.has_country, file.has_provider, file.versions) for file in found]


def generated(count: int) -> list[networks.Part]:
    """Return generated IPv4 networks of different sizes: this number with a country, and as many with a provider."""
    size = (1 << 32) // count
    bits = size.bit_length() - 1
    starts = [number * size >> bits << bits for number in range(count)]
    texts = [f"{ip_address(start)}/{32 - bits}" for start in dict.fromkeys(starts)]
    countries = "".join(f"{text}\tAU\t\\N\t\\N\n" for text in texts)
    providers = "".join(f"{text}\t\\N\t{number}\tprovider {number}\n" for number, text in enumerate(texts))
    versions = frozenset({4})
    return [networks.Part([countries], True, False, versions), networks.Part([providers], False, True, versions)]


def drawn(count: int) -> list[str]:
    """Return random addresses, the same every time."""
    chance = random.Random(7)
    return [
        str(ip_address(chance.randrange(1 << 24, 224 << 24) if n % 2 else (1 << 125) + chance.randrange(1 << 125)))
        for n in range(count)
    ]


def ask_all(conn: psycopg.Connection, addresses: list[str]) -> None:
    """Print the times of our statement and of a GiST index."""
    known, milliseconds = ask(conn, statements.read()["places_of"].text, addresses)
    goal = "" if milliseconds <= GOAL else f", over the goal of {GOAL} ms"
    print(f"{len(addresses):,} addresses, {known:,} of them known: {milliseconds:.1f} ms{goal}")
    begun = time.monotonic()
    conn.execute("CREATE INDEX ON networks USING gist (network inet_ops)")
    conn.execute("SET enable_seqscan = off")
    created = time.monotonic() - begun
    found, milliseconds = ask(conn, GIST, addresses[:100])
    print(f"with GiST, which takes {created:.1f} s to create: {found} addresses in {milliseconds:.1f} ms")


def ask(conn: psycopg.Connection, statement: str, addresses: list[str]) -> tuple[int, float]:
    """Return how many addresses were found, and the median time in milliseconds."""
    milliseconds = []
    for _ in range(1 + TIMES):
        begun = time.monotonic()
        rows = conn.execute(statement, {"addresses": addresses}).fetchall()
        milliseconds.append((time.monotonic() - begun) * 1000)
    return sum(bool(row[1]) for row in rows), statistics.median(milliseconds[1:])


if __name__ == "__main__":
    main()
