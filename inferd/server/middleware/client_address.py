"""Address of the client of a request, behind the proxies that the operator trusts."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address
from typing import TypeAlias

from starlette.datastructures import Headers
from starlette.types import Scope

from inferd.config import Network

Address: TypeAlias = IPv4Address | IPv6Address

_SITE_BITS = 64


def client_address(scope: Scope, trusted_proxies: Sequence[Network]) -> Address | None:
    """Return the nearest address that is no trusted proxy, or None if it is unknown.

    Each proxy appends the address of its peer to `X-Forwarded-For`. Values left of the nearest untrusted address may be
    forged, and so may the whole header if the peer itself is not trusted.
    """
    peer = scope.get("client")
    address = None if peer is None else parse_address(peer[0])
    for hop in reversed(_forwarded_for(Headers(scope=scope))):
        if address is None or not is_within(address, trusted_proxies):
            return address
        address = parse_address(hop)
    return address


def is_within(address: Address, networks: Iterable[Network]) -> bool:
    return any(address in network for network in networks)


def site_of(address: Address | None) -> str:
    """Return the name under which an address is limited: an IPv4 address, or an IPv6 network of 64 bits, which is the
    share of one customer."""
    if isinstance(address, IPv6Address):
        return str(IPv6Network((int(address), _SITE_BITS), strict=False))
    return str(address)


def parse_address(text: str) -> Address | None:
    """Parse `192.0.2.1`, `192.0.2.1:80`, `2001:db8::1` or `[2001:db8::1]:80`; return IPv4 within IPv6 as IPv4, and None
    for other texts."""
    text = text.strip()
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        address = ip_address(text)
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return address if mapped is None else mapped


def _forwarded_for(headers: Headers) -> list[str]:
    return [hop for value in headers.getlist("x-forwarded-for") for hop in value.split(",")]
