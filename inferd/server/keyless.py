"""Requests without a key: when they may act as a key that the operator chose (`[server] keyless`)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from starlette.requests import Request

from inferd.config import ServerConfig
from inferd.errors import AuthenticationError
from inferd.server.middleware.client_address import Address, parse_address
from inferd.wire.errors import shorten

_FORWARDED = ("forwarded", "via", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "x-real-ip")
"""Headers that a proxy adds. Behind a proxy on this machine every client has a loopback address."""
_FOREIGN_SITES = ("cross-site", "same-site")
"""Values of `Sec-Fetch-Site` for a request that a page of another origin causes. Browsers set it, also where they send
no Origin."""
_REMEDY = "Send an API key, as in `Authorization: Bearer sk-inferd-...`."


@dataclass(frozen=True, slots=True)
class KeylessAccess:
    """Rule of the requests that need no key.

    Attributes:
        key_id: the key that they act as.
        hosts: names in the Host header, in lower case, besides localhost and loopback addresses.
        origins: origins of the web pages that may send them.
    """

    key_id: str
    hosts: frozenset[str]
    origins: frozenset[str]

    @classmethod
    def of(cls, config: ServerConfig) -> KeylessAccess | None:
        """Return the rule of a configuration; None if every request needs a key."""
        if config.keyless is None:
            return None
        return cls(config.keyless, frozenset({*config.hosts, "localhost"}), frozenset(config.cors_origins))

    def check(self, request: Request) -> None:
        """Raise AuthenticationError for a request that needs a key all the same: of another machine, through a proxy,
        to another name of this machine, or of a web page that is not among the origins."""
        address: Address | None = request.state.client_address
        if address is None or not address.is_loopback:
            raise _refusal(f"only programs on the server's own machine need no key, and your address is {address}")
        headers = request.headers
        self._refuse_any(name for name in _FORWARDED if name in headers)
        if not self._is_own_host(headers.get("host", "")):
            raise _refusal(f"without one the host must be localhost or a loopback address, got {headers.get('host')!r}")
        origins = headers.getlist("origin")
        if any(origin not in self.origins for origin in origins):
            raise _refusal(
                f"the origin {shorten(origins[0])!r} is not one of the web pages that need none, which the operator "
                "names in `cors_origins`"
            )
        if not origins and headers.get("sec-fetch-site") in _FOREIGN_SITES:
            raise _refusal("a web page of another site has caused this request")

    def _refuse_any(self, names: Iterable[str]) -> None:
        for name in names:
            raise _refusal(f"the header {name} says that the request came through a proxy")

    def _is_own_host(self, host: str) -> bool:
        address = parse_address(host)
        if address is not None:
            return address.is_loopback
        return host.lower().partition(":")[0].removesuffix(".") in self.hosts


def _refusal(why: str) -> AuthenticationError:
    return AuthenticationError(f"You didn't provide an API key, and {why}. {_REMEDY}")
