"""Get an answer that matches a JSON schema.

pip install openai
export OPENAI_API_KEY=sk-inferd-...       # inferd keys create --team TEAM
python examples/structured_output.py
"""

from __future__ import annotations

import json
import os

from openai import OpenAI

client = OpenAI(base_url=os.environ.get("OPENAI_BASE_URL", "http://127.0.0.1:8000/v1"))

SCHEMA = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 20},
        "sentiment": {"type": "string", "enum": ["positive", "neutral", "negative"]},
        "stars": {"type": "integer", "minimum": 1, "maximum": 5},
    },
    "required": ["name", "sentiment", "stars"],
    "additionalProperties": False,
}

completion = client.chat.completions.create(
    model=os.environ.get("INFERD_MODEL", "local/smollm2-135m"),
    messages=[
        {"role": "user", "content": "Review: 'The Blue Lamp is bright and cheap.' Name the product and rate it."}
    ],
    response_format={"type": "json_schema", "json_schema": {"name": "review", "schema": SCHEMA, "strict": True}},
    max_tokens=100,
)

# Only max_tokens can cut it off; then the finish reason is "length".
assert completion.choices[0].finish_reason == "stop", completion.choices[0].finish_reason
review = json.loads(completion.choices[0].message.content)
print(f"{review['name']}: {review['sentiment']}, {review['stars']} of 5 stars")
