"""HTTP answers of all errors: Anthropic's and Ollama's shapes on their paths, OpenAI's on all others."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable

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
    UnsupportedOperationError,
)
from inferd.server.rate_limit_headers import limit_headers
from inferd.wire.anthropic.errors import encode_messages_error, speaks_messages
from inferd.wire.errors import encode_error, shorten
from inferd.wire.ollama.errors import encode_ollama_error, speaks_ollama

# The first class in the error's MRO that is listed here decides.
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
    UnsupportedOperationError: (501, "invalid_request_error"),
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
# These answers close the connection, so that the client's next attempt costs it a new one.
_CLOSES_CONNECTION = (RequestTimeoutError, TooManyFailuresError)
_ROUTING_CODES = {404: "not_found", 405: "method_not_allowed"}
MAX_MESSAGE_CHARACTERS = 1000
INTERNAL_MESSAGE = "The server had an error while processing your request"

_API_PREFIX = "/v1"
_MIN_SIMILARITY = 0.8
"""Ratio of difflib below which a path is not suggested."""
_MAX_COMPARED_CHARACTERS = 128
"""Longer paths are not compared: difflib takes quadratic time."""


def status_of(error: InferdError) -> tuple[int, str]:
    """Return the HTTP status and OpenAI's `type` of an error."""
    for ancestor in type(error).__mro__:
        if ancestor in _STATUS:
            status, error_type = _STATUS[ancestor]
            return status, error.limits if isinstance(error, RateLimitError) else error_type
    return 500, "server_error"


def error_body(error: InferdError, scope: Scope | None = None) -> bytes:
    """Return the JSON of an error, for a response or an event of a stream.

    Args:
        scope: ASGI scope of the request, whose path decides the shape; None: OpenAI's shape.
    """
    status, error_type = status_of(error)
    param, code = (error.param, error.code) if isinstance(error, RequestError) else (None, _operation_code(error))
    return _encode(scope, status, error.message, error_type, param, code)


def encoded_error(error: InferdError) -> tuple[int, bytes]:
    """Return status and body of an error, for answers that are stored and not sent."""
    return status_of(error)[0], error_body(error)


def error_response(error: InferdError, scope: Scope, headers: dict[str, str] | None = None) -> Response:
    """Return the response of an error, with `headers` and the hints for retries.

    OpenAI's and Anthropic's SDKs retry 409, 429 and 5xx by themselves, unless `x-should-retry` says otherwise.
    """
    status, _ = status_of(error)
    scope.setdefault("state", {})["error_code"] = error.code if isinstance(error, RequestError) else None
    headers = dict(headers or {})
    retry_after_s = error.retry_after_s if isinstance(error, RequestError) else None
    if retry_after_s is not None:
        headers["retry-after"] = str(math.ceil(retry_after_s))
        headers["x-should-retry"] = "true"
    elif status in (402, 403, 409, 501):
        headers["x-should-retry"] = "false"
    elif status == 401:
        headers["www-authenticate"] = "Bearer"
    if isinstance(error, _CLOSES_CONNECTION):
        headers["connection"] = "close"
    return Response(error_body(error, scope), status_code=status, headers=headers, media_type="application/json")


async def on_inferd_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, InferdError), "registered for InferdError"
    return error_response(error, request.scope, limit_headers(request))


async def on_http_exception(request: Request, error: Exception) -> Response:
    """Answer the refusals of Starlette itself: unknown paths and wrong methods."""
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
    suggestion = path_suggestion(path, (route.path for route in request.app.routes if isinstance(route, Route)))
    return "Please check the URL for typos." if suggestion is None else f"Did you mean {suggestion}?"


def path_suggestion(path: str, known: Iterable[str]) -> str | None:
    """Return the path among `known` that the caller of the unknown `path` probably meant, or None.

    Most callers of an unknown path have a base URL in which `/v1` is missing or doubled. Paths with parameters are not
    suggested.
    """
    paths = [other for other in known if "{" not in other]
    segments = [segment for segment in path.split("/") if segment]
    while segments[:2] == ["v1", "v1"]:
        del segments[0]
    whole = "/" + "/".join(segments)
    for candidate in (whole, _API_PREFIX + whole, whole.removeprefix(_API_PREFIX)):
        if candidate in paths:
            return candidate
    if len(path) > _MAX_COMPARED_CHARACTERS:
        return None
    for candidate in (whole, _API_PREFIX + whole):
        similar = difflib.get_close_matches(candidate, paths, 1, _MIN_SIMILARITY)
        if similar:
            return similar[0]
    return None


def _allowed(request: Request) -> str:
    """Return the methods of all routes with this path; Starlette lists only the methods of the first."""
    routes = (route for route in request.app.routes if isinstance(route, Route))
    methods = {
        method
        for route in routes
        if route.matches(request.scope)[0] is not Match.NONE
        for method in route.methods or ()
    }
    return ", ".join(sorted(methods))


async def on_bug(request: Request, error: Exception) -> Response:
    """Answer an unexpected exception with 500. Starlette raises it again afterwards, so the log has the traceback."""
    body = _encode(request.scope, 500, INTERNAL_MESSAGE, "server_error", None, None)
    return Response(body, 500, media_type="application/json")


def _operation_code(error: InferdError) -> str | None:
    return next((_OPERATION_CODES[kind] for kind in type(error).__mro__ if kind in _OPERATION_CODES), None)


def _encode(
    scope: Scope | None, status: int, message: str, error_type: str, param: str | None, code: str | None
) -> bytes:
    if len(message) > MAX_MESSAGE_CHARACTERS:
        # A long message repeats a value of the request in its middle; the fault stands at its end.
        half = MAX_MESSAGE_CHARACTERS // 2
        message = f"{message[:half]} ... {message[-half:]}"
    if scope is not None and speaks_ollama(scope["path"]):
        return encode_ollama_error(message, code, param)
    if scope is None or not speaks_messages(scope["path"]):
        return encode_error(message, error_type, param, code)
    request_id = scope.get("state", {}).get("request_id")
    return encode_messages_error(status, message, code=code, param=param, request_id=request_id)
