"""Patterns of schemas: an accepted pattern compiles, and an unenforceable one has a fault."""

from __future__ import annotations

import json
import random

import pytest
from llguidance import LLMatcher

from inferd.chat.schemas.patterns import pattern_fault
from inferd.engine.grammar.trial import first_fault, tokenizer_of
from tests.fakes import GRAMMAR_VOCABULARY

TOKENIZER = tokenizer_of(GRAMMAR_VOCABULARY)
PIECES = ("a", "b", "(", ")", "(?:", "[a-z]", "[^x]", "|", "*", "+", "?", "{2}", "{1,3}", "^", "$", r"\d", r"\.")
PIECES += ("[", "]", "-", r"\b", "(?=", ".", "(?i)", r"\u00e9")


def compiles(pattern: str) -> bool:
    schema = {"type": "object", "properties": {"t": {"type": "string", "pattern": pattern}}, "required": ["t"]}
    return not first_fault(TOKENIZER, LLMatcher.grammar_from_json_schema(json.dumps(schema)))


@pytest.mark.parametrize(
    "pattern",
    [
        *("", "^", "$", "^$", "a|", "(a|)", "()", "[a-z-9]", r"[\w-]", "[a-]", "[-a]", "]", "}", "a{0}", "a**", "a+?"),
        *(r"^[^@\s]+@[^@\s]+\.[^@\s]+$", r"^(\([0-9]{3}\))?[0-9]{3}-[0-9]{4}$", "^#[0-9a-fA-F]{6}$", "^https?://"),
        *(r"^\d{4}-\d{2}-\d{2}$", r"\$\{.*\}", r"^[\p{L}\s]+$", "é+", "^a$|^b$", "(^a|b$)", r"^\/a\-b\_$", r"\u0041"),
        *("(?<year>[0-9]+)", "(?P<year>[0-9]+)", r"[\n-\r]", r"[^\u0000-\u001f]", "(?i)abc"),
    ],
)
def test_common_patterns_are_enforceable(pattern: str) -> None:
    assert pattern_fault(pattern) is None
    assert compiles(pattern)


@pytest.mark.parametrize(
    ("pattern", "why"),
    [
        (r"^(?!\.)[a-z]", "look-around"),
        ("(?<=a)b", "look-around"),
        (r"^\w+\b", "word boundary"),
        (r"(a)\1", "back-reference"),
        (r"(?<n>a)\k<n>", "back-reference"),
        (r"a\Z", "anchor"),
        *((pattern, "regular expression") for pattern in ("[", "(", ")", "a{3,2}", "*", "[z-a]", "[]", "[[]", "(?>a)")),
        *((pattern, "regular expression") for pattern in (r"\cA", r"\é", "{", "a{,3}", r"\uD83D\uDE00", "^*a", "a\\")),
        *((pattern, "in the midst") for pattern in ("a^b", "a$b", "(a$)b", "x^$")),
        ("(?<n>a)(?<n>b)", "two groups"),
    ],
)
def test_unenforceable_pattern_has_its_fault(pattern: str, why: str) -> None:
    assert why in (pattern_fault(pattern) or "")


def test_enforceable_pattern_compiles() -> None:
    rng = random.Random(7)
    taken = 0
    for _ in range(2500):
        pattern = "".join(rng.choice(PIECES) for _ in range(rng.randint(1, 7)))
        if pattern_fault(pattern) is None:
            taken += 1
            assert compiles(pattern), pattern
    assert taken > 300
