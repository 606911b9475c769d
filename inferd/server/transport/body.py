"""Reading a request's body, never more of it than allowed."""

from __future__ import annotations

import asyncio

from starlette.requests import ClientDisconnect, Request

from inferd.errors import InvalidRequestError, RequestTimeoutError, RequestTooLargeError
from inferd.wire.errors import shorten

MAX_BODY_BYTES = 8 * 2**20
"""Far more text than any context holds."""
BODY_TIMEOUT_S = 60.0
"""From the end of the headers to the end of the body: 140 kB/s for the largest one."""


async def read_body(request: Request) -> bytes:
    """The whole body. Raises RequestTooLargeError as soon as that is known, RequestTimeoutError if it comes too
    slowly, InvalidRequestError if it was cut off or is compressed."""
    encoding = request.headers.get("content-encoding", "identity")
    if encoding.lower() != "identity":
        raise InvalidRequestError(
            f"Bodies are read as they are; send this one without the Content-Encoding '{shorten(encoding)}'.",
            param="content-encoding",
            code="unsupported_value",
        )
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > MAX_BODY_BYTES:
        raise _too_large()
    chunks: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout(BODY_TIMEOUT_S):
            async for chunk in request.stream():
                size += len(chunk)
                if size > MAX_BODY_BYTES:
                    raise _too_large()
                chunks.append(chunk)
    except TimeoutError as error:
        raise RequestTimeoutError(f"The request's body did not come within {BODY_TIMEOUT_S:.0f} s.") from error
    except ClientDisconnect as error:
        raise InvalidRequestError("The request's body was cut off.", code="incomplete_body") from error
    return b"".join(chunks)


def _too_large() -> RequestTooLargeError:
    return RequestTooLargeError(f"The request's body is larger than {MAX_BODY_BYTES // 2**20} MiB.")
