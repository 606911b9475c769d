"""A call's arguments as Lark, for each notation: as JSON llguidance knows them; the others are spelt out here."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from inferd.chat.dialects.gemma_grammar import GemmaGrammar
from inferd.chat.dialects.lark_rules import LarkRules, literal, regex_of
from inferd.chat.dialects.schema_reading import json_schema, object_members, resolved, string_pattern
from inferd.chat.dialects.spec import CallFormat
from inferd.errors import InvalidRequestError


class ArgumentsGrammar:
    """Args:
    prefix: what the names of new rules begin with.
    strict: see CallableTool.
    """

    def __init__(self, rules: LarkRules, format: CallFormat, prefix: str, *, strict: bool) -> None:
        self._rules = rules
        self._format = format
        self._prefix = prefix
        self._strict = strict

    def rule(self, schema: Mapping[str, Any]) -> str:
        """An expression for the arguments of a tool. Raises InvalidRequestError: the notation cannot express them."""
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
                f"A parameter named {json.dumps(name)} cannot be written in this model's tool calls.",
                param="tools",
                code="invalid_json_schema",
            )
        rule = f"{self._prefix}_p{number}"
        begin = literal(f"{tags.begin}{name}{tags.key_end}{tags.padding}")
        end = f"{tags.padding}{tags.end}"
        value = self._value(resolved(schema, root), root, rule, end)
        return self._rules.add(rule, f"{begin} {value} {literal(tags.gap)}".rstrip())

    def _value(self, schema: Mapping[str, Any], root: Mapping[str, Any], rule: str, end: str) -> str:
        """A value and what ends it. Strings are written bare, all else as JSON."""
        pattern = string_pattern(schema)
        if pattern is None:
            return f"{json_schema(schema, root, strict=self._strict)} {literal(end)}"
        if isinstance(pattern, list):
            return f"({' | '.join(literal(text + end) for text in pattern)})"
        self._rules.add(f"{rule}_TEXT".upper(), rf"{pattern} & ~/(.|\n)*{regex_of(end.strip())}(.|\n)*/")
        return self._rules.add(f"{rule}_value", f"{rule.upper()}_TEXT {literal(end)}", lazy=True)


def _can_be_written(name: str) -> bool:
    """Whether a parameter's name can stand in a tag."""
    return bool(name) and name == name.strip() and not any(character in name for character in "<>\"'\n")
