"""Checks of every request's Host header and client address, before its key and body."""

from __future__ import annotations

from collections.abc import Iterable

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from inferd.config import ServerConfig
from inferd.errors import InvalidRequestError, MisdirectedRequestError, RequestError
from inferd.server.errors import error_response
from inferd.server.middleware.client_address import client_address, parse_address
from inferd.server.middleware.regions import Regions
from inferd.server.transport.local_socket import OPERATOR
from inferd.wire.errors import shorten

HEALTH_PATH = "/health"
"""Exempt from the checks: supervisors use any host name, and the answer tells no more than a connection does."""


class HostCheck:
    """Check of the Host header against a list of names.

    A web page that points its own name at this machine (DNS rebinding) is refused. `localhost` and every IP address
    are allowed as well: a rebound request carries the name that was rebound.

    Args:
        names: in lower case.
    """

    def __init__(self, names: Iterable[str]) -> None:
        self._names = frozenset(names) | {"localhost"}

    def check(self, headers: Headers) -> None:
        """Raise MisdirectedRequestError for a name that is not allowed, and InvalidRequestError unless there is exactly
        one Host header."""
        hosts = headers.getlist("host")
        if len(hosts) != 1:
            raise InvalidRequestError(
                f"The request has {len(hosts)} Host headers; send exactly one.", code="invalid_host"
            )
        if parse_address(hosts[0]) is not None:
            return
        name = hosts[0].lower().partition(":")[0].removesuffix(".")
        if name not in self._names:
            raise MisdirectedRequestError(
                f"The host name '{shorten(name)}' is not one of this server's. Use the server's own name or address; "
                "to allow the name, its operator adds it to `hosts` in [server] of models.toml."
            )


class Gate:
    """ASGI middleware that refuses requests by Host header and region, and sets `scope["state"]["client_address"]`.

    Args:
        bound_host: the address or name that the server listens on, as the operator wrote it.

    Raises:
        ConfigError: the country database cannot be used.
    """

    def __init__(self, app: ASGIApp, config: ServerConfig, bound_host: str) -> None:
        self._app = app
        self._hosts = HostCheck({*config.hosts, bound_host.lower()})
        self._regions = Regions.open(config.regions)
        self._trusted_proxies = config.trusted_proxies

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        address = client_address(scope, self._trusted_proxies)
        scope.setdefault("state", {})["client_address"] = address
        try:
            if scope["path"] != HEALTH_PATH and OPERATOR not in scope["state"]:
                self._hosts.check(Headers(scope=scope))
                self._regions.check(address)
        except RequestError as error:
            await error_response(error, scope)(scope, receive, send)
            return
        await self._app(scope, receive, send)
