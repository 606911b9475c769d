"""Bodies as /openapi.json describes them, and nearly so, for every route that takes one: no answer is a 5xx, and most
get past the parsing. What somebody thought of is in test_hostile_input.py; this is what nobody did.

Schemathesis does the same over HTTP, and checks answers against the document too. It is no dependency, as it brings a
plugin into every run of pytest, six packages more, and takes minutes. By hand, from an environment of its own, against
`python -m tests.e2e.launch --fake serve`: `st run URL/openapi.json -H "Authorization: Bearer KEY" --mode positive`.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from inferd.instants import wall_clock_ms
from inferd.ledger import operations
from inferd.server.app import ROUTES
from inferd.server.endpoints.ollama import ollama_unsupported
from inferd.server.openapi import SHAPES, document
from tests.server.json_bodies import ANY_JSON, bodies
from tests.serving.provider import PRICED, Provider, running_provider

DOCUMENT = json.loads(json.dumps(document(ROUTES)))
COMPONENTS = DOCUMENT["components"]["schemas"]
BODIES = {
    (method, path): DOCUMENT["paths"][path][method.lower()]["requestBody"]["content"]["application/json"]["schema"]
    for (method, path), shape in SHAPES.items()
    if shape.takes is not None and (method, path) != ("POST", "/v1/files")
}
TAKING = [*BODIES]
UPLOAD = ("POST", "/v1/files")
NAMES = ["purpose", "file", "expires_after[anchor]", "expires_after[seconds]", "file", "other", ""]
SHAPELESS = sorted(
    {
        (method, route.path)
        for route in ROUTES
        for method in route.methods or ()
        if method == "POST" and route.endpoint is not ollama_unsupported  # always a 501
    }
    - {*TAKING}
)
MESSAGES = [{"role": "user", "content": "hello"}]
USUAL: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {"model": PRICED, "messages": MESSAGES, "max_tokens": 2},
    "/v1/completions": {"model": PRICED, "prompt": "hello", "max_tokens": 2},
    "/v1/embeddings": {"model": PRICED, "input": ["hello", "you"]},
    "/v1/rerank": {"model": PRICED, "query": "hello", "documents": ["hello", "you"]},
    "/rerank": {"model": PRICED, "query": "hello", "documents": ["hello", "you"]},
    "/v2/rerank": {"model": PRICED, "query": "hello", "documents": [{"text": "hello"}]},
    "/classify": {"model": PRICED, "input": ["hello", "you"]},
    "/v1/responses": {"model": PRICED, "input": "hello", "max_output_tokens": 2},
    "/v1/messages": {"model": PRICED, "messages": MESSAGES, "max_tokens": 2},
    "/v1/messages/count_tokens": {"model": PRICED, "messages": MESSAGES},
    "/api/chat": {"model": PRICED, "messages": MESSAGES, "options": {"num_predict": 2}},
    "/api/generate": {"model": PRICED, "prompt": "hello", "options": {"num_predict": 2}},
    "/api/embed": {"model": PRICED, "input": ["hello", "you"]},
    "/api/embeddings": {"model": PRICED, "prompt": "hello"},
    "/api/show": {"model": PRICED},
    "/tokenize": {"model": PRICED, "content": "hello"},
    "/detokenize": {"model": PRICED, "tokens": [97, 98]},
    "/apply-template": {"model": PRICED, "messages": MESSAGES},
    "/v1/batches": {
        "input_file_id": "FILE",
        "endpoint": "/v1/chat/completions",
        "completion_window": "24h",
    },
}
PARTS = {"team": "fuzzed", "project": "inference", "user": "ann", "period": "2026-01"}
NOT_PARSED = {"invalid_json", "invalid_type", "unknown_parameter", "missing_required_parameter", "invalid_form"}
"""Codes of bodies that are no typed request; every other answer comes from what a handler does with one."""
N_ORDINARY, N_SLOW = 300, 5_000


class Fuzzed:
    """A provider whose loop runs only while a request does: Hypothesis is not asynchronous."""

    def __init__(self, run: Callable[[Coroutine[Any, Any, Any]], Any], provider: Provider) -> None:
        self._run = run
        self._provider = provider
        self._key = provider.new_key("ops", scopes=("admin",))
        with provider.store.immediate() as conn:
            operations.create_team(conn, "fuzzed", "academic", by=operations.Author("test", wall_clock_ms()))
        self.statuses: Counter[int] = Counter()
        self.n_parsed = 0

        self._file_id = self._run(self._upload()).json()["id"]

    def send(self, method: str, path: str, body: Any, idempotency_key: str) -> None:
        response = self._run(self._send(method, path, body, idempotency_key))
        self.statuses[response.status_code] += 1
        assert response.status_code < 500, (response.status_code, response.text[:300])
        self.n_parsed += response.is_success or _code(response.json()) not in NOT_PARSED

    async def _upload(self) -> httpx.Response:
        line = {"custom_id": "a", "method": "POST", "url": "/v1/chat/completions", "body": {"model": PRICED}}
        files = {"file": ("in.jsonl", json.dumps(line).encode())}
        return await self._provider.client.post("/v1/files", files=files, data={"purpose": "batch"})

    async def _send(self, method: str, path: str, body: Any, idempotency_key: str) -> httpx.Response:
        self._provider.steady_ms += 60_000  # another minute, so that no limit is in the way
        headers = {"idempotency-key": idempotency_key}
        content = body if isinstance(body, bytes) else json.dumps(body).replace('"FILE"', f'"{self._file_id}"')
        if isinstance(body, bytes):
            headers["content-type"] = "multipart/form-data; boundary=x"
        if path.startswith("/admin"):
            headers["authorization"] = f"Bearer {self._key}"
        return await self._provider.client.request(method, path, content=content, headers=headers)


def _code(answer: dict[str, Any]) -> str:
    """The cause, in OpenAI's shape, Anthropic's or Ollama's."""
    error = answer["error"]
    if isinstance(error, str):
        error = answer
    code = error["code"] if "code" in error else error["details"]["error_code"]
    assert isinstance(code, str), answer
    return code


