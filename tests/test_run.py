"""A run stores every line once, says what it did, and leaves an empty log."""

from __future__ import annotations

from conftest import Site, line, lines, users


def test_a_line_becomes_a_row(site: Site) -> None:
    site.append(
        "2025/11/17 10:15:23.123456 from 203.0.113.10:51000 accepted tcp:www.example.com:443 [in >> out] email: k3\n"
    )
    site.run()
    ((at, *rest),) = site.rows()
    assert at.isoformat() == "2025-11-17T10:15:23.123456+00:00"
    assert rest == ["203.0.113.10/32", 51000, "accepted", "tcp", "www.example.com", 443, "in", "out", "k3", "n1"]


def test_a_log_is_empty_after_a_run_and_the_next_run_adds_nothing(site: Site) -> None:
    site.append(*lines(0, 100))
    site.run()
    assert site.log.read_bytes() == b""
    site.run()
    assert site.emails() == users(0, 100)


def test_a_good_run_says_nothing_under_cron(site: Site) -> None:
    site.append(line(1), "no line of xray\n")
    done = site.run()
    assert (done.stdout, done.stderr) == ("", "")
