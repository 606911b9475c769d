"""A client that costs next to nothing: it shares its cores with the server that it measures."""

from __future__ import annotations

import asyncio
import itertools
import json
import time
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit


@dataclass(slots=True)
class Answer:
    """One streamed answer. Times in seconds, from the moment the request was sent."""

    started_s: float = 0.0
    token_times_s: list[float] = field(default_factory=list)
    text: str = ""
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    compute_ms: int = 0
    ended_s: float = 0.0

    @property
    def ttft_s(self) -> float:
        return self.token_times_s[0] if self.token_times_s else self.ended_s

    @property
    def gaps_s(self) -> list[float]:
        times = self.token_times_s
        return [after - before for before, after in itertools.pairwise(times)]


async def stream_chat(base_url: str, key: str, body: dict[str, Any], answer: Answer) -> None:
    """POSTs a streamed chat completion and fills `answer` as it comes. Raises RuntimeError with what the server said
    if it refuses. Cancelled, it hangs up."""
    url = urlsplit(base_url)
    payload = json.dumps(body | {"stream": True, "stream_options": {"include_usage": True}}).encode()
    reader, writer = await asyncio.open_connection(url.hostname, url.port, limit=2**20)
    head = (
        f"POST {url.path}/chat/completions HTTP/1.1\r\nHost: {url.netloc}\r\nAuthorization: Bearer {key}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(payload)}\r\nConnection: close\r\n\r\n"
    )
    answer.started_s = time.perf_counter()
    writer.write(head.encode() + payload)
    try:
        status = await reader.readline()
        if b" 200 " not in status:
            raise RuntimeError(f"{status.decode().strip()}: {(await reader.read(4000)).decode(errors='replace')}")
        while line := await reader.readline():
            if line.startswith(b"data: {"):
                _take(answer, json.loads(line[6:]))
            elif line.startswith(b"data: [DONE]"):
                break
        answer.ended_s = time.perf_counter() - answer.started_s
        # Where a server reports no usage, one event is one token.
        answer.completion_tokens = answer.completion_tokens or len(answer.token_times_s)
    finally:
        writer.close()


def _take(answer: Answer, chunk: dict[str, Any]) -> None:
    if "error" in chunk:
        raise RuntimeError(str(chunk["error"]))
    for choice in chunk.get("choices", ()):
        if text := choice["delta"].get("content"):
            answer.token_times_s.append(time.perf_counter() - answer.started_s)
            answer.text += text
    if usage := chunk.get("usage"):
        answer.prompt_tokens = usage["prompt_tokens"]
        answer.completion_tokens = usage["completion_tokens"]
        answer.compute_ms = usage.get("compute_ms", 0)
        answer.cached_tokens = (usage.get("prompt_tokens_details") or {}).get("cached_tokens", 0)
