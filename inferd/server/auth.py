"""Who calls: the key in the Authorization header, or in x-api-key, looked up in the ledger at every request."""

from __future__ import annotations

import math

from starlette.requests import Request

from inferd.errors import AuthenticationError, PermissionDeniedError, TooManyFailuresError
from inferd.instants import wall_clock_ms
from inferd.ledger.identity import Authenticator, Caller, Scope
from inferd.server.middleware.client_address import site_of
from inferd.server.services import services_of

PROJECT_HEADER = "openai-project"
KEY_HEADER = "x-api-key"
"""Anthropic's."""


def authenticate_request(request: Request, authenticator: Authenticator) -> Caller:
    """Raises AuthenticationError; TooManyFailuresError if its address has caused too many of those;
    PermissionDeniedError if its project is not its key's, or something is suspended."""
    try:
        caller = _authenticated(request, authenticator)
        request.state.caller = caller  # for the log of refusals
        return caller
    except AuthenticationError as error:
        site = site_of(request.state.client_address)
        wait_s = services_of(request).unauthorized.fail(site)
        if wait_s is None:
            raise
        raise TooManyFailuresError(
            f"Too many requests without a valid API key came from your address ({site}); try again in "
            f"{math.ceil(wait_s)} s. A valid key is not affected.",
            retry_after_s=wait_s,
        ) from error


def _authenticated(request: Request, authenticator: Authenticator) -> Caller:
    project = request.headers.get(PROJECT_HEADER, "").strip()
    return authenticator.authenticate(_key(request), wall_clock_ms(), project or None)


def _key(request: Request) -> str:
    """An Authorization of another scheme may be for a proxy, so the key may stand beside it in its own header."""
    authorization = request.headers.get("authorization", "").strip()
    scheme, _, token = authorization.partition(" ")
    key = token.strip() if scheme.lower() == "bearer" else request.headers.get(KEY_HEADER, "").strip()
    if key:
        return key
    if authorization and scheme.lower() != "bearer":
        raise AuthenticationError(
            "The Authorization header must begin with the word Bearer, as in `Authorization: Bearer sk-inferd-...`."
        )
    raise AuthenticationError(
        "You didn't provide an API key. Put it in the Authorization header, as in "
        f"`Authorization: Bearer sk-inferd-...`, or in the header {KEY_HEADER}."
    )


def require_scope(caller: Caller, scope: Scope) -> None:
    """Raises PermissionDeniedError unless the caller's key has it."""
    if not caller.has_scope(scope):
        raise PermissionDeniedError(
            f"This API key does not have the scope `{scope}`; it has {', '.join(caller.scopes)}.",
            code="insufficient_scope",
        )


def require_model(caller: Caller, model: str) -> None:
    """Raises PermissionDeniedError unless the caller's key may call it."""
    if not caller.may_use(model):
        raise PermissionDeniedError(
            f"This API key may not call the model `{model}`; GET /v1/models lists the ones that it may.",
            code="model_not_allowed",
            param="model",
        )
