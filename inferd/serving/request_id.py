"""Ids of requests: the server's own, never the client's (BILLING R22)."""

from __future__ import annotations

import secrets
import time

PREFIX = "req_"


def new_request_id() -> str:
    """Return `req_`, 12 hex digits of the time in ms and 20 at random. New ids are neighbours in the ledger's indexes,
    so a commit writes few pages, however many rows the ledger has."""
    return f"{PREFIX}{time.time_ns() // 1_000_000:012x}{secrets.token_hex(10)}"
