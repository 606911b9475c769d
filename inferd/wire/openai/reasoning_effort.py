"""`reasoning_effort`, as the variables that chat templates know."""

from __future__ import annotations

from collections.abc import Mapping, Set
from typing import Literal, cast, get_args

ReasoningEffort = Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"]
EFFORTS: tuple[str, ...] = get_args(ReasoningEffort)

_SWITCHES = ("enable_thinking", "thinking")
"""Variables that turn reasoning on and off: Qwen's and others', DeepSeek's and Granite's."""
_LEVELS = {"none": "low", "minimal": "low", "xhigh": "high", "max": "high"}
"""gpt-oss and its likes know low, medium and high."""


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
