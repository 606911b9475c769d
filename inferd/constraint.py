"""What a completion's text must look like, as plain data: the wire writes it, the engine enforces it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

JSON_WHITE_SPACE = r" |\n{1,2}[ \t]{0,20}"
"""White space between JSON's tokens, bounded as in llama.cpp's own grammars: a small model would never end it."""


class ConstraintKind(StrEnum):
    """The language that a constraint's source is written in."""

    JSON_SCHEMA = (
        "json_schema"  # a JSON document; draft 2020-12 as llguidance reads it, each keyword enforced or refused
    )
    JSON_SCHEMA_LENIENT = "json_schema_lenient"  # the same, but keywords that cannot be enforced are left out
    REGEX = "regex"  # Rust's dialect, matching the whole text
    LARK = "lark"  # llguidance's dialect, https://github.com/guidance-ai/llguidance/blob/main/docs/syntax.md
    GRAMMAR = "grammar"  # Lark as above, or llama.cpp's GBNF


@dataclass(frozen=True, slots=True)
class SchemaFault:
    """A keyword of a caller's schema that cannot be enforced.

    Attributes:
        path: of the keyword in the request, such as `response_format.json_schema.schema.properties.t.pattern`.
        why: what stands behind the path in a sentence.
    """

    path: str
    why: str


@dataclass(frozen=True, slots=True)
class Constraint:
    """The whole text must match `source`; generation ends when nothing more can follow.

    Control tokens other than end tokens are only possible where a Lark grammar names them, as `<[ID]>`.

    Attributes:
        param: the request field that it comes from, named when it is refused.
        faults: of the strict schemas in it. The first is named instead if it is refused.
        schemas: (path in the request, JSON text) of the strict schemas that a LARK source was made of.
    """

    kind: ConstraintKind
    source: str
    param: str = "response_format"
    faults: tuple[SchemaFault, ...] = ()
    schemas: tuple[tuple[str, str], ...] = ()
