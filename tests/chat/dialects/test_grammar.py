"""Grammars: they accept the calls that templates render, and calls made by them are parsed and fit their schemas."""

from __future__ import annotations

import json
import random

import jsonschema
import pytest
from llguidance import LLMatcher, LLTokenizer, TokenizerWrapper

from inferd.chat.dialects.answer_parser import answer_parser
from inferd.chat.dialects.families import FAMILIES, GENERIC, detect_dialect
from inferd.chat.dialects.grammar import CallableTool, answer_grammar
from inferd.chat.dialects.spec import ReasoningState
from inferd.errors import InvalidRequestError
from tests.chat.dialects.corpus import read, template_of
from tests.chat.dialects.test_families import SCHEMA, TEMPLATE_LIST, message, written

END = 256
FAMILY = {family.name: family for family in (*FAMILIES, GENERIC)}
TOOL = CallableTool("get_weather", SCHEMA | {"additionalProperties": False}, strict=False)
MANY = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 6},
        "kind": {"enum": ["a", "b <c>"]},
        "code": {"type": "string", "pattern": "^[A-Z]{2}/[0-9]$"},
        "count": {"type": "integer", "minimum": 3, "maximum": 12},
        "maybe": {"anyOf": [{"type": "number"}, {"type": "null"}]},
        "flags": {"type": "array", "items": {"type": "boolean"}, "minItems": 1, "maxItems": 2},
        "place": {"$ref": "#/$defs/place"},
    },
    "required": ["kind", "count", "place"],
    "additionalProperties": False,
    "$defs": {
        "place": {
            "type": "object",
            "properties": {"x": {"type": "integer", "maximum": 99, "minimum": 0}, "label": {"const": "here"}},
            "required": ["x"],
            "additionalProperties": False,
        }
    },
}
MANY_TOOLS = [CallableTool("many", MANY, strict=True), CallableTool("none", {"type": "object"}, strict=False)]


class Bytes:
    bos_token_id = None
    eos_token_id = END
    tokens = tuple([bytes([byte]) for byte in range(256)] + [b"<|end_of_text|>"])
    special_token_ids = (END,)

    def __call__(self, text: bytes) -> list[int]:
        return list(text)


TOKENIZER = LLTokenizer(TokenizerWrapper(Bytes()), eos_token=[END])


def matcher(grammar: str) -> LLMatcher:
    made = LLMatcher(TOKENIZER, LLMatcher.grammar_from_lark(grammar), log_level=0)
    assert not made.is_error(), f"{made.get_error()}\n{grammar}"
    return made


def accepts(grammar: str, text: str) -> bool:
    made = matcher(grammar)
    data = list(text.encode())
    return made.try_consume_tokens(data) == len(data) and made.is_accepting()


def accepted_part(grammar: str, text: str) -> str:
    data = text.encode()
    return data[: matcher(grammar).try_consume_tokens(list(data))].decode(errors="ignore")


