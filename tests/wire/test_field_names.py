from __future__ import annotations

import pytest

from inferd.errors import ContextLengthError
from inferd.wire.field_names import FieldNames

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
def test_longest_known_beginning_of_a_path_counts(param, name):
    assert NAMES.of(param) == name


def test_error_names_the_callers_fields_in_its_words_and_stays_of_its_kind():
    with pytest.raises(ContextLengthError) as raised, NAMES.restored():
        raise ContextLengthError("'stop[0]' isn't 'messages[1].content'.", param="stop[0]")
    assert raised.value.message == "'stop_sequences[0]' isn't 'input[0].content'."
    assert (raised.value.param, raised.value.code) == ("stop_sequences[0]", "context_length_exceeded")
