"""What `POST /v1/completions` answers. Parts of a stream have the same shape as the whole, with a piece of the text."""

from __future__ import annotations

from typing import Literal

import msgspec

from inferd.wire.openai.chat_response import UsageBody
from inferd.wire.openai.text_logprobs import TextLogprobs

TextFinishReason = Literal["stop", "length"]


class TextChoice(msgspec.Struct, frozen=True):
    """`index` counts the choices of the first prompt, then those of the second, and so on."""

    text: str
    index: int
    finish_reason: TextFinishReason | None = None
    logprobs: TextLogprobs | None = None


class TextCompletion(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    object: Literal["text_completion"] = "text_completion"
    created: int
    model: str
    choices: list[TextChoice]
    system_fingerprint: str
    usage: UsageBody | msgspec.UnsetType | None = msgspec.UNSET


class TextResponse(msgspec.Struct, frozen=True, kw_only=True):
    """Encodes the answer to one request.

    Attributes:
        id: `cmpl-...`.
        created: Unix time in seconds.
        include_usage: whether the caller asked for a usage chunk.
    """

    id: str
    created: int
    model: str
    system_fingerprint: str
    include_usage: bool = False

    def whole(self, choices: list[TextChoice], usage: UsageBody) -> bytes:
        return self._encode(choices, usage)

    def chunk(self, choice: TextChoice) -> bytes:
        return self._encode([choice], None if self.include_usage else msgspec.UNSET)

    def usage_chunk(self, usage: UsageBody) -> bytes:
        """The last one; only for callers who asked for it."""
        assert self.include_usage, "a usage chunk goes only to those who asked for it"
        return self._encode([], usage)

    def _encode(self, choices: list[TextChoice], usage: UsageBody | msgspec.UnsetType | None) -> bytes:
        return msgspec.json.encode(
            TextCompletion(
                id=self.id,
                created=self.created,
                model=self.model,
                choices=choices,
                system_fingerprint=self.system_fingerprint,
                usage=usage,
            )
        )
