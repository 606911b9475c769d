"""Constraint of a completion's text, as plain data: the wire makes it, the engine enforces it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

JSON_WHITE_SPACE = r" |\n{1,2}[ \t]{0,20}"
"""White space between JSON's tokens, bounded as in llama.cpp's own grammars: small models repeat it without end."""


class ConstraintKind(StrEnum):
    """Language of a constraint's source."""

    JSON_SCHEMA = "json_schema"  # draft 2020-12 as llguidance reads it, each keyword enforced or refused
    JSON_SCHEMA_LENIENT = "json_schema_lenient"  # the same, with keywords that cannot be enforced left out
    REGEX = "regex"  # Rust's dialect, matching the whole text
    LARK = "lark"  # llguidance's dialect, https://github.com/guidance-ai/llguidance/blob/main/docs/syntax.md
    GRAMMAR = "grammar"  # Lark as above, or llama.cpp's GBNF


@dataclass(frozen=True, slots=True)
class SchemaFault:
    """A keyword of a caller's schema that cannot be enforced.

    Attributes:
        path: path of the keyword in the request, such as `response_format.json_schema.schema.properties.t.pattern`.
        why: rest of a sentence that begins with the path.
    """

    path: str
    why: str


@dataclass(frozen=True, slots=True)
class Constraint:
    """Constraint of the whole text; generation ends when no more text can follow.

    Control tokens other than end tokens are only possible where a Lark grammar names them, as `<[ID]>`.

    Attributes:
        param: field of the request that a refusal names.
        faults: faults of the strict schemas; a refusal names the first instead of `param`.
        schemas: (path in the request, JSON text) of the strict schemas in a LARK source.
    """

    kind: ConstraintKind
    source: str
    param: str = "response_format"
    faults: tuple[SchemaFault, ...] = ()
    schemas: tuple[tuple[str, str], ...] = ()

    @property
    def is_schema(self) -> bool:
        """True if the text must be JSON that matches a schema."""
        return self.kind in (ConstraintKind.JSON_SCHEMA, ConstraintKind.JSON_SCHEMA_LENIENT)
