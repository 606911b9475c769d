"""Ask one question, and print the answer and its cost.

pip install openai
export OPENAI_API_KEY=sk-inferd-...       # inferd keys create --team TEAM
python examples/chat.py "Why is the sky blue?"
"""

from __future__ import annotations

import os
import sys

from openai import OpenAI

client = OpenAI(base_url=os.environ.get("OPENAI_BASE_URL", "http://127.0.0.1:8000/v1"))

completion = client.chat.completions.create(
    model=os.environ.get("INFERD_MODEL", "local/smollm2-135m"),
    messages=[{"role": "user", "content": " ".join(sys.argv[1:]) or "Why is the sky blue?"}],
    max_tokens=40,
)

print(completion.choices[0].message.content)
assert completion.usage is not None, "a completion that is not streamed has its usage"
cost_usd = completion.usage.model_extra["cost"]
print(f"{completion.usage.prompt_tokens} + {completion.usage.completion_tokens} tokens, ${cost_usd}")
