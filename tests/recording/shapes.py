"""Normalisation of recorded answers: a value that differs between two runs becomes its shape, any other value stays.

A shape is a text in angle brackets: `<hex:32>`, `<time>`, `<text>`, `<float>`.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Mapping
from typing import Any

YEAR_S = 366 * 86_400

TEXTS = frozenset(
    (
        "arguments",
        "content",
        "delta",
        "last_error",
        "message",
        "partial_json",
        "problem",
        "reasoning_content",
        "said",
        "text",
        "thinking",
        "token",
        "token_strs",
        "what",
    )
)
"""Fields with generated text or with messages, which may be rewritten."""
SHAPELESS = {
    "attempts": "<int>",
    "bytes": "<bytes>",
    "compute_ms": "<int>",
    "finished_at_ms": "<ms>",
    "last4": "<last4>",
    "logprob": "<float>",
    "pid": "<int>",
    "schema": "<int>",
    "sequence_number": "<int>",
    "server-processing-time": "<float>",
    "server-time-to-first-token": "<float>",
    "system_fingerprint": "<fingerprint>",
    "text_offset": "<ints>",
    "token_logprobs": "<floats>",
    "warnings": "<texts>",
}
"""Fields that become this shape, unless they are null, false or empty."""

_PATTERNS = (
    (re.compile(r"\b20[2-7]\d-\d\d-\d\dT\d{9}Z"), "<stamp>"),
    (re.compile(r"[A-Z][a-z]{2}, \d\d [A-Z][a-z]{2} 20[2-7]\d \d\d:\d\d:\d\d GMT"), "<date>"),
    (re.compile(r"\b20[2-7]\d-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z"), "<time.ms>"),
    (re.compile(r"\b20[2-7]\d-\d\d-\d\dT\d\d:\d\d:\d\dZ"), "<time>"),
    (re.compile(r"\b20[2-7]\d-\d\d-\d\d\b"), "<date>"),
    (re.compile(r"\b20[2-7]\d-\d\d\b"), "<month>"),
    (re.compile(r"^20[2-7]\d$"), "<year>"),
)
_CALL_ID = re.compile(r"\b(call|toolu)_([A-Za-z0-9]{20,})\b")
_HEX = re.compile(r"(?<![0-9a-zA-Z<])(?=[0-9a-f]*\d)[0-9a-f]{16,}(?![0-9a-zA-Z])")


def in_any_order(value: Any) -> Any:
    """Return a recorded value with its lists sorted: for lists that are in the order of random ids."""
    if isinstance(value, dict):
        return {name: in_any_order(each) for name, each in value.items()}
    return sorted(map(in_any_order, value), key=json.dumps) if isinstance(value, list) else value


class Shapes:
    """Shapes of values, among them those that the run has made: ids of keys, paths.

    Attributes:
        known: value -> the shape that stands for it, wherever it occurs.
    """

    def __init__(self) -> None:
        self.known: dict[str, str] = {}

    def learn(self, value: str, label: str) -> None:
        """Let `<LABEL>` and the kind of characters stand for a value."""
        kind = "alnum" if value.isalnum() else "text"
        self.known[value] = f"<{label} {kind}:{len(value)}>"

    def learn_path(self, path: str, label: str) -> None:
        self.known[path] = f"<{label}>"

    def of(self, value: Any, name: str = "") -> Any:
        """Return the shape of a JSON value that is the field `name` of an object."""
        if isinstance(value, Mapping):
            return self._of_object(value, name)
        if isinstance(value, str) and value and name in TEXTS:
            return "<text>"
        if name in SHAPELESS and value not in (None, False, "", [], {}):
            return SHAPELESS[name]
        if isinstance(value, list):
            return self._of_list(value, name)
        if isinstance(value, str):
            return self.of_text(value)
        return self._of_number(value) if isinstance(value, int) and not isinstance(value, bool) else value

    def of_text(self, value: str) -> str:
        for known in sorted(self.known, key=len, reverse=True):
            value = value.replace(known, self.known[known])
        for pattern, shape in _PATTERNS:
            value = pattern.sub(shape, value)
        value = _CALL_ID.sub(lambda found: f"{found[1]}_<alnum:{len(found[2])}>", value)
        return _HEX.sub(lambda found: f"<hex:{len(found[0])}>", value)

    def _of_object(self, value: Mapping[str, Any], name: str) -> Any:
        if name == "top_logprobs":
            return f"<{len(value)} logprobs by token>"
        return {self.of_text(key): self.of(each, key) for key, each in sorted(value.items())}

    def _of_list(self, value: list[Any], name: str) -> Any:
        if len(value) > 16 and all(isinstance(each, float) for each in value):
            return f"<float x {len(value)}>"
        return [self.of(each, name) for each in value]

    def _of_number(self, value: int) -> Any:
        """A moment of the last or next year is a time: no amount of a recording is as large."""
        now_s = time.time()
        if abs(value - now_s) < YEAR_S:
            return "<s>"
        return "<ms>" if abs(value / 1000 - now_s) < YEAR_S else value
