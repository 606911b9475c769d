"""Conversations arranged for strict chat templates."""

from __future__ import annotations

import json
from typing import Any

import pytest

from inferd.chat.format import ChatFormat
from inferd.chat.template import ChatTemplate
from inferd.chat.turn_rules import TurnRules, arranged
from inferd.errors import ConfigError
from inferd.wire.anthropic.requests import parse_count_tokens_request, parse_messages_request
from inferd.wire.openai.chat_request import ChatRequest, parse_chat_request
from inferd.wire.openai.responses.requests import parse_responses_request
from tests.chat.dialects.corpus import template_of
from tests.fakes import ByteTokenizer

_TURN = "<{{ m.role }}>{{ m.content }}{{ m.tool_calls | tojson if m.tool_calls else '' }}</>"
SYSTEM_FIRST = (
    "{% for m in messages %}{% if m.role == 'system' and not loop.first %}{{ raise_exception('system first') }}"
    "{% endif %}" + _TURN + "{% endfor %}"
)
ALTERNATING = (
    "{% set turns = messages[1:] if messages[0].role == 'system' else messages %}"
    "{% if messages[0].role == 'system' %}<system>{{ messages[0].content }}</>{% endif %}{% set ns = namespace(n=0) %}"
    "{% for m in turns %}{% if m.role != 'tool' and not m.tool_calls %}"
    "{% if (m.role == 'user') != (ns.n % 2 == 0) %}{{ raise_exception('roles must alternate') }}{% endif %}"
    "{% set ns.n = ns.n + 1 %}{% endif %}" + _TURN + "{% endfor %}"
)
NO_SYSTEM = (
    "{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('no system') }}{% endif %}"
    "{% if loop.first and m.role != 'user' %}{{ raise_exception('user first') }}{% endif %}" + _TURN + "{% endfor %}"
)
SILENT = "{% for m in messages %}{% if m.role in ('user', 'assistant') %}" + _TURN + "{% endif %}{% endfor %}"
LAST_SYSTEM_ONLY = (
    "{% for m in messages %}{% if m.role == 'system' %}{% set s = m.content %}{% endif %}{% endfor %}"
    "{% if messages[0].role == 'system' %}<system>{{ messages[0].content }}</>{% endif %}"
    "{% for m in messages if m.role != 'system' %}" + _TURN + "{% endfor %}"
)
NEEDS_SYSTEM = "{% if messages[0].role != 'system' %}{{ raise_exception('system') }}{% endif %}" + SYSTEM_FIRST
PARTS = (
    "{% for m in messages %}<{{ m.role }}>{% for p in m.content %}{% if p.type == 'text' %}{{ p.text }}{% endif %}"
    "{% endfor %}</>{% endfor %}"
)
LLAMA_2 = (
    "{% if messages[0]['role'] == 'system' %}{% set loop_messages = messages[1:] %}"
    "{% set system_message = messages[0]['content'] %}"
    "{% else %}{% set loop_messages = messages %}{% set system_message = false %}{% endif %}"
    "{% for message in loop_messages %}{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}"
    "{% if loop.index0 == 0 and system_message != false %}"
    "{% set content = '<<SYS>>\\n' + system_message + '\\n<</SYS>>\\n\\n' + message['content'] %}"
    "{% else %}{% set content = message['content'] %}{% endif %}"
    "{% if message['role'] == 'user' %}{{ bos_token + '[INST] ' + content.strip() + ' [/INST]' }}"
    "{% elif message['role'] == 'assistant' %}{{ ' ' + content.strip() + ' ' + eos_token }}{% endif %}{% endfor %}"
)
TINY = {
    "system first": SYSTEM_FIRST,
    "alternating": ALTERNATING,
    "no system": NO_SYSTEM,
    "silent": SILENT,
    "one system": LAST_SYSTEM_ONLY,
    "needs system": NEEDS_SYSTEM,
    "parts": PARTS,
    "llama 2": LLAMA_2,
}
REAL = (
    "google-gemma-2-2b-it",
    "google-gemma-4-31B-it",
    "mistralai-Mistral-Nemo-Instruct-2407",
    "mistralai-Ministral-3-14B-Reasoning-2512",
    "Mistral-Small-3.2-24B-Instruct-2506",
    "Qwen3.5-4B",
    "Qwen-Qwen3-0.6B",
    "MiniMax-M2",
    "deepseek-ai-DeepSeek-R1-Distill-Qwen-32B",
    "meta-llama-Llama-3.1-8B-Instruct",
    "microsoft-Phi-3.5-mini-instruct",
    "openai-gpt-oss-120b",
)
CALL = {"id": "abcdefgh1", "type": "function", "function": {"name": "f", "arguments": '{"a": "argument"}'}}
TOOLS = [{"type": "function", "function": {"name": "f", "description": "F.", "parameters": {"type": "object"}}}]
SHAPES = [
    "s d u",
    "d d u",
    "s s s u",
    "u a d u",
    "u s",
    "u s u",
    "u a s a u",
    "s u a s u s",
    "u u",
    "u u a u u u",
    "s",
    "s d",
    "s u",
    "s a u",
    "a u",
    "a",
    "s a",
    "u a",
    "u a a u",
    "u c t",
    "u c t u",
    "u c t s u",
    "u c t s",
    "u a c t a u",
    "u c t c t u u",
    "s d u u",
    "s u a s",
]
"""Conversations, by the first letters of the roles system, developer, user, assistant and tool; c is a call."""


