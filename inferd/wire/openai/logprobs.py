"""`logprobs` of a choice, as OpenAI shapes them: objects by token in a chat, lists by token in a text completion."""

from __future__ import annotations

import codecs
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


class TextLogprobs(msgspec.Struct, frozen=True):
    """Four lists of one length: every sampled token but the end token, those that a stop string cut off included.

    Attributes:
        tokens: `bytes:\\xe2\\x80` for one that is no whole text by itself.
        top_logprobs: of each, the most probable ones, and the token itself if it is none of them.
        text_offset: of each, where in the choice's text it begins, in characters.
    """

    tokens: list[str]
    token_logprobs: list[float]
    top_logprobs: list[dict[str, float]]
    text_offset: list[int]


class TextLogprobsWriter:
    """Of one choice; knows how much of its text has come."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._n_characters = 0

    def write(self, tokens: Sequence[TokenLogprob]) -> TextLogprobs:
        """The next tokens of the choice."""
        return TextLogprobs(
            tokens=[_shown_text(token.piece) for token in tokens],
            token_logprobs=[_finite(token.logprob) for token in tokens],
            top_logprobs=[_top_by_text(token) for token in tokens],
            text_offset=[self._offset(token.piece) for token in tokens],
        )

    def _offset(self, piece: bytes) -> int:
        """A token that goes on with a character which another one began is where that character is."""
        offset = self._n_characters
        self._n_characters += len(self._decoder.decode(piece))
        return offset


def _top_by_text(token: TokenLogprob) -> dict[str, float]:
    """Several control tokens have no text: the most probable one of them stands for all."""
    found: dict[str, float] = {}
    for best in token.top:
        found.setdefault(_shown_text(best.piece), _finite(best.logprob))
    found[_shown_text(token.piece)] = _finite(token.logprob)
    return found


def _shown_text(piece: bytes) -> str:
    try:
        return piece.decode()
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in piece)
