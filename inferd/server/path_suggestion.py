"""What path a caller may have meant: most who call an unknown one have a base URL with `/v1` missing or doubled."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

_PREFIX = "/v1"
_CUTOFF = 0.8
_CHARACTERS_MAX = 128


def near_path(path: str, known: Iterable[str]) -> str | None:
    """The path among `known` (those without parameters) that is most like it; None: none is."""
    paths = [other for other in known if "{" not in other]
    segments = [segment for segment in path.split("/") if segment]
    while segments[:2] == ["v1", "v1"]:
        del segments[0]
    whole = "/" + "/".join(segments)
    for candidate in (whole, _PREFIX + whole, whole.removeprefix(_PREFIX)):
        if candidate in paths:
            return candidate
    if len(path) > _CHARACTERS_MAX:
        return None
    for candidate in (whole, _PREFIX + whole):
        near = difflib.get_close_matches(candidate, paths, 1, _CUTOFF)
        if near:
            return near[0]
    return None
