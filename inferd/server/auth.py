"""Who calls: the key in the Authorization header, looked up in the ledger at every request."""

from __future__ import annotations

from starlette.requests import Request

from inferd.errors import AuthenticationError
from inferd.ledger.authenticator import Authenticator
from inferd.ledger.keys import Caller
from inferd.serving.clock import wall_clock_ms


def authenticate_request(request: Request, authenticator: Authenticator) -> Caller:
    """Raises AuthenticationError."""
    scheme, _, key = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not key.strip():
        raise AuthenticationError(
            "You didn't provide an API key. Put it in the Authorization header, as in "
            "`Authorization: Bearer sk-inferd-...`."
        )
    return authenticator.authenticate(key.strip(), wall_clock_ms())
