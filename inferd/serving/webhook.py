"""Delivers to the operator's webhooks, signed by Standard Webhooks (https://www.standardwebhooks.com).

A host is resolved here and the connection goes to the address that was checked, so that its name cannot be changed to
point to this machine or its network. Redirects are not followed, proxies of the environment not used, answers not read.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import socket
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address

import httpx

TIMEOUT_S = 15.0
_NAT64 = IPv6Network("64:ff9b::/96")


class AddressRefusedError(Exception):
    """Address of a webhook's host that may not be called."""


def signature(secret: bytes, message_id: str, timestamp_s: int, body: bytes) -> str:
    """Return the value of `webhook-signature`: `v1,` and the base64 of an HMAC-SHA256 over `id.timestamp.body`."""
    signed = f"{message_id}.{timestamp_s}.".encode() + body
    return "v1," + base64.b64encode(hmac.new(secret, signed, hashlib.sha256).digest()).decode()


def check_address(host: str, address: IPv4Address | IPv6Address, *, allow_private: bool) -> None:
    """Raise AddressRefusedError unless a webhook on `host` may be called at `address`."""
    address = _unmapped(address)
    if address.is_loopback:
        if host != "localhost" and _as_address(host) is None:
            raise AddressRefusedError(f"{host} is this machine itself ({address})")
    elif address.is_link_local or address.is_multicast or address.is_unspecified or address.is_reserved:
        raise AddressRefusedError(f"{host} has the address {address}, which no webhook has")
    elif not address.is_global and not allow_private:
        raise AddressRefusedError(f"{host} has the private address {address} (allow_private_addresses is not set)")


class WebhookSender:
    """Client of one set of webhooks; `close` it at the end.

    Args:
        secret: signs each delivery.
        allow_private: whether addresses of private networks may be called.
    """

    def __init__(self, secret: bytes, *, allow_private: bool) -> None:
        self._secret = secret
        self._allow_private = allow_private
        self._client = httpx.AsyncClient(timeout=TIMEOUT_S, follow_redirects=False, trust_env=False)

    async def send(self, url: str, message_id: str, timestamp_s: int, body: bytes) -> str | None:
        """POST one message. Return None if the webhook accepted it (2xx), else why not."""
        target = httpx.URL(url)
        headers = {
            "host": target.netloc.decode(),
            "content-type": "application/json",
            "user-agent": "inferd",
            "webhook-id": message_id,
            "webhook-timestamp": str(timestamp_s),
            "webhook-signature": signature(self._secret, message_id, timestamp_s, body),
        }
        try:
            address = await self._address(target.host, target.port or (443 if target.scheme == "https" else 80))
            request = self._client.build_request(
                "POST",
                target.copy_with(host=str(address)),
                content=body,
                headers=headers,
                extensions={"sni_hostname": target.host},
            )
            response = await self._client.send(request, stream=True)
            await response.aclose()
        except AddressRefusedError as error:
            return str(error)
        except OSError as error:
            return f"{target.host} cannot be found: {error.strerror or error}"
        except httpx.HTTPError as error:
            return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        return None if response.is_success else f"it answered with status {response.status_code}"

    async def close(self) -> None:
        await self._client.aclose()

    async def _address(self, host: str, port: int) -> IPv4Address | IPv6Address:
        """Return one address of the host, after checking all. Raises AddressRefusedError, OSError."""
        loop = asyncio.get_running_loop()
        found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        addresses = [ip_address(str(info[4][0]).partition("%")[0]) for info in found]
        for address in addresses:
            check_address(host, address, allow_private=self._allow_private)
        return addresses[0]


def _unmapped(address: IPv4Address | IPv6Address) -> IPv4Address | IPv6Address:
    """Return the IPv4 address that an IPv6 address is mapped from (mapped, 6to4 of RFC 3056, NAT64 of RFC 6052), else
    the address itself."""
    if isinstance(address, IPv4Address):
        return address
    if address in _NAT64:
        return IPv4Address(int(address) & 0xFFFF_FFFF)
    return address.ipv4_mapped or address.sixtofour or address


def _as_address(host: str) -> IPv4Address | IPv6Address | None:
    try:
        return ip_address(host)
    except ValueError:
        return None
