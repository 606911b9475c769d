"""What the handlers work with; one per running server, handed to them by the app."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass

from starlette.requests import Request

from inferd.deployments.router import Router
from inferd.serving.completions import Completions


@dataclass(frozen=True, slots=True)
class Services:
    """Attributes:
    reader: read-only connection to the ledger, used on the event loop's thread.
    """

    router: Router
    completions: Completions
    reader: sqlite3.Connection


def services_of(request: Request) -> Services:
    services = request.app.state.services
    assert isinstance(services, Services), "the app was built with its services"
    return services