def shaped(shape: str) -> list[dict[str, Any]]:
    names = {"s": "system", "d": "developer", "u": "user", "a": "assistant", "t": "tool", "c": "assistant"}
    messages: list[dict[str, Any]] = []
    for number, letter in enumerate(shape.split()):
        messages.append({"role": names[letter], "content": f"text{number}."})
        if letter == "c":
            messages[-1] |= {"content": None, "tool_calls": [CALL]}
        if letter == "t":
            messages[-1]["tool_call_id"] = CALL["id"]
    return messages


def format_of(name: str) -> ChatFormat:
    return ChatFormat(ChatTemplate(TINY[name], ByteTokenizer()) if name in TINY else template_of(name))


def rendered(chat_format: ChatFormat, request: ChatRequest) -> str:
    return "".join(segment.text for segment in chat_format.prompt(request).segments)


def asked(messages: list[dict[str, Any]], **fields: object) -> ChatRequest:
    return parse_chat_request(json.dumps({"model": "m", "messages": messages} | fields).encode())


@pytest.mark.parametrize("name", [*TINY, *REAL])
def test_every_template_writes_every_text_of_a_conversation_once(name):
    chat_format = format_of(name)
    for shape in SHAPES:
        messages = shaped(shape)
        text = rendered(chat_format, asked(messages, **({"tools": TOOLS} if "c" in shape else {})))
        texts = [message["content"] for message in messages if message["content"]]
        assert [text.count(content) for content in texts] == [1] * len(texts), (shape, text)
        assert text.count("argument") >= shape.count("c"), (shape, text)
        turns = [message["content"] for message in messages if message["role"] not in ("system", "developer")]
        places = [text.index(content) for content in turns if content]
        assert places == sorted(places), (shape, text)


@pytest.mark.parametrize("name", [*TINY, *REAL])
def test_conversation_that_the_template_takes_is_unchanged(name):
    chat_format = format_of(name)
    for shape in ("s u", "u", "u a u", "s u a u"):
        messages = [m for m in shaped(shape) if m["role"] != "system" or chat_format._traits.takes_system]
        if name == "needs system" and messages[0]["role"] != "system":
            continue
        assert arranged(messages, chat_format._traits.turns) == messages


ALTERNATE = TurnRules(many_systems=False, late_system=False, many_users=False, many_assistants=False)


