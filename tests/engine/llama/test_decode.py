"""Token ids back to text, on a real vocabulary."""

from __future__ import annotations

from inferd.tokenizer import Segment


def test_decoding_gives_the_text_back_control_tokens_by_name(loaded):
    vocabulary = loaded.model.vocabulary
    text = "<|im_start|>user\nGrüße, 世界 🐋<|im_end|>"
    token_ids = vocabulary.encode([Segment(text, special=True)])
    assert vocabulary.decode(token_ids) == text
    assert len(token_ids) < len(text)


def test_half_a_character_is_a_replacement_character(loaded):
    vocabulary = loaded.model.vocabulary
    whale = vocabulary.encode([Segment("🐋", special=False)])
    assert len(whale) > 1, "it takes several tokens"
    assert "\ufffd" in vocabulary.decode(whale[:-1])
    assert vocabulary.decode([]) == ""