@contextmanager
def fuzzed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Fuzzed]:
    with asyncio.Runner() as runner:
        context = running_provider(folder, monkeypatch, credit_nanousd=10**12)
        provider = runner.run(context.__aenter__())
        try:
            yield Fuzzed(runner.run, provider)
        finally:
            runner.run(context.__aexit__(None, None, None))  # audits the books


@st.composite
def forms(draw: st.DrawFn) -> bytes:
    """`multipart/form-data` with the boundary `x`: the usual fields, or others, sometimes cut off or damaged."""
    parts = draw(st.lists(st.sampled_from(NAMES), max_size=4)) or ["purpose", "file"]
    body = b""
    for name in parts:
        filename = draw(
            st.sampled_from(["", '; filename="in.jsonl"', '; filename="../\0\xff"', "; filename*=utf-8''a"])
        )
        value = b"batch" if name == "purpose" and draw(st.integers(0, 3)) else draw(st.binary(max_size=40))
        head = f'Content-Disposition: form-data; name="{name}"{filename}'.encode("latin-1")
        body += b"--x\r\n" + head + b"\r\n\r\n" + value + b"\r\n"
    body += b"--x--\r\n"
    if draw(st.integers(0, 5)) == 3:
        at = draw(st.integers(0, len(body)))
        body = body[:at] + draw(st.sampled_from([b"", b"\0", b"\r\n", b"--x--"]))
    return body


@st.composite
def calls(draw: st.DrawFn) -> tuple[str, str, Any, str]:
    """Half of them to the routes of inference: they do the most with what they get."""
    inference = [UPLOAD, *((method, path) for method, path in TAKING if path in USUAL)]
    method, path = draw(st.sampled_from(inference) | st.sampled_from(TAKING + SHAPELESS))
    if (method, path) == UPLOAD:
        body = draw(forms())
    elif (method, path) in SHAPELESS:
        body = draw(ANY_JSON)
    else:
        body = draw(bodies(BODIES[method, path], COMPONENTS, USUAL.get(path, {})))
    parts = PARTS | {"batch_id": "batch_none", "key_id": "key_none", "grant_id": "grant_none", "request_id": "req_none"}
    parts |= {"response_id": "resp_none"}
    return method, re.sub(r"\{(\w+)\}", lambda part: parts[part[1]], path), body, draw(st.text("abc", min_size=1))


def fuzz(folder: Path, monkeypatch: pytest.MonkeyPatch, n_calls: int) -> None:
    monkeypatch.setattr(Provider, "responses_days", 1)
    with fuzzed(folder, monkeypatch) as server:

        @settings(
            max_examples=n_calls,
            deadline=None,
            database=None,
            # Of 300 drawn anew in each run 79 to 95 % parsed; the same 300 have one share, and 5,000 vary less.
            derandomize=n_calls == N_ORDINARY,
            suppress_health_check=[*HealthCheck],
        )
        @given(calls())
        def never_a_5xx(call: tuple[str, str, Any, str]) -> None:
            server.send(*call)

        never_a_5xx()
        n_sent = sum(server.statuses.values())
        print(f"{n_sent} calls, {server.n_parsed} parsed: {dict(server.statuses)}")
        assert n_sent >= n_calls * 0.9
        assert server.n_parsed >= 0.8 * n_sent, server.statuses
        assert server.statuses[200] > n_sent / 10, server.statuses


def test_no_body_brings_a_5xx(tmp_path, monkeypatch):
    fuzz(tmp_path, monkeypatch, N_ORDINARY)


@pytest.mark.slow
def test_no_body_of_thousands_brings_a_5xx(tmp_path, monkeypatch):
    fuzz(tmp_path, monkeypatch, N_SLOW)


def test_every_route_of_inference_is_fuzzed_with_what_it_usually_gets():
    assert set(USUAL) == {path for _, path in TAKING if not path.startswith("/admin")}