@pytest.mark.parametrize(
    ("shape", "rules", "expected"),
    [
        ("s d u", TurnRules(), ["system 0", "system 1", "user 2"]),
        ("s d u", TurnRules(developer="developer"), ["system 0", "developer 1", "user 2"]),
        ("s d u", TurnRules(many_systems=False), ["system 0+1", "user 2"]),
        ("u a s u", TurnRules(late_system=False), ["user 0", "assistant 1", "user 2+3"]),
        ("u s a s", TurnRules(late_system=False), ["user 0+1", "assistant 2", "user 3"]),
        ("u s u", TurnRules(late_system=False), ["user 0", "user 1+2"]),
        ("u s u", ALTERNATE, ["user 0+1+2"]),
        ("s d u", TurnRules(system=None, developer=None), ["user 0+1+2"]),
        ("s a u", TurnRules(system=None, developer=None), ["user 0", "assistant 1", "user 2"]),
        ("s", TurnRules(system=None, developer=None), ["user 0"]),
        ("s", TurnRules(no_user=False), ["system 0", "user "]),
        ("s a u", TurnRules(assistant_first=False), ["system 0", "user ", "assistant 1", "user 2"]),
        ("a", TurnRules(assistant_first=False), ["user ", "assistant 0"]),
        ("u u a a", ALTERNATE, ["user 0+1", "assistant 2+3"]),
        ("u a c t a", ALTERNATE, ["user 0", "assistant 1", "tool 3", "assistant 4"]),
        (
            "u a c t a",
            TurnRules(many_assistants=False, text_with_calls=False),
            ["user 0", "assistant 1", "user ", "assistant ", "tool 3", "assistant 4"],
        ),
        ("u c t u", TurnRules(answer_after_result="OK"), ["user 0", "assistant ", "tool 2", "assistant OK", "user 3"]),
        ("s u a u", TurnRules(system_without_question=False), ["system 0", "user 1", "assistant 2", "user 3"]),
        ("s u a", TurnRules(system_without_question=False), ["user 0+1", "assistant 2"]),
        ("s u c t", TurnRules(system_without_question=False), ["user 0+1", "assistant ", "tool 3"]),
        ("u", TurnRules(needs_system=True), ["system ", "user 0"]),
    ],
)
def test_messages_are_arranged_by_the_rules(shape, rules, expected):
    def texts(content: str | None) -> str:
        return "+".join(part.removeprefix("text").removesuffix(".") for part in (content or "").split("\n\n"))

    arrangement = arranged(shaped(shape), rules)
    assert [f"{message['role']} {texts(message['content'])}" for message in arrangement] == expected
    assert [m["tool_calls"] for m in arrangement if "tool_calls" in m] == [[CALL]] * shape.count("c")


def test_joined_messages_keep_reasoning_and_names():
    thinking = [{"role": "assistant", "content": text, "reasoning_content": f"because {text}"} for text in "ab"]
    named = [{"role": "user", "content": text, "name": "Ann"} for text in "ab"]
    assert arranged([*named, *thinking], ALTERNATE) == [
        {"role": "user", "content": "a\n\nb", "name": "Ann"},
        {"role": "assistant", "content": "a\n\nb", "reasoning_content": "because a\n\nbecause b"},
    ]


@pytest.mark.parametrize("name", [*TINY, "google-gemma-2-2b-it", "mistralai-Mistral-Nemo-Instruct-2407"])
def test_conversations_of_coding_agents_are_rendered(name):
    """Codex sends instructions, a developer's message and two of the user; Claude Code sends later system texts."""
    chat_format = format_of(name)
    item = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "one."}]}
    items = [item | {"role": "developer"}, item, item]
    body = {"model": "m", "instructions": "two.", "input": items}
    text = rendered(chat_format, parse_responses_request(json.dumps(body).encode())[1])
    assert (text.count("one."), text.count("two.")) == (3, 1)
    body = {
        "model": "m",
        "max_tokens": 9,
        "system": [{"type": "text", "text": "one."}, {"type": "text", "text": "two."}],
        "messages": [
            {"role": "user", "content": "three."},
            {"role": "system", "content": "four."},
            {"role": "assistant", "content": "five."},
            {"role": "user", "content": "six."},
        ],
    }
    text = rendered(chat_format, parse_messages_request(json.dumps(body).encode())[0])
    assert [text.count(word) for word in ("one.", "two.", "three.", "four.", "five.", "six.")] == [1] * 6
    del body["max_tokens"]
    counted = rendered(chat_format, parse_count_tokens_request(json.dumps(body).encode())[0])
    assert counted == text, "what is counted is what is billed"


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("{{ raise_exception('never') }}", "refuses a user's message (never)"),
        ("{% for m in messages %}{{ m.content.append(1) }}{% endfor %}", "refuses a user's message ("),
        ("  \n ", "does not write a user's message"),
        ("{% for m in messages %}<{{ m.role }}>{% endfor %}", "does not write a user's message"),
        ("{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}", "takes too many steps"),
        ("{{ messages[0].content }}{% if tools %}{{ 'a'.center(99999999) }}{% endif %}", "on a conversation of a few"),
    ],
)
def test_template_that_refuses_every_conversation_is_a_config_error(source, words, monkeypatch):
    monkeypatch.setattr("inferd.chat.sandbox.budget.MAX_BYTES", 2**40)
    monkeypatch.setattr("inferd.chat.sandbox.budget.MAX_STEPS", 100_000)
    with pytest.raises(ConfigError, match=r"^t\.jinja: ") as caught:
        ChatFormat(ChatTemplate(source, ByteTokenizer(), name="t.jinja"))
    assert words in str(caught.value)
