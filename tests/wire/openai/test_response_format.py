"""`response_format` and `grammar` as constraints."""

from __future__ import annotations

import json
from typing import Any

import pytest

from inferd.constraint import Constraint, ConstraintKind
from inferd.errors import InvalidRequestError
from inferd.wire.openai.chat_request import ChatRequest, parse_chat_request


def parse(**fields: Any) -> ChatRequest:
    body = {"model": "m", "messages": [{"role": "user", "content": "x"}], **fields}
    return parse_chat_request(json.dumps(body).encode())


def schema_format(**fields: Any) -> dict[str, Any]:
    return {"type": "json_schema", "json_schema": {"name": "answer", "schema": {"type": "object"}, **fields}}


def test_type_text_and_no_format_have_no_constraint() -> None:
    assert parse().constraint is None
    assert parse(response_format=None).constraint is None
    assert parse(response_format={"type": "text"}).constraint is None


def test_format_becomes_a_constraint_that_names_its_field() -> None:
    schema = "response_format.json_schema.schema"
    assert parse(response_format=schema_format(strict=True)).constraint == Constraint(
        ConstraintKind.JSON_SCHEMA, '{"type": "object"}', schema
    )
    for strict in ({}, {"strict": False}, {"strict": None}):
        constraint = parse(response_format=schema_format(**strict)).constraint
        assert constraint is not None
        assert constraint.kind is ConstraintKind.JSON_SCHEMA_LENIENT
    assert parse(response_format={"type": "json_object"}).constraint == Constraint(
        ConstraintKind.JSON_SCHEMA_LENIENT, '{"type":"object"}', "response_format.schema"
    )
    assert parse(
        response_format={"type": "json_object", "schema": {"type": "object", "x": 1}}
    ).constraint == Constraint(
        ConstraintKind.JSON_SCHEMA_LENIENT, '{"type": "object", "x": 1}', "response_format.schema"
    )
    assert parse(response_format={"type": "regex", "schema": "[0-9]\\n"}).constraint == Constraint(
        ConstraintKind.REGEX, "[0-9]\\n", "response_format.schema"
    )
    assert parse(grammar='start: "a"').constraint == Constraint(ConstraintKind.GRAMMAR, 'start: "a"', "grammar")


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"response_format": {"type": "xml"}}, "response_format.type"),
        ({"response_format": {"type": "json_schema"}}, "response_format.json_schema"),
        ({"response_format": {"type": "text", "json_schema": {"name": "a"}}}, "response_format.json_schema"),
        ({"response_format": {"type": "json_schema", "json_schema": {"name": ""}}}, "response_format.json_schema.name"),
        ({"response_format": schema_format(name="a b")}, "response_format.json_schema.name"),
        ({"response_format": schema_format(schema=[])}, "response_format.json_schema.schema"),
        ({"response_format": schema_format(schema=True)}, "response_format.json_schema.schema"),
        ({"response_format": schema_format(strict="yes")}, "response_format.json_schema.strict"),
        ({"response_format": schema_format(stict=True)}, "response_format.json_schema.stict"),
        ({"response_format": {"type": "regex"}}, "response_format.schema"),
        ({"response_format": {"type": "regex", "schema": 5}}, "response_format.schema"),
        ({"response_format": {"type": "json_object", "schema": "x"}}, "response_format.schema"),
        ({"response_format": {"type": "text", "schema": {}}}, "response_format.schema"),
        ({"grammar": " "}, "grammar"),
        ({"grammar": 'start: "a"', "response_format": {"type": "json_object"}}, "grammar"),
    ],
)
def test_invalid_format_is_refused_by_name(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        parse(**fields)
    assert caught.value.param == param
