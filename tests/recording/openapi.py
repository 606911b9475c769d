"""The contract that /openapi.json describes, without the names of its components and without texts."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

_REF = "#/components/schemas/"
MAX_DEPTH = 2
"""Depth of recorded fields; the recorded requests cover deeper ones."""
_LIMITS = ("enum", "const", "default", "minimum", "maximum", "minLength", "maxLength", "minItems", "maxItems")


def contract(document: dict[str, Any]) -> dict[str, Any]:
    """Return, by method and path, the parameters, the fields of the body, and the media types of answers."""
    components = document["components"]["schemas"]
    return {
        f"{method.upper()} {path}": {
            "parameters": sorted(map(_parameter, operation.get("parameters", ()))),
            "takes": {
                media: fields(body["schema"], components)
                for media, body in operation.get("requestBody", {"content": {}})["content"].items()
            },
            "gives": sorted(
                f"{status} {media}"
                for status, response in operation["responses"].items()
                for media in response["content"]
            ),
            "needs_key": bool(operation["security"]),
        }
        for path, operations in document["paths"].items()
        for method, operation in operations.items()
    }


def _parameter(parameter: dict[str, Any]) -> str:
    required = ["required"] if parameter["required"] else []
    return " ".join([parameter["in"], parameter["name"], *required, kind(parameter["schema"])])


def kind(schema: dict[str, Any]) -> str:
    """Return type and limits of a schema in one text."""
    limits = [f"{name}={schema[name]!r}" for name in _LIMITS if name in schema]
    items = schema.get("items")
    return " ".join([str(schema.get("type", "any")), *limits, *([f"of {kind(items)}"] if items else [])])


def fields(schema: dict[str, Any], components: dict[str, Any]) -> dict[str, str]:
    """Return the types of the fields of a body, by path; `!` marks those that are required, `[]` items of a list."""
    kinds: dict[str, set[str]] = {}
    for path, each in _fields(schema, components, "", 0):
        kinds.setdefault(path, set()).add(each)
    return {path: " or ".join(sorted(each)) for path, each in sorted(kinds.items())}


def _fields(schema: dict[str, Any], components: dict[str, Any], path: str, depth: int) -> Iterator[tuple[str, str]]:
    if "$ref" in schema:
        yield from _fields(components[schema["$ref"].removeprefix(_REF)], components, path, depth)
    elif "anyOf" in schema:
        for each in schema["anyOf"]:
            yield from _fields(each, components, path, depth)
    elif "properties" in schema:
        required = schema.get("required", ())
        for name, each in schema["properties"].items() if depth < MAX_DEPTH else ():
            mark = "!" if name in required else ""
            yield from _fields(each, components, f"{path}.{name}{mark}", depth + 1)
    elif isinstance(schema.get("items"), dict):
        yield from _fields(schema["items"], components, f"{path}[]", depth)
    else:
        yield path, kind(schema)
