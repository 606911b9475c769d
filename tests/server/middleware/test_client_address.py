"""Address of a request's client, and the proxies that are trusted to state it."""

from __future__ import annotations

from ipaddress import ip_network
from typing import Any

import pytest

from inferd.server.middleware.client_address import client_address, parse_address, site_of

PROXIES = (ip_network("10.0.0.0/8"), ip_network("2001:db8:1::/48"))


def address_of(peer: str | None, *forwarded: str) -> str:
    scope: dict[str, Any] = {
        "type": "http",
        "client": None if peer is None else (peer, 1),
        "headers": [(b"x-forwarded-for", value.encode()) for value in forwarded],
    }
    return str(client_address(scope, PROXIES))


@pytest.mark.parametrize(
    ("peer", "forwarded", "found"),
    [
        ("192.0.2.1", (), "192.0.2.1"),
        ("192.0.2.1", ("198.51.100.1",), "192.0.2.1"),
        ("10.0.0.1", ("198.51.100.1",), "198.51.100.1"),
        ("10.0.0.1", ("203.0.113.9, 198.51.100.1",), "198.51.100.1"),
        ("10.0.0.1", ("203.0.113.9, 198.51.100.1, 10.0.0.2",), "198.51.100.1"),
        ("10.0.0.1", ("203.0.113.9", "198.51.100.1,10.0.0.2"), "198.51.100.1"),
        ("10.0.0.1", ("10.0.0.3, 10.0.0.2",), "10.0.0.3"),
        ("10.0.0.1", (), "10.0.0.1"),
        ("10.0.0.1", ("192.0.2.1, rubbish",), "None"),
        ("10.0.0.1", ("198.51.100.1:4711",), "198.51.100.1"),
        ("10.0.0.1", ("[2001:db8::1]:4711",), "2001:db8::1"),
        ("2001:db8:1::1", ("2001:db8::1",), "2001:db8::1"),
        ("::ffff:10.0.0.1", ("::ffff:198.51.100.1",), "198.51.100.1"),
        (None, ("198.51.100.1",), "None"),
    ],
)
def test_client_address_is_the_rightmost_untrusted_hop(peer, forwarded, found):
    assert address_of(peer, *forwarded) == found


def test_site_of_an_ipv6_address_is_its_network():
    sites = {site_of(parse_address(text)) for text in ("2001:db8::1", "2001:db8::ffff:2", "2001:db8:0:1::1")}
    assert sites == {"2001:db8::/64", "2001:db8:0:1::/64"}
    assert site_of(parse_address("192.0.2.1")) == "192.0.2.1"
    assert site_of(None) == "None"
