"""The one place where our errors become HTTP answers: in Anthropic's shape on its paths, in OpenAI's on all others."""

from __future__ import annotations

import logging
import math

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Match, Route
from starlette.types import Scope

from inferd.errors import (
    AuthenticationError,
    ClientGoneError,
    ConflictError,
    GenerationError,
    IdempotencyConflictError,
    InferdError,
    InsufficientCreditError,
    InvalidRequestError,
    LedgerDamagedError,
    MisdirectedRequestError,
    ModelNotFoundError,
    NotFoundError,
    OperationError,
    OverloadedError,
    PermissionDeniedError,
    RateLimitError,
    RequestError,
    RequestTimeoutError,
    RequestTooLargeError,
    TooManyFailuresError,
)
from inferd.server.path_suggestion import near_path
from inferd.server.rate_limit_headers import limit_headers
from inferd.wire.anthropic.errors import encode_messages_error, speaks_messages
from inferd.wire.errors import encode_error, shorten

logger = logging.getLogger(__name__)

# The nearest class in an error's own line of ancestors decides.
_STATUS: dict[type[InferdError], tuple[int, str]] = {
    InvalidRequestError: (400, "invalid_request_error"),
    RequestTooLargeError: (413, "invalid_request_error"),
    RequestTimeoutError: (408, "invalid_request_error"),
    MisdirectedRequestError: (421, "invalid_request_error"),
    AuthenticationError: (401, "authentication_error"),
    InsufficientCreditError: (402, "insufficient_quota"),
    PermissionDeniedError: (403, "permission_error"),
    ModelNotFoundError: (404, "invalid_request_error"),
    ClientGoneError: (499, "invalid_request_error"),
    RateLimitError: (429, "requests"),
    OverloadedError: (503, "server_error"),
    GenerationError: (500, "server_error"),
    LedgerDamagedError: (500, "server_error"),
    OperationError: (400, "invalid_request_error"),
    NotFoundError: (404, "invalid_request_error"),
    ConflictError: (409, "invalid_request_error"),
}
_OPERATION_CODES: dict[type[InferdError], str] = {
    OperationError: "invalid_value",
    NotFoundError: "not_found",
    ConflictError: "already_exists",
    IdempotencyConflictError: "idempotency_key_reused",
}
# Whoever meets one of these is to pay for a new connection before the next.
_HANGS_UP = (RequestTimeoutError, TooManyFailuresError)
_ROUTING_CODES = {404: "not_found", 405: "method_not_allowed"}
MESSAGE_CHARACTERS_MAX = 1000
INTERNAL_MESSAGE = "The server had an error while processing your request"


def status_of(error: InferdError) -> tuple[int, str]:
    """HTTP status and OpenAI's `type` of an error that a caller may see."""
    for ancestor in type(error).__mro__:
        if ancestor in _STATUS:
            status, error_type = _STATUS[ancestor]
            return status, error.limits if isinstance(error, RateLimitError) else error_type
    return 500, "server_error"


def error_body(error: InferdError, scope: Scope | None = None) -> bytes:
    """The JSON that a response, or an event in a stream, carries. `scope`: of a request in whose path's shape it is to
    be; None: OpenAI's."""
    status, error_type = status_of(error)
    param, code = (error.param, error.code) if isinstance(error, RequestError) else (None, _operation_code(error))
    return _encode(scope, status, error.message, error_type, param, code)


def encoded_error(error: InferdError) -> tuple[int, bytes]:
    """Status and body, for where an answer is kept and not sent."""
    return status_of(error)[0], error_body(error)


def error_response(error: InferdError, scope: Scope, headers: dict[str, str] | None = None) -> Response:
    """A response with those headers, and with the hints that both makers' SDKs obey: they retry 409, 429 and 5xx by
    themselves, unless `x-should-retry` says otherwise."""
    status, _ = status_of(error)
    scope.setdefault("state", {})["error_code"] = error.code if isinstance(error, RequestError) else None
    headers = dict(headers or {})
    retry_after_s = error.retry_after_s if isinstance(error, RequestError) else None
    if retry_after_s is not None:
        headers["retry-after"] = str(math.ceil(retry_after_s))
        headers["x-should-retry"] = "true"
    elif status in (402, 403, 409):
        headers["x-should-retry"] = "false"
    elif status == 401:
        headers["www-authenticate"] = "Bearer"
    if isinstance(error, _HANGS_UP):
        headers["connection"] = "close"
    return Response(error_body(error, scope), status_code=status, headers=headers, media_type="application/json")


async def on_inferd_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, InferdError), "registered for InferdError"
    return error_response(error, request.scope, limit_headers(request))


async def on_http_exception(request: Request, error: Exception) -> Response:
    """What Starlette itself refuses: unknown paths, wrong methods."""
    assert isinstance(error, HTTPException), "registered for HTTPException"
    headers = {name.lower(): value for name, value in (error.headers or {}).items()}
    path, message = shorten(request.url.path, 128), error.detail
    if error.status_code == 404:
        message = f"Unknown request URL: {request.method} {path}. {_path_hint(request)}"
    elif error.status_code == 405:
        headers["allow"] = _allowed(request)
        message = f"Not allowed to {request.method} on {path}; allowed: {headers['allow']}."
    code = _ROUTING_CODES.get(error.status_code)
    request.state.error_code = code
    body = _encode(request.scope, error.status_code, message, "invalid_request_error", None, code)
    return Response(body, error.status_code, headers=headers, media_type="application/json")


def _path_hint(request: Request) -> str:
    path = request.url.path
    if path.strip("/") in ("", "v1"):
        return "The API is under /v1, such as GET /v1/models; GET /openapi.json describes it."
    near = near_path(path, (route.path for route in request.app.routes if isinstance(route, Route)))
    return "Please check the URL for typos." if near is None else f"Did you mean {near}?"


def _allowed(request: Request) -> str:
    """The methods of all routes with this path; Starlette names those of the first."""
    routes = (route for route in request.app.routes if isinstance(route, Route))
    methods = {
        method
        for route in routes
        if route.matches(request.scope)[0] is not Match.NONE
        for method in route.methods or ()
    }
    return ", ".join(sorted(methods))


async def on_bug(request: Request, error: Exception) -> Response:
    """A fault of ours. Starlette raises it again after this answer, so that the log has the traceback."""
    body = _encode(request.scope, 500, INTERNAL_MESSAGE, "server_error", None, None)
    return Response(body, 500, media_type="application/json")


def _operation_code(error: InferdError) -> str | None:
    return next((_OPERATION_CODES[kind] for kind in type(error).__mro__ if kind in _OPERATION_CODES), None)


def _encode(
    scope: Scope | None, status: int, message: str, error_type: str, param: str | None, code: str | None
) -> bytes:
    if len(message) > MESSAGE_CHARACTERS_MAX:
        # It repeats what was sent; what is wrong with that is said at the end.
        half = MESSAGE_CHARACTERS_MAX // 2
        message = f"{message[:half]} ... {message[-half:]}"
    if scope is None or not speaks_messages(scope["path"]):
        return encode_error(message, error_type, param, code)
    request_id = scope.get("state", {}).get("request_id")
    return encode_messages_error(status, message, code=code, param=param, request_id=request_id)
