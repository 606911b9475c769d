"""Reduction of a caller's JSON schema to its enforceable keywords, with a fault for each keyword that is left out.

A schema without `strict` is enforced in its reduced form. A schema with `strict` is passed on unchanged, and the faults
say by the caller's own paths why it is refused.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

from inferd.chat.schemas.endings import Node, drop_endless, ending_definitions, ends
from inferd.chat.schemas.patterns import pattern_fault
from inferd.constraint import SchemaFault

MAX_DEPTH = 64
MAX_DEFINITIONS = 512
MAX_FAULTS = 16
MAX_NODES = 20_000
"""Schemas inside one schema."""
_LARGEST_COUNT = 2**31 - 1
_LARGEST_BOUND = 1e18
_SMALLEST_BOUND = 1e-70
"""llguidance writes bounds as a regular expression, which is too long or overflows beyond these."""
_LARGEST_MULTIPLE = 10**7
_SMALLEST_MULTIPLE = 1e-9
_MULTIPLE_DIGITS = 3

_TYPES = frozenset(("null", "boolean", "integer", "number", "string", "array", "object"))
_FORMATS = frozenset(
    ("date-time", "time", "date", "duration", "email", "hostname", "ipv4", "ipv6", "uri", "uuid", "unknown")
)
_PERCENT = re.compile("(?:%[0-9A-Fa-f]{2})+")
_UNENFORCED = frozenset(
    {"not", "if", "then", "else", "contains", "minContains", "maxContains", "uniqueItems", "propertyNames"}
    | {"dependentRequired", "dependentSchemas", "dependencies", "unevaluatedProperties", "unevaluatedItems"}
    | {"$dynamicRef"}
)
_SHAPE = frozenset(("type", "properties", "required", "items", "prefixItems", "enum", "const", "$ref"))
_PAIRS = (("minLength", "maxLength"), ("minItems", "maxItems"), ("minProperties", "maxProperties"))
_LOWER, _UPPER = ("minimum", "exclusiveMinimum"), ("maximum", "exclusiveMaximum")


class SchemaDetail(IntEnum):
    """Part of a schema without `strict` that is enforced; the compiler retries with less if it refuses a schema."""

    ANY = 0  # the outermost type
    SHAPE = 1  # types, properties, items and constants
    FULL = 2  # all enforceable keywords


@dataclass(frozen=True, slots=True)
class ReadSchema:
    """Result of reading a schema.

    Attributes:
        schema: the enforceable part. Each `$ref` leads to an entry of `$defs` at the top.
        faults: the first MAX_FAULTS keywords that were left out.
        is_endless: whether the caller's schema has no finite value.
    """

    schema: dict[str, Any]
    faults: tuple[SchemaFault, ...]
    is_endless: bool


def read_schema(schema: object, path: str, detail: SchemaDetail = SchemaDetail.FULL) -> ReadSchema:
    """Return the enforceable part of a schema.

    Args:
        path: path of the schema in the request, such as `tools[0].function.parameters`.
        detail: part of the schema to enforce.
    """
    return _SchemaReader(schema, path, detail).read()


class _LeftOutError(Exception):
    """A keyword must be left out; the message says why."""


class _SchemaReader:
    """Reader of one schema. Each place that a `$ref` leads to becomes a definition, named by its JSON pointer."""

    def __init__(self, root: object, path: str, detail: SchemaDetail) -> None:
        self._root = root
        self._path = path
        self._detail = detail
        self._faults: list[SchemaFault] = []
        self._num_nodes = 0
        self._names: dict[str, str] = {}
        self._ends: dict[str, tuple[str, object] | _LeftOutError] = {}
        self._waiting: list[tuple[str, object, str]] = []

    def read(self) -> ReadSchema:
        """Return the reduced schema, with a definition for every place that it refers to."""
        root = self._node(self._root, self._path, 0)
        root = root if isinstance(root, dict) else ({} if root else {"allOf": [False]})
        definitions: dict[str, Node] = {}
        while self._waiting:
            name, place, path = self._waiting.pop()
            definitions[name] = self._node(place, path, 0)
        ending = ending_definitions(definitions)
        is_endless = not ends(root, ending)
        for node in (root, *definitions.values()):
            drop_endless(node, ending)
        if self._detail is SchemaDetail.ANY:
            root, definitions = ({"type": "object"} if root.get("type") == "object" else {}), {}
        return ReadSchema(root | ({"$defs": definitions} if definitions else {}), tuple(self._faults), is_endless)

    def _node(self, schema: object, path: str, depth: int) -> Node:
        if isinstance(schema, bool):
            return schema
        if not isinstance(schema, dict):
            self._leave_out(path, "is no schema: it must be an object, true or false")
            return {}
        self._num_nodes += 1
        if depth > MAX_DEPTH or self._num_nodes > MAX_NODES:
            self._leave_out(path, f"is nested deeper than {MAX_DEPTH} schemas, or is one of more than {MAX_NODES}")
            return {}
        if isinstance(schema.get("items"), list):  # a tuple, as drafts before 2020-12 write it
            schema = schema | {"prefixItems": schema["items"], "items": schema.get("additionalItems", True)}
        read: dict[str, Any] = {}
        for word, value in schema.items():
            rule = _RULES.get(word)
            if rule is None:  # an annotation, or a keyword of another dialect
                if word in _UNENFORCED and value is not None and not (word == "uniqueItems" and value is False):
                    self._leave_out(f"{path}.{word}", "cannot be enforced here")
                continue
            if self._detail is not SchemaDetail.FULL and word not in _SHAPE:
                continue
            try:
                read[word] = rule(self, value, f"{path}.{word}", depth + 1)
            except _LeftOutError as reason:
                self._leave_out(f"{path}.{word}", str(reason))
        self._reconcile(read, path)
        return read

    def _leave_out(self, path: str, why: str) -> None:
        if len(self._faults) < MAX_FAULTS:
            self._faults.append(SchemaFault(path, why))

    # Rules: each returns the enforceable value of a keyword, or raises _LeftOutError.

    def _type(self, value: object, path: str, depth: int) -> object:
        names = value if isinstance(value, list) else [value]
        known = [name for name in names if isinstance(name, str) and name in _TYPES]
        if not known:
            raise _LeftOutError(f"must be one of {', '.join(sorted(_TYPES))}, or a list of them")
        if len(known) < len(names):
            self._leave_out(path, f"has other names than {', '.join(sorted(_TYPES))}")
        return known if isinstance(value, list) else known[0]

    def _enum(self, value: object, path: str, depth: int) -> object:
        if not isinstance(value, list) or not value:
            raise _LeftOutError("must be a list of at least one value")
        return value

    def _const(self, value: object, path: str, depth: int) -> object:
        return value

    def _pattern(self, value: object, path: str, depth: int) -> object:
        if not isinstance(value, str):
            raise _LeftOutError("must be a string")
        if (fault := pattern_fault(value)) is not None:
            raise _LeftOutError(fault)
        return value

    def _format(self, value: object, path: str, depth: int) -> object:
        if not isinstance(value, str) or value not in _FORMATS:
            raise _LeftOutError(f"must be one of {', '.join(sorted(_FORMATS))} to be enforced")
        return value

    def _count(self, value: object, path: str, depth: int) -> object:
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= _LARGEST_COUNT:
            raise _LeftOutError(f"must be a whole number between 0 and {_LARGEST_COUNT}")
        return value

    def _bound(self, value: object, path: str, depth: int) -> object:
        if not isinstance(value, int | float) or isinstance(value, bool):
            raise _LeftOutError("must be a number")
        if value and not _SMALLEST_BOUND < abs(value) < _LARGEST_BOUND:
            raise _LeftOutError(f"must be 0, or lie between {_SMALLEST_BOUND} and {_LARGEST_BOUND} without its sign")
        return value

    def _multiple(self, value: object, path: str, depth: int) -> object:
        if not isinstance(value, int | float) or isinstance(value, bool) or not value > 0:
            raise _LeftOutError("must be a number above 0")
        digits = f"{value:.15e}".split("e")[0].replace(".", "").rstrip("0")
        is_short = float(value).is_integer() or len(digits) <= _MULTIPLE_DIGITS
        if not is_short or not _SMALLEST_MULTIPLE <= value <= _LARGEST_MULTIPLE:
            raise _LeftOutError(
                f"must be whole and at most {_LARGEST_MULTIPLE}, or have at most {_MULTIPLE_DIGITS} significant digits"
            )
        return value

    def _required(self, value: object, path: str, depth: int) -> object:
        if not isinstance(value, list):
            raise _LeftOutError("must be a list of names")
        names = [name for name in value if isinstance(name, str)]
        if len(names) < len(value):
            self._leave_out(path, "must hold names only")
        return list(dict.fromkeys(names))

    def _schema(self, value: object, path: str, depth: int) -> object:
        if not isinstance(value, dict | bool):
            raise _LeftOutError("is no schema: it must be an object, true or false")
        return self._node(value, path, depth)

    def _schemas(self, value: object, path: str, depth: int) -> object:
        if not isinstance(value, list) or not value:
            raise _LeftOutError("must be a list of at least one schema")
        return [self._node(each, f"{path}[{index}]", depth) for index, each in enumerate(value)]

    def _properties(self, value: object, path: str, depth: int) -> object:
        if not isinstance(value, dict):
            raise _LeftOutError("must be an object of schemas")
        return {name: self._node(each, f"{path}.{name}", depth) for name, each in value.items()}

    def _patterns(self, value: object, path: str, depth: int) -> object:
        if not isinstance(value, dict):
            raise _LeftOutError("must be an object of schemas")
        faults = {name: pattern_fault(name) for name in value}
        for name, fault in faults.items():
            if fault is not None:
                self._leave_out(path, f"has the name {name!r}, which {fault}")
        return {name: self._node(each, f"{path}.{name}", depth) for name, each in value.items() if not faults[name]}

    def _reference(self, value: object, path: str, depth: int) -> object:
        """Return the name of a definition for the place where the chain of references ends."""
        pointer, place = self._end(value)
        if pointer not in self._names:
            if len(self._names) >= MAX_DEFINITIONS:
                raise _LeftOutError(f"leads to one place more than {MAX_DEFINITIONS}")
            self._names[pointer] = f"d{len(self._names)}"
            self._waiting.append((self._names[pointer], place, self._path + pointer.replace("/", ".")))
        return f"#/$defs/{self._names[pointer]}"

    def _end(self, value: object) -> tuple[str, object]:
        """Return the pointer and the value of the place where a chain of references ends. Each reference is followed
        once, however many chains pass it: 128 KiB hold thousands of references and chains."""
        place: object = {"$ref": value}
        passed: dict[str, None] = {}
        end: tuple[str, object] | _LeftOutError | None = None
        try:
            while isinstance(place, dict) and "$ref" in place and place.keys() & _RULES.keys() == {"$ref"}:
                pointer = self._pointer(place["$ref"])
                end = (pointer, {"allOf": [False]}) if pointer in passed else self._ends.get(pointer)
                if end is not None:
                    break
                passed[pointer] = None
                place = self._at(pointer)
            else:
                end = (pointer, place)
        except _LeftOutError as error:
            end = error
        assert end is not None, "a chain begins with a reference"
        self._ends.update(dict.fromkeys(passed, end))
        if isinstance(end, _LeftOutError):
            raise _LeftOutError(*end.args)
        return end

    @staticmethod
    def _pointer(reference: object) -> str:
        if not isinstance(reference, str) or not reference.startswith("#"):
            raise _LeftOutError("must lead to a place in the same schema, such as #/$defs/NAME")
        return _PERCENT.sub(
            lambda match: bytes.fromhex(match[0].replace("%", "")).decode("utf-8", "replace"), reference[1:]
        )

    def _at(self, pointer: str) -> object:
        place = self._root
        if pointer and not pointer.startswith("/"):
            raise _LeftOutError("must lead to a place in the same schema, such as #/$defs/NAME")
        for word in pointer.split("/")[1:]:
            key = word.replace("~1", "/").replace("~0", "~")
            if isinstance(place, list) and key.isdecimal() and int(key) < len(place):
                place = place[int(key)]
            elif isinstance(place, dict) and key in place:
                place = place[key]
            else:
                raise _LeftOutError("leads nowhere")
        return place

    def _reconcile(self, read: dict[str, Any], path: str) -> None:
        """Leave out keywords that exclude each other: together they would allow no value at all."""
        for least, most in _PAIRS:
            if read.get(least, 0) > read.get(most, math.inf):
                self._leave_out(f"{path}.{least}", f"must be at most '{most}'")
                del read[least], read[most]
        if _bounds_exclude(read):
            self._leave_out(f"{path}.{next(word for word in _LOWER if word in read)}", "leaves no number")
            for word in (*_LOWER, *_UPPER):
                read.pop(word, None)
        kinds = read.get("type", [*_TYPES])
        kinds = kinds if isinstance(kinds, list) else [kinds]
        if "enum" in read:
            read["enum"] = [value for value in read["enum"] if _is_of(value, kinds)]
        for word in ("enum", "const"):
            if word in read and not (read["enum"] if word == "enum" else _is_of(read["const"], kinds)):
                self._leave_out(f"{path}.{word}", "has no value of its 'type'")
                del read[word]
        if read.get("additionalProperties") is False and "patternProperties" not in read:
            names = read.get("required", [])
            known = [name for name in names if name in read.get("properties", {})]
            if len(known) < len(names):
                self._leave_out(f"{path}.required", "names a property that 'additionalProperties' excludes")
                read["required"] = known


_Rule = Callable[[_SchemaReader, object, str, int], object]
_RULES: dict[str, _Rule] = {
    "$ref": _SchemaReader._reference,
    "const": _SchemaReader._const,
    "enum": _SchemaReader._enum,
    "format": _SchemaReader._format,
    "multipleOf": _SchemaReader._multiple,
    "pattern": _SchemaReader._pattern,
    "patternProperties": _SchemaReader._patterns,
    "properties": _SchemaReader._properties,
    "required": _SchemaReader._required,
    "type": _SchemaReader._type,
    **dict.fromkeys(("additionalProperties", "items"), _SchemaReader._schema),
    **dict.fromkeys(("allOf", "anyOf", "oneOf", "prefixItems"), _SchemaReader._schemas),
    **dict.fromkeys((*_LOWER, *_UPPER), _SchemaReader._bound),
    **dict.fromkeys((word for pair in _PAIRS for word in pair), _SchemaReader._count),
}


def _is_of(value: object, kinds: list[str]) -> bool:
    """Return whether a JSON value has one of the types."""
    if isinstance(value, bool):
        return "boolean" in kinds
    if isinstance(value, int) or (isinstance(value, float) and value.is_integer()):
        return "integer" in kinds or "number" in kinds
    names = {float: "number", str: "string", list: "array", dict: "object", type(None): "null"}
    return names.get(type(value)) in kinds


def _bounds_exclude(read: Mapping[str, Any]) -> bool:
    """Return whether the bounds leave no number."""
    lower = max(read.get(word, -math.inf) for word in _LOWER)
    upper = min(read.get(word, math.inf) for word in _UPPER)
    if math.inf in (-lower, upper):
        return False
    is_open = read.get("exclusiveMinimum") == lower or read.get("exclusiveMaximum") == upper
    if read.get("type") != "integer":
        return bool(lower > upper or (lower == upper and is_open))
    first = math.floor(lower) + 1 if read.get("exclusiveMinimum") == lower else math.ceil(lower)
    last = math.ceil(upper) - 1 if read.get("exclusiveMaximum") == upper else math.floor(upper)
    return bool(first > last)
