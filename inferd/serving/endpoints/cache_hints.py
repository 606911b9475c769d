"""Hints of a call about prefix caching: the session that it belongs to, and which requests share its prefixes."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import msgspec

from inferd.wire.openai.request_fields import CompletionFields

_DIGEST_BYTES = 16
_BEGIN, _SESSION = "user_", "_session_"


@dataclass(frozen=True, slots=True)
class CacheHints:
    """Hints of a call about prefix caching.

    Attributes:
        session: name of the conversation, within the team; its newest prefix stays in the cache longest.
        isolation_key: prefixes are shared among requests with the same key only, within the team.
    """

    session: str | None = None
    isolation_key: str | None = None

    @classmethod
    def of(cls, request: CompletionFields) -> CacheHints:
        """Return the hints of a body: of the field for them, else of the user."""
        session = request.prompt_cache_key or (session_in(request.user) or request.user if request.user else None)
        return cls(session, request.isolation_key)

    def or_else(self, other: CacheHints) -> CacheHints:
        """Return these hints, and `other`'s where there is none."""
        return CacheHints(self.session or other.session, self.isolation_key or other.isolation_key)

    def session_of(self, team: str) -> str | None:
        """Return a digest of team and session: engines keep it for long, and a session's name may be a person's."""
        if self.session is None:
            return None
        return hashlib.blake2b(f"{team}\0{self.session}".encode(), digest_size=_DIGEST_BYTES).hexdigest()


class _UserId(msgspec.Struct):
    session_id: str = ""


_DECODER = msgspec.json.Decoder(_UserId)


def session_in(user_id: str) -> str | None:
    """Return the session in a user id of Claude Code, which other servers pass on as `user`; None if there is none.

    Older versions send `user_HASH_account_UUID_session_UUID`, newer ones a JSON object with `session_id`.
    """
    if user_id.startswith("{"):
        try:
            return _DECODER.decode(user_id).session_id or None
        except msgspec.DecodeError:
            return None
    _, found, session = user_id.rpartition(_SESSION)
    return session or None if found and user_id.startswith(_BEGIN) else None
