"""How an answer ended, for those who write it in another API's shape."""

from __future__ import annotations

from dataclasses import dataclass

from inferd.wire.openai.chat_response import FinishReason, UsageBody


@dataclass(frozen=True, slots=True)
class AnswerEnd:
    """Known after the commit that bills it. `stop_string`: the one that ended it, if one did."""

    reason: FinishReason
    usage: UsageBody
    stop_string: str | None = None
