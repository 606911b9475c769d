"""Schemas of other people's tools: unenforceable keywords are left out and named, and the rest compiles."""

from __future__ import annotations

import json
from typing import Any

import pytest
from llguidance import LLMatcher

from inferd.chat.schemas.reader import MAX_DEFINITIONS, SchemaDetail, _SchemaReader, read_schema
from inferd.engine.grammar.trial import first_fault, tokenizer_of
from tests.fakes import GRAMMAR_VOCABULARY

TOKENIZER = tokenizer_of(GRAMMAR_VOCABULARY)
PATH = "tools[0].function.parameters"


def fault_of(schema: dict[str, Any], *, lenient: bool = True) -> str:
    """Return llguidance's reason against a schema, or ""."""
    return first_fault(
        TOKENIZER, LLMatcher.grammar_from_json_schema(json.dumps(schema), overrides={"lenient": lenient})
    )


def object_with(member: object, **more: object) -> dict[str, Any]:
    return {"type": "object", "properties": {"t": member}, "required": ["t"], "additionalProperties": False} | more


LEFT_OUT: dict[str, tuple[object, object, str]] = {
    # the member, what is left of it, the keyword that the fault names
    "look-ahead": (
        {"type": "string", "pattern": "(?!a)", "maxLength": 3},
        {"type": "string", "maxLength": 3},
        "pattern",
    ),
    "pattern that is a number": ({"type": "string", "pattern": 5}, {"type": "string"}, "pattern"),
    "least int64": (
        {"type": "integer", "minimum": -(2**63), "maximum": 9},
        {"type": "integer", "maximum": 9},
        "minimum",
    ),
    "largest double": ({"type": "number", "minimum": 0, "maximum": 1e20}, {"type": "number", "minimum": 0}, "maximum"),
    "smallest double": ({"type": "number", "minimum": 5e-324}, {"type": "number"}, "minimum"),
    "bound as text": ({"type": "integer", "minimum": "0"}, {"type": "integer"}, "minimum"),
    "bound of draft 4": (
        {"type": "integer", "minimum": 0, "exclusiveMinimum": True},
        {"type": "integer", "minimum": 0},
        "exclusiveMinimum",
    ),
    "no number between": ({"type": "integer", "minimum": 5, "maximum": 2}, {"type": "integer"}, "minimum"),
    "no integer between": ({"type": "integer", "minimum": 0.2, "maximum": 0.8}, {"type": "integer"}, "minimum"),
    "multiple of 0": ({"type": "integer", "multipleOf": 0}, {"type": "integer"}, "multipleOf"),
    "multiple of a large prime": ({"type": "integer", "multipleOf": 1000000007}, {"type": "integer"}, "multipleOf"),
    "multiple of many digits": ({"type": "number", "multipleOf": 0.3333}, {"type": "number"}, "multipleOf"),
    "negative length": ({"type": "string", "maxLength": -1}, {"type": "string"}, "maxLength"),
    "endless length": ({"type": "string", "maxLength": 2**63 - 1}, {"type": "string"}, "maxLength"),
    "lengths that exclude each other": (
        {"type": "string", "minLength": 5, "maxLength": 2},
        {"type": "string"},
        "minLength",
    ),
    "format null": ({"type": "string", "format": None}, {"type": "string"}, "format"),
    "format unknown": ({"type": "string", "format": "binary"}, {"type": "string"}, "format"),
    "type any": ({"type": "any"}, {}, "type"),
    "type null": ({"type": None}, {}, "type"),
    "one type of a list": ({"type": ["string", "any"]}, {"type": ["string"]}, "type"),
    "reference to nowhere": ({"$ref": "#/components/schemas/X"}, {}, "$ref"),
    "remote reference": ({"$ref": "https://example.org/x", "type": "string"}, {"type": "string"}, "$ref"),
    "anchor": ({"$ref": "#name"}, {}, "$ref"),
    "enum without values": ({"type": "string", "enum": []}, {"type": "string"}, "enum"),
    "enum of another type": ({"type": "string", "enum": [1, 2]}, {"type": "string"}, "enum"),
    "constant of another type": ({"type": "string", "const": 5}, {"type": "string"}, "const"),
    "required as text": ({"type": "object", "required": "a"}, {"type": "object"}, "required"),
    "required and excluded": (
        {"type": "object", "required": ["a"], "additionalProperties": False},
        {"type": "object", "required": [], "additionalProperties": False},
        "required",
    ),
    "properties as a list": ({"type": "object", "properties": []}, {"type": "object"}, "properties"),
    "no branch": ({"anyOf": []}, {}, "anyOf"),
    "not": ({"type": "string", "not": {"enum": ["a"]}}, {"type": "string"}, "not"),
    "uniqueItems": ({"type": "array", "uniqueItems": True}, {"type": "array"}, "uniqueItems"),
    "if": ({"type": "object", "if": {}}, {"type": "object"}, "if"),
    "contains": ({"type": "array", "contains": {"type": "integer"}}, {"type": "array"}, "contains"),
    "propertyNames": ({"type": "object", "propertyNames": {"pattern": "^a"}}, {"type": "object"}, "propertyNames"),
    "unevaluatedProperties": (
        {"type": "object", "unevaluatedProperties": False},
        {"type": "object"},
        "unevaluatedProperties",
    ),
}


