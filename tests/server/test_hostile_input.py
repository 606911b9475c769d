"""Bodies that no honest client sends, over a real socket: each is a clear 4xx, at once, and the server is unharmed."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.server.raw_client import head, raw_client
from tests.server.test_http_server import served_on_socket
from tests.serving.provider import PRICED, chat_body

pytestmark = pytest.mark.anyio

PATHS = ("/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/tokenize", "/detokenize")
DEPTH = 100_000
LARGE = 300_000


def chat(**fields: Any) -> bytes:
    return json.dumps(chat_body(**fields)).encode()


def schema(value: Any) -> bytes:
    return chat(response_format={"type": "json_schema", "json_schema": {"name": "x", "schema": value}})


def nested(kind: str, depth: int) -> bytes:
    """A schema `depth` levels deep, written by hand: json.dumps recurses."""
    start, end = ('{"properties": {"a": ', "}}") if kind == "properties" else ('{"anyOf": [', "]}")
    body = start * depth + '{"type": "string"}' + end * depth
    return chat(response_format="S").replace(
        b'"S"', b'{"type": "json_schema", "json_schema": {"name": "x", "schema": %s}}' % body.encode()
    )


BROKEN = [
    b"",
    b"{",
    b"null",
    b"[]",
    b'"x"',
    b"\xff\xfe{}",
    b'{"model": "\xff"}',
    b'{"model": "\\ud800"}',
    b'{"model": "\xed\xa0\x80"}',
    b'{"a":' * DEPTH,
    b"[" * DEPTH + b"]" * DEPTH,
    b'{"model": ' + b"9" * LARGE + b"}",
    b'{"model": 1e99999}',
    b'{"model": NaN}',
    b'{"' + b"a" * LARGE + b'": 1}',
    b"{" + b",".join(b'"a%d": 1' % n for n in range(20_000)) + b"}",
    b'{"model": "local/tiny", "model": "local/tiny"}',
    b'{"model": "' + b"m" * LARGE + b'"}',
    b'{"model": "a\\u0000b"}',
]

ABSURD = [
    chat(n=10**9),
    chat(n=10**30),
    chat(seed=10**30),
    chat(temperature=10**30),
    chat(stop=["a"] * LARGE),
    chat(stop="a" * LARGE),
    chat(logit_bias={str(n): 1 for n in range(LARGE // 10)}),
    chat(logit_bias={"9" * 5000: 1}),
    chat(metadata={str(n): "x" for n in range(LARGE // 10)}),
    chat(user="a" * LARGE),
    chat(model="a" * LARGE),
    chat(messages=[]),
    chat(messages=[{"role": "user", "content": ""}] * LARGE),
    chat(messages=[{"role": "user", "content": [{"type": "text", "text": ""}] * LARGE}]),
    chat(messages=[{"role": "user", "content": "a" * 2_000_000}]),
    chat(messages=[{"role": "user", "name": "a" * LARGE, "content": "a"}]),
    nested("properties", 2_000),
    nested("anyOf", 2_000),
    nested("properties", DEPTH // 4),
    schema({"enum": ["x" * 10] * LARGE}),
    schema({"$ref": "#"}),
    schema({"$ref": "http://127.0.0.1:1/x"}),
    chat(grammar="start: " + "(" * 5000 + '"a"' + ")" * 5000),
]

# Well-formed, and bounded by the limit of the completion.
ENDLESS = [
    chat(max_tokens=10**30),
    schema({"type": "string", "pattern": "(a{1,1000}){1,1000}"}),
    schema({"type": "string", "minLength": 10**9}),
    schema({"type": "array", "minItems": 10**9, "items": {"type": "integer"}}),
]

ABSURD_PROMPTS = [
    {"prompt": [1] * LARGE},
    {"prompt": [[1]] * LARGE},
    {"prompt": [10**30]},
    {"prompt": [[-(10**30)]]},
    {"prompt": "a" * 4_000_000},
    {"prompt": "a", "best_of": 10**9},
    {"prompt": "a", "logprobs": {"a": [1]}},
    {"prompt": ["a"] * 64, "max_tokens": -1},
]


@pytest.fixture
async def served(provider):
    async with served_on_socket(provider) as served:
        yield served
        response = await served.client.post("/v1/chat/completions", json=chat_body(max_tokens=1))
        assert response.status_code == 200, "whatever was sent before, it serves"


@pytest.mark.parametrize("path", PATHS)
async def test_json_that_is_none_or_has_no_end_is_400(served, path):
    for body in BROKEN:
        response = await served.client.post(path, content=body)
        assert response.status_code in (400, 404), (body[:40], response.text[:300])
        assert len(response.text) < 1000, "the fault is named, not repeated"


async def test_absurd_fields_are_400(served):
    for body in ABSURD:
        response = await served.client.post("/v1/chat/completions", content=body)
        assert response.status_code in (400, 413), (body[:40], body[-60:], response.text[:300])
        assert len(response.text) < 2000


async def test_what_asks_for_no_end_ends_at_the_limit(served):
    for body in ENDLESS:
        response = await served.client.post("/v1/chat/completions", content=body)
        assert response.status_code in (200, 400), (body[-60:], response.text[:300])


async def test_absurd_prompts_are_400(served):
    for fields in ABSURD_PROMPTS:
        response = await served.client.post("/v1/completions", json={"model": PRICED, **fields})
        assert response.status_code == 400, (repr(fields)[:40], response.text[:300])
        assert len(response.text) < 1000


async def test_absurd_inputs_are_400(served):
    for value in ([1] * LARGE, [[1]] * LARGE, [10**30], [[-(10**30)]], "a" * 4_000_000, ["a"] * LARGE, [[[1]]], {}):
        response = await served.client.post("/v1/embeddings", json={"model": PRICED, "input": value})
        assert response.status_code == 400, (repr(value)[:40], response.text[:300])
        assert len(response.text) < 1000


async def test_a_key_in_bytes_that_are_no_text_is_401(served):
    for value in (b"Bearer \xff\xfe", b"Bearer " + b"a" * 20_000, b"\xc3\xa9 x"):
        response = await served.client.get("/v1/models", headers=[(b"authorization", value)])
        assert response.status_code == 401


async def test_paths_that_are_none_are_404(served):
    async with raw_client(served.port) as client:
        for path in ("/%ff%fe", "/../../etc/passwd", "//", "/v1/models/%00", "/v1/models/" + "a" * 5000, "/%2e%2e/"):
            await client.send(head(None, path, "GET"))
            status, _, _ = await client.answer()
            assert status in (401, 404), path
