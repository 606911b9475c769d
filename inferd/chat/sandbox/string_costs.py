"""Sizes of strings that a template makes by methods and formats, computed before the strings are made."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from string import Formatter
from typing import Any

from markupsafe import Markup

from inferd.chat.sandbox.budget import Budget, BudgetError

MAX_WIDTH = 10_000
"""Width of a field in a format, and of any other padding."""
MAX_FORMAT_CHARACTERS = 10_000

_REPR_GROWTH = 10
_ESCAPE_GROWTH = 6
_PIECE_BYTES = 64
"""Memory of a short string and its place in a list."""
_LINE_ENDS = "\n\r\v\f\x1c\x1d\x1e\x85\u2028\u2029"
_PERCENT = re.compile(r"%(?:\([^()%]*\))?[-#0 +]*(\*|\d*)(?:\.(\*|\d*))?[hlL]?(.?)", re.DOTALL)
_LINEAR = frozenset(
    {"isalnum", "isalpha", "isascii", "isdecimal", "isdigit", "isidentifier", "islower", "isnumeric", "isprintable"}
    | {"isspace", "istitle", "isupper", "count", "find", "index", "rfind", "rindex", "startswith", "endswith"}
    | {"capitalize", "casefold", "lower", "swapcase", "title", "upper", "lstrip", "rstrip", "strip"}
    | {"partition", "rpartition", "removeprefix", "removesuffix"}
)
_PADDING = frozenset({"center", "ljust", "rjust", "zfill"})
METHODS = _LINEAR | _PADDING | {"expandtabs", "join", "replace", "split", "rsplit", "splitlines"}
"""Methods of strings that a template may call, beside `format` and `format_map`."""


def allow_method(budget: Budget, text: str, name: str, args: Sequence[Any], kwargs: dict[str, Any]) -> None:
    """Count a call of `text.name(*args)`; the items of `join` must be a list. Raises BudgetError."""
    weights = [budget.weigh(value) for value in (*args, *kwargs.values())]
    budget.allow(len(text))
    if name in _LINEAR:
        return
    size = len(text)
    if name in _PADDING:
        size += check_width(args[0] if args else 0)
    elif name == "expandtabs":
        size += text.count("\t") * check_width(args[0] if args else kwargs.get("tabsize", 8))
    elif name == "join":
        size = weights[0] + len(text) * len(args[0])
    elif name == "replace" and len(args) > 1 and all(isinstance(value, str) for value in args[:2]):
        size = replaced_size(text, args[0], args[1])
    elif name in ("split", "rsplit", "splitlines"):
        budget.take(_PIECE_BYTES * _num_pieces(text, name, args[0] if args else kwargs.get("sep")))
    budget.allow(size * (_ESCAPE_GROWTH if isinstance(text, Markup) else 1))


def check_width(value: object) -> int:
    """Return the width of a padding, 0 if `value` is not a width. Raises BudgetError."""
    if isinstance(value, int) and value > MAX_WIDTH:
        raise BudgetError(f"the template pads a text to more than {MAX_WIDTH} characters")
    return max(value, 0) if isinstance(value, int) else 0


def replaced_size(text: str, old: str, new: str) -> int:
    """Return an upper bound for the characters of `text.replace(old, new)`."""
    return len(text) + text.count(old) * len(new)


def percent_size(budget: Budget, text: str, values: Any) -> int:  # noqa: ANN401 - any value
    """Return an upper bound for the characters of `text % values`. Raises BudgetError."""
    _check_format(text)
    size, num_fields = len(text), 0
    weight, grows = budget.weigh(values), not _are_strings(values)
    for width, precision, kind in _PERCENT.findall(text):
        if "*" in (width, precision):
            raise BudgetError("the template makes a format whose widths are not numbers in it")
        size += check_width(int(width or 0)) + check_width(int(precision or 0))
        num_fields += 1
        grows = grows or kind in ("r", "a")
    return size + num_fields * (weight * (_REPR_GROWTH if grows else 1))


def format_size(budget: Budget, text: str, values: Sequence[Any]) -> int:
    """Return an upper bound for the characters of `text.format(*values)`. Raises BudgetError."""
    _check_format(text)
    size, num_fields = len(text), 0
    weight, grows = budget.weigh(list(values)), not _are_strings(values) or isinstance(text, Markup)
    for _, field, spec, conversion in Formatter().parse(text):
        if field is None:
            continue
        if "{" in (spec or ""):
            raise BudgetError("the template makes a format whose widths are not numbers in it")
        size += sum(check_width(int(number)) for number in re.findall(r"\d+", spec or ""))
        num_fields += 1
        grows = grows or bool(conversion)
    return size + num_fields * (weight * (_REPR_GROWTH if grows else 1))


def _check_format(text: str) -> None:
    if len(text) > MAX_FORMAT_CHARACTERS:
        raise BudgetError(f"the template makes a format of more than {MAX_FORMAT_CHARACTERS} characters")


def _are_strings(values: object) -> bool:
    if isinstance(values, dict):
        values = values.values()
    if isinstance(values, str):
        return True
    return isinstance(values, Iterable) and all(isinstance(value, str) for value in values)


def _num_pieces(text: str, name: str, separator: object) -> int:
    if name == "splitlines":
        return 1 + sum(map(text.count, _LINE_ENDS))
    if isinstance(separator, str) and separator:
        return 1 + text.count(separator)
    return 1 + len(text) // 2