@pytest.mark.parametrize("name", LEFT_OUT)
def test_unenforceable_keyword_is_left_out_and_named(name: str) -> None:
    member, left, word = LEFT_OUT[name]
    read = read_schema(object_with(member), PATH)
    assert read.schema == object_with(left)
    assert read.faults[0].path == f"{PATH}.properties.t.{word}"
    assert not read.is_endless
    assert fault_of(read.schema) == ""


KEPT: list[object] = [
    {"type": "string", "pattern": "^[a-z]+$", "minLength": 1, "maxLength": 9},
    {"type": "string", "format": "date"},
    {"type": ["integer", "null"], "minimum": -(2**53), "exclusiveMaximum": 2**53},
    {"type": "number", "multipleOf": 0.01, "minimum": 0.1, "maximum": 0.3},
    {"type": "array", "items": {"enum": ["a", 1, None]}, "minItems": 1, "maxItems": 3},
    {"anyOf": [{"type": "string"}, {"type": "null"}]},
    {"oneOf": [{"const": 1}, {"const": "a"}]},
    {"type": "object", "patternProperties": {"^x": {"type": "integer"}}, "additionalProperties": {"type": "boolean"}},
    {"type": "array", "prefixItems": [{"type": "string"}], "items": False, "uniqueItems": False},
]


@pytest.mark.parametrize("member", KEPT, ids=str)
def test_enforceable_keywords_are_kept_without_annotations(member: dict[str, Any]) -> None:
    noted = member | {"title": "T", "description": 5, "default": {}, "examples": None, "x-order": 1}
    read = read_schema(object_with(noted), PATH)
    kept = {word: value for word, value in member.items() if word != "uniqueItems"}
    assert read.schema == object_with(kept)
    assert read.faults == ()
    assert fault_of(read.schema) == ""


def test_references_to_any_place_become_definitions() -> None:
    schema = object_with(
        {"$ref": "#/components/schemas/X"},
        components={"schemas": {"X": {"$ref": "#/x%2Dmore/0"}}},
        **{"x-more": [{"type": "integer", "maximum": 7}]},
    )
    read = read_schema(schema, PATH)
    assert read.schema == object_with({"$ref": "#/$defs/d0"}, **{"$defs": {"d0": {"type": "integer", "maximum": 7}}})
    assert fault_of(read.schema) == ""


def test_fault_in_a_definition_has_the_callers_path() -> None:
    schema = object_with({"$ref": "#/$defs/x"}, **{"$defs": {"x": {"type": "string", "pattern": "("}}})
    assert read_schema(schema, PATH).faults[0].path == f"{PATH}.$defs.x.pattern"


ENDLESS = {
    "itself": object_with({"$ref": "#"}),
    "by a definition": object_with({"$ref": "#/$defs/a"}, **{"$defs": {"a": object_with({"$ref": "#/$defs/a"})}}),
    "by two definitions": object_with(
        {"$ref": "#/$defs/a"},
        **{"$defs": {"a": object_with({"$ref": "#/$defs/b"}), "b": object_with({"$ref": "#/$defs/a"})}},
    ),
    "by arrays": object_with({"type": "array", "minItems": 1, "items": {"$ref": "#"}}),
    "by all branches": object_with(
        {"anyOf": [{"$ref": "#"}, {"type": "array", "minItems": 2, "items": {"$ref": "#"}}]}
    ),
    "by allOf": object_with({"allOf": [{"$ref": "#"}, {"type": "object"}]}),
    "a reference to itself": object_with({"$ref": "#/properties/t"}),
    "by a place": object_with({"type": "object", "properties": {"u": {"$ref": "#/properties/t"}}, "required": ["u"]}),
    "by additional properties": {"type": "object", "required": ["a"], "additionalProperties": {"$ref": "#"}},
    "by a tuple": object_with({"type": "array", "minItems": 1, "prefixItems": [{"$ref": "#"}]}),
}


