"""Variables of the model's chat template that a caller sets: `chat_template_kwargs` and `reasoning_effort`."""

from __future__ import annotations

from collections.abc import Mapping, Set
from typing import Any, Literal, cast, get_args

import msgspec
from jinja2.defaults import DEFAULT_NAMESPACE

from inferd.errors import InvalidRequestError
from inferd.wire.errors import shorten

KWARGS_FIELD = "chat_template_kwargs"
MAX_KWARGS = 32
MAX_KWARGS_BYTES = 64 * 1024
MAX_KWARGS_DEPTH = 16

_OWN = frozenset(
    {"messages", "tools", "add_generation_prompt", "bos_token", "eos_token", "raise_exception", "strftime_now"}
    | {"self", "loop", "caller", "varargs", "kwargs", *DEFAULT_NAMESPACE}
)
"""Variables that inferd and Jinja set themselves."""
_OWN_PREFIX = "inferd_"

ReasoningEffort = Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"]
EFFORTS: tuple[str, ...] = get_args(ReasoningEffort)

_SWITCHES = ("enable_thinking", "thinking")
"""Variables that turn reasoning on and off: the first is Qwen's and others', the second DeepSeek's and Granite's."""
_LEVELS = {"none": "low", "minimal": "low", "xhigh": "high", "max": "high"}
"""Templates with levels, such as that of gpt-oss, know low, medium and high."""


def check_template_kwargs(kwargs: Mapping[str, Any] | None) -> None:
    """Raise InvalidRequestError for variables that no template may be given."""
    if not kwargs:
        return
    if len(kwargs) > MAX_KWARGS:
        raise _invalid(f"'{KWARGS_FIELD}' may hold at most {MAX_KWARGS} variables, got {len(kwargs)}.")
    for name in kwargs:
        if name in _OWN or name.startswith(_OWN_PREFIX):
            raise _invalid(
                f"'{KWARGS_FIELD}' must not hold '{shorten(name)}': the server sets that variable. Leave it out.", name
            )
    if _is_too_deep(kwargs):
        raise _invalid(f"'{KWARGS_FIELD}' is nested too deep; at most {MAX_KWARGS_DEPTH} levels are allowed.")
    num_bytes = len(msgspec.json.encode(kwargs))
    if num_bytes > MAX_KWARGS_BYTES:
        raise _invalid(f"'{KWARGS_FIELD}' has {num_bytes} bytes of JSON; at most {MAX_KWARGS_BYTES} are allowed.")


def template_variables(
    kwargs: Mapping[str, Any] | None, known: Set[str], set_already: Mapping[str, object]
) -> dict[str, object]:
    """Return the variables for `ChatTemplate.render` that the template reads.

    Args:
        known: variables that the template reads.
        set_already: variables that other fields of the request set.

    Raises:
        InvalidRequestError: another field sets one of the variables, too.
    """
    for name in kwargs or ():
        if name in set_already:
            raise _invalid(
                f"'{KWARGS_FIELD}.{name}' and 'reasoning_effort' set the same variable: send one of them.", name
            )
    return {name: value for name, value in (kwargs or {}).items() if name in known}


def known_effort(name: object) -> ReasoningEffort | None:
    """Return the effort of this name, or None."""
    return cast(ReasoningEffort, name) if name in EFFORTS else None


def effort_variables(effort: ReasoningEffort | None, known: Set[str]) -> dict[str, object]:
    """Return the variables for `ChatTemplate.render` that come nearest to the effort; {} if the caller set no effort or
    the template has no such variables.

    Args:
        known: variables that the template reads.
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
        variables: variables of the template, `chat_template_kwargs` included.
    """
    switched_off = any(variables.get(name) is False for name in _SWITCHES)
    return effort == "none" or switched_off or variables.get("reasoning_effort") == "none"


def has_reasoning_switch(known: Set[str]) -> bool:
    """Return whether a request can turn reasoning off, with a template that reads these variables."""
    return any(name in known for name in _SWITCHES)


def heard_efforts(known: Set[str]) -> tuple[str, ...]:
    """Return the efforts that a template with these variables tells apart, the highest first."""
    levels = ("high", "medium", "low") if "reasoning_effort" in known else ()
    if not has_reasoning_switch(known):
        return levels
    return (*(levels or ("medium",)), "none")


def is_effort_heard(effort: ReasoningEffort | None, known: Set[str], *, reasons: bool) -> bool:
    """Return whether the effort has an effect. `none` has it in every template whose answers hold no reasoning.

    Args:
        known: variables that the template reads.
        reasons: whether answers of this template may hold reasoning.
    """
    if effort == "none":
        return not reasons or has_reasoning_switch(known)
    return effort is None or bool(effort_variables(effort, known))


def _is_too_deep(kwargs: Mapping[str, Any]) -> bool:
    level: list[Any] = [kwargs]
    for _ in range(MAX_KWARGS_DEPTH + 1):
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
