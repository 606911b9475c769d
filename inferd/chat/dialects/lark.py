"""Rules and expressions of llguidance's Lark grammars, made from texts and from JSON schemas.

https://github.com/guidance-ai/llguidance/blob/main/docs/syntax.md
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from inferd.errors import InvalidRequestError

_JSON_STYLE = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}
"""Python's style of JSON, which the templates of the models' training write."""
_MAX_REFS = 16


def literal(text: str) -> str:
    """Return an expression that matches exactly this text; "" for no text."""
    return json.dumps(text, ensure_ascii=False) if text else ""


def regex_of(text: str) -> str:
    """Return a regular expression, for use between slashes, that matches exactly this text."""
    return "".join(character if character.isalnum() else f"\\x{{{ord(character):x}}}" for character in text)


class LarkRules:
    """Rules of one grammar; each name is used once."""

    def __init__(self) -> None:
        self._rules: dict[str, str] = {}

    def has(self, name: str) -> bool:
        return name in self._rules

    def add(self, name: str, body: str, *, lazy: bool = False) -> str:
        """Add a rule and return its name. `lazy`: the rule is one lexeme that ends at its first match."""
        assert name not in self._rules, f"two rules are named {name}"
        self._rules[name] = f"{name}{'[lazy]' if lazy else ''}: {body}"
        return name

    def text(self) -> str:
        return "\n".join(self._rules.values()) + "\n"


def json_schema(schema: Mapping[str, Any], root: Mapping[str, Any], *, strict: bool) -> str:
    """Return an expression for the JSON values of a schema, which may refer to definitions of `root`."""
    definitions = {word: root[word] for word in ("$defs", "definitions") if word in root}
    guidance = _JSON_STYLE | {"lenient": not strict}
    return f"%json {json.dumps(dict(schema) | definitions | {'x-guidance': guidance}, ensure_ascii=False)}"


def resolved(schema: object, root: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the schema at the end of a chain of `$ref`s; {}, which allows any value, for true and for no schema."""
    for _ in range(_MAX_REFS):
        if not isinstance(schema, Mapping):
            return {}
        reference = schema.get("$ref")
        if reference is None:
            return schema
        schema = _at(reference, root)
    raise unsupported(f"a chain of more than {_MAX_REFS} $ref")


def object_members(
    schema: Mapping[str, Any], root: Mapping[str, Any], *, strict: bool
) -> Iterator[tuple[str, object, bool]]:
    """Yield (name, schema, whether it is required) of an object's properties. Other keywords for objects are left out,
    or with `strict` raise InvalidRequestError."""
    schema = resolved(schema, root)
    for word in ("anyOf", "oneOf", "allOf", "not", "if", "patternProperties", "dependentRequired", "minProperties"):
        if word in schema and strict:
            raise unsupported(f"'{word}' for an object")
    properties = schema.get("properties", {})
    required = schema.get("required", [])
    if not isinstance(properties, Mapping) or not isinstance(required, list):
        raise unsupported("'properties' that is no object, or 'required' that is no array")
    for name in required:
        if name not in properties and strict:
            raise unsupported(f"the required property {json.dumps(name)}, which 'properties' does not have,")
    for name, member in properties.items():
        if member is not False:
            yield name, member, name in required


def string_pattern(schema: Mapping[str, Any]) -> list[str] | str | None:
    """Return the bare texts of a value, as a list or as a Lark expression; None if the value is not a string.

    A value without a type is text: only text is certain to be read back unchanged.
    """
    values = [schema["const"]] if "const" in schema else schema.get("enum")
    if isinstance(values, list):
        return values if values and all(isinstance(value, str) for value in values) else None
    kind = schema.get("type")
    if kind != "string":
        free = kind is None and not any(word in schema for word in ("anyOf", "oneOf", "allOf", "not"))
        return "TEXT" if free else None
    parts = []
    if isinstance(schema.get("pattern"), str):
        parts.append(f"/{_search(schema['pattern'])}/")
    shortest, longest = schema.get("minLength", 0), schema.get("maxLength", "")
    if shortest or longest != "":
        parts.append(f"/(?s:.{{{shortest},{longest}}})/")
    return " & ".join(parts) or "TEXT"


def _search(pattern: str) -> str:
    """Return a pattern for the whole text: patterns of JSON schemas match anywhere in it."""
    begin = "" if pattern.startswith("^") else r"(.|\n)*"
    end = "" if pattern.endswith("$") and not pattern.endswith("\\$") else r"(.|\n)*"
    inner = pattern.removeprefix("^")
    inner = inner[:-1] if not end else inner
    return f"{begin}({inner}){end}".replace("/", "\\/").replace("\\\\/", "\\/")


def _at(reference: object, root: Mapping[str, Any]) -> object:
    if not isinstance(reference, str) or not reference.startswith("#/"):
        raise unsupported("a $ref outside of the schema")
    place: object = root
    for word in reference[2:].split("/"):
        key = word.replace("~1", "/").replace("~0", "~")
        if not isinstance(place, Mapping) or key not in place:
            raise unsupported(f"the $ref {json.dumps(reference)}, which leads nowhere,")
        place = place[key]
    return place


def unsupported(what: str) -> InvalidRequestError:
    return InvalidRequestError(
        f"The parameters of a tool cannot be enforced in this model's notation of tool calls: {what} is not supported.",
        param="tools",
        code="invalid_json_schema",
    )
