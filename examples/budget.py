"""Give a new team a budget with the command line, and spend until a request is refused.

Run it on the machine of the server, with `inferd` on the PATH (`source .venv/bin/activate`):

    pip install openai
    export INFERD_DATA_DIR=FOLDER             # only if the server runs with --data-dir FOLDER
    python examples/budget.py
"""

from __future__ import annotations

import json
import os
import subprocess
import time
from typing import Any

from openai import APIStatusError, OpenAI


def inferd(*words: str) -> Any:
    """Return the JSON that a command prints."""
    done = subprocess.run(["inferd", *words, "--json"], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SystemExit(done.stderr)
    return json.loads(done.stdout)


team = f"budget-{int(time.time())}"
inferd("teams", "create", team, "--plan", "academic")
inferd("credits", "grant", team, "1", "--note", "example")
inferd("budgets", "set", team, "0.00002")
key = inferd("keys", "create", "--team", team)["key"]

client = OpenAI(base_url=os.environ.get("OPENAI_BASE_URL", "http://127.0.0.1:8000/v1"), api_key=key)
for number in range(1, 21):
    try:
        completion = client.chat.completions.create(
            model=os.environ.get("INFERD_MODEL", "local/smollm2-135m"),
            messages=[{"role": "user", "content": "Say hello."}],
            max_tokens=8,
        )
    except APIStatusError as error:
        # The budget is a hard cap: a request is refused if the most it could cost would exceed the budget.
        print(f"request {number}: {error.status_code} {error.code}")
        print(error.message)
        break
    print(f"request {number}: ${completion.usage.model_extra['cost']}")

for cap in inferd("teams", "show", team)["limits"]["caps"]:
    if cap["source"] == "budget":
        print(f"{cap['posted_usd']} of {cap['limit_usd']} USD spent, {cap['left_usd']} left until {cap['resets_at']}")
