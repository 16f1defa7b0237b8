"""xray appends while runs follow one another: no line is lost, none is stored twice."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers.site import ROOT, Site, line

from xraylog.accesslog import drain, logfile

# As xray writes: O_APPEND, one write a line. Paced by the clock where a rate is given, at full speed otherwise.
WRITER = """
import os, sys, time
path, count, rate = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
log = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
start = time.monotonic()
for n in range(count):
    os.write(log, b"2025/11/17 10:15:23 from 203.0.113.7:%d accepted tcp:host.example:443 [in >> out] email: u%d\\n"
                  % (1024 + n % 60000, n % 10))
    while rate and time.monotonic() - start < n / rate:
        pass
"""


@contextlib.contextmanager
def writer(log: Path, count: int, rate: float = 0) -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen([sys.executable, "-c", WRITER, str(log), str(count), str(rate)]) as process:
        yield process


@pytest.mark.parametrize(("count", "rate"), [(200_000, 0), (30_000, 5000)], ids=["full speed", "5,000 lines/s"])
def test_a_process_that_appends_meanwhile_loses_nothing(site: Site, count: int, rate: float) -> None:
    """Nine lines of ten are equal to others: only their number tells."""
    runs = 0
    with writer(site.log, count, rate) as process:
        while process.poll() is None:
            assert site.run_here() == 0
            runs += 1
    assert runs >= 1
    assert site.run_here() == 0
    ports = dict(site.query("SELECT source_port, count(*) FROM logs GROUP BY 1"))
    assert ports == Counter(1024 + n % 60000 for n in range(count))
    assert site.log.read_bytes() == b""


def test_draining_again_and_again_at_full_speed_loses_nothing(tmp_path: Path) -> None:
    """Without a database between them, drains follow one another in milliseconds."""
    path, found, drains = tmp_path / "access.log", [], 0
    path.touch()
    with writer(path, 200_000) as process:
        done = False
        while not done:
            done = process.poll() is not None
            with logfile.opened(path) as log:
                assert log is not None
                blocks = list(log.blocks(0))
                found += [text for _, text in blocks]
                offset = blocks[-1][0] + len(blocks[-1][1]) if blocks else 0
                drained = drain.drain(log, offset, 1 << 40)
                drain.truncate_if_drained(log, drained.offset, 1 << 40)
                drains += offset > 0
    ports = [int(line.split(b" ")[3].split(b":")[1]) for line in b"".join(found).split(b"\n") if line[:1] == b"2"]
    assert ports == [1024 + n % 60000 for n in range(200_000)]
    assert drains > 20
    assert path.read_bytes() == b""


@pytest.mark.parametrize("size", [4096, 8192, 12288])
def test_rounds_of_whole_blocks_of_equal_lines(site: Site, size: int) -> None:
    """Each round looks like the one before, byte for byte: nothing but the drain mark tells them apart."""
    same = b"2025/11/17 10:15:23 from 203.0.113.7:1024 accepted tcp:h.example:443 [in >> out] email: u1\n"
    last = same.rstrip() + b"x" * (size % len(same)) + b"\n"
    text = same * (size // len(same) - 1) + last
    assert len(text) == size
    descriptor = os.open(site.log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    for _ in range(8):
        os.write(descriptor, text)
        assert site.run_here() == 0
    os.close(descriptor)
    assert site.query("SELECT count(*) FROM logs") == [(8 * (size // len(same)),)]
    assert site.log.stat().st_size <= 4096 + 64


def test_ten_equal_lines_are_ten_rows_and_again_after_a_drain(site: Site) -> None:
    for _ in range(3):
        site.append(*[line(1)] * 10)
        site.run()
    assert site.emails() == Counter({"u1": 30})


PEAK = """
import sys
sys.path.insert(0, sys.argv.pop(1))
import parse_logs
status = parse_logs.main(sys.argv[1:])
# not getrusage: its maximum counts what the process was before exec, a copy of the tests
print(next(int(line.split()[1]) // 1024 for line in open("/proc/self/status") if line.startswith("VmHWM")))
sys.exit(status)
"""


def peak_mib(site: Site) -> int:
    """Peak memory of a run as a process of its own."""
    command = [sys.executable, "-c", PEAK, str(ROOT), "--config", str(site.config)]
    return int(subprocess.check_output(command, text=True, timeout=280))


def test_many_lines_load_with_flat_memory(site: Site) -> None:
    def write(count: int) -> None:
        with site.log.open("w") as log:
            log.writelines(line(n % 5000, f"2025/11/{1 + n * 28 // count:02d} 10:15:23.000001") for n in range(count))

    site.set("parser", batch_size=2000)
    write(40_000)
    small = peak_mib(site)
    write(400_000)
    large = peak_mib(site)
    print(f"400,000 lines: {large} MiB; 40,000 lines: {small} MiB")
    assert large < 100
    assert large < small * 1.1 + 2
    assert site.query("SELECT count(*) FROM logs") == [(440_000,)]
    assert Path(site.log).read_bytes() == b""


def test_a_large_buffer_is_written_and_imported_with_flat_memory(site: Site) -> None:
    """A few batches are in memory at a time, on their way in and on their way out."""

    def through_the_buffer(count: int) -> tuple[int, int]:
        site.log.write_text("".join(line(count + n % 5000) for n in range(count)))
        site.away()
        into = peak_mib(site)
        site.back()
        return into, peak_mib(site)

    site.set("parser", batch_size=1000)
    small = through_the_buffer(30_000)  # as many batches as there ever are at a time
    large = through_the_buffer(150_000)
    print(f"150,000 lines: {large} MiB in and out; 30,000 lines: {small} MiB")
    assert max(large) < 100
    assert large[0] < small[0] * 1.1 + 2
    assert large[1] < small[1] * 1.1 + 2
    assert site.query("SELECT count(*) FROM logs") == [(180_000,)]
    assert site.buffer.read_bytes() == b""
