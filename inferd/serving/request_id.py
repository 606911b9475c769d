"""Ids of requests: the server's own, never the client's (BILLING R22)."""

from __future__ import annotations

import secrets
import time

PREFIX = "req_"


def new_request_id() -> str:
    """`req_`, 12 hex digits of the time in ms, 20 at random. New ids lie together in the ledger's indexes, so a commit
    writes few pages however long the books are."""
    return f"{PREFIX}{time.time_ns() // 1_000_000:012x}{secrets.token_hex(10)}"


def call_id(request_id: str) -> str:
    """The id of the HTTP request. A further prompt of a call to /v1/completions is a request `ID-NUMBER` of its own."""
    return request_id.partition("-")[0]
