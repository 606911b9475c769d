"""JSON bodies decoded to typed structs; every fault is an InvalidRequestError that names the field."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import TypeVar, get_args

import msgspec

from inferd.errors import InvalidRequestError, RequestTooLargeError
from inferd.wire.errors import missing, shorten
from inferd.wire.ignored_fields import IgnoredFields, nearest_name

MAX_COMMAS = 2**19
"""Commas of a body bound its values, and decoding a value blocks the process for 0.5 us. The token ids of a context and
8 MiB of prose have fewer."""
MAX_KEYS = 2**17
"""Keys of all objects of a body; decoding a key blocks the process for 0.5 us. The largest conversation that is read
has fewer."""

# A string, and whether a colon follows, so that it is a key. The quantifiers are possessive: no text is read twice.
_STRING = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+(?:"[ \t\r\n]*+(:?)|\\?\Z)', flags=re.DOTALL)
_T = TypeVar("_T")
_FAULT = re.compile(r"(?P<what>.*?)(?: - at (?:`key` in )?`\$(?P<path>.*)`)?", flags=re.DOTALL)
_UNKNOWN_FIELD = re.compile(r"Object contains unknown field `(?P<name>.*)`", flags=re.DOTALL)
_MISSING_FIELD = re.compile(r"Object missing required field `(?P<name>[^`]+)`")
_TYPE_NAMES = {
    "int": "an integer",
    "float": "a number",
    "bool": "true or false",
    "str": "a string",
    "array": "an array",
    "object": "an object",
}


def decode(body: bytes, decoder: msgspec.json.Decoder[_T], ignored: IgnoredFields | None = None) -> _T:
    """Decode `body` to the decoder's struct.

    Args:
        ignored: record for unknown fields at every depth; None to refuse them.

    Raises:
        InvalidRequestError: the body is not JSON (by RFC 8259: UTF-8, no NaN, no lone surrogates), nested too deep, or
            not of this type; `param` is the path of the field, such as `messages[0].content`.
        RequestTooLargeError: the body has more than MAX_COMMAS commas or MAX_KEYS keys.
    """
    if not body:
        raise InvalidRequestError("The request body is empty: send a JSON object.", code="invalid_json")
    num_commas = body.count(b",")
    if num_commas > MAX_COMMAS:
        raise RequestTooLargeError(
            f"The request body has {num_commas} commas; at most {MAX_COMMAS} are allowed. Send a smaller request."
        )
    if _has_too_many_keys(body):
        raise RequestTooLargeError(
            f"The objects of the request body have more than {MAX_KEYS} keys together; at most {MAX_KEYS} are allowed. "
            "Send a smaller request."
        )
    try:
        try:
            return decoder.decode(body)
        except msgspec.ValidationError:
            # Decoding twice is rare: OpenAI's own SDKs send no unknown fields.
            known = None if ignored is None else _without_unknown(body, decoder.type, ignored)
            if known is None:
                raise
            return decoder.decode(known)
    except msgspec.ValidationError as error:
        raise _field_error(str(error), getattr(decoder.type, "__struct_fields__", ())) from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidRequestError(f"The request body is not valid JSON: {error}.", code="invalid_json") from error
    except RecursionError as error:
        raise InvalidRequestError("The request body is nested too deep.", code="invalid_json") from error


def _has_too_many_keys(body: bytes) -> bool:
    """Count the keys without decoding. Most bodies have fewer than MAX_KEYS colons, inside of strings or not."""
    if body.count(b":") <= MAX_KEYS:
        return False
    keys = (match for match in _STRING.finditer(body) if match[1])
    return next(itertools.islice(keys, MAX_KEYS, None), None) is not None


@dataclass(frozen=True, slots=True)
class _Field:
    """Type of a struct's field.

    Attributes:
        struct: struct of the value or of its items; None if the value holds no struct.
        is_integer: whether the value may be an integer and no other number.
    """

    struct: type[msgspec.Struct] | None
    is_integer: bool


def _without_unknown(body: bytes, kind: object, ignored: IgnoredFields) -> bytes | None:
    """Return `body` without unknown fields, and with whole numbers such as 64.0, which many languages write, as
    integers where the struct wants an integer. None if a number is out of every range."""
    assert isinstance(kind, type), "a body is an object"
    assert issubclass(kind, msgspec.Struct), "a body is an object"
    try:
        value = msgspec.json.decode(body)
    except msgspec.ValidationError:
        return None
    _normalise(value, kind, "", ignored)
    return msgspec.json.encode(value)


def _normalise(value: object, kind: type[msgspec.Struct], path: str, ignored: IgnoredFields) -> None:
    if isinstance(value, list):
        for index, item in enumerate(value):
            _normalise(item, kind, f"{path}[{index}]", ignored)
    elif isinstance(value, dict):
        known = _fields_of(kind)
        for name in [name for name in value if name not in known]:
            if value.pop(name) is not None:  # a null field asks for nothing
                ignored.add_unknown(path, name, known)
        for name, item in value.items():
            if (struct := known[name].struct) is not None:
                _normalise(item, struct, _join(path, name), ignored)
            elif known[name].is_integer and isinstance(item, float) and item.is_integer():
                value[name] = int(item)


@cache
def _fields_of(kind: type[msgspec.Struct]) -> Mapping[str, _Field]:
    """Return the fields of a struct by their names in JSON."""
    fields = {}
    for field in msgspec.structs.fields(kind):
        types = {field.type, *get_args(field.type)}
        fields[field.encode_name] = _Field(_struct_in(field.type), is_integer=int in types and float not in types)
    return fields


def _struct_in(hint: object) -> type[msgspec.Struct] | None:
    """Return the struct in a type hint, or None. msgspec allows at most one."""
    if isinstance(hint, type) and issubclass(hint, msgspec.Struct):
        return hint
    return next(filter(None, map(_struct_in, get_args(hint))), None)


def convert(fields: object, type: type[_T]) -> _T:
    """Convert text fields, such as those of a form, to a struct. Raises InvalidRequestError, as `decode` does."""
    try:
        return msgspec.convert(fields, type, strict=False)
    except msgspec.ValidationError as error:
        raise _field_error(str(error), getattr(type, "__struct_encode_fields__", ())) from error


def required(value: _T | None, path: str) -> _T:
    """Return the value of a field that is required here although its type is optional. Raises InvalidRequestError."""
    if value is None:
        raise missing(path)
    return value


def _field_error(message: str, fields: Iterable[str]) -> InvalidRequestError:
    fault = _FAULT.fullmatch(message)
    assert fault is not None, "every message matches: the path is optional"
    what, path = fault["what"], (fault["path"] or "").replace("[...]", "").removeprefix(".")
    unknown = _UNKNOWN_FIELD.fullmatch(what)
    if unknown is not None:
        name = shorten(unknown["name"])
        near = None if path else nearest_name(name, fields)
        hint = f" Did you mean '{near}'?" if near else ""
        param = _join(path, name)
        return InvalidRequestError(f"Unknown field '{param}'.{hint}", param=param, code="unknown_parameter")
    absent = _MISSING_FIELD.fullmatch(what)
    if absent is not None:
        return missing(_join(path, absent["name"]))
    subject = f"'{path}'" if path else "The request body"
    code = "invalid_type" if what.startswith("Expected `") else "invalid_value"
    return InvalidRequestError(f"{subject} is wrong: {shorten(_in_words(what), 120)}.", param=path or None, code=code)


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _in_words(what: str) -> str:
    """Return msgspec's "Expected `float | null`, got `str`" as "expected a number, got a string"."""

    def named(match: re.Match[str]) -> str:
        kinds = [kind for kind in match[1].split(" | ") if kind != "null"] or ["null"]
        return " or ".join(_TYPE_NAMES.get(kind, kind) for kind in kinds)

    words = re.sub(r"`([^`]*)`", named, re.sub(r"Invalid enum value (.*)", r"\1 is not one of the known values", what))
    return words[:1].lower() + words[1:]
