"""What every request must pass before anything else is looked at: the name it calls, and where it comes from."""

from __future__ import annotations

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from inferd.config import ServerConfig
from inferd.errors import RequestError
from inferd.server.errors import error_response
from inferd.server.middleware.client_address import client_address
from inferd.server.middleware.host_check import HostCheck
from inferd.server.middleware.regions import Regions
from inferd.server.transport.local_socket import OPERATOR

HEALTH_PATH = "/health"
"""Supervisors ask by any name, and learn nothing that a connection does not tell."""


class Gate:
    """Refuses what has no business here, and puts `scope["state"]["client_address"]` for those behind it.

    Args:
        bound_host: the address or name that the server listens on, as the operator wrote it.

    Raises:
        ConfigError: the database of countries cannot be used.
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
