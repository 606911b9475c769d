"""Hypothesis strategies for bodies that a JSON schema of /openapi.json describes, and for bodies that are nearly so."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hypothesis import strategies as st

_TEXT = st.text(max_size=12) | st.sampled_from(
    ["", "a", "user", "text", "function", "json_object", "default", "\0", "<|end|>", "-1", "1.5", "x" * 600]
)
_INTEGERS = st.integers(-3, 40) | st.sampled_from([2**31, -(2**63), 2**64, 10**30])
_NUMBERS = st.floats(-2, 2) | st.integers(-1, 3) | st.sampled_from([1e308, -0.0, 5e-324])
ANY_JSON = st.recursive(
    st.none() | st.booleans() | _INTEGERS | _NUMBERS | _TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_TEXT, inner, max_size=3),
    max_leaves=6,
)
_DEPTH_MAX = 4


def bodies(schema: Mapping[str, Any], components: Mapping[str, Any], usual: Mapping[str, Any]) -> st.SearchStrategy:
    """Return objects of a schema: required fields, some of the others, one in twelve bodies with a field that is wrong.

    Args:
        usual: values that most bodies have for these fields, so that they get as far as the work.
    """
    schema = _resolved(schema, components)
    fields = {name: _values(kind, components, 0) for name, kind in schema.get("properties", {}).items()}
    required = {name: fields[name] for name in fields if name in {*schema.get("required", ()), *usual}}
    optional = {name: value for name, value in fields.items() if name not in required}

    @st.composite
    def body(draw: st.DrawFn) -> dict[str, Any]:
        found = {
            name: usual[name] if name == "model" or (name in usual and draw(st.integers(0, 3))) else draw(value)
            for name, value in required.items()
        }
        for name in draw(st.lists(st.sampled_from(sorted(optional)), max_size=2, unique=True)) if optional else ():
            found[name] = draw(optional[name])
        if draw(st.integers(0, 11)) == 7:
            name = draw(st.sampled_from([*sorted(fields), "surprise"]))
            found[name] = draw(ANY_JSON)
        return found

    return body()


def _values(schema: Mapping[str, Any], components: Mapping[str, Any], depth: int) -> st.SearchStrategy:
    schema = _resolved(schema, components)
    if "enum" in schema:
        return st.sampled_from(schema["enum"])
    if "const" in schema:
        return st.just(schema["const"])
    choices = schema.get("anyOf") or schema.get("oneOf")
    if choices:
        return st.one_of([_values(choice, components, depth) for choice in choices])
    kind = schema.get("type")
    if kind == "array":
        items = schema.get("items")
        inner = _values(items, components, depth + 1) if items and depth < _DEPTH_MAX else st.nothing()
        return st.lists(inner, max_size=3) if items and depth < _DEPTH_MAX else st.just([])
    if kind == "object":
        return _objects(schema, components, depth)
    simple = {"string": _TEXT, "integer": _INTEGERS, "number": _NUMBERS, "boolean": st.booleans(), "null": st.none()}
    return simple.get(kind, ANY_JSON)


def _objects(schema: Mapping[str, Any], components: Mapping[str, Any], depth: int) -> st.SearchStrategy:
    if depth >= _DEPTH_MAX:
        return st.just({})
    fields = {name: _values(kind, components, depth + 1) for name, kind in schema.get("properties", {}).items()}
    if not fields:
        more = schema.get("additionalProperties")
        inner = _values(more, components, depth + 1) if isinstance(more, dict) else ANY_JSON
        return st.dictionaries(_TEXT, inner, max_size=3)
    required = {name: value for name, value in fields.items() if name in schema.get("required", ())}
    optional = {name: value for name, value in fields.items() if name not in required}
    return st.fixed_dictionaries(required, optional=optional)


def _resolved(schema: Mapping[str, Any], components: Mapping[str, Any]) -> Mapping[str, Any]:
    while "$ref" in schema:
        schema = components[schema["$ref"].rpartition("/")[2]]
    return schema
