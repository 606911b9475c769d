"""Fields of a request that have no effect, or less than was asked: what may be ignored, and how the answer says so."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Iterable
from typing import Self

from inferd.errors import InvalidRequestError
from inferd.wire.errors import shorten

NAMES_MAX = 16
NAME_CHARACTERS_MAX = 64
UNKNOWN_MAX = 256
"""Different unknown fields of one request. Each is compared with all known ones, some microseconds a pair."""

_INDEX = re.compile(r"\[\d+\]")
_MAX_EDITS = 2
_SHORT_NAME = 4
"""Of so few letters, two wrong ones leave another word (`date` and `name`)."""

FOREIGN_FIELDS = frozenset(
    (
        # OpenAI's and Anthropic's, of one endpoint or object sent to another
        *("code", "context", "date", "details", "exclude", "file_ids", "files", "filter", "mode", "operation"),
        *("outputs", "seed", "speed", "store", "title", "top_k", "voice"),
        # OpenRouter's
        *("models", "route", "top_a"),
        # vLLM's, SGLang's, TGI's, llama.cpp's, KoboldCpp's, text-generation-webui's
        *("max_p", "min_a", "min_k", "min_tokens", "rid", "top_h", "top_n", "typ_p", "typical"),
    )
)
"""Fields of well-known APIs that look like misspelt fields of ours."""


class IgnoredFields:
    """Record of the fields of one request that are ignored or degraded.

    Args:
        strict: refuse such a field with a 400 instead.
    """

    def __init__(self, *, strict: bool = False) -> None:
        self._strict = strict
        self._rename: Callable[[str], str] | None = None
        self._names: list[str] = []
        self._seen: set[str] = set()

    def renamed(self, rename: Callable[[str], str]) -> Self:
        """The same record for code that calls the fields by other names; `rename` gives the caller's."""
        view = copy.copy(self)  # the lists stay shared
        view._rename = rename
        return view

    def add(self, path: str, why: str = "has no effect here; leave it out") -> None:
        """Record a field by its path, such as `messages[2].content[0].cache_control`. Of one field in several items of
        a list the first is recorded. Raises InvalidRequestError if the server is strict."""
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
        """Record a field that no struct has.

        Args:
            path: of the object that it stands in, "" at the top.
            known: the fields of such an object.

        Raises:
            InvalidRequestError: it looks like one of these misspelt; there are too many of them; the server is strict.
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
        if len(self._seen) >= UNKNOWN_MAX:
            raise InvalidRequestError(
                f"The request has more than {UNKNOWN_MAX} different fields that are unknown here: leave them out.",
                code="unknown_parameter",
            )
        self._record(full)

    def header_value(self) -> str:
        """The names in the order in which they were met, `a, b`: printable ASCII, other characters escaped; at most
        NAMES_MAX of NAME_CHARACTERS_MAX characters each, then `+N` for N more. "" if there are none."""
        shown = [_escaped(name)[:NAME_CHARACTERS_MAX] for name in self._names]
        n_more = len(self._seen) - len(shown)
        return ", ".join([*shown, f"+{n_more}"] if n_more else shown)

    def _record(self, path: str) -> None:
        if self._is_new(path):
            self._seen.add(_kind_of(path))
            if len(self._names) < NAMES_MAX:
                self._names.append(path)

    def _is_new(self, path: str) -> bool:
        return _kind_of(path) not in self._seen


def nearest_name(name: str, known: Iterable[str]) -> str | None:
    """The known name that `name` looks like a misspelling of: at most two letters are wrong, missing, too many or two
    neighbours swapped (one in a name of four letters or less), and at least one is right."""
    most = _MAX_EDITS if len(name) > _SHORT_NAME else 1
    most = min(most, len(name) - 1)
    near = [(edits, other) for other in known if (edits := _num_edits(name, other, most)) <= most]
    return min(near)[1] if near else None


def _num_edits(first: str, second: str, most: int) -> int:
    """Edit distance with swaps of neighbours; `most + 1` if it is more than `most`."""
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
    """One for all items of a list, unless the path is that of an item."""
    return path if path.endswith("]") else _INDEX.sub("[]", path)


def _escaped(name: str) -> str:
    """Without spaces and commas, which separate names."""
    return "".join(
        character if character.isascii() and character.isprintable() and character not in " ,\\" else _escape(character)
        for character in name
    )


def _escape(character: str) -> str:
    return f"\\x{ord(character):02x}" if character.isascii() else character.encode("unicode_escape").decode()
