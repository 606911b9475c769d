"""Print an answer while it is generated, over Anthropic's Messages API.

pip install anthropic
export ANTHROPIC_API_KEY=sk-inferd-...    # inferd keys create --team TEAM
python examples/stream.py "Tell me a story."
"""

from __future__ import annotations

import os
import sys

from anthropic import Anthropic

client = Anthropic(base_url=os.environ.get("ANTHROPIC_BASE_URL", "http://127.0.0.1:8000"))

with client.messages.stream(
    model=os.environ.get("INFERD_MODEL", "local/smollm2-135m"),
    messages=[{"role": "user", "content": " ".join(sys.argv[1:]) or "Tell me a story."}],
    max_tokens=40,
) as stream:
    for text in stream.text_stream:
        print(text, end="", flush=True)
    message = stream.get_final_message()

# The last event comes after the commit that bills the answer.
print(f"\n{message.usage.output_tokens} tokens, stopped by {message.stop_reason}")
