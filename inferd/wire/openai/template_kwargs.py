"""Variables of the model's chat template that a caller sets: `chat_template_kwargs` and `reasoning_effort`."""

from __future__ import annotations

from collections.abc import Mapping, Set
from typing import Any, Literal, cast, get_args

import msgspec
from jinja2.defaults import DEFAULT_NAMESPACE

from inferd.errors import InvalidRequestError
from inferd.wire.errors import shorten

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

ReasoningEffort = Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"]
EFFORTS: tuple[str, ...] = get_args(ReasoningEffort)

_SWITCHES = ("enable_thinking", "thinking")
"""Variables that turn reasoning on and off: Qwen's and others', DeepSeek's and Granite's."""
_LEVELS = {"none": "low", "minimal": "low", "xhigh": "high", "max": "high"}
"""gpt-oss and its likes know low, medium and high."""


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


def known_effort(name: str | None) -> ReasoningEffort | None:
    """Return the effort of this name; None if there is no such one."""
    return cast(ReasoningEffort, name) if name in EFFORTS else None


def effort_variables(effort: ReasoningEffort | None, known: Set[str]) -> dict[str, object]:
    """Variables for `ChatTemplate.render` that come nearest to the effort; {} if the caller left the choice to the
    template, or the template cannot be told.

    Args:
        known: the variables that the template reads.
    """
    if effort is None:
        return {}
    switch = next((name for name in _SWITCHES if name in known), None)
    variables: dict[str, object] = {}
    if switch is not None:
        variables[switch] = effort not in ("none", "minimal")
    if "reasoning_effort" in known and (effort != "none" or switch is None):
        variables["reasoning_effort"] = _LEVELS.get(effort, effort)
    return variables


def turns_reasoning_off(effort: ReasoningEffort | None, variables: Mapping[str, object]) -> bool:
    """Return whether the caller turned reasoning off.

    Args:
        effort: `reasoning_effort` of the request.
        variables: what the template is given, `chat_template_kwargs` included.
    """
    switched_off = any(variables.get(name) is False for name in _SWITCHES)
    return effort == "none" or switched_off or variables.get("reasoning_effort") == "none"


def is_effort_heard(effort: ReasoningEffort | None, known: Set[str], *, reasons: bool) -> bool:
    """Whether the template does as the effort says. `none` is always right where answers hold no reasoning.

    Args:
        known: the variables that the template reads.
        reasons: answers of this template may hold reasoning.
    """
    if effort == "none":
        return not reasons or any(name in known for name in _SWITCHES)
    return effort is None or bool(effort_variables(effort, known))


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
