"""`logprobs` of a choice, as OpenAI shapes them: objects by token in a chat, lists by token in a text completion."""

from __future__ import annotations

import codecs
from collections.abc import Sequence

import msgspec

from inferd.logprobs import TokenAlternative, TokenLogprob

LEAST_LOGPROB = -9999.0
"""OpenAI's own figure for a token of probability 0; JSON has no minus infinity."""


class TopLogprob(msgspec.Struct, frozen=True):
    token: str
    logprob: float
    bytes: list[int]


class ContentLogprob(msgspec.Struct, frozen=True):
    """A sampled token; `bytes` are its own, which may be a part of a character."""

    token: str
    logprob: float
    bytes: list[int]
    top_logprobs: list[TopLogprob]


class ChoiceLogprobs(msgspec.Struct, frozen=True):
    content: list[ContentLogprob]
    refusal: None = None


def choice_logprobs(tokens: Sequence[TokenLogprob]) -> ChoiceLogprobs:
    """Return all sampled tokens but the end token, those cut off by a stop string included."""
    return ChoiceLogprobs([_content(token) for token in tokens])


def _content(token: TokenLogprob) -> ContentLogprob:
    return ContentLogprob(
        _text(token.piece), finite(token.logprob), list(token.piece), [_top(best) for best in token.top]
    )


def _top(token: TokenAlternative) -> TopLogprob:
    return TopLogprob(_text(token.piece), finite(token.logprob), list(token.piece))


def _text(piece: bytes) -> str:
    return piece.decode("utf-8", "replace")


def finite(logprob: float) -> float:
    """Return a log-probability that JSON can show."""
    return max(logprob, LEAST_LOGPROB)


class TextLogprobs(msgspec.Struct, frozen=True):
    """Four lists by token: all sampled tokens, the end token and those cut off by a stop string included; before them
    those of an echoed prompt, whose first token has no log-probability.

    Attributes:
        tokens: texts; `bytes:\\xe2\\x80` for a token that is a part of a character.
        top_logprobs: the most probable tokens, and the sampled one if it is not among them.
        text_offset: the token's place in the text of the choice, in characters.
    """

    tokens: list[str]
    token_logprobs: list[float | None]
    top_logprobs: list[dict[str, float] | None]
    text_offset: list[int]


class TextLogprobsWriter:
    """Writer of one choice's `logprobs`; counts the characters of its text.

    Args:
        start: characters before the completion.
    """

    def __init__(self, start: int = 0) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._n_characters = start

    def write(self, tokens: Sequence[TokenLogprob]) -> TextLogprobs:
        """Return the lists for the next tokens of the choice."""
        return TextLogprobs(
            tokens=[shown_text(token.piece) for token in tokens],
            token_logprobs=[finite(token.logprob) for token in tokens],
            top_logprobs=[_top_by_text(token) for token in tokens],
            text_offset=[self._offset(token.piece) for token in tokens],
        )

    def _offset(self, piece: bytes) -> int:
        """Return the token's place; a token that continues a character has the place of that character."""
        offset = self._n_characters
        self._n_characters += len(self._decoder.decode(piece))
        return offset


def _top_by_text(token: TokenLogprob) -> dict[str, float]:
    """Return logprobs by text. Control tokens all have the text "": the most probable one stands for all."""
    found: dict[str, float] = {}
    for best in token.top:
        found.setdefault(shown_text(best.piece), finite(best.logprob))
    found[shown_text(token.piece)] = finite(token.logprob)
    return found


def shown_text(piece: bytes) -> str:
    """Return a token's text, or its bytes if it is a part of a character."""
    try:
        return piece.decode()
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in piece)
