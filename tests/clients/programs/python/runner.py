"""Shared parts of the client programs of this folder: where the server is, and how a program reports.

A program runs in the environment of its client, without the packages of inferd. It prints one JSON object; its keys are
those that tests/clients/programs/test_programs.py compares.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import traceback
from collections.abc import Callable, Iterable
from typing import Any

BASE_URL = os.environ["BASE_URL"]
"""Without /v1."""
KEY = os.environ["API_KEY"]
MODEL = os.environ["MODEL"]
WRONG_KEYS = {"401": "sk-inferd-wrong", "402": os.environ["BROKE_KEY"], "429": os.environ["LIMITED_KEY"]}
"""A key that the server answers with this status."""
IS_VARIED = bool(os.environ.get("VARIED"))
"""Whether the program sends its variations, too: they are recorded."""

HELLO = "Say hello."
WEATHER = "What is the weather in Paris?"
JUDGE = "Judge the weather in Paris."
RESULT = "21 degrees and sunny"
SYSTEM = "You are a keeper of a lighthouse."
WEATHER_SCHEMA = {
    "type": "object",
    "properties": {"city": {"type": "string", "description": "A city."}},
    "required": ["city"],
    "additionalProperties": False,
}
VERDICT_SCHEMA = {
    "type": "object",
    "properties": {"mood": {"type": "string", "enum": ["good", "bad"]}, "score": {"type": "integer"}},
    "required": ["mood", "score"],
    "additionalProperties": False,
}
WEATHER_TOOL = {
    "type": "function",
    "function": {"name": "get_weather", "description": "The weather of a city.", "parameters": WEATHER_SCHEMA},
}
TIME_TOOL = {"type": "function", "function": {"name": "get_time", "parameters": {"type": "object", "properties": {}}}}
TURNS = [
    {"role": "system", "content": SYSTEM},
    {"role": "user", "content": "Who are you?"},
    {"role": "assistant", "content": "The keeper."},
    {"role": "user", "content": "What do you keep?"},
]
OPTIONS: tuple[dict[str, Any], ...] = (
    {"temperature": 0.2, "top_p": 0.9},
    {"max_tokens": 7, "seed": 7},
    {"max_completion_tokens": 9},
    {"stop": [".", "\n\n"]},
    {"presence_penalty": 0.3, "frequency_penalty": 0.1},
    {"n": 2, "temperature": 1.0},
    {"logprobs": True, "top_logprobs": 2},
    {"user": "ann", "metadata": {"run": "nightly"}},
    {"reasoning_effort": "low"},
    {"response_format": {"type": "json_object"}},
    {"logit_bias": {"11": -5}},
    {"service_tier": "default", "store": False},
    {"tools": [WEATHER_TOOL, TIME_TOOL], "tool_choice": "auto"},
    {"tools": [WEATHER_TOOL], "tool_choice": "none"},
    {"tools": [WEATHER_TOOL], "tool_choice": "required", "parallel_tool_calls": False},
    {"tools": [TIME_TOOL, WEATHER_TOOL], "tool_choice": {"type": "function", "function": {"name": "get_weather"}}},
    {
        "response_format": {
            "type": "json_schema",
            "json_schema": {"name": "verdict", "schema": VERDICT_SCHEMA, "strict": True},
        }
    },
)
"""Options of a chat in OpenAI's names."""


def report(**said: Any) -> None:
    """Print what the program found."""
    print(json.dumps(said))


def errors(call: Callable[[str], Any]) -> dict[str, list[str]]:
    """Return what `call` raises with each wrong key: the names of its classes, and of those of its causes."""
    return {status: names_of_error(lambda key=key: call(key)) for status, key in WRONG_KEYS.items()}


def names_of_error(call: Callable[[], Any]) -> list[str]:
    """Return the names of the classes of what `call` raises, and of its causes."""
    try:
        call()
    except Exception as error:  # noqa: BLE001 - the test compares it, whatever it is
        names: list[str] = []
        found: BaseException | None = error
        while found is not None:
            names += [each.__name__ for each in type(found).__mro__]
            found = found.__cause__ or found.__context__
        return list(dict.fromkeys(names))
    return []


def vary(calls: Iterable[Callable[[], Any]]) -> None:
    """Make the calls, if this run is recorded. A call that fails is told on stderr and stops nothing."""
    if not IS_VARIED:
        return
    for call in calls:
        try:
            with contextlib.redirect_stdout(sys.stderr):
                call()
        except Exception:  # noqa: BLE001 - a client may refuse an option by itself
            traceback.print_exc(limit=-2, file=sys.stderr)
