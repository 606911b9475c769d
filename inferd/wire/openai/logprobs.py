"""`logprobs` of a choice, as OpenAI shapes them: one entry a token, with its bytes."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from inferd.logprobs import TokenAlternative, TokenLogprob

LEAST_LOGPROB = -9999.0
"""OpenAI's own figure for what is next to impossible; JSON has no minus infinity."""


class TopLogprob(msgspec.Struct, frozen=True):
    token: str
    logprob: float
    bytes: list[int]


class ContentLogprob(msgspec.Struct, frozen=True):
    """`bytes` are the token's own: those of a character that is cut in two are only whole together."""

    token: str
    logprob: float
    bytes: list[int]
    top_logprobs: list[TopLogprob]


class ChoiceLogprobs(msgspec.Struct, frozen=True):
    content: list[ContentLogprob]
    refusal: None = None


def choice_logprobs(tokens: Sequence[TokenLogprob]) -> ChoiceLogprobs:
    """Every sampled token but the end token; those that a stop string cut off are among them."""
    return ChoiceLogprobs([_content(token) for token in tokens])


def _content(token: TokenLogprob) -> ContentLogprob:
    return ContentLogprob(
        _text(token.piece), _finite(token.logprob), list(token.piece), [_top(best) for best in token.top]
    )


def _top(token: TokenAlternative) -> TopLogprob:
    return TopLogprob(_text(token.piece), _finite(token.logprob), list(token.piece))


def _text(piece: bytes) -> str:
    return piece.decode("utf-8", "replace")


def _finite(logprob: float) -> float:
    return max(logprob, LEAST_LOGPROB)