def generated(grammar: str, rng: random.Random, begin: str = "", most: int = 2000) -> str:
    """Return the text of a model that samples any allowed byte, printable ones first."""
    made = matcher(grammar)
    out = bytearray(begin.encode())
    assert made.try_consume_tokens(list(out)) == len(out)
    for _ in range(most):
        if made.is_stopped():
            break
        mask = made.compute_bitmask()
        allowed = [token for token in range(END + 1) if mask[token // 8] >> (token % 8) & 1]
        if END in allowed and (len(allowed) == 1 or rng.random() < 0.5):
            break
        plain = [token for token in allowed if 32 <= token < 127] or [token for token in allowed if token != END]
        # Strings come to their end: what closes one is as likely as all the rest.
        closing = [token for token in plain if token in b'"<\\n'] if rng.random() < 0.5 else []
        token = rng.choice(closing or plain)
        out.append(token)
        assert made.consume_token(token)
    else:
        pytest.fail(f"it does not end: {bytes(out[-200:])!r}")
    return out.decode()


def as_constrained(text: str) -> str:
    """Some templates write Python's constants, some an id that no answer needs, Gemma's any object."""
    text = text.replace(">True<", ">true<").replace("\nTrue\n", "\ntrue\n").replace(', "id": "call00000"', "")
    text = text.replace("{'units': ['C', '}]'], 'deep': {}}", '{"units": ["C", "}]"], "deep": {}}')
    return text.replace(':{deep:{},units:[<|"|>C<|"|>,<|"|>}]<|"|>]}', ":{}")


@pytest.mark.parametrize("template", TEMPLATE_LIST, ids=lambda template: template.name)
@pytest.mark.parametrize("required", [False, True])
def test_grammar_accepts_the_calls_that_the_template_renders(template, required):
    dialect = detect_dialect(template_of(template.name).source)
    reasoning = "They ask." if template.reasoning else ""
    text = as_constrained(written(template, message(1, reasoning=reasoning)).strip())
    opened = dialect.reasoning is not None and bool(reasoning) and dialect.reasoning.begin.strip() not in text
    state = ReasoningState.OPEN if opened else ReasoningState.FREE
    grammar = answer_grammar(dialect, [TOOL], reasoning=state, required=required)
    assert accepted_part(grammar, text) == text


def test_continued_answer_of_gpt_oss_is_text_with_or_without_a_call_behind_it():
    grammar = answer_grammar(FAMILY["gpt-oss"], [TOOL], reasoning=ReasoningState.CONTINUED, parallel=False)
    call = "<|end|><|start|>assistant<|channel|>commentary to=functions.get_weather <|constrain|>json<|message|>"
    for text in (" is two.", f' is two.{call}{{"city": "Paris"}}'):
        assert accepted_part(grammar, text) == text
    wrong = f' is two.{call}{{"town'
    assert accepted_part(grammar, wrong) != wrong


@pytest.mark.parametrize("name", sorted(FAMILY))
def test_required_call_is_parsed_and_fits_its_schema(name):
    rng = random.Random(name)
    grammar = answer_grammar(FAMILY[name], MANY_TOOLS, required=True, parallel=False)
    schemas = {tool.name: tool.schema for tool in MANY_TOOLS}
    seen = set()
    for _ in range(25):
        text = generated(grammar, rng, "<|channel|>comm" if name == "gpt-oss" else "")
        answer = read(answer_parser(FAMILY[name], schemas, in_reasoning=False), text, 7)
        ((called, arguments),) = answer["calls"]
        jsonschema.validate(json.loads(arguments), schemas[called])
        assert answer["content"] == "", text
        seen.add(called)
    assert seen == {"many", "none"}


@pytest.mark.parametrize(
    ("name", "call", "cut"),
    [
        (
            "qwen-coder",
            "<tool_call>\n<function=f>\n<parameter=a>\nx\n</parameter>\n"
            "<parameter=e>\n5\n</parameter>\n</function>\n</tool_call>",
            "<tool_call>\n<function=f>\n<parameter=a>\nx\n</parameter>\n<parameter=e>\n",
        ),
        ("gemma-4", '<|tool_call>call:f{a:[<|"|>x<|"|>,{k:1}],b:[null,true],e:5}<tool_call|>', ""),
    ],
)
def test_schema_without_strict_loses_keywords_that_the_notation_cannot_express(name, call, cut):
    schema = {
        "type": "object",
        "properties": {"a": {}, "b": {"type": "array"}, "c < d": {"enum": [{"x": 1}]}, "e": {"type": "integer"}},
        "required": ["a", "e", "z"],
        "anyOf": [{"required": ["b"]}],
        "minProperties": 1,
    }
    grammar = answer_grammar(FAMILY[name], [CallableTool("f", schema, strict=False)], required=True, parallel=False)
    assert accepts(grammar, call)
    if cut:
        assert accepted_part(grammar, f"{cut}x") == cut
    with pytest.raises(InvalidRequestError):
        answer_grammar(FAMILY[name], [CallableTool("f", schema, strict=True)], required=True)


@pytest.mark.parametrize("name", sorted(set(FAMILY) - {"gpt-oss"}))
def test_text_is_free_before_a_marker_and_constrained_after_it(name):
    dialect = FAMILY[name]
    grammar = answer_grammar(dialect, [TOOL])
    assert accepts(grammar, "I'd say <tool> {1} [TOOL] is fine.\n")
    trigger = dialect.triggers[0]
    assert accepted_part(grammar, f"Well: {trigger}!?") == f"Well: {trigger}"


@pytest.mark.parametrize("name", ["hermes", "mistral-named", "deepseek-v3.1", "kimi", "glm", "minimax"])
def test_parallel_calls_are_accepted_only_if_allowed(name):
    tool = CallableTool("f", {"type": "object", "properties": {}, "additionalProperties": False}, strict=False)
    one = generated(answer_grammar(FAMILY[name], [tool], required=True, parallel=False), random.Random(1))
    format = FAMILY[name].formats[0]
    body = one.removeprefix(format.section_begin).removesuffix(format.section_end)
    two = f"{format.section_begin}{body}{format.separator}{body}{format.section_end}"
    assert len(read(answer_parser(FAMILY[name], {"f": {}}), two, 3)["calls"]) == 2
    for required in (True, False):
        assert accepts(answer_grammar(FAMILY[name], [tool], required=required), two)
        assert not accepts(answer_grammar(FAMILY[name], [tool], required=required, parallel=False), two)


def test_reasoning_before_a_required_call_holds_any_text():
    dialect = detect_dialect(template_of("Qwen-Qwen3-0.6B").source)
    call = '<tool_call>\n{"name": "get_weather", "arguments": {"city": "x"}}\n</tool_call>'
    required = answer_grammar(dialect, [TOOL], required=True)
    assert accepts(required, call)
    assert accepts(required, f"<think>\nA <tool_call>? Yes.\n</think>\n\n{call}")
    opened = answer_grammar(dialect, [TOOL], required=True, reasoning=ReasoningState.OPEN)
    assert accepts(opened, f"Hm.</think>\n\n{call}")
    assert accepted_part(required, "Sure! ") == ""
    free = answer_grammar(dialect, [TOOL])
    assert accepts(free, f"<think>\nA <tool_call>? Yes.\n</think>\n\nSo: {call}")
    assert accepts(free, "<think>\nA <tool_call>? No.\n</think>\n\nNo.")


@pytest.mark.parametrize("content", [None, '%json {"type": "integer"}'])
@pytest.mark.parametrize("required", [False, True])
@pytest.mark.parametrize("name", ["Qwen-Qwen3-0.6B", "deepseek-ai-DeepSeek-V3.1", "openai-gpt-oss-120b", "GLM-4.6"])
def test_reasoning_that_is_off_cannot_begin_an_answer(name, required, content):
    dialect = detect_dialect(template_of(name).source)
    opening = "<|channel|>analysis" if dialect.channels else dialect.reasoning.begin.rstrip()
    grammars = [
        answer_grammar(dialect, [TOOL], required=required, content=content, reasoning=state)
        for state in (ReasoningState.FREE, ReasoningState.OFF)
    ]
    assert accepted_part(grammars[0], opening) == opening
    assert accepted_part(grammars[1], opening) != opening


def test_response_format_applies_after_the_reasoning():
    dialect = detect_dialect(template_of("Qwen-Qwen3-0.6B").source)
    content = '%json {"type": "integer"}'
    for grammar in (answer_grammar(dialect, [], content=content), answer_grammar(dialect, [TOOL], content=content)):
        assert accepts(grammar, "<think>\nx\n</think>\n\n12")
        assert accepts(grammar, "12")
        assert not accepts(grammar, "<think>\nx\n</think>\n\ntwelve")
        assert not accepts(grammar, "twelve")


def test_grammar_of_channels_accepts_calls_and_content():
    grammar = answer_grammar(FAMILY["gpt-oss"], [TOOL])
    thought = "<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant"
    call = '<|channel|>commentary to=functions.get_weather <|constrain|>json<|message|>{"city": "x"}'
    assert accepts(grammar, f"{thought}<|channel|>final<|message|>Yes.")
    assert accepts(grammar, thought + call)
    assert accepts(grammar, f"{thought}<|channel|>commentary<|message|>I'll look.<|end|><|start|>assistant{call}")
    required = answer_grammar(FAMILY["gpt-oss"], [TOOL], required=True)
    assert accepts(required, thought + call)
    assert not accepts(required, f"{thought}<|channel|>final<|message|>Yes.")


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "object", "properties": {"a b": {"type": "string"}, "c>": {}}},
        {"type": "object", "anyOf": [{"properties": {"a": {}}}]},
        {"type": "object", "properties": {"a": {"$ref": "#/$defs/missing"}}},
        {"type": "object", "properties": {}, "required": ["a"]},
    ],
)
@pytest.mark.parametrize("name", ["qwen-coder", "gemma-4"])
def test_strict_schema_that_a_notation_cannot_express_is_refused(name, schema):
    with pytest.raises(InvalidRequestError) as caught:
        answer_grammar(FAMILY[name], [CallableTool("f", schema, strict=True)])
    assert (caught.value.param, caught.value.code) == ("tools", "invalid_json_schema")
