"""Reading a request's body, never more of it than allowed."""

from __future__ import annotations

from starlette.requests import ClientDisconnect, Request

from inferd.errors import InvalidRequestError, RequestTooLargeError

MAX_BODY_BYTES = 8 * 2**20
"""Far more text than any context holds."""


async def read_body(request: Request) -> bytes:
    """The whole body. Raises RequestTooLargeError as soon as that is known, InvalidRequestError if it was cut off."""
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > MAX_BODY_BYTES:
        raise _too_large()
    chunks: list[bytes] = []
    size = 0
    try:
        async for chunk in request.stream():
            size += len(chunk)
            if size > MAX_BODY_BYTES:
                raise _too_large()
            chunks.append(chunk)
    except ClientDisconnect as error:
        raise InvalidRequestError("The request's body was cut off.", code="incomplete_body") from error
    return b"".join(chunks)


def _too_large() -> RequestTooLargeError:
    return RequestTooLargeError(f"The request's body is larger than {MAX_BODY_BYTES // 2**20} MiB.")
