"""Session in the `metadata.user_id` of Claude Code, which names a device, an account and a session."""

from __future__ import annotations

import msgspec

_BEGIN, _SESSION = "user_", "_session_"


class _UserId(msgspec.Struct):
    session_id: str = ""


_DECODER = msgspec.json.Decoder(_UserId)


def session_in(user_id: str) -> str | None:
    """Return the session of `user_HASH_account_UUID_session_UUID`, or of a JSON object with `session_id`, which newer
    versions send; None if there is none. Other servers pass such an id on as `user`."""
    if user_id.startswith("{"):
        try:
            return _DECODER.decode(user_id).session_id or None
        except msgspec.DecodeError:
            return None
    _, found, session = user_id.rpartition(_SESSION)
    return session or None if found and user_id.startswith(_BEGIN) else None
