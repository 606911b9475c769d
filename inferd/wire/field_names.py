"""A chat request that was made from another API's request: refusals name the fields that its caller wrote."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from inferd.errors import InvalidRequestError

_QUOTED = re.compile(r"'([a-z_]+(?:\[\d+\])*(?:\.[^'\s]+)?)'")
_BOUNDARY = re.compile(r"[.\[]|$")


class FieldNames:
    """Args:
    names: a field of the chat request, or the beginning of its path, -> what it is called in the caller's request.
    """

    def __init__(self, names: Mapping[str, str]) -> None:
        self._names = names

    def of(self, param: str) -> str:
        """`messages[1].content` where `messages[1]` is called `input[0]` -> `input[0].content`; the longest known
        beginning of the path counts."""
        for end in reversed([match.start() for match in _BOUNDARY.finditer(param)]):
            name = self._names.get(param[:end])
            if name is not None:
                return name + param[end:]
        return param

    @contextmanager
    def restored(self) -> Iterator[None]:
        """An InvalidRequestError that leaves the block names the caller's own fields, in `param` and in its words."""
        try:
            yield
        except InvalidRequestError as error:
            message = _QUOTED.sub(lambda match: f"'{self.of(match[1])}'", error.message)
            param = None if error.param is None else self.of(error.param)
            raise type(error)(message, code=error.code, param=param, retry_after_s=error.retry_after_s) from error


OWN_NAMES = FieldNames({})
"""Of requests whose fields are called what their callers call them."""
