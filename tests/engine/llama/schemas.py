"""JSON schemas of many kinds, by a script that always makes the same ones."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

Schema = dict[str, Any]

_WORDS = ("name", "age", "city", "tags", "price", "kind", "id", "note", "size", "day")


def schema(number: int) -> Schema:
    """The `number`-th one. Texts and arrays are bounded, so that an answer has an end."""
    return _KINDS[schema_kind(number)](random.Random(number), 3)


def schema_kind(number: int) -> str:
    """`unsupported` ones cannot be enforced by llguidance, all others can."""
    return list(_KINDS)[number % len(_KINDS)]


def _leaf(rng: random.Random) -> Schema:
    return rng.choice((_string, _number, _enum, _pattern, _format, _plain))(rng, 0)


def _any(rng: random.Random, depth: int) -> Schema:
    if depth <= 0:
        return _leaf(rng)
    return rng.choice((_object, _array, _tuple, _any_of, _string, _number, _enum, _pattern))(rng, depth)


def _string(rng: random.Random, _depth: int) -> Schema:
    least = rng.randrange(4)
    return {"type": "string", "minLength": least, "maxLength": least + rng.randrange(1, 8)}


def _number(rng: random.Random, _depth: int) -> Schema:
    low = rng.randrange(-50, 50)
    between = {"minimum": low, "maximum": low + rng.randrange(1, 500)}
    bounds = rng.choice((between, {"exclusiveMinimum": low, "maximum": low + 9}))
    kind = rng.choice(({"type": "integer"}, {"type": "integer", "multipleOf": rng.choice((2, 3, 5))}))
    return {**kind, **bounds}


def _enum(rng: random.Random, _depth: int) -> Schema:
    values = ["red", "green", 'with "quotes"', "ünïcode", 7, -1.5, None, True, ["a", 1], {"k": "v"}]
    return rng.choice(({"enum": rng.sample(values, rng.randrange(1, 5))}, {"const": rng.choice(values)}))


def _pattern(rng: random.Random, _depth: int) -> Schema:
    patterns = (
        r"^[A-Z]{2}-[0-9]{3}$",
        r"^(yes|no)$",
        r"^[a-f0-9]{6}$",
        r"^\d{1,3}(\.\d{1,3}){3}$",
        r"^[a-z]{2,5}@b\.com$",
    )
    return {"type": "string", "pattern": rng.choice(patterns)}


def _format(rng: random.Random, _depth: int) -> Schema:
    return {"type": "string", "format": rng.choice(("date", "time", "date-time", "uuid", "ipv4"))}


def _plain(rng: random.Random, _depth: int) -> Schema:
    return rng.choice(({"type": "boolean"}, {"type": "null"}, {"type": ["boolean", "null"]}))


def _object(rng: random.Random, depth: int) -> Schema:
    names = rng.sample(_WORDS, rng.randrange(1, 4))
    required = names if rng.random() < 0.5 else rng.sample(names, rng.randrange(len(names) + 1))
    return {
        "type": "object",
        "properties": {name: _any(rng, depth - 1) for name in names},
        "required": required,
        "additionalProperties": False,
    }


def _array(rng: random.Random, depth: int) -> Schema:
    least = rng.randrange(3)
    return {"type": "array", "items": _any(rng, depth - 2), "minItems": least, "maxItems": least + rng.randrange(1, 3)}


def _tuple(rng: random.Random, _depth: int) -> Schema:
    return {"type": "array", "prefixItems": [_leaf(rng), _leaf(rng)], "items": False, "minItems": 2}


def _any_of(rng: random.Random, _depth: int) -> Schema:
    return {"anyOf": [_leaf(rng), _leaf(rng), {"type": "null"}]}


def _one_of(rng: random.Random, depth: int) -> Schema:
    return {
        "oneOf": [
            {
                "type": "object",
                "properties": {"kind": {"const": kind}, "value": _any(rng, depth - 2)},
                "required": ["kind", "value"],
                "additionalProperties": False,
            }
            for kind in rng.sample(("cat", "dog", "bird"), 2)
        ]
    }


def _all_of(rng: random.Random, _depth: int) -> Schema:
    return {"allOf": [{"type": "integer", "minimum": 3}, {"type": "integer", "maximum": rng.randrange(10, 99)}]}


def _refs(rng: random.Random, depth: int) -> Schema:
    pair = {"type": "array", "items": {"$ref": "#/$defs/part"}, "maxItems": 2}
    return {
        "$defs": {"part": _any(rng, depth - 2), "pair": pair},
        "type": "object",
        "properties": {"one": {"$ref": "#/$defs/part"}, "two": {"$ref": "#/$defs/pair"}},
        "required": ["one", "two"],
        "additionalProperties": False,
    }


def _recursive(rng: random.Random, _depth: int) -> Schema:
    return {
        "$defs": {
            "node": {
                "type": "object",
                "properties": {"value": _leaf(rng), "next": {"anyOf": [{"type": "null"}, {"$ref": "#/$defs/node"}]}},
                "required": ["value", "next"],
                "additionalProperties": False,
            }
        },
        "$ref": "#/$defs/node",
    }


def _map(rng: random.Random, _depth: int) -> Schema:
    return {
        "type": "object",
        "properties": {"id": _leaf(rng)},
        "required": ["id"],
        "patternProperties": {"^x-[a-z]$": _leaf(rng)},
        "additionalProperties": False,
    }


def _unsupported(rng: random.Random, depth: int) -> Schema:
    keyword = rng.choice(
        (
            {"type": "array", "uniqueItems": True},
            {"not": {"type": "string"}},
            {"type": "object", "dependentRequired": {"a": ["b"]}},
            {"if": {"type": "string"}, "then": {"minLength": 3}},
            {"type": "array", "contains": {"const": 1}},
            {"type": "string", "format": "no-such-format"},
        )
    )
    return {"type": "object", "properties": {"a": _any(rng, depth - 2), "b": keyword}, "required": ["b"]}


_KINDS: dict[str, Callable[[random.Random, int], Schema]] = {
    "object": _object,
    "nested": lambda rng, depth: _object(rng, depth + 1),
    "array": _array,
    "tuple": _tuple,
    "enum": _enum,
    "string": _string,
    "number": _number,
    "pattern": _pattern,
    "format": _format,
    "any of": _any_of,
    "one of": _one_of,
    "all of": _all_of,
    "references": _refs,
    "recursion": _recursive,
    "map": _map,
    "unsupported": _unsupported,
}
