"""Forced text, and vocabularies that cannot write every character: both ended the process in llama.cpp."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
from llguidance import LLMatcher, LLTokenizer

from inferd.engine.grammar.constraint import CompiledConstraint
from inferd.engine.grammar.trial import LIMITS, GrammarVocabulary
from inferd.engine.llama.grammar_tokenizer import grammar_tokenizer, grammar_vocabulary
from inferd.engine.llama.library import load_library
from inferd.engine.llama.model import Model
from inferd.errors import ConfigError, InvalidRequestError
from inferd.tokenizer import Segment
from tests.engine.llama.tiny_vocabularies import ALL_BYTES, load_vocabulary, write_pre_tokenizer, write_sentencepiece

FIRST_LETTERS = range(ord("a"), ord("d"))


def forced_tokens(data: GrammarVocabulary, tokenizer: LLTokenizer, regex: str) -> list[bytes]:
    """Of a text that a grammar leaves no choice in, up to its end or the place where no token goes on."""
    prototype = LLMatcher(tokenizer, LLMatcher.grammar_from_regex(regex), log_level=0, limits=LIMITS)
    matcher = CompiledConstraint(prototype, len(data.tokens)).matcher()
    tokens: list[bytes] = []
    with ThreadPoolExecutor(1) as workers:
        while not matcher.is_finished:
            matcher.prepare(workers)
            assert matcher.is_ready(60.0)
            if (mask := matcher.take_mask()) is None:
                break
            token_id = int(mask.argmax())
            tokens.append(data.tokens[token_id])
            matcher.accept(token_id)
    return tokens


@pytest.mark.parametrize("lacks", [FIRST_LETTERS, ALL_BYTES], ids=["some letters", "all bytes"])
def test_grammar_of_a_vocabulary_without_some_letters_forces_the_others(tmp_path, lacks):
    write_sentencepiece(tmp_path / "v.gguf", ["▁", "d", "e", "▁d", "de"], lacks=lacks)
    vocabulary = load_vocabulary(tmp_path / "v.gguf")
    data = grammar_vocabulary(vocabulary)
    tokenizer = grammar_tokenizer(vocabulary, data)
    assert forced_tokens(data, tokenizer, "de d") == [b"de", b" d"]
    assert forced_tokens(data, tokenizer, "dad") == [b"d"]


def test_byte_that_only_a_character_is_written_like_is_missing(tmp_path):
    write_sentencepiece(tmp_path / "v.gguf", ["▁", "a", "é"], lacks=[ord("é")])
    vocabulary = load_vocabulary(tmp_path / "v.gguf")
    assert vocabulary.decode(vocabulary.encode([Segment("aé", special=False)], add_bos=False)).strip() == "aé"
    with pytest.raises(InvalidRequestError) as refusal:
        vocabulary.encode([Segment("龍", special=False)])  # its first byte is 0xE9
    assert refusal.value.code == "unknown_character"


def test_control_text_of_characters_that_the_vocabulary_lacks_is_its_token(tmp_path):
    write_sentencepiece(tmp_path / "v.gguf", ["▁", "a"], lacks=ALL_BYTES)
    vocabulary = load_vocabulary(tmp_path / "v.gguf")
    assert vocabulary.encode([Segment("</s>", special=True)], add_bos=False) == [2]
    with pytest.raises(InvalidRequestError):
        vocabulary.encode([Segment("</s>", special=False)])


@pytest.mark.parametrize("lacks", [[0xE2], ALL_BYTES], ids=["a byte of the blank", "all bytes"])
def test_vocabulary_without_a_blank_is_refused(tmp_path, lacks):
    write_sentencepiece(tmp_path / "v.gguf", ["a"], lacks=lacks)
    with pytest.raises(ConfigError, match="blank"):
        Model(load_library(), tmp_path / "v.gguf", n_gpu_layers=0, header_only=True)


def test_letters_that_a_grammar_forces_without_end_are_tokenised_a_little_at_a_time(tmp_path):
    write_pre_tokenizer(tmp_path / "v.gguf", "gpt-4o")  # 28,000 letters at once end the process
    vocabulary = load_vocabulary(tmp_path / "v.gguf")
    data = grammar_vocabulary(vocabulary)
    grammar = LLMatcher.grammar_from_lark(f'start: run{{300}}\nrun: "{"Z" * 1000}"')
    matcher = LLMatcher(grammar_tokenizer(vocabulary, data), grammar, log_level=0, limits=LIMITS)
    assert any(matcher.compute_bitmask())
    assert not matcher.is_error()
