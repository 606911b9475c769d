"""Bodies of requests, read with limits on size and time."""

from __future__ import annotations

import asyncio

from starlette.requests import ClientDisconnect, Request

from inferd.errors import InvalidRequestError, RequestTimeoutError, RequestTooLargeError
from inferd.wire.errors import shorten

MAX_BODY_BYTES = 8 * 2**20
"""More text than any context holds."""
BODY_TIMEOUT_S = 60.0
"""Time from the end of the headers to the end of the body: 140 kB/s for the largest body."""


async def read_body(request: Request) -> bytes:
    """Return the whole body.

    Raises:
        RequestTooLargeError: the body is larger than MAX_BODY_BYTES; raised before the rest is read.
        RequestTimeoutError: the body did not arrive within BODY_TIMEOUT_S.
        InvalidRequestError: the body is incomplete or compressed.
    """
    encoding = request.headers.get("content-encoding", "identity")
    if encoding.lower() != "identity":
        raise InvalidRequestError(
            f"The Content-Encoding '{shorten(encoding)}' is not supported; send the body without compression.",
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
        raise RequestTimeoutError(
            f"The request's body did not arrive within {BODY_TIMEOUT_S:.0f} s; send a smaller body or send it faster."
        ) from error
    except ClientDisconnect as error:
        raise InvalidRequestError(
            "The request's body is incomplete; send all of it.", code="incomplete_body"
        ) from error
    return b"".join(chunks)


def _too_large() -> RequestTooLargeError:
    return RequestTooLargeError(
        f"The request's body is larger than {MAX_BODY_BYTES // 2**20} MiB, the largest allowed; send a smaller one."
    )
