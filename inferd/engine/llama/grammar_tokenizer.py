"""A model's vocabulary as llguidance needs it."""

from __future__ import annotations

from contextlib import suppress

from llguidance import LLTokenizer

from inferd.engine.grammar.trial import MAX_FORCED_BYTES, GrammarVocabulary, LongestMatch, tokenizer_of
from inferd.engine.llama.vocabulary import Vocabulary
from inferd.errors import InvalidRequestError, OverloadedError

_CONTROL_MARK = b"\xff"
"""What llguidance knows control tokens by (its docs/special_tokens.md): a byte that no text has."""


def grammar_vocabulary(vocabulary: Vocabulary) -> GrammarVocabulary:
    """A token is control here if, and only if, it does not reach the text, so that a grammar speaks of the very text
    that the caller sees; each end token ends a match."""
    token_ids = range(vocabulary.n_vocab)
    return GrammarVocabulary(
        tokens=tuple(
            _CONTROL_MARK + vocabulary.text(token_id).encode()
            if vocabulary.is_control(token_id)
            else vocabulary.piece(token_id)
            for token_id in token_ids
        ),
        control_ids=tuple(token_id for token_id in token_ids if vocabulary.is_control(token_id)),
        end_ids=tuple(sorted(vocabulary.end_of_generation)),
    )


def grammar_tokenizer(vocabulary: Vocabulary, data: GrammarVocabulary) -> LLTokenizer:
    """Takes some 0.4 s for 49,000 tokens. Text that a grammar forces is cut by llama.cpp's own tokenizer, as the model
    was trained."""
    return tokenizer_of(data, _ForcedText(vocabulary, data))


class _ForcedText(LongestMatch):
    """llama.cpp's tokens of forced text, where llama.cpp has some and their bytes are those of the text."""

    def __init__(self, vocabulary: Vocabulary, data: GrammarVocabulary) -> None:
        super().__init__(data)
        self._vocabulary = vocabulary

    def __call__(self, text: str | bytes) -> list[int]:
        data = (text.encode() if isinstance(text, str) else text)[:MAX_FORCED_BYTES]
        with suppress(InvalidRequestError, OverloadedError):  # a character that it lacks; the model is being unloaded
            token_ids = self._vocabulary.encode_forced(data.decode("utf-8", "ignore"))
            if token_ids and data.startswith(b"".join(self.tokens[token_id] for token_id in token_ids)):
                return token_ids
        return super().__call__(data)
