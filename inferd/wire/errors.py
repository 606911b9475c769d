"""OpenAI's error body. Which `type` belongs to which of our errors is decided in server/errors.py."""

from __future__ import annotations

import msgspec


class ErrorDetail(msgspec.Struct, frozen=True):
    """Attributes: message for a person; type, OpenAI's class of error; param, the field at fault; code, the cause."""

    message: str
    type: str
    param: str | None
    code: str | None


class ErrorBody(msgspec.Struct, frozen=True):
    error: ErrorDetail


def encode_error(message: str, type: str, param: str | None = None, code: str | None = None) -> bytes:
    """`{"error":{"message","type","param","code"}}` as JSON; all four are always there, null if unknown."""
    return msgspec.json.encode(ErrorBody(ErrorDetail(message=message, type=type, param=param, code=code)))