@pytest.mark.parametrize("name", ENDLESS)
def test_schema_without_a_finite_value_is_endless_and_reduced(name: str) -> None:
    read = read_schema(ENDLESS[name], PATH)
    assert read.is_endless
    assert fault_of(read.schema) == ""
    assert not read_schema(read.schema, PATH).is_endless


@pytest.mark.parametrize(
    "member",
    [
        {"anyOf": [{"$ref": "#"}, {"type": "null"}]},
        {"type": "array", "items": {"$ref": "#"}},
        {"type": ["object", "null"], "properties": {"t": {"$ref": "#"}}, "required": ["t"]},
        {"type": "object", "properties": {"t": {"$ref": "#"}}},
    ],
    ids=str,
)
def test_recursive_schema_with_a_finite_value_is_kept(member: dict[str, Any]) -> None:
    read = read_schema(object_with(member), PATH)
    assert not read.is_endless
    assert json.dumps(read.schema["properties"]["t"]) == json.dumps(member).replace('"#"', '"#/$defs/d0"')
    assert fault_of(read.schema) == ""


def test_less_detail_keeps_the_shape_and_then_the_type() -> None:
    schema = object_with({"type": "string", "enum": ["a"], "pattern": "^b$"}, minProperties=1)
    assert fault_of(read_schema(schema, PATH).schema) != ""
    shape = read_schema(schema, PATH, SchemaDetail.SHAPE).schema
    assert shape == {"type": "object", "properties": {"t": {"type": "string", "enum": ["a"]}}, "required": ["t"]}
    assert read_schema(schema, PATH, SchemaDetail.ANY).schema == {"type": "object"}


@pytest.mark.parametrize("schema", [True, {}, [], "a", None, 5], ids=str)
def test_any_json_is_read_as_a_schema(schema: object) -> None:
    assert read_schema(schema, PATH).schema == {}


def test_hostile_schemas_are_read_in_bounded_work() -> None:
    deep: dict[str, Any] = {}
    for _ in range(500):
        deep = {"items": deep}
    assert "deeper" in read_schema(deep, PATH).faults[0].why
    n = MAX_DEFINITIONS + 100
    chain: dict[str, Any] = {f"a{i}": {"type": "array", "items": {"$ref": f"#/$defs/a{i + 1}"}} for i in range(n)}
    read = read_schema({"$ref": "#/$defs/a0", "$defs": chain | {f"a{n}": {}}}, PATH)
    assert len(read.schema["$defs"]) == MAX_DEFINITIONS
    pure = {f"a{i}": {"$ref": f"#/$defs/a{i + 1}"} for i in range(3000)} | {"a3000": {"type": "string"}}
    assert read_schema({"$ref": "#/$defs/a0", "$defs": pure}, PATH).schema["$defs"] == {"d0": {"type": "string"}}


@pytest.mark.parametrize(
    ("end", "read_as", "why"),
    [
        ({"type": "string"}, {"$ref": "#/$defs/d0"}, set()),
        ({"$ref": "#/$defs/nowhere"}, {}, {"leads nowhere"}),
        ({"$ref": "#/$defs/a0"}, {}, set()),
    ],
)
def test_reference_chain_that_many_properties_use_is_followed_once(end, read_as, why, monkeypatch) -> None:
    num_links = num_properties = 300
    num_followed = 0
    at = _SchemaReader._at

    def count(reader: _SchemaReader, pointer: str) -> object:
        nonlocal num_followed
        num_followed += 1
        return at(reader, pointer)

    monkeypatch.setattr(_SchemaReader, "_at", count)
    chain = {f"a{i}": {"$ref": f"#/$defs/a{i + 1}"} for i in range(num_links)} | {f"a{num_links}": end}
    properties = {f"p{i}": {"$ref": f"#/$defs/a{i % num_links}"} for i in range(num_properties)}
    read = read_schema({"type": "object", "properties": properties, "$defs": chain}, PATH)
    assert num_followed <= num_links + 2
    assert {fault.why for fault in read.faults} == why
    assert read.schema["properties"] == dict.fromkeys(properties, read_as)
