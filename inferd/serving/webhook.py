"""Delivers to the operator's webhooks, signed as Standard Webhooks say (https://www.standardwebhooks.com).

A host is resolved here and the connection goes to the address that was checked, so that a name cannot point to this
machine or its network afterwards. Redirects are not followed, proxies of the environment not used, answers not read.
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
    """The webhook's host has an address that may not be called."""


def signature(secret: bytes, message_id: str, timestamp_s: int, body: bytes) -> str:
    """The value of `webhook-signature`: `v1,` and the base64 of an HMAC-SHA256 over `id.timestamp.body`."""
    signed = f"{message_id}.{timestamp_s}.".encode() + body
    return "v1," + base64.b64encode(hmac.new(secret, signed, hashlib.sha256).digest()).decode()


def check_address(host: str, address: IPv4Address | IPv6Address, *, allow_private: bool) -> None:
    """Raises AddressRefusedError unless a webhook on `host` may be called at `address`."""
    address = _meant(address)
    if address.is_loopback:
        if host != "localhost" and _as_address(host) is None:
            raise AddressRefusedError(f"{host} is this machine itself ({address})")
    elif address.is_link_local or address.is_multicast or address.is_unspecified or address.is_reserved:
        raise AddressRefusedError(f"{host} has the address {address}, which no webhook has")
    elif not address.is_global and not allow_private:
        raise AddressRefusedError(f"{host} has the private address {address} (allow_private_addresses is not set)")


class WebhookSender:
    """Sends to one set of webhooks; `close` at the end.

    Args:
        secret: signs each delivery.
        allow_private: whether addresses of private networks may be called.
    """

    def __init__(self, secret: bytes, *, allow_private: bool) -> None:
        self._secret = secret
        self._allow_private = allow_private
        self._client = httpx.AsyncClient(timeout=TIMEOUT_S, follow_redirects=False, trust_env=False)

    async def send(self, url: str, message_id: str, timestamp_s: int, body: bytes) -> str | None:
        """POST one message. Returns None if the webhook took it (2xx), else why not."""
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
        except AddressRefusedError as exc:
            return str(exc)
        except OSError as exc:
            return f"{target.host} cannot be found: {exc.strerror or exc}"
        except httpx.HTTPError as exc:
            return f"{type(exc).__name__}: {exc}" if str(exc) else type(exc).__name__
        return None if response.is_success else f"it answered with status {response.status_code}"

    async def close(self) -> None:
        await self._client.aclose()

    async def _address(self, host: str, port: int) -> IPv4Address | IPv6Address:
        """One address of the host; all of them are allowed."""
        loop = asyncio.get_running_loop()
        found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        addresses = [ip_address(str(info[4][0]).partition("%")[0]) for info in found]
        for address in addresses:
            check_address(host, address, allow_private=self._allow_private)
        return addresses[0]


def _meant(address: IPv4Address | IPv6Address) -> IPv4Address | IPv6Address:
    """The IPv4 address that an IPv6 address stands for, if it does: mapped, 6to4 (RFC 3056), NAT64 (RFC 6052)."""
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
