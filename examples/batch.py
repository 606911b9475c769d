"""Answer a file of requests at half price, and print the answers with their total cost.

pip install openai
export OPENAI_API_KEY=sk-inferd-...       # inferd keys create --team TEAM
python examples/batch.py
"""

from __future__ import annotations

import json
import os
import time

from openai import OpenAI

client = OpenAI(base_url=os.environ.get("OPENAI_BASE_URL", "http://127.0.0.1:8000/v1"))
model = os.environ.get("INFERD_MODEL", "local/smollm2-135m")

lines = [
    {
        "custom_id": word,
        "method": "POST",
        "url": "/v1/chat/completions",
        "body": {
            "model": model,
            "messages": [{"role": "user", "content": f"Write one sentence about the {word}."}],
            "max_tokens": 20,
        },
    }
    for word in ("sun", "moon", "sea")
]
content = "\n".join(json.dumps(line) for line in lines).encode()
file = client.files.create(file=("requests.jsonl", content), purpose="batch")
batch = client.batches.create(input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h")
print(f"{batch.id}: {len(lines)} requests")

while batch.status not in ("completed", "failed", "expired", "cancelled"):
    time.sleep(1)
    batch = client.batches.retrieve(batch.id)

# Each line of the input is in one of the two files. A file without lines is None.
for file_id in filter(None, (batch.output_file_id, batch.error_file_id)):
    for text in client.files.content(file_id).text.splitlines():
        line = json.loads(text)
        response = line["response"]
        if response is not None and response["status_code"] == 200:
            print(f"{line['custom_id']}: {response['body']['choices'][0]['message']['content']!r}")
        else:
            print(f"{line['custom_id']} failed: {json.dumps(line['error'] or response['body'])}")
usage = batch.model_extra["usage"] if batch.usage is None else batch.usage.model_dump()
print(f"{batch.status}, ${usage['cost']}")
