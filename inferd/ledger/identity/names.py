"""Which names a team, a project and a user may have, and which words an operator may choose."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable

from inferd.errors import InvalidValueError

_MAX_TEXT = 200

DEFAULT_PLAN = "free"
DEFAULT_TEAM = "default"
DEFAULT_PROJECT = "inference"

# No colon and no slash: a name is a part of account names (`team:NAME:...`) and of `TEAM/PROJECT`.
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@+-]{0,63}")


def check_name(kind: str, name: str) -> None:
    """Raises InvalidValueError unless `name` is a good name for a `kind` (team, project, user)."""
    if _NAME.fullmatch(name) is None:
        raise InvalidValueError(
            f"{name!r} cannot be the name of a {kind}: use 1 to 64 ASCII letters, digits and . _ - @ +, "
            "and begin with a letter or a digit"
        )


def check_text(what: str, text: str | None) -> None:
    """Raises InvalidValueError unless `text` (a label, note, reason; None: none given) can be kept."""
    if text is not None and not (0 < len(text) <= _MAX_TEXT and text.isprintable()):
        raise InvalidValueError(f"a {what} is 1 to {_MAX_TEXT} printable characters")


def unknown_deployments(asked: Iterable[str], known: Iterable[str]) -> list[str]:
    """A warning for each name that no deployment has: a key for one that is to come is allowed."""
    names = list(known)
    warnings = []
    for name in asked:
        if name not in names:
            near = difflib.get_close_matches(name, names, n=1)
            guess = f" (did you mean {near[0]!r}?)" if near else f" (there are: {', '.join(names) or 'none'})"
            warnings.append(f"there is no deployment {name!r} now{guess}; the key cannot call it until there is one")
    return warnings


def check_choice(what: str, word: str, known: Iterable[str]) -> None:
    """Raises InvalidValueError, with the nearest word or all of them, unless `word` is one of the known."""
    words = list(known)
    if word not in words:
        near = difflib.get_close_matches(word, words, n=1)
        remedy = f"did you mean {near[0]!r}?" if near else f"choose one of {', '.join(words)}"
        raise InvalidValueError(f"there is no {what} {word!r}; {remedy}")
