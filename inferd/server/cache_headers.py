"""Request headers about prefix caching: the names that clients give to their conversations, and the isolation key."""

from __future__ import annotations

from collections.abc import Mapping

from inferd.errors import InvalidRequestError
from inferd.serving.endpoints.endpoint import CacheHints

SESSION_HEADERS = (
    "x-session-affinity",  # Fireworks, opencode
    "x-session-id",
    "session_id",  # Codex, pi
    "x-amp-thread-id",
    "x-litellm-session-id",
    "x-openwebui-chat-id",
)
"""Names of a conversation. The first header that a request has is taken."""
ISOLATION_HEADER = "x-prompt-cache-isolation-key"
MAX_HEADER_BYTES = 512


def header_hints(headers: Mapping[str, str]) -> CacheHints:
    """Return the hints of a request's headers. Raises InvalidRequestError for an isolation key that is too long.

    A session is a hint only, so one that is no plain text, or too long, is as good as none. An isolation key is not:
    without it, prefixes would be shared that the caller wants apart.
    """
    sessions = (headers.get(name) for name in SESSION_HEADERS)
    isolation_key = headers.get(ISOLATION_HEADER)
    if isolation_key is not None and len(isolation_key) > MAX_HEADER_BYTES:
        raise InvalidRequestError(
            f"The header {ISOLATION_HEADER} has {len(isolation_key)} bytes; at most {MAX_HEADER_BYTES} are allowed.",
            param=ISOLATION_HEADER,
            code="invalid_value",
        )
    return CacheHints(next((each for each in sessions if each and _is_name(each)), None), isolation_key or None)


def _is_name(value: str) -> bool:
    """Return whether a header's value, of which each character is a byte, can name a conversation."""
    return len(value) <= MAX_HEADER_BYTES and not any(byte < " " or byte == "\x7f" for byte in value)
