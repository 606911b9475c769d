"""`reasoning_effort`, as the variables that chat templates know."""

from __future__ import annotations

from collections.abc import Mapping, Set
from typing import Literal

from inferd.errors import InvalidRequestError

ReasoningEffort = Literal["none", "minimal", "low", "medium", "high", "xhigh"]

_SWITCHES = ("enable_thinking", "thinking")
"""Variables that turn reasoning on and off: Qwen's and others', DeepSeek's and Granite's."""
_LEVELS = {"minimal": "low", "xhigh": "high"}
"""gpt-oss and its likes know low, medium and high."""


def effort_variables(effort: ReasoningEffort | None, known: Set[str], *, reasons: bool) -> dict[str, object]:
    """Variables for `ChatTemplate.render`; {} if the caller left the choice to the template.

    Args:
        known: the variables that the template reads.
        reasons: answers of this template may hold reasoning.

    Raises:
        InvalidRequestError: the template cannot be told so. `none` is always right where a template knows no reasoning.
    """
    if effort is None:
        return {}
    switch = next((name for name in _SWITCHES if name in known), None)
    has_levels = "reasoning_effort" in known
    variables: dict[str, object] = {}
    if switch is not None:
        variables[switch] = effort not in ("none", "minimal")
    if has_levels and (effort != "none" or switch is None):
        if effort == "none":
            raise _refused(effort, "always reasons; use low")
        variables["reasoning_effort"] = _LEVELS.get(effort, effort)
    if not variables and (effort != "none" or reasons):
        raise _refused(effort, "cannot be told how much to reason; leave 'reasoning_effort' out")
    return variables


def turns_reasoning_off(effort: ReasoningEffort | None, variables: Mapping[str, object]) -> bool:
    """Return whether the caller turned reasoning off.

    Args:
        effort: `reasoning_effort` of the request.
        variables: what the template is given, `chat_template_kwargs` included.
    """
    switched_off = any(variables.get(name) is False for name in _SWITCHES)
    return effort == "none" or switched_off or variables.get("reasoning_effort") == "none"


def _refused(effort: str, why: str) -> InvalidRequestError:
    return InvalidRequestError(
        f"The reasoning effort '{effort}' cannot be had: this model's chat template {why}.",
        param="reasoning_effort",
        code="unsupported_value",
    )
