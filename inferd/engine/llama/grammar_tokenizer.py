"""A model's vocabulary as llguidance needs it."""

from __future__ import annotations

import ctypes

from llguidance import LLTokenizer

from inferd.engine.grammar_trial import GrammarVocabulary
from inferd.engine.llama.vocabulary import Vocabulary

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
    """Takes some 0.4 s for 49,000 tokens; not to be used once the model is closed. Text that a grammar forces is cut
    by llama.cpp's own tokenizer, as the model was trained."""
    tokenize = ctypes.cast(vocabulary.library.api.llama_cpp._lib.llama_tokenize, ctypes.c_void_p).value
    from_llamacpp = LLTokenizer.from_llamacpp  # type: ignore[attr-defined]  # it is missing in the stubs
    tokenizer: LLTokenizer = from_llamacpp(
        tokens=list(data.tokens),
        vocab_ptr=vocabulary.handle,
        tokenize_fptr=tokenize,
        eos_token=list(data.end_ids),
        slices=None,
    )
    return tokenizer
