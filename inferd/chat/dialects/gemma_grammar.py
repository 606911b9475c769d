"""Gemma's notation of arguments as Lark: `{city:<|"|>Paris<|"|>,days:3}`. Numbers and constants are JSON's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from inferd.chat.dialects.lark_rules import LarkRules, literal, regex_of
from inferd.chat.dialects.schema_reading import json_schema, object_members, resolved, string_pattern
from inferd.errors import InvalidRequestError

_DEPTH_MAX = 16


class GemmaGrammar:
    """Of one tool's parameters; `root` is their schema."""

    def __init__(self, rules: LarkRules, prefix: str, quote: str, root: Mapping[str, Any], *, strict: bool) -> None:
        self._rules = rules
        self._prefix = prefix
        self._quote = quote
        self._root = root
        self._strict = strict
        self._count = 0

    def rule(self, schema: object, depth: int = 0) -> str:
        """An expression for the values of a schema. Without `strict`, any value is one of a schema that cannot be
        expressed; for the arguments themselves, any object."""
        try:
            return self._exact_rule(schema, depth)
        except InvalidRequestError:
            if self._strict:
                raise
        self._add_any_value()
        return f"{self._prefix}_any_value" if depth else f"{self._prefix}_any_object"

    def _exact_rule(self, schema: object, depth: int) -> str:
        if depth > _DEPTH_MAX:
            raise _unsupported(f"a schema nested deeper than {_DEPTH_MAX}")
        schema = resolved(schema, self._root)
        branches = schema.get("anyOf", schema.get("oneOf"))
        if isinstance(branches, list):
            return f"({' | '.join(self.rule(branch, depth + 1) for branch in branches)})"
        values = [schema["const"]] if "const" in schema else schema.get("enum")
        if isinstance(values, list):
            return f"({' | '.join(self._constant(value) for value in values)})"
        kinds = schema.get("type", "object" if "properties" in schema else None)
        if kinds is None:
            raise _unsupported("a value without a type")
        if isinstance(kinds, list):
            return f"({' | '.join(self.rule(dict(schema) | {'type': kind}, depth + 1) for kind in kinds)})"
        if kinds == "object":
            return self._object(list(object_members(schema, self._root, strict=self._strict)), depth)
        if kinds == "array":
            return self._array(schema, depth)
        if kinds == "string":
            return self._string(schema)
        return json_schema(schema, self._root, strict=self._strict)

    def _constant(self, value: object) -> str:
        if isinstance(value, str):
            return literal(f"{self._quote}{value}{self._quote}")
        if isinstance(value, dict | list):
            raise _unsupported("'enum' of objects or arrays")
        return json_schema({"const": value}, {}, strict=True)

    def _string(self, schema: Mapping[str, Any]) -> str:
        pattern = string_pattern(schema)
        assert isinstance(pattern, str), "its type is string, and it has no list of values"
        text = self._new("text").upper()
        self._rules.add(text, rf"{pattern} & ~/(.|\n)*{regex_of(self._quote)}(.|\n)*/")
        value = self._rules.add(self._new("string"), f"{text} {literal(self._quote)}", lazy=True)
        return f"{literal(self._quote)} {value}"

    def _array(self, schema: Mapping[str, Any], depth: int) -> str:
        if "items" not in schema:
            raise _unsupported("an array without 'items'")
        least, most = schema.get("minItems", 0), schema.get("maxItems")
        item = self._rules.add(self._new("item"), self.rule(schema["items"], depth + 1))
        if most == 0:
            return literal("[]")
        more = f'("," {item}){{{max(0, least - 1)},{"" if most is None else most - 1}}}'
        items = f"{item} {more}"
        return f'"[" ({items}){"" if least else "?"} "]"'

    def _object(self, members: Sequence[tuple[str, object, bool]], depth: int) -> str:
        """Members in their order, a comma between those that are there."""
        name = self._new("object")
        rules = []
        for number, (key, schema, _) in enumerate(members):
            if not key or any(character in key for character in ':,{}[]<>"\n '):
                raise _unsupported(f"a property named {key!r}")
            rules.append(self._rules.add(f"{name}_m{number}", f"{literal(key + ':')} {self.rule(schema, depth + 1)}"))
        first, rest = "", ""  # what may follow before, and after, the first member that is there
        for (_, _, is_required), member in reversed(list(zip(members, rules, strict=True))):
            followed = f"{member} {rest}".strip()
            if is_required:
                first, rest = followed, f'"," {followed}'
            else:
                first = f"({followed} | {first})" if first else f"({followed})?"
                rest = f'("," {member})? {rest}'.strip()
        return f'"{{" {first} "}}"'

    def _add_any_value(self) -> None:
        value, members = f"{self._prefix}_any_value", f"{self._prefix}_any_object"
        if self._rules.has(value):
            return
        scalar = json_schema({"type": ["number", "boolean", "null"]}, {}, strict=True)
        member = f'/[A-Za-z_][A-Za-z0-9_-]*/ ":" {value}'
        self._rules.add(members, f'"{{" ({member} ("," {member})*)? "}}"')
        self._rules.add(value, f'{self._string({})} | {scalar} | "[" ({value} ("," {value})*)? "]" | {members}')

    def _new(self, what: str) -> str:
        self._count += 1
        return f"{self._prefix}_{what}{self._count}"


def _unsupported(what: str) -> InvalidRequestError:
    return InvalidRequestError(
        f"The parameters of a tool cannot be enforced in this model's notation of tool calls: {what} is not supported.",
        param="tools",
        code="invalid_json_schema",
    )
