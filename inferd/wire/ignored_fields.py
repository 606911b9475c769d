"""Record of a request's fields that are ignored or degraded; the header `inferd-ignored` names them."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Iterable
from typing import Self

from inferd.errors import InvalidRequestError
from inferd.wire.errors import shorten

MAX_NAMES = 16
MAX_NAME_CHARACTERS = 64
MAX_UNKNOWN = 256
"""Different unknown fields of one request: each is compared with all known fields, some microseconds a pair."""

_INDEX = re.compile(r"\[\d+\]")
_MAX_EDITS = 2
_SHORT_NAME = 4
"""Names of up to 4 letters may have one wrong letter only: two would make another word (`date` and `name`)."""

FOREIGN_FIELDS = frozenset(
    # OpenAI's and Anthropic's, of other endpoints or objects
    {"code", "context", "date", "details", "exclude", "file_ids", "files", "filter", "mode", "operation"}
    | {"outputs", "seed", "speed", "store", "title", "top_k", "voice"}
    # OpenRouter's
    | {"models", "route", "top_a"}
    # vLLM's, SGLang's, TGI's, llama.cpp's, KoboldCpp's, text-generation-webui's
    | {"max_p", "min_a", "min_k", "min_tokens", "rid", "top_h", "top_n", "typ_p", "typical"}
)
"""Fields of well-known APIs that look like misspelt fields of ours."""


class IgnoredFields:
    """Ignored and degraded fields of one request.

    Args:
        strict: refuse such a field with a 400 instead of recording it.
    """

    def __init__(self, *, strict: bool = False) -> None:
        self._strict = strict
        self._rename: Callable[[str], str] | None = None
        self._names: list[str] = []
        self._seen: set[str] = set()

    def renamed(self, rename: Callable[[str], str]) -> Self:
        """Return a view of this record for code with other field names; `rename` maps them to the caller's."""
        view = copy.copy(self)  # shares the lists
        view._rename = rename
        return view

    def add(self, path: str, why: str = "has no effect here; leave it out") -> None:
        """Record the field `path`, such as `messages[2].content[0].cache_control`. A field that is in several items of
        a list is recorded once.

        Raises:
            InvalidRequestError: the server is strict.
        """
        if self._rename is not None:
            path = self._rename(path)
        if self._strict:
            raise InvalidRequestError(
                f"'{shorten(path)}' {why}. This server refuses every field that it does not honour.",
                param=shorten(path),
                code="unsupported_parameter",
            )
        self._record(path)

    def add_unknown(self, path: str, name: str, known: Iterable[str]) -> None:
        """Record an unknown field.

        Args:
            path: path of the object that holds the field, "" for the body.
            known: the fields that such an object may have.

        Raises:
            InvalidRequestError: `name` looks like a misspelt known field, the request has too many unknown fields, or
                the server is strict.
        """
        full = f"{path}.{name}" if path else name
        if not self._is_new(full):
            return
        meant = None if name in FOREIGN_FIELDS else nearest_name(name, known)
        if meant is not None or self._strict:
            hint = "" if meant is None else f" Did you mean '{meant}'?"
            raise InvalidRequestError(
                f"Unknown field '{shorten(full)}'.{hint}", param=shorten(full), code="unknown_parameter"
            )
        if len(self._seen) >= MAX_UNKNOWN:
            raise InvalidRequestError(
                f"The request has more than {MAX_UNKNOWN} different unknown fields; at most {MAX_UNKNOWN} are ignored. "
                "Leave them out.",
                code="unknown_parameter",
            )
        self._record(full)

    def header_value(self) -> str:
        """Return the recorded paths in order, as `a, b`; "" if there are none. Characters other than printable ASCII
        are escaped. At most MAX_NAMES paths of MAX_NAME_CHARACTERS characters each, then `+N` for N more."""
        shown = [_escaped(name)[:MAX_NAME_CHARACTERS] for name in self._names]
        num_more = len(self._seen) - len(shown)
        return ", ".join([*shown, f"+{num_more}"] if num_more else shown)

    def _record(self, path: str) -> None:
        if self._is_new(path):
            self._seen.add(_kind_of(path))
            if len(self._names) < MAX_NAMES:
                self._names.append(path)

    def _is_new(self, path: str) -> bool:
        return _kind_of(path) not in self._seen


def nearest_name(name: str, known: Iterable[str]) -> str | None:
    """Return the known name that `name` looks like a misspelling of, or None. At most two letters are wrong, missing,
    too many or swapped with a neighbour (one in a name of four letters or less), and at least one is right."""
    most = _MAX_EDITS if len(name) > _SHORT_NAME else 1
    most = min(most, len(name) - 1)
    near = [(edits, other) for other in known if (edits := _num_edits(name, other, most)) <= most]
    return min(near)[1] if near else None


def _num_edits(first: str, second: str, most: int) -> int:
    """Return the edit distance with swaps of neighbours, or `most + 1` if it is above `most`."""
    if abs(len(first) - len(second)) > most or len(set(first) ^ set(second)) > 2 * most:
        return most + 1
    before: list[int] = []
    row = list(range(len(second) + 1))
    for i, letter in enumerate(first, 1):
        before, last, row = row, before, [i]
        for j, other in enumerate(second, 1):
            edits = min(before[j] + 1, row[j - 1] + 1, before[j - 1] + (letter != other))
            if i > 1 and j > 1 and letter == second[j - 2] and other == first[i - 2]:
                edits = min(edits, last[j - 2] + 1)
            row.append(edits)
        if min(row) > most:
            return most + 1
    return row[-1]


def _kind_of(path: str) -> str:
    """Return the path without list indices, so that all items of a list count as one; an item's own path stays."""
    return path if path.endswith("]") else _INDEX.sub("[]", path)


def _escaped(name: str) -> str:
    """Return the name in printable ASCII; spaces and commas separate names, so they are escaped too."""
    return "".join(
        character if character.isascii() and character.isprintable() and character not in " ,\\" else _escape(character)
        for character in name
    )


def _escape(character: str) -> str:
    return f"\\x{ord(character):02x}" if character.isascii() else character.encode("unicode_escape").decode()
