"""Check of a JSON schema's `pattern`: whether llguidance can enforce it, without compiling it."""

from __future__ import annotations

import re
from dataclasses import dataclass

_LARGEST_COUNT = 100_000
_TOKEN = re.compile(
    r"""
    (?P<escape> \\(?: [dDwWsStnrfv] | x[0-9A-Fa-f]{2} | u(?![dD][89A-Fa-f])[0-9A-Fa-f]{4} | [pP]\{[A-Za-z_=]+\}
                    | [!-/:;=?@\[\\\]^_`{|}~\ ] ))
    | (?P<class> \[\^? (?: \\(?: [dDwWsStnrfv] | x[0-9A-Fa-f]{2} | u(?![dD][89A-Fa-f])[0-9A-Fa-f]{4}
                    | [pP]\{[A-Za-z_=]+\} | [!-/:;=?@\[\\\]^_`{|}~\ ] ) | (?! && | -- | ~~ ) [^\\\[\]] )+ \] )
    | (?P<open> \( (?: \?: | \?P?<(?P<name>[A-Za-z_][A-Za-z0-9_]*)> | (?!\?) ) )
    | (?P<flags> \(\?[is]+\) )
    | (?P<close> \) )
    | (?P<repeat> (?: [*+?] | \{ (?P<least>\d{1,6}) (?: ,(?P<most>\d{0,6}) )? \} ) \?? )
    | (?P<either> \| )
    | (?P<begin> \^ )
    | (?P<end> \$ )
    | (?P<literal> [^\\()\[{*+?|^$] )
    """,
    re.VERBOSE | re.DOTALL,
)
_RANGE = re.compile(r"(?<!\\)(?P<first>[^\\\[\]-])-(?P<last>[^\\\[\]-])", re.DOTALL)
_UNENFORCEABLE = (
    (re.compile(r"\(\?<?[=!]"), "has a look-around, which cannot be enforced"),
    (re.compile(r"\\[bB]"), "has a word boundary, which cannot be enforced"),
    (re.compile(r"\\(?:[1-9]|k[<{'])"), "has a back-reference, which cannot be enforced"),
    (re.compile(r"\\[AzZG]"), "has an anchor that JSON schemas do not know; use ^ and $"),
)
_UNREADABLE = "is no regular expression that can be enforced here"
_MISPLACED = "has ^ or $ in the midst of a text, which cannot be enforced"


@dataclass(slots=True)
class _Group:
    """State of reading one group, or the whole expression.

    Attributes:
        begins_at_start: nothing that matches text stands before the group.
        at_start: nothing that matches text stands before this place.
        at_end: a `$` stands before this place, so nothing after it may match text.
        ends_at_end: one of the alternatives ends in `$`.
        has_anchor: the group holds a `^` or `$`.
    """

    begins_at_start: bool
    at_start: bool
    at_end: bool = False
    ends_at_end: bool = False
    has_anchor: bool = False


def pattern_fault(pattern: str) -> str | None:
    """Return why a `pattern` cannot be enforced, as the rest of a sentence that begins with its name, or None.

    Accepts the subset of Rust's dialect that means the same in JSON schema's. The size of the automaton is not checked:
    only the compiler knows it.
    """
    reader = _PatternReader()
    place = 0
    while place < len(pattern):
        token = _TOKEN.match(pattern, place)
        if token is None:
            break
        if (fault := reader.read(token)) is not None:
            return _named(pattern) or fault
        place = token.end()
    if place < len(pattern) or reader.is_open:
        return _named(pattern) or _UNREADABLE
    return None


class _PatternReader:
    """Reader of an expression, token by token."""

    def __init__(self) -> None:
        self._groups = [_Group(begins_at_start=True, at_start=True)]
        self._names: set[str] = set()
        self._repeatable = False

    @property
    def is_open(self) -> bool:
        """True if a group is not closed yet."""
        return len(self._groups) > 1

    def read(self, token: re.Match[str]) -> str | None:
        """Read the next token; return its fault, or None."""
        group = self._groups[-1]
        match token.lastgroup if token["name"] is None else "open":
            case "open":
                return self._open(group, token["name"])
            case "close":
                return self._close()
            case "either":
                group.ends_at_end |= group.at_end
                group.at_start, group.at_end, self._repeatable = group.begins_at_start, False, False
            case "begin":
                group.has_anchor, self._repeatable = True, False
                return None if group.at_start else _MISPLACED
            case "end":
                group.has_anchor, group.at_end, self._repeatable = True, True, False
                group.at_start = False
            case "flags":
                self._repeatable = False
            case "escape" | "class" | "literal":
                return self._take_text(group, token)
            case _:
                return self._repeat(token)
        return None

    def _open(self, group: _Group, name: str | None) -> str | None:
        if name is not None and name in self._names:
            return f"has two groups named {name}"
        if name is not None:
            self._names.add(name)
        self._repeatable = False
        self._groups.append(_Group(begins_at_start=group.at_start, at_start=group.at_start))
        return _MISPLACED if group.at_end else None

    def _close(self) -> str | None:
        if not self.is_open:
            return _UNREADABLE
        inner, outer = self._groups.pop(), self._groups[-1]
        self._repeatable = not inner.has_anchor
        outer.has_anchor |= inner.has_anchor
        outer.at_start = False
        outer.at_end |= inner.ends_at_end or inner.at_end
        return None

    def _take_text(self, group: _Group, token: re.Match[str]) -> str | None:
        if group.at_end:
            return _MISPLACED
        group.at_start, self._repeatable = False, True
        backwards = token.lastgroup == "class" and any(
            each["first"] > each["last"] for each in _RANGE.finditer(token[0], 1)
        )
        return _UNREADABLE if backwards else None

    def _repeat(self, token: re.Match[str]) -> str | None:
        least, most = int(token["least"] or 0), int(token["most"] or token["least"] or 0)
        if not self._repeatable or (most < least and token["most"]) or most > _LARGEST_COUNT:
            return _UNREADABLE
        return None


def _named(pattern: str) -> str | None:
    """Return the fault of a known unenforceable construct in the pattern, or None."""
    return next((why for sign, why in _UNENFORCEABLE if sign.search(pattern)), None)
