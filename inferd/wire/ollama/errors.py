"""Ollama's error body. server/errors.py decides the status, as for OpenAI's."""

from __future__ import annotations

import msgspec

_PREFIX = "/api/"


def speaks_ollama(path: str) -> bool:
    """Return whether callers of this path expect Ollama's shapes."""
    return path.startswith(_PREFIX) or path == _PREFIX[:-1]


class OllamaError(msgspec.Struct, frozen=True):
    """Error body, and the line that ends a failed stream.

    Attributes:
        error: text for a person; clients read nothing else.
        code: the `code` of OpenAI's body, one per cause.
        param: the field at fault.
    """

    error: str
    code: str | msgspec.UnsetType = msgspec.UNSET
    param: str | msgspec.UnsetType = msgspec.UNSET


def encode_ollama_error(message: str, code: str | None = None, param: str | None = None) -> bytes:
    return msgspec.json.encode(OllamaError(message, code or msgspec.UNSET, param or msgspec.UNSET))
