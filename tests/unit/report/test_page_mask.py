"""A masked page shows names of hosts, and of addresses no more than their networks."""

from __future__ import annotations

import pytest

from xraylog.report.page_mask import PageMask

SPELLINGS = (  # of addresses that a resolver or a reader understands
    "203.0.113.77.",
    "203.0.113.077",
    "0xcb.0.0x71.77",
    "0xcb00714d",
    "3405803853",
    "203.0.113.77:443",
    " 203.0.113.77",
    "２０３.0.113.77",
    "alice@203.0.113.77",
    "203-0-113-77.isp.example",
    "203.0.113.77.nip.example",
    "203_0_113_9.isp.example",
    "203--0--113--9.isp.example",
    "a203-0.113-9.isp.example",
    "cb007109.nip.example",
    "2a01-4f8-c17-b8f--2.sslip.example",
    "2001-db8-85a3-8d3-1319-8a2e-370-7348.dip.example",
    "host-2001_db8-85a3--7348.isp.example",
    "20010db885a308d313198a2e03707348.ip6.example",
    "2a01-4f8-c17-b8f.isp.example",
    "pCB007109.dip0.isp.example",
    "xcb007109.dyn.isp.example",
    "KD203000113009.ppp-bb.isp.example",
    "203.red-0-113-9.dynamicip.isp.example",
    "203.pool0-113-9.dynamic.isp.example",
    "203x0x113x9.ap113.isp.example",
    "h-0xcb007109.example",
    "2a09--.sslip.example",
    "fe80--1.sslip.example",
    "www.--ffff-cb00-7109.sslip.example",
    "8.4.3.7.0.7.3.0.e.2.a.8.9.1.3.1.3.d.8.0.3.a.5.8.8.b.d.0.1.0.0.2.ip6.arpa",
)


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("host.example", "host.example"),
        ("xn--bcher-kva.example.", "xn--bcher-kva.example."),
        ("a-b-c.edge-01.cdn-2024-11-05.example", "a-b-c.edge-01.cdn-2024-11-05.example"),
        ("img20241105.example", "img20241105.example"),
        ("node1.rack2.row3.dc4.example", "node1.rack2.row3.dc4.example"),
        ("a-b--app.example", "(an address)"),  # it may be one
        ("deadbeef.cloudfront.example", "deadbeef.cloudfront.example"),
        ("deploy-preview-42--site.example", "deploy-preview-42--site.example"),
        ("rr5---sn-4g5e6nsz.googlevideo.example", "rr5---sn-4g5e6nsz.googlevideo.example"),
        ("d1a2b3c4d5e6f7.cloudfront.example", "d1a2b3c4d5e6f7.cloudfront.example"),
        ("203.0.113.77", "203.0.113.0/24"),
        ("[2001:db8:1:2::3]", "2001:db8:1::/48"),
        ("2001:db8::/32", "2001:db8::/32"),
        ("10.1.2.3/8", "10.0.0.0/8"),
        ("2002:cb00:714d::1", "2002:cb00:7100::/40"),
        (None, "(none)"),
        *((spelling, "(an address)") for spelling in SPELLINGS),
    ],
)
def test_a_mask_shows_names_of_hosts_and_networks_of_addresses(address: str | None, shown: str) -> None:
    assert PageMask(hides=True).destination(address) == shown
    assert PageMask().destination(address) == (address or "(none)")
