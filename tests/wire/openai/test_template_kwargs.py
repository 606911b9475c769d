from __future__ import annotations

import json
from typing import Any

import pytest

from inferd.chat.format import ChatFormat
from inferd.chat.template import ChatTemplate
from inferd.errors import InvalidRequestError
from inferd.wire.openai.chat_request import ChatRequest, parse_chat_request
from tests.chat.dialects.corpus import template_of
from tests.fakes import ByteTokenizer

SOURCE = "{{ bos_token }}{% if mood is defined %}[{{ mood }}]{% endif %}{{ facts | tojson if facts else '' }}" + (
    "{% for message in messages %}{{ message.content }}{% endfor %}{% if not enable_thinking %}<|end|>{% endif %}"
)


def request(kwargs: Any, **fields: object) -> ChatRequest:
    body = {"model": "m", "messages": [{"role": "user", "content": "hi"}], "chat_template_kwargs": kwargs}
    return parse_chat_request(json.dumps(body | fields).encode())


def chat_format() -> ChatFormat:
    return ChatFormat(ChatTemplate(SOURCE, ByteTokenizer()))


def segments(kwargs: Any, **fields: object) -> list[tuple[str, bool]]:
    return [(each.text, each.special) for each in chat_format().prompt(request(kwargs, **fields)).segments]


def refusal(kwargs: Any, **fields: object) -> InvalidRequestError:
    with pytest.raises(InvalidRequestError) as caught:
        segments(kwargs, **fields)
    assert caught.value.code == "invalid_value"
    return caught.value


def test_variables_are_set_in_the_template():
    text = "".join(each for each, _ in segments({"mood": "glad", "facts": [{"a": 1}], "enable_thinking": True}))
    assert text.endswith('[glad][{"a": 1}]hi')
    assert segments({}) == segments(None)


@pytest.mark.parametrize("kwargs", [{"mood": "<|end|>"}, {"facts": ["<|end|>"]}, {"facts": {"<|end|>": 1}}])
def test_control_token_in_a_variable_stays_text(kwargs):
    rendered = segments({"enable_thinking": True, **kwargs})
    assert any("<|end|>" in text and not special for text, special in rendered)
    assert not any("<|end|>" in text and special for text, special in rendered)


@pytest.mark.parametrize(
    "name",
    [
        *("messages", "tools", "add_generation_prompt", "bos_token", "eos_token", "raise_exception", "strftime_now"),
        *("range", "namespace", "dict", "self", "loop", "inferd_budget"),
    ],
)
def test_variable_of_the_server_is_refused_by_name(name):
    error = refusal({name: "x"})
    assert error.param == f"chat_template_kwargs.{name}"
    assert f"'{name}'" in error.message


def test_variable_that_the_template_does_not_read_is_ignored_and_named():
    asked = request({"enable_thinkin": True, "mood": "glad"})
    assert chat_format().unheard(asked) == ["chat_template_kwargs.enable_thinkin"]
    assert segments({"enable_thinkin": True, "mood": "glad"}) == segments({"mood": "glad"})


def test_variable_that_reasoning_effort_sets_is_refused():
    error = refusal({"enable_thinking": True}, reasoning_effort="high")
    assert error.param == "chat_template_kwargs.enable_thinking"
    assert "'reasoning_effort'" in error.message


def nested(levels: int) -> Any:
    value: Any = "x"
    for _ in range(levels):
        value = [value]
    return value


@pytest.mark.parametrize(
    ("kwargs", "words"),
    [
        ({f"v{number}": 1 for number in range(33)}, "at most 32 variables"),
        ({"mood": "x" * 70_000}, "bytes of JSON"),
        ({"mood": nested(17)}, "at most 16 levels"),
        ({"mood": nested(500)}, "at most 16 levels"),
    ],
)
def test_oversized_variables_are_refused(kwargs, words):
    error = refusal(kwargs)
    assert error.param == "chat_template_kwargs"
    assert words in error.message


def test_variable_nested_to_the_bound_is_rendered():
    rendered = segments({"facts": nested(15), "enable_thinking": True})
    assert "".join(text for text, _ in rendered) == f'{ByteTokenizer.bos_text}{"[" * 15}"x"{"]" * 15}hi'


@pytest.mark.parametrize("kwargs", [[], "x", 1, [["mood", "x"]]])
def test_variables_that_are_no_object_are_refused(kwargs):
    with pytest.raises(InvalidRequestError, match="chat_template_kwargs"):
        request(kwargs)


def test_enable_thinking_false_closes_the_reasoning_of_qwen3():
    told = ChatFormat(template_of("Qwen-Qwen3-0.6B"))
    plain, silent = (
        "".join(segment.text for segment in told.prompt(request(kwargs)).segments)
        for kwargs in (None, {"enable_thinking": False})
    )
    assert silent == plain + "<think>\n\n</think>\n\n"
