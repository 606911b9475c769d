"""Variables that a caller sets in the model's chat template; llama-server and vLLM call them so, too."""

from __future__ import annotations

from collections.abc import Mapping, Set
from typing import Any

import msgspec
from jinja2.defaults import DEFAULT_NAMESPACE

from inferd.errors import InvalidRequestError
from inferd.wire.json_body import shorten

KWARGS_FIELD = "chat_template_kwargs"
KWARGS_MAX = 32
KWARGS_BYTES_MAX = 64 * 1024
KWARGS_DEPTH_MAX = 16

_OWN = frozenset(
    (
        *("messages", "tools", "add_generation_prompt", "bos_token", "eos_token", "raise_exception", "strftime_now"),
        *("self", "loop", "caller", "varargs", "kwargs", *DEFAULT_NAMESPACE),
    )
)
"""What inferd and Jinja itself give to a template."""
_OWN_PREFIX = "inferd_"


def check_template_kwargs(kwargs: Mapping[str, Any] | None) -> None:
    """Raises InvalidRequestError; what depends on the template comes later."""
    if not kwargs:
        return
    if len(kwargs) > KWARGS_MAX:
        raise _invalid(f"'{KWARGS_FIELD}' may hold at most {KWARGS_MAX} variables, got {len(kwargs)}.")
    for name in kwargs:
        if name in _OWN or name.startswith(_OWN_PREFIX):
            raise _invalid(
                f"'{KWARGS_FIELD}' must not hold '{shorten(name)}': that variable is set by the server.", name
            )
    if _is_too_deep(kwargs):
        raise _invalid(f"'{KWARGS_FIELD}' is nested deeper than {KWARGS_DEPTH_MAX} levels.")
    n_bytes = len(msgspec.json.encode(kwargs))
    if n_bytes > KWARGS_BYTES_MAX:
        raise _invalid(f"'{KWARGS_FIELD}' has {n_bytes} bytes of JSON; at most {KWARGS_BYTES_MAX} are allowed.")


def template_variables(
    kwargs: Mapping[str, Any] | None, known: Set[str], set_already: Mapping[str, object]
) -> dict[str, object]:
    """Variables for `ChatTemplate.render`, without those that the template does not read.

    Args:
        known: the variables that the template reads.
        set_already: those that other fields of the request have set.

    Raises:
        InvalidRequestError: another field sets one of them, too.
    """
    for name in kwargs or ():
        if name in set_already:
            raise _invalid(
                f"'{KWARGS_FIELD}.{name}' and 'reasoning_effort' set the same variable: send one of them.", name
            )
    return {name: value for name, value in (kwargs or {}).items() if name in known}


def _is_too_deep(kwargs: Mapping[str, Any]) -> bool:
    level: list[Any] = [kwargs]
    for _ in range(KWARGS_DEPTH_MAX + 1):
        level = [
            item
            for value in level
            if isinstance(value, dict | list)
            for item in (value.values() if isinstance(value, dict) else value)
        ]
        if not level:
            return False
    return True


def _invalid(message: str, name: str | None = None) -> InvalidRequestError:
    param = KWARGS_FIELD if name is None else f"{KWARGS_FIELD}.{shorten(name)}"
    return InvalidRequestError(message, param=param, code="invalid_value")
