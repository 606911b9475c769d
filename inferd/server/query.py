"""Query parameters, parsed strictly: a wrong or unknown parameter is a 400 that names it."""

from __future__ import annotations

from collections.abc import Sequence

from starlette.requests import Request

from inferd.errors import InvalidRequestError
from inferd.wire.errors import shorten

_LIST_SUFFIX = "[]"  # as OpenAI's SDKs write lists; a bare name, repeated, is a list too
_MAX_INTEGER = 2**53


class Query:
    """Query parameters of a request. Read each parameter once, then call `finish`."""

    def __init__(self, request: Request) -> None:
        self._values: dict[str, list[str]] = {}
        for name, value in request.query_params.multi_items():
            self._values.setdefault(name.removesuffix(_LIST_SUFFIX), []).append(value)
        self._known: list[str] = []

    def text(self, name: str) -> str | None:
        """Return the value of a parameter, or None without one. Raise InvalidRequestError if there are several."""
        values = self.texts(name)
        if len(values) > 1:
            raise _wrong(name, "it has several values; give one")
        return values[0] if values else None

    def texts(self, name: str) -> list[str]:
        """Return all values of a parameter."""
        self._known.append(name)
        return self._values.get(name, [])

    def integer(self, name: str, low: int = 0, high: int = _MAX_INTEGER) -> int | None:
        text = self.text(name)
        if text is None:
            return None
        if not (text.isascii() and text.isdecimal() and len(text) < 20 and low <= int(text) <= high):
            raise _wrong(name, f"it must be an integer from {low} to {high}")
        return int(text)

    def flag(self, name: str) -> bool | None:
        text = self.choice(name, ("true", "false"))
        return None if text is None else text == "true"

    def choice(self, name: str, choices: Sequence[str]) -> str | None:
        text = self.text(name)
        if text is not None and text not in choices:
            raise _wrong(name, f"it must be one of {', '.join(choices)}")
        return text

    def choices(self, name: str, choices: Sequence[str]) -> list[str]:
        """Return the distinct values of a parameter, each one of `choices`."""
        found = list(dict.fromkeys(self.texts(name)))
        if not set(found) <= set(choices):
            raise _wrong(name, f"each must be one of {', '.join(choices)}")
        return found

    def finish(self) -> None:
        """Raise InvalidRequestError if the request has a parameter that was not read."""
        for name in self._values:
            if name not in self._known:
                known = f"allowed: {', '.join(self._known)}" if self._known else "this URL takes none"
                raise InvalidRequestError(
                    f"Unknown query parameter '{shorten(name)}'; {known}.",
                    param=shorten(name),
                    code="unknown_parameter",
                )


def _wrong(name: str, why: str) -> InvalidRequestError:
    return InvalidRequestError(f"The query parameter '{name}' is wrong: {why}.", param=name, code="invalid_value")
