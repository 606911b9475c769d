"""The Host header against a list: a web page that points its own name at this machine (DNS rebinding) gets nothing."""

from __future__ import annotations

from collections.abc import Iterable

from starlette.datastructures import Headers

from inferd.errors import InvalidRequestError, MisdirectedRequestError
from inferd.server.middleware.client_address import parse_address
from inferd.wire.errors import shorten


class HostCheck:
    """Lets through `localhost`, `names`, and every IP address: a rebound request shows the name that was rebound.

    Args:
        names: in lower case.
    """

    def __init__(self, names: Iterable[str]) -> None:
        self._names = frozenset(names) | {"localhost"}

    def check(self, headers: Headers) -> None:
        """Raises MisdirectedRequestError; InvalidRequestError unless there is exactly one Host header."""
        hosts = headers.getlist("host")
        if len(hosts) != 1:
            raise InvalidRequestError("A request needs exactly one Host header.", code="invalid_host")
        if parse_address(hosts[0]) is not None:
            return
        name = hosts[0].lower().partition(":")[0].removesuffix(".")
        if name not in self._names:
            raise MisdirectedRequestError(
                f"This server does not go by the name '{shorten(name)}'. If it is its own, the operator adds it to "
                "`hosts` in [server] of models.toml."
            )
