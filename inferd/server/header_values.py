"""Short texts that a caller puts into headers."""

from __future__ import annotations

from starlette.requests import Request

from inferd.errors import InvalidRequestError

MAX_CHARACTERS = 512


def header_tag(request: Request, name: str) -> str | None:
    """The header's value, None if it is empty or missing. Raises InvalidRequestError if it is too long."""
    value = request.headers.get(name)
    if value is not None and len(value) > MAX_CHARACTERS:
        raise InvalidRequestError(
            f"The header {name} has {len(value)} characters; at most {MAX_CHARACTERS} are allowed.",
            param=name,
            code="invalid_value",
        )
    return value or None
