"""Reasoning mode: whether the answers of a chat template hold reasoning, and whether a request can change that."""

from __future__ import annotations

from enum import StrEnum


class ReasoningMode(StrEnum):
    """Reasoning in the answers of one template."""

    NONE = "none"  # answers have no reasoning that is separated from their content
    ALWAYS = "always"  # no request turns it off
    ON = "on"  # unless a request turns it off
    OFF = "off"  # unless a request turns it on
