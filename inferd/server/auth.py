"""Who calls: the key in the Authorization header, looked up in the ledger at every request."""

from __future__ import annotations

from starlette.requests import Request

from inferd.errors import AuthenticationError, PermissionDeniedError
from inferd.ledger.authenticator import Authenticator
from inferd.ledger.keys import Caller, Scope
from inferd.serving.clock import wall_clock_ms

PROJECT_HEADER = "openai-project"


def authenticate_request(request: Request, authenticator: Authenticator) -> Caller:
    """Raises AuthenticationError; PermissionDeniedError if its project is not its key's, or something is suspended."""
    scheme, _, key = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not key.strip():
        raise AuthenticationError(
            "You didn't provide an API key. Put it in the Authorization header, as in "
            "`Authorization: Bearer sk-inferd-...`."
        )
    project = request.headers.get(PROJECT_HEADER, "").strip()
    return authenticator.authenticate(key.strip(), wall_clock_ms(), project or None)


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
