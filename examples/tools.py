"""Let the model call a function, run it, and give the model its result.

pip install openai
export OPENAI_API_KEY=sk-inferd-...       # inferd keys create --team TEAM
python examples/tools.py
"""

from __future__ import annotations

import json
import os

from openai import OpenAI

client = OpenAI(base_url=os.environ.get("OPENAI_BASE_URL", "http://127.0.0.1:8000/v1"))
model = os.environ.get("INFERD_MODEL", "local/smollm2-135m")


def get_weather(city: str) -> dict[str, object]:
    """Return the weather of a city. A real one would ask a weather service."""
    return {"city": city, "temperature_c": 21, "sky": "clear"}


TOOL = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Get the current weather of a city.",
        "strict": True,
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string", "maxLength": 30}},
            "required": ["city"],
            "additionalProperties": False,
        },
    },
}

messages = [{"role": "user", "content": "What is the weather in Vienna?"}]
# "required": the answer is a call whose arguments match the schema, whatever the model would rather say.
first = client.chat.completions.create(
    model=model, messages=messages, tools=[TOOL], tool_choice="required", parallel_tool_calls=False, max_tokens=120
)
assert first.choices[0].finish_reason == "tool_calls", "the call was cut off by max_tokens"
call = first.choices[0].message.tool_calls[0]
result = get_weather(**json.loads(call.function.arguments))
print(f"{call.function.name}({call.function.arguments}) -> {json.dumps(result)}")

messages.append(first.choices[0].message)
messages.append({"role": "tool", "tool_call_id": call.id, "content": json.dumps(result)})
second = client.chat.completions.create(model=model, messages=messages, max_tokens=40)
print(second.choices[0].message.content)
