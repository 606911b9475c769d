"""`python -m tests.clients.replay --to URL`: the recorded requests of all clients, and what a server refuses of them.

For comparisons with another server, such as llama-server; tests/clients/test_replay.py sends them to inferd.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx

from tests.clients.fixtures import FOLDER, Recorded, read

TIMEOUT_S = 120.0
MAX_SHOWN = 160
MAX_TOKENS = 4
"""Of an answer of another server: the comparison is about what that refuses."""
_LIMITS = ("max_tokens", "max_completion_tokens", "max_output_tokens", "n_predict", "num_predict")
_ONE_MODEL = "/v1/models/"


@dataclass(frozen=True)
class Replay:
    """A recorded request of a client.

    Attributes:
        client: its name, which is that of its file.
    """

    client: str
    request: Recorded

    def target(self, model: str) -> str:
        """Return path and query, with `model` in place of a recorded one."""
        path, mark, query = self.request.target.partition("?")
        if path.startswith(_ONE_MODEL):
            path = _ONE_MODEL + model
        return path + mark + query

    def content(self, model: str, max_tokens: int | None = None) -> bytes | None:
        """Return the body, with `model` in place of the recorded one.

        Args:
            max_tokens: lowers each limit of the answer to this.
        """
        body = self.request.body
        if body is None:
            return None
        if isinstance(body, dict) and "model" in body:
            body = body | {"model": model}
        if isinstance(body, dict) and max_tokens is not None:
            body = body | {name: min(body[name], max_tokens) for name in _LIMITS if name in body}
        return json.dumps(body).encode()

    def headers(self) -> dict[str, str]:
        """Return the recorded headers, and the type of the body."""
        return {"content-type": "application/json", **self.request.headers}

    def __str__(self) -> str:
        return f"{self.client}: {self.request.method} {self.request.target}"


def replays() -> Iterator[Replay]:
    """All recorded requests that have a body of JSON, or none."""
    for path in sorted(FOLDER.glob("*.jsonl")):
        for request in read(path):
            if not isinstance(request.body, str):
                yield Replay(path.stem, request)


def main(arguments: list[str]) -> int:
    """Send all, print each refusal and a summary, and return 0."""
    parser = argparse.ArgumentParser(prog="python -m tests.clients.replay", description=__doc__)
    parser.add_argument("--to", metavar="URL", required=True, help="server, without /v1")
    parser.add_argument("--key", default="none", help="API key")
    parser.add_argument("--model", default="model", help="takes the place of each recorded model")
    options = parser.parse_args(arguments)
    statuses: Counter[int] = Counter()
    with httpx.Client(base_url=options.to, timeout=TIMEOUT_S) as http:
        for replay in replays():
            keys = {"authorization": f"Bearer {options.key}", "x-api-key": options.key, "connection": "close"}
            answer = http.request(
                replay.request.method,
                replay.target(options.model),
                content=replay.content(options.model, MAX_TOKENS),
                headers=replay.headers() | keys,
            )
            statuses[answer.status_code] += 1
            if answer.status_code >= 400:
                print(answer.status_code, replay, message_of(answer)[:MAX_SHOWN].replace("\n", " "), flush=True)
    print(*(f"{number} times {status}" for status, number in sorted(statuses.items())), sep=", ")
    return 0


def message_of(answer: httpx.Response) -> str:
    """Return the message of a refusal in any of the shapes that servers have."""
    try:
        error: Any = answer.json().get("error", answer.text)
    except (ValueError, AttributeError):
        return answer.text
    return str(error.get("message")) if isinstance(error, dict) else str(error)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
