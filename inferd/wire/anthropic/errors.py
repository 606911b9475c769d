"""Anthropic's error body. server/errors.py decides the status, as for OpenAI's."""

from __future__ import annotations

import msgspec

_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    408: "timeout_error",
    409: "conflict_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
}


def speaks_messages(path: str) -> bool:
    """Return whether callers of this path expect Anthropic's shapes."""
    return path == "/v1/messages" or path.startswith("/v1/messages/")


class MessagesErrorDetails(msgspec.Struct, frozen=True):
    """`error_code` is the `code` of OpenAI's body, one per cause; `param` is the field at fault."""

    error_code: str | None
    param: str | None


class MessagesErrorDetail(msgspec.Struct, frozen=True):
    type: str
    message: str
    details: MessagesErrorDetails | None = None


class MessagesError(msgspec.Struct, frozen=True, tag_field="type", tag="error"):
    """Error body, and the event that ends a failed stream."""

    error: MessagesErrorDetail
    request_id: str | None = None


def error_type(status: int) -> str:
    """Return Anthropic's `type` of an error with this HTTP status."""
    return _TYPES.get(status, "api_error" if status >= 500 else "invalid_request_error")


def encode_messages_error(
    status: int, message: str, *, code: str | None, param: str | None, request_id: str | None
) -> bytes:
    details = MessagesErrorDetails(code, param) if code or param else None
    detail = MessagesErrorDetail(error_type(status), message, details)
    return msgspec.json.encode(MessagesError(detail, request_id))
