"""Refusals of request fields, and OpenAI's error body. server/errors.py decides which `type` each error gets."""

from __future__ import annotations

import msgspec

from inferd.errors import InvalidRequestError


class ErrorDetail(msgspec.Struct, frozen=True):
    """Attributes:
    message: text for a person.
    type: OpenAI's class of error.
    param: the field at fault, or None.
    code: the cause, or None.
    """

    message: str
    type: str
    param: str | None
    code: str | None


class ErrorBody(msgspec.Struct, frozen=True):
    error: ErrorDetail


def encode_error(message: str, type: str, param: str | None = None, code: str | None = None) -> bytes:
    """Return `{"error":{"message","type","param","code"}}` as JSON; all four are always there, null if unknown."""
    return msgspec.json.encode(ErrorBody(ErrorDetail(message=message, type=type, param=param, code=code)))


def invalid(param: str, message: str) -> InvalidRequestError:
    """Return the refusal of a value that makes no sense."""
    return InvalidRequestError(message, param=param, code="invalid_value")


def unsupported_value(param: str, message: str) -> InvalidRequestError:
    """Return the refusal of a value that makes sense, but not on this server."""
    return InvalidRequestError(message, param=param, code="unsupported_value")


def unsupported_field(param: str, message: str) -> InvalidRequestError:
    """Return the refusal of a field that this server does not have."""
    return InvalidRequestError(message, param=param, code="unsupported_parameter")


def missing(param: str) -> InvalidRequestError:
    """Return the refusal of a request without the field `param`."""
    return InvalidRequestError(f"The field '{param}' is missing.", param=param, code="missing_required_parameter")


def shorten(text: str, max_characters: int = 64) -> str:
    """Return a caller's text as a message may repeat it: on one line, at most `max_characters` long."""
    line = " ".join(text.split())
    return line if len(line) <= max_characters else line[: max_characters - 3] + "..."
