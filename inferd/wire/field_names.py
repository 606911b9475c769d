"""Field names of another API, for chat requests translated from it: refusals name the fields that the caller wrote."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from inferd.errors import InvalidRequestError

_QUOTED = re.compile(r"'([a-z_]+(?:\[\d+\])*(?:\.[^'\s]+)?)'")
_BOUNDARY = re.compile(r"[.\[]|$")


class FieldNames:
    """Map from fields of a chat request to fields of the caller's request.

    Args:
        names: path of a field, or a beginning of it, in the chat request -> path in the caller's request.
    """

    def __init__(self, names: Mapping[str, str]) -> None:
        self._names = names

    def of(self, param: str) -> str:
        """Return the caller's path of `param`: `messages[1].content` is `input[0].content` if `messages[1]` is
        `input[0]`. The longest known beginning of the path counts."""
        for end in reversed([match.start() for match in _BOUNDARY.finditer(param)]):
            name = self._names.get(param[:end])
            if name is not None:
                return name + param[end:]
        return param

    @contextmanager
    def restored(self) -> Iterator[None]:
        """Rename the fields of an InvalidRequestError that leaves the block, in `param` and in the message."""
        try:
            yield
        except InvalidRequestError as error:
            message = _QUOTED.sub(lambda match: f"'{self.of(match[1])}'", error.message)
            param = None if error.param is None else self.of(error.param)
            raise type(error)(message, code=error.code, param=param, retry_after_s=error.retry_after_s) from error


OWN_NAMES = FieldNames({})
"""For requests that are not translated."""
