"""`response_format`, `grammar` and vLLM's guidance: the constraint of an answer's text."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

import msgspec

from inferd.constraint import Constraint, ConstraintKind
from inferd.errors import InvalidRequestError
from inferd.wire.errors import invalid, shorten, unsupported_field

_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
_TYPES = ("text", "json_object", "json_schema", "regex")
_ANY_OBJECT = '{"type":"object"}'


class JsonSchema(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """OpenAI's `json_schema`. With `strict`, each keyword is enforced or refused; without it, keywords that cannot be
    enforced are left out."""

    name: str | None = None
    description: str | None = None
    schema: msgspec.Raw = msgspec.field(default_factory=msgspec.Raw)
    strict: bool | None = None


class ResponseFormat(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """OpenAI's response format, with two extras: `schema` of the type `json_object` is a schema that is not strict
    (Together, llama-cpp-python), and of the type `regex` an expression as a string (Friendli)."""

    type: str
    json_schema: JsonSchema | None = None
    schema: msgspec.Raw = msgspec.field(default_factory=msgspec.Raw)


class StructuredOutputs(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """vLLM's constraints, of which one may be set. `json` is a schema or its text."""

    json: dict[str, Any] | str | None = None
    regex: str | None = None
    choice: list[str] | None = None
    grammar: str | None = None
    json_object: bool | None = None
    structural_tag: Any = None


def guided_constraint(guidance: StructuredOutputs, prefix: str) -> Constraint | None:
    """Return the constraint of checked guidance, None for any text. `prefix`: `guided_` or `structured_outputs.`."""
    if guidance.regex is not None:
        return Constraint(ConstraintKind.REGEX, guidance.regex, f"{prefix}regex")
    if guidance.choice is not None:
        choices = " | ".join(json.dumps(choice, ensure_ascii=False) for choice in guidance.choice)
        return Constraint(ConstraintKind.LARK, f"start: {choices}", f"{prefix}choice")
    if guidance.grammar is not None:
        return Constraint(ConstraintKind.GRAMMAR, guidance.grammar, f"{prefix}grammar")
    schema = _guided_schema(guidance)
    return Constraint(ConstraintKind.JSON_SCHEMA, schema, f"{prefix}json") if schema else None


def schema_constraint(schemas: Mapping[str, dict[str, Any] | str]) -> Constraint | None:
    """Return the constraint of llama-server's `json_schema` or Ollama's `format`, at most one of which is given."""
    for name, schema in schemas.items():
        source = _ANY_OBJECT if isinstance(schema, str) else msgspec.json.encode(schema).decode()
        return Constraint(ConstraintKind.JSON_SCHEMA_LENIENT, source, name)
    return None


def check_schemas(schemas: Mapping[str, dict[str, Any] | str], *, is_alone: bool) -> None:
    """Raise InvalidRequestError for invalid schemas. `is_alone`: no other field constrains the text."""
    for name, schema in schemas.items():
        if isinstance(schema, str) and schema != "json":
            raise invalid(name, f"'{name}' must be \"json\" or a JSON schema, got '{shorten(schema)}'.")
        if len(schemas) > 1 or not is_alone:
            raise invalid(name, f"'{name}' excludes every other constraint of the text: send one of them.")


def check_guidance(guidance: StructuredOutputs, prefix: str, *, is_alone: bool) -> None:
    """Raise InvalidRequestError for invalid guidance. `is_alone`: no other field constrains the text."""
    if guidance.structural_tag is not None:
        path = f"{prefix}structural_tag"
        raise unsupported_field(path, f"'{path}' is not supported; use 'grammar'.")
    schema = _guided_schema(guidance)
    given = [name for name in ("regex", "choice", "grammar") if getattr(guidance, name) is not None]
    given += ["json"] if schema else []
    if len(given) > 1 or (given and not is_alone):
        path = f"{prefix}{given[0]}"
        raise invalid(path, f"'{path}' excludes every other constraint of the text: send one of them.")
    if schema and not schema.startswith("{"):
        raise invalid(f"{prefix}json", f"'{prefix}json' must be a JSON schema: an object, or its text.")
    if guidance.choice is not None and not all(guidance.choice or [""]):
        raise invalid(f"{prefix}choice", f"'{prefix}choice' must hold at least one text, and no empty one.")
    if guidance.grammar is not None and not guidance.grammar.strip():
        raise invalid(f"{prefix}grammar", f"'{prefix}grammar' is empty: send a Lark or GBNF grammar.")


