"""Tokens of a query and a document."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferd.engine.embeddings.pairs import PairFormat
from inferd.errors import ConfigError, ContextLengthError
from tests.fakes import BEGIN, END, ByteTokenizer

TEMPLATE = "<|begin|>Judge.<|end|>Q: {query}\nD: {document}!<|end|>so"
FRAMED = PairFormat.framed(((BEGIN,), (END,), (END,)), ByteTokenizer())


def test_pair_without_a_template_has_the_vocabularys_tokens_around_its_texts():
    pair = FRAMED.of_query("ab", 64).pair("cd")
    assert pair.token_ids == (BEGIN, *b"ab", END, *b"cd", END)
    assert not pair.is_cut


def test_pair_of_a_template_reads_its_control_tokens_and_none_of_a_text():
    pairs = PairFormat.of_template(TEMPLATE, ByteTokenizer()).of_query("<|end|>{document}", 99)
    head = (BEGIN, *b"Judge.", END)
    assert pairs.pair("{query}<|begin|>").token_ids == (
        *head,
        *b"Q: <|end|>{document}\nD: {query}<|begin|>!",
        END,
        *b"so",
    )


def test_pair_of_a_template_with_its_query_before_another_control_token():
    template = "<|begin|>{query}<|end|>{document}<|end|>"
    pair = PairFormat.of_template(template, ByteTokenizer()).of_query("q", 9).pair("d")
    assert pair.token_ids == (BEGIN, *b"q", END, *b"d", END)


def test_document_that_is_too_long_is_cut_at_its_end():
    pairs = FRAMED.of_query("ab", 10)
    assert pairs.num_document == 5
    assert pairs.pair("12345").token_ids == (BEGIN, *b"ab", END, *b"12345", END)
    cut = pairs.pair("123456")
    assert (cut.token_ids, cut.is_cut) == ((BEGIN, *b"ab", END, *b"12345", END), True)
    assert pairs.pair("12345", 2).token_ids == (BEGIN, *b"ab", END, *b"12", END)
    assert not pairs.pair("12", 2).is_cut


def test_document_of_a_template_is_cut_before_what_follows_it():
    pairs = PairFormat.of_template(TEMPLATE, ByteTokenizer()).of_query("q", 30)
    pair = pairs.pair("0123456789abcdef")
    assert len(pair.token_ids) == 30
    assert pair.token_ids[-17:] == (*b"D: ", *b"0123456789", *b"!", END, *b"so")[-17:]


@given(st.text(max_size=20), st.text(max_size=60), st.integers(8, 80), st.none() | st.integers(1, 40))
def test_pair_never_exceeds_its_limits(query, document, max_tokens, max_document):
    try:
        pairs = FRAMED.of_query(query, max_tokens)
    except ContextLengthError:
        assert len(query.encode()) + 4 > max_tokens
        return
    pair = pairs.pair(document, max_document)
    kept = min(len(document.encode()), max_tokens - len(query.encode()) - 3, max_document or 99)
    assert pair.token_ids == (BEGIN, *query.encode(), END, *document.encode()[:kept], END)
    assert pair.is_cut == (kept < len(document.encode()))


def test_query_that_leaves_no_room_is_refused():
    assert FRAMED.of_query("a" * 60, 64).pair("bc").token_ids[-2:] == (*b"b", END)
    with pytest.raises(ContextLengthError, match="maximum input length is 64 tokens") as found:
        FRAMED.of_query("a" * 61, 64)
    assert found.value.param == "query"


@pytest.mark.parametrize("template", ["{query}", "{document} {query}", "{query} {document} {document}", ""])
def test_template_without_both_places_is_refused(template):
    with pytest.raises(ConfigError, match=re.escape("must have {query} and, behind it, {document}")):
        PairFormat.of_template(template, ByteTokenizer())
