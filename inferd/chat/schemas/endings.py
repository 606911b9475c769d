"""Endless JSON schemas: with `{"$ref": "#"}` in a required member, every value needs another one inside.

The schemas come from reader.py: each `$ref` is `#/$defs/NAME`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

_MAX_PASSES = 64
"""Passes over all definitions; a definition that needs more to be known as ending counts as endless."""
_BRANCHES = ("anyOf", "oneOf", "allOf")

Node = dict[str, Any] | bool


def ending_definitions(definitions: Mapping[str, Node]) -> frozenset[str]:
    """Return the references to the definitions that have a finite value."""
    ending: set[str] = set()
    for _ in range(_MAX_PASSES):
        found = {
            reference
            for name, node in definitions.items()
            if (reference := f"#/$defs/{name}") not in ending and ends(node, ending)
        }
        if not found:
            break
        ending |= found
    return frozenset(ending)


def ends(node: Node, ending: frozenset[str] | set[str]) -> bool:
    """Return whether the schema has a finite value, given the references in `ending`."""
    if isinstance(node, bool):
        return node
    if "$ref" in node and node["$ref"] not in ending:
        return False
    for word in _BRANCHES:
        choose = all if word == "allOf" else any
        if word in node and not choose(ends(branch, ending) for branch in node[word]):
            return False
    if "enum" in node or "const" in node:
        return True
    kinds = node.get("type", "string")
    kinds = set(kinds) if isinstance(kinds, list) else {kinds}
    if kinds - {"array", "object"}:
        return True
    return ("object" in kinds and not _endless_members(node, ending)) or (
        "array" in kinds and not _has_endless_items(node, ending)
    )


def _endless_members(node: Mapping[str, Any], ending: frozenset[str] | set[str]) -> set[str]:
    """Return the names of the required members without a finite value."""
    properties = node.get("properties", {})
    others = node.get("additionalProperties", True) if "patternProperties" not in node else True
    return {name for name in node.get("required", ()) if not ends(properties.get(name, others), ending)}


def _has_endless_items(node: Mapping[str, Any], ending: frozenset[str] | set[str]) -> bool:
    """Return whether an array needs items without a finite value."""
    least, first = node.get("minItems", 0), node.get("prefixItems", [])
    needed = [*first[:least], *([node.get("items", True)] if least > len(first) else [])]
    return not all(ends(item, ending) for item in needed)


def drop_endless(node: Node, ending: frozenset[str]) -> None:
    """Delete the parts of the schema that have no finite value, at all levels."""
    if isinstance(node, bool):
        return
    if "$ref" in node and node["$ref"] not in ending:
        del node["$ref"]
    for word in _BRANCHES:
        if word in node:
            node[word] = [branch for branch in node[word] if ends(branch, ending)]
            if not node[word]:
                del node[word]
    if "required" in node:
        endless = _endless_members(node, ending)
        node["required"] = [name for name in node["required"] if name not in endless]
    if _has_endless_items(node, ending):
        del node["minItems"]
    for below in _below(node):
        drop_endless(below, ending)


def _below(node: Mapping[str, Any]) -> Iterator[Node]:
    """Yield the schemas inside a schema."""
    for word in ("properties", "patternProperties"):
        yield from node.get(word, {}).values()
    for word in (*_BRANCHES, "prefixItems"):
        yield from node.get(word, ())
    for word in ("items", "additionalProperties"):
        if word in node:
            yield node[word]
