"""What a request says about prompt caching."""

from __future__ import annotations

from dataclasses import dataclass

from inferd.wire.openai.chat_request import ChatRequest
from inferd.wire.openai.text_completions import TextRequest


@dataclass(frozen=True, slots=True)
class CacheHints:
    """Attributes:
    session: name of the conversation, within the team; its newest prefix stays in the cache longest.
    isolation_key: prefixes are shared among requests with the same key only, within the team.
    """

    session: str | None
    isolation_key: str | None

    @classmethod
    def of(cls, request: ChatRequest | TextRequest, *, affinity: str | None, isolation_key: str | None) -> CacheHints:
        """Headers come before the body; for the session `x-session-affinity`, else `prompt_cache_key`, else `user`."""
        return cls(
            session=affinity or request.prompt_cache_key or request.user,
            isolation_key=isolation_key or request.isolation_key,
        )


NO_HINTS = CacheHints(session=None, isolation_key=None)
