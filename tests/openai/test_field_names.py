from __future__ import annotations

import pytest

from inferd.errors import ContextLengthError, InvalidRequestError
from inferd.openai.field_names import FieldNames, refuse_foreign_types

NAMES = FieldNames({"messages": "input", "messages[1]": "input[0]", "stop": "stop_sequences"})


@pytest.mark.parametrize(
    ("param", "name"),
    [
        ("messages", "input"),
        ("messages[1]", "input[0]"),
        ("messages[1].content[2]", "input[0].content[2]"),
        ("messages[11]", "input[11]"),
        ("stop[3]", "stop_sequences[3]"),
        ("stopped", "stopped"),
        ("model", "model"),
    ],
)
def test_the_longest_known_beginning_of_a_path_counts(param, name):
    assert NAMES.of(param) == name


def test_an_error_names_the_callers_fields_in_its_words_and_stays_of_its_kind():
    with pytest.raises(ContextLengthError) as raised, NAMES.restored():
        raise ContextLengthError("'stop[0]' isn't 'messages[1].content'.", param="stop[0]")
    assert raised.value.message == "'stop_sequences[0]' isn't 'input[0].content'."
    assert (raised.value.param, raised.value.code) == ("stop_sequences[0]", "context_length_exceeded")


def test_a_foreign_type_is_the_reason_and_not_its_fields():
    known = {"tools": frozenset({"function"})}
    refuse_foreign_types(b'{"tools": [{"type": "function"}, 1], "more": 2}', known)
    refuse_foreign_types(b"[1]", known)
    refuse_foreign_types(b"{", known)
    with pytest.raises(InvalidRequestError, match="web_search") as raised:
        refuse_foreign_types(b'{"tools": [{"type": "function"}, {"type": "web_search", "x": 1}]}', known)
    assert raised.value.param == "tools[1].type"
