"""Who calls: the key in the Authorization header, looked up in the ledger at every request."""

from __future__ import annotations

import sqlite3

from starlette.requests import Request

from inferd.errors import AuthenticationError
from inferd.ledger.keys import Caller, authenticate
from inferd.serving.clock import wall_clock_ms


def authenticate_request(request: Request, conn: sqlite3.Connection) -> Caller:
    """Raises AuthenticationError. A point look-up of microseconds in WAL mode: it never waits for a writer."""
    scheme, _, key = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not key.strip():
        raise AuthenticationError(
            "You didn't provide an API key. Put it in the Authorization header, as in "
            "`Authorization: Bearer sk-inferd-...`."
        )
    return authenticate(conn, key.strip(), wall_clock_ms())
