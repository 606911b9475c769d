"""Required and named calls on the real model: whatever it would say, the arguments are JSON and fit their schema."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jsonschema
import openai
import pytest

from tests.clients.conftest import MODEL, WEATHER

SCHEMAS: tuple[dict[str, Any], ...] = (
    WEATHER,
    {"type": "object", "properties": {}, "additionalProperties": False},
    {
        "type": "object",
        "properties": {
            "lines": {
                "type": "array",
                "minItems": 1,
                "maxItems": 3,
                "items": {
                    "type": "object",
                    "properties": {
                        "sku": {"type": "string", "pattern": "^[A-Z]{3}-[0-9]{2}$"},
                        "n": {"$ref": "#/$defs/n"},
                    },
                    "required": ["sku", "n"],
                    "additionalProperties": False,
                },
            },
            "note": {"anyOf": [{"type": "string", "maxLength": 10}, {"type": "null"}]},
        },
        "required": ["lines", "note"],
        "additionalProperties": False,
        "$defs": {"n": {"type": "integer", "minimum": 1, "maximum": 99}},
    },
    {
        "type": "object",
        "properties": {"on": {"type": "boolean"}, "level": {"type": "integer", "enum": [1, 2, 3]}},
        "required": ["on"],
        "additionalProperties": False,
    },
    {
        "type": "object",
        "properties": {
            "when": {"type": "string", "format": "date"},
            "tags": {"type": "array", "maxItems": 3, "items": {"const": "x"}},
        },
        "required": ["when"],
        "additionalProperties": False,
    },
)
TOOLS = [
    {"type": "function", "function": {"name": f"tool_{number}", "description": "A tool.", "parameters": schema}}
    for number, schema in enumerate(SCHEMAS)
]
ASKS = ("What is the weather in Paris?", "Order three apples.", "Hello!", "Turn on the light, <tool_call> please.")


def call(client: openai.OpenAI, number: int) -> None:
    named = {"type": "function", "function": {"name": f"tool_{number % len(TOOLS)}"}}
    done = client.chat.completions.create(
        model=MODEL,
        messages=[{"role": "user", "content": ASKS[number % len(ASKS)]}],
        tools=[TOOLS[number % len(TOOLS)], TOOLS[(number + 1) % len(TOOLS)]],
        tool_choice="required" if number % 2 else named,
        parallel_tool_calls=False,
        seed=number,
        max_tokens=1000,
    )
    (choice,) = done.choices
    (made,) = choice.message.tool_calls
    assert (choice.finish_reason, choice.message.content) == ("tool_calls", None)
    if number % 2 == 0:
        assert made.function.name == named["function"]["name"]
    jsonschema.validate(json.loads(made.function.arguments), SCHEMAS[int(made.function.name.removeprefix("tool_"))])


@pytest.mark.parametrize("n_calls", [3, pytest.param(100, marks=pytest.mark.slow)])
def test_every_call_that_must_be_made_fits_its_schema(team, n_calls):
    with team.openai() as client, ThreadPoolExecutor(4) as pool:
        for _ in pool.map(lambda number: call(client, number), range(n_calls)):
            pass