def _guided_schema(guidance: StructuredOutputs) -> str:
    """Return the JSON text of the schema, or ""."""
    schema = guidance.json
    if schema is None:
        return _ANY_OBJECT if guidance.json_object else ""
    return schema.strip() if isinstance(schema, str) else msgspec.json.encode(schema).decode()


def _check_json(raw: msgspec.Raw, path: str) -> None:
    """Raise InvalidRequestError if `raw`, which decoding the body did not check, is not valid JSON."""
    try:
        msgspec.json.decode(_source(raw) or "null")
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidRequestError(f"'{path}' is not valid JSON: {error}.", param=path, code="invalid_json") from error


def response_constraint(response_format: ResponseFormat | None, grammar: str | None) -> Constraint | None:
    """Return the constraint of checked fields, None for any text."""
    if grammar is not None:
        return Constraint(ConstraintKind.GRAMMAR, grammar, "grammar")
    if response_format is None or response_format.type == "text":
        return None
    schema = _source(response_format.schema)
    if response_format.type == "regex":
        return Constraint(ConstraintKind.REGEX, msgspec.json.decode(schema, type=str), "response_format.schema")
    if response_format.type == "json_object":
        return Constraint(ConstraintKind.JSON_SCHEMA_LENIENT, schema or _ANY_OBJECT, "response_format.schema")
    named = response_format.json_schema
    assert named is not None, "check_response_format comes first"
    source = _source(named.schema) or "{}"
    kind = ConstraintKind.JSON_SCHEMA if named.strict else ConstraintKind.JSON_SCHEMA_LENIENT
    return Constraint(kind, source, "response_format.json_schema.schema")


def check_response_format(response_format: ResponseFormat | None, grammar: str | None) -> None:
    """Raise InvalidRequestError for invalid fields. The engine's compiler later refuses schemas it cannot enforce."""
    if grammar is not None and not grammar.strip():
        raise invalid("grammar", "'grammar' is empty: send a Lark or GBNF grammar.")
    if response_format is None:
        return
    kind = response_format.type
    if kind not in _TYPES:
        raise invalid(
            "response_format.type", f"'response_format.type' must be one of {', '.join(_TYPES)}, got '{shorten(kind)}'."
        )
    if grammar is not None and kind != "text":
        raise invalid("grammar", "'grammar' and 'response_format' exclude each other: send one of them.")
    if (response_format.json_schema is not None) != (kind == "json_schema"):
        raise invalid(
            "response_format.json_schema",
            "'response_format.json_schema' must be set for the type 'json_schema', and only for it.",
        )
    if response_format.json_schema is not None:
        _check_schema(response_format.json_schema)
    _check_extra(kind, response_format.schema)


def _check_schema(schema: JsonSchema) -> None:
    if schema.name is not None and not _NAME.fullmatch(schema.name):
        path = "response_format.json_schema.name"
        raise invalid(path, f"'{path}' must be 1 to 64 characters of a-z, A-Z, 0-9, _ and -.")
    path = "response_format.json_schema.schema"
    _check_json(schema.schema, path)
    if _source(schema.schema)[:1] not in ("", "{"):
        raise invalid(path, f"'{path}' must be an object: a JSON schema.")


def _check_extra(kind: str, extra: msgspec.Raw) -> None:
    path = "response_format.schema"
    _check_json(extra, path)
    schema = _source(extra)
    if kind == "regex" and schema[:1] != '"':
        raise invalid(path, f"'{path}' must be a string: the regular expression.")
    if kind == "json_object" and schema[:1] not in ("", "{"):
        raise invalid(path, f"'{path}' must be an object: a JSON schema.")
    if kind not in ("regex", "json_object") and schema:
        raise invalid(path, f"'{path}' is only used with the types 'json_object' and 'regex'; leave it out.")


def _source(schema: msgspec.Raw) -> str:
    """Return the JSON text of the schema; "" if it is left out or null."""
    text = bytes(schema).decode()
    return "" if text == "null" else text
