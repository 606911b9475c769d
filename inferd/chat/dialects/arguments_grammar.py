"""Lark expressions for a call's arguments in each notation; JSON is llguidance's own."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from inferd.chat.dialects.lark import (
    LarkRules,
    json_schema,
    literal,
    object_members,
    regex_of,
    resolved,
    string_pattern,
    unsupported,
)
from inferd.chat.dialects.spec import CallFormat
from inferd.errors import InvalidRequestError

_MAX_DEPTH = 16


class ArgumentsGrammar:
    """Builder of the expression for one tool's arguments.

    Args:
        prefix: beginning of the names of new rules.
        strict: see CallableTool.
    """

    def __init__(self, rules: LarkRules, format: CallFormat, prefix: str, *, strict: bool) -> None:
        self._rules = rules
        self._format = format
        self._prefix = prefix
        self._strict = strict

    def rule(self, schema: Mapping[str, Any]) -> str:
        """Return the expression. Raises InvalidRequestError: the notation cannot express the schema."""
        if self._format.notation == "gemma":
            grammar = GemmaGrammar(self._rules, self._prefix, self._format.quote, schema, strict=self._strict)
            return grammar.rule(schema)
        if self._format.notation == "tagged":
            return self._tagged(schema)
        return json_schema(schema, schema, strict=self._strict)

    def _tagged(self, schema: Mapping[str, Any]) -> str:
        members = [
            self._member(name, member, schema, number) + ("" if is_required else "?")
            for number, (name, member, is_required) in enumerate(object_members(schema, schema, strict=self._strict))
            if self._strict or _can_be_written(name)
        ]
        return self._rules.add(f"{self._prefix}_arguments", " ".join(members) or '""')

    def _member(self, name: str, schema: object, root: Mapping[str, Any], number: int) -> str:
        tags = self._format.parameters
        assert tags is not None, "tagged arguments have tags"
        if not _can_be_written(name):
            raise InvalidRequestError(
                f"A parameter named {json.dumps(name)} cannot be written in this model's tool calls: rename it.",
                param="tools",
                code="invalid_json_schema",
            )
        rule = f"{self._prefix}_p{number}"
        begin = literal(f"{tags.begin}{name}{tags.key_end}{tags.padding}")
        end = f"{tags.padding}{tags.end}"
        value = self._value(resolved(schema, root), root, rule, end)
        return self._rules.add(rule, f"{begin} {value} {literal(tags.gap)}".rstrip())

    def _value(self, schema: Mapping[str, Any], root: Mapping[str, Any], rule: str, end: str) -> str:
        """Return an expression for a value and its end tag. Strings are bare, other values JSON."""
        pattern = string_pattern(schema)
        if pattern is None:
            return f"{json_schema(schema, root, strict=self._strict)} {literal(end)}"
        if isinstance(pattern, list):
            return f"({' | '.join(literal(text + end) for text in pattern)})"
        self._rules.add(f"{rule}_TEXT".upper(), rf"{pattern} & ~/(.|\n)*{regex_of(end.strip())}(.|\n)*/")
        return self._rules.add(f"{rule}_value", f"{rule.upper()}_TEXT {literal(end)}", lazy=True)


class GemmaGrammar:
    """Builder for Gemma's notation: `{city:<|"|>Paris<|"|>,days:3}`. `root` is the schema of the tool's parameters."""

    def __init__(self, rules: LarkRules, prefix: str, quote: str, root: Mapping[str, Any], *, strict: bool) -> None:
        self._rules = rules
        self._prefix = prefix
        self._quote = quote
        self._root = root
        self._strict = strict
        self._count = 0

    def rule(self, schema: object, depth: int = 0) -> str:
        """Return an expression for the values of a schema. Without `strict`, a schema that cannot be expressed allows
        any value; for the arguments themselves, any object."""
        try:
            return self._exact_rule(schema, depth)
        except InvalidRequestError:
            if self._strict:
                raise
        self._add_any_value()
        return f"{self._prefix}_any_value" if depth else f"{self._prefix}_any_object"

    def _exact_rule(self, schema: object, depth: int) -> str:
        if depth > _MAX_DEPTH:
            raise unsupported(f"a schema nested deeper than {_MAX_DEPTH}")
        schema = resolved(schema, self._root)
        branches = schema.get("anyOf", schema.get("oneOf"))
        if isinstance(branches, list):
            return f"({' | '.join(self.rule(branch, depth + 1) for branch in branches)})"
        values = [schema["const"]] if "const" in schema else schema.get("enum")
        if isinstance(values, list):
            return f"({' | '.join(self._constant(value) for value in values)})"
        kinds = schema.get("type", "object" if "properties" in schema else None)
        if kinds is None:
            raise unsupported("a value without a type")
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
            raise unsupported("'enum' of objects or arrays")
        return json_schema({"const": value}, {}, strict=True)

    def _string(self, schema: Mapping[str, Any]) -> str:
        pattern = string_pattern(schema)
        assert isinstance(pattern, str), "the type is string, and lists of values are handled before"
        text = self._new("text").upper()
        self._rules.add(text, rf"{pattern} & ~/(.|\n)*{regex_of(self._quote)}(.|\n)*/")
        value = self._rules.add(self._new("string"), f"{text} {literal(self._quote)}", lazy=True)
        return f"{literal(self._quote)} {value}"

    def _array(self, schema: Mapping[str, Any], depth: int) -> str:
        if "items" not in schema:
            raise unsupported("an array without 'items'")
        least, most = schema.get("minItems", 0), schema.get("maxItems")
        item = self._rules.add(self._new("item"), self.rule(schema["items"], depth + 1))
        if most == 0:
            return literal("[]")
        more = f'("," {item}){{{max(0, least - 1)},{"" if most is None else most - 1}}}'
        items = f"{item} {more}"
        return f'"[" ({items}){"" if least else "?"} "]"'

    def _object(self, members: Sequence[tuple[str, object, bool]], depth: int) -> str:
        """Return an expression for members in their order, with commas between the present ones."""
        name = self._new("object")
        rules = []
        for number, (key, schema, _) in enumerate(members):
            if not key or any(character in key for character in ':,{}[]<>"\n '):
                raise unsupported(f"a property named {key!r}")
            rules.append(self._rules.add(f"{name}_m{number}", f"{literal(key + ':')} {self.rule(schema, depth + 1)}"))
        first, rest = "", ""  # the tail before, and after, the first present member
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


def _can_be_written(name: str) -> bool:
    """Return whether a parameter's name can stand in a tag."""
    return bool(name) and name == name.strip() and not any(character in name for character in "<>\"'\n")
