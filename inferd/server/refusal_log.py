"""Log of refused requests, by which an operator finds the cause of "my request failed at 15:10"."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from starlette.types import Scope

from inferd.ledger.identity import Caller
from inferd.server.middleware.client_address import site_of
from inferd.wire.errors import shorten

logger = logging.getLogger(__name__)

MAX_LINES = 20
"""Limit on the lines a minute for one team (or one address, if the team is unknown) and one error code. Further ones
are counted."""
MAX_SOURCES = 1000
INTERVAL_S = 60.0

_Source = tuple[str, str]


class RefusalLog:
    """Writer of one line for each request that got an error, without any content of the request.

    Args:
        clock_s: monotonic clock.
    """

    def __init__(self, clock_s: Callable[[], float] = time.monotonic) -> None:
        self._clock_s = clock_s
        self._began_s = clock_s()
        self._num_refused: dict[_Source, int] = {}

    def write(self, scope: Scope, status: int, took_ms: int) -> None:
        """Log the request of an ASGI scope that was answered with `status`."""
        if self._clock_s() >= self._began_s + INTERVAL_S:
            self._sum_up()
        state = scope.get("state", {})
        caller: Caller | None = state.get("caller")
        code, site = state.get("error_code") or "-", site_of(state.get("client_address"))
        source = (site if caller is None else f"team={caller.team}", f"{status} {code}")
        known = self._num_refused.get(source, 0)
        if known == 0 and len(self._num_refused) >= MAX_SOURCES:
            source = ("other sources", "")
            known = self._num_refused.get(source, 0)
        self._num_refused[source] = known + 1
        if known >= MAX_LINES:
            return
        logger.info(
            "%s %d %s %s %s%s%s from=%s, %d ms",
            state.get("request_id", "-"),
            status,
            code,
            scope["method"],
            _shown(scope["path"]),
            "" if caller is None else f" {caller.log_fields()}",
            f" model={_shown(state['model'])}" if "model" in state else "",
            site,
            took_ms,
        )

    def _sum_up(self) -> None:
        for (source, what), num_refused in self._num_refused.items():
            if num_refused > MAX_LINES:
                logger.info("%d more refused: %s %s", num_refused - MAX_LINES, source, what)
        self._num_refused.clear()
        self._began_s = self._clock_s()


def _shown(text: str) -> str:
    """Return a caller's text on one line."""
    return ascii(shorten(text))[1:-1]
