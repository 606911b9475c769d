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


def test_variables_arrive_in_the_template():
    text = "".join(each for each, _ in segments({"mood": "glad", "facts": [{"a": 1}], "enable_thinking": True}))
    assert text.endswith('[glad][{"a": 1}]hi')
    assert segments({}) == segments(None)


@pytest.mark.parametrize("kwargs", [{"mood": "<|end|>"}, {"facts": ["<|end|>"]}, {"facts": {"<|end|>": 1}}])
def test_a_text_in_them_never_becomes_a_control_token(kwargs):
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
def test_what_the_server_sets_itself_is_refused_by_name(name):
    error = refusal({name: "x"})
    assert error.param == f"chat_template_kwargs.{name}"
    assert f"'{name}'" in error.message


def test_variable_that_the_template_does_not_read_has_no_effect_and_is_named():
    asked = request({"enable_thinkin": True, "mood": "glad"})
    assert chat_format().unheard(asked) == ["chat_template_kwargs.enable_thinkin"]
    assert segments({"enable_thinkin": True, "mood": "glad"}) == segments({"mood": "glad"})


def test_what_reasoning_effort_sets_too_is_refused():
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
def test_their_size_is_bounded(kwargs, words):
    error = refusal(kwargs)
    assert (error.param, words in error.message) == ("chat_template_kwargs", True)


def test_a_nesting_within_the_bound_is_rendered():
    assert segments({"facts": nested(15), "enable_thinking": True})


@pytest.mark.parametrize("kwargs", [[], "x", 1, [["mood", "x"]]])
def test_anything_but_an_object_is_refused(kwargs):
    with pytest.raises(InvalidRequestError, match="chat_template_kwargs"):
        request(kwargs)


def test_qwen3_does_not_think_when_told_so():
    told = ChatFormat(template_of("Qwen-Qwen3-0.6B"))
    plain, silent = (
        "".join(segment.text for segment in told.prompt(request(kwargs)).segments)
        for kwargs in (None, {"enable_thinking": False})
    )
    assert silent == plain + "<think>\n\n</think>\n\n"
