"""Parts of a running server that handlers work with."""

from __future__ import annotations

from dataclasses import dataclass, field

from starlette.requests import Request

from inferd.deployments.router import Router
from inferd.ledger.identity.authenticator import Authenticator
from inferd.ledger.storage.client import LedgerClient
from inferd.server.middleware.unauthorized_limit import UnauthorizedLimit
from inferd.serving.batches.batches import Batches
from inferd.serving.completions import Completions
from inferd.serving.file_store import FileStore
from inferd.serving.ticket_issuer import TicketIssuer


@dataclass(frozen=True, slots=True)
class Services:
    """Parts of one server. All belong to the event loop."""

    router: Router
    completions: Completions
    authenticator: Authenticator
    ledger: LedgerClient
    ticket_issuer: TicketIssuer
    files: FileStore
    batches: Batches
    unauthorized: UnauthorizedLimit = field(default_factory=UnauthorizedLimit)


def services_of(request: Request) -> Services:
    """Return the services that the app was built with."""
    services = request.app.state.services
    assert isinstance(services, Services), "the app was built with its services"
    return services
