"""Constraints of answers: refusals in the caller's terms, and constraints of text completions."""

from __future__ import annotations

import json

import pytest

from inferd.constraint import Constraint, ConstraintKind, SchemaFault
from inferd.engine.grammar.compiler import GrammarError
from inferd.serving.endpoints.constraints import refused
from tests.serving.provider import PRICED

SCHEMA = {"type": "object", "properties": {"a": {"enum": ["x"]}}, "required": ["a"], "additionalProperties": False}
NAMED = {"type": "json_schema", "json_schema": {"schema": SCHEMA}}


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        (ConstraintKind.JSON_SCHEMA, "invalid_json_schema"),
        (ConstraintKind.REGEX, "invalid_grammar"),
        (ConstraintKind.LARK, "invalid_grammar"),
        (ConstraintKind.GRAMMAR, "invalid_grammar"),
    ],
)
def test_refused_constraint_names_its_field_and_a_short_reason(kind, code):
    error = refused(Constraint(kind, "{", "some.field"), GrammarError("it is wrong" + "!" * 10_000))
    assert error.param == "some.field"
    assert error.code == code
    assert "cannot be enforced: it is wrong!" in error.message
    assert len(error.message) < 700


def test_refused_tools_name_their_first_fault():
    fault = SchemaFault("tools[3].function.parameters.properties.a\nb.pattern", "has a look-around")
    error = refused(Constraint(ConstraintKind.LARK, "start: g", "tools", faults=(fault,)), GrammarError("g is wrong"))
    assert error.param == "tools[3].function.parameters.properties.a b.pattern"
    assert f"'{error.param}' has a look-around." in error.message


def test_refused_tools_without_a_fault_do_not_quote_the_grammar():
    error = refused(Constraint(ConstraintKind.LARK, "start: g", "tools"), GrammarError("g is wrong"))
    assert error.param == "tools"
    assert error.code == "invalid_json_schema"
    assert "g is wrong" not in error.message


@pytest.mark.anyio
@pytest.mark.parametrize(
    "fields",
    [
        *({"format": SCHEMA}, {"json_schema": SCHEMA}, {"guided_json": SCHEMA}, {"response_format": NAMED}),
        *({"structured_outputs": {"json": SCHEMA}}, {"response_format": {"type": "json_object", "schema": SCHEMA}}),
    ],
)
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions"])
async def test_schema_under_each_name_constrains_chats_and_text_completions(provider, path, fields):
    prompt = {"messages": [{"role": "user", "content": "a"}]} if "chat" in path else {"prompt": "a"}
    answer = await provider.client.post(path, json={"model": PRICED, "max_tokens": 60} | prompt | fields)
    assert answer.status_code == 200, answer.text
    assert "inferd-ignored" not in answer.headers
    (choice,) = answer.json()["choices"]
    text = choice["text"] if "text" in choice else choice["message"]["content"]
    assert (json.loads(text), choice["finish_reason"]) == ({"a": "x"}, "stop")


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("fields", "texts"),
    [
        ({"guided_regex": "ab"}, {"ab"}),
        ({"guided_choice": ["yes", "no"]}, {"yes", "no"}),
        ({"grammar": 'root ::= "left" | "right"'}, {"left", "right"}),
    ],
)
async def test_grammar_constrains_each_choice_of_a_text_completion(provider, fields, texts):
    body = {"model": PRICED, "prompt": ["a", "b"], "n": 2, "max_tokens": 60, "seed": 1}
    answer = (await provider.client.post("/v1/completions", json=body | fields)).json()
    assert {choice["text"] for choice in answer["choices"]} <= texts
    assert answer["usage"]["completion_tokens"] == sum(len(choice["text"]) for choice in answer["choices"])


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("fields", "code", "param"),
    [
        ({"guided_json": {"not": {}}}, "invalid_json_schema", "guided_json.not"),
        ({"grammar": "root ::= ("}, "invalid_grammar", "grammar"),
        ({"format": "xml"}, "invalid_value", "format"),
        ({"format": "json", "json_schema": SCHEMA}, "invalid_value", "json_schema"),
        ({"format": "json", "response_format": {"type": "json_object"}}, "invalid_value", "format"),
        ({"json_schema": SCHEMA, "guided_regex": "a"}, "invalid_value", "json_schema"),
    ],
)
async def test_constraint_of_a_text_completion_is_refused_by_name(provider, fields, code, param):
    answer = await provider.client.post("/v1/completions", json={"model": PRICED, "prompt": "a"} | fields)
    error = answer.json()["error"]
    assert (answer.status_code, error["code"], error["param"]) == (400, code, param)
