"""Bodies that no honest client sends, over a real socket: each is a clear 4xx, at once, and the server is unharmed."""

from __future__ import annotations

import itertools
import json
import re
from typing import Any

import pytest

from inferd.instants import wall_clock_ms
from inferd.ledger import operations
from inferd.server.app import ROUTES
from inferd.server.openapi import SHAPES
from inferd.server.transport.body import MAX_BODY_BYTES
from tests.server.raw_client import head, raw_client
from tests.server.transport.test_server import served_on_socket
from tests.serving.provider import FREE, PRICED, chat_body

pytestmark = pytest.mark.anyio

PATHS = sorted({path for method, path in SHAPES if method == "POST" and not path.startswith("/admin")})
DEPTH = 100_000
LARGE = 300_000


def chat(**fields: Any) -> bytes:
    return json.dumps(chat_body(**fields)).encode()


def schema(value: Any, *, strict: bool = False) -> bytes:
    named = {"name": "x", "schema": value, "strict": strict}
    return chat(response_format={"type": "json_schema", "json_schema": named})


def nested(kind: str, depth: int) -> bytes:
    """Return a schema of `depth` levels, without json.dumps, which recurses."""
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
    b'{"model": "local/tiny", "model": 5}',
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
    chat(**{f"field_{n}": "x" for n in range(LARGE // 10)}),
    chat(user="a" * LARGE),
    chat(model="a" * LARGE),
    chat(messages=[]),
    chat(messages=[{"role": "user", "content": ""}] * LARGE),
    chat(messages=[{"role": "user", "content": [{"type": "text", "text": ""}] * LARGE}]),
    chat(messages=[{"role": "user", "content": "a" * 2_000_000}]),
    nested("properties", 2_000),
    nested("anyOf", 2_000),
    nested("properties", DEPTH // 4),
    schema({"enum": ["x" * 10] * LARGE}, strict=True),
    schema({"$ref": "#"}, strict=True),
    schema({"$ref": "http://127.0.0.1:1/x"}, strict=True),
    chat(grammar="start: " + "(" * 5000 + '"a"' + ")" * 5000),
]

# Well-formed, and bounded by the limit of the completion.
ENDLESS = [
    chat(max_tokens=10**30),
    schema({"type": "string", "pattern": "(a{1,1000}){1,1000}"}),
    schema({"type": "string", "minLength": 10**9}),
    schema({"enum": ["x" * 10] * LARGE}),
    schema({"$ref": "#"}),
    schema({"$ref": "http://127.0.0.1:1/x"}),
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
    {"prompt": ["a"] * 64, "max_tokens": 0},
]


CHANGING = sorted((method, route.path) for route in ROUTES for method in (route.methods or set()) - {"GET", "HEAD"})
UNREAD = {f"/api/{name}" for name in ("blobs/{digest}", "copy", "create", "delete", "pull", "push")}
"""Operations that are refused before their body is read."""
READING = sorted(route.path for route in ROUTES if "GET" in (route.methods or set()))
UNREADABLE = [
    b"",
    b"{",
    b"[]",
    b"\xff\xfe{}",
    b'{"reason": "\\ud800"}',
    b'{"a":' * DEPTH,
    b'{"a": NaN}',
    b'{"surprise": 1}',
]

ABSURD_ADMIN: list[tuple[str, str, dict[str, Any]]] = [
    ("POST", "/admin/teams", {"team": "a" * LARGE}),
    ("POST", "/admin/teams", {"team": "a\0b"}),
    ("POST", "/admin/teams", {"team": "other", "plan": "p" * LARGE}),
    ("POST", "/admin/teams/other/projects", {"project": "../" * LARGE}),
    ("POST", "/admin/teams/other/users", {"user": "a" * LARGE}),
    ("PATCH", "/admin/teams/other/users/ann", {"concurrency": 10**30}),
    ("POST", "/admin/teams/other/suspend", {"reason": "a" * LARGE}),
    ("POST", "/admin/teams/other/suspend", {"reason": "a\0b"}),
    ("POST", "/admin/teams/other/keys", {"scopes": ["usages"] * LARGE}),
    ("POST", "/admin/teams/other/keys", {"models": ["a" * 100] * (LARGE // 10)}),
    ("POST", "/admin/teams/other/keys", {"name": "a" * LARGE}),
    ("POST", "/admin/teams/other/keys", {"expires_at": "9" * LARGE}),
    ("PUT", "/admin/teams/other/budgets", {"amount_usd": "9" * LARGE, "period": "month"}),
    ("PUT", "/admin/teams/other/budgets", {"amount_usd": "1e999999", "period": "month"}),
    ("PUT", "/admin/teams/other/budgets", {"amount_usd": "0." + "0" * LARGE + "1", "period": "month"}),
    ("PUT", "/admin/teams/other/budgets", {"amount_usd": "9" * 19, "period": "month"}),
    ("PUT", "/admin/teams/other/budgets", {"amount_usd": "1", "period": "p" * LARGE}),
    ("POST", "/admin/teams/other/credits/grants", {"amount_usd": "-1"}),
    ("POST", "/admin/teams/other/credits/grants", {"amount_usd": "1", "priority": 10**30}),
    ("POST", "/admin/teams/other/credits/grants", {"amount_usd": "1", "note": "a" * LARGE}),
    ("POST", "/admin/teams/other/credits/grants", {"amount_usd": "1", "expires_at": "99999-01-01"}),
    ("POST", "/admin/teams/other/raises", {"amount_usd": "1", "from": "2026-01-01", "until": "x", "reason": "r"}),
    ("POST", "/admin/teams/other/statements/9999-99/payments", {"amount_usd": "1"}),
]

QUERIES = [
    "after=%ff%fe",
    "after=%00",
    "after=" + "a" * 8000,
    "limit=" + "9" * 8000,
    "limit=-1",
    "limit=%D9%A3",
    "start_time=" + "9" * 8000,
    "start_time=99999999999999",
    "start_time=1&end_time=9007199254740992&bucket_width=1m",
    "start_time=1&" + "&".join(["group_by=model"] * 1000),
    "start_time=1&page=" + "A" * 4000,
    "before=" + "9" * 30,
    "since=" + "9" * 8000,
    "&".join(f"x{n}=1" for n in range(2000)),
    "a" * 8000,
    "%",
]


@pytest.fixture
async def served(provider):
    async with served_on_socket(provider) as served:
        yield served
        headers = {"authorization": f"Bearer {provider.new_key('after')}"}  # whose requests a minute are left
        response = await served.client.post(
            "/v1/chat/completions", json=chat_body(model=FREE, max_tokens=1), headers=headers
        )
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


@pytest.fixture
def operator(provider):
    """Return headers of a key with all scopes."""
    provider.new_key("other")
    with provider.store.immediate() as conn:
        operations.create_member(conn, "user", "other", "ann", by=operations.Author("test", wall_clock_ms()))
    key = provider.new_key("acme", scopes=("inference", "usage", "manage", "admin"))
    return {"authorization": f"Bearer {key}", "idempotency-key": "once"}


def plain(path: str) -> str:
    """Return the path with a value for each parameter, and another team than the caller's."""
    return re.sub(r"\{(\w+)(:path)?\}", lambda part: {"team": "other"}.get(part[1], "nothing"), path)


async def test_a_body_that_cannot_be_read_is_a_4xx_on_every_route(served, operator):
    for (method, path), body in itertools.product(CHANGING, UNREADABLE):
        response = await served.client.request(method, plain(path), content=body, headers=operator)
        if response.status_code == 501:
            assert path in UNREAD, path
            continue
        told = (method, path, body[:40], response.text[:300])
        # An empty body stands for {} in the admin API, and some routes read none.
        assert 400 <= response.status_code < 500 or (response.status_code == 200 and body == b""), told
        assert len(response.text) < 1500 or response.status_code == 200, told


async def test_a_body_that_is_too_large_is_a_4xx_on_every_route_before_it_comes(served, operator):
    # A file is 413 by its own limit: see test_files.py.
    headers = {name.replace("-", "_"): value for name, value in operator.items()}
    for method, path in CHANGING:
        length = MAX_BODY_BYTES + 1 if path != "/v1/files" else 10**12
        async with raw_client(served.port) as client:
            await client.send(head(None, plain(path), method, content_length=length, connection="close", **headers))
            status, _, _ = await client.answer()
            refusals = (501,) if path in UNREAD else (413, 404, 409) if "{" in path else (413,)
            assert status in refusals, (method, path, status)


async def test_absurd_fields_of_the_admin_api_are_4xx(served, operator):
    for method, path, fields in ABSURD_ADMIN:
        response = await served.client.request(method, path, json=fields, headers=operator)
        told = (path, repr(fields)[:60], response.text[:300])
        assert response.status_code in (400, 404, 409), told
        assert len(response.text) < 1500, told


async def test_absurd_queries_are_4xx_or_ignored(served, operator):
    for path, query in itertools.product(READING, QUERIES):
        response = await served.client.get(f"{plain(path)}?{query}", headers=operator)
        told = (path, query[:60], response.text[:300])
        assert response.status_code < 500, told
        assert response.is_success or len(response.text) < 1500, told


async def test_absurd_headers_are_4xx_or_ignored(served, operator):
    for name, value in (
        (b"openai-project", b"\xff\xfe"),
        (b"openai-project", b"a/" * 5000),
        (b"x-session-affinity", b"\xff" * 5000),
        (b"x-prompt-cache-isolation-key", b"a" * 20_000),
        (b"x-request-id", b"\xff" * 5000),
        (b"x-client-request-id", b"\xff" * 5000),
        (b"content-type", b"\xff"),
        (b"content-encoding", b"gzip"),
        (b"accept-encoding", b"\xff"),
        (b"anthropic-version", b"\xff"),
        (b"idempotency-key", b"\xff" * 5000),
        (b"range", b"bytes=" + b"0-1," * 5000),
    ):
        for path, body in (
            ("/v1/chat/completions", chat_body(max_tokens=1)),
            ("/v1/messages", chat_body(max_tokens=1)),
        ):
            headers = [(b"authorization", operator["authorization"].encode()), (name, value)]
            response = await served.client.post(path, json=body, headers=headers)
            assert response.status_code < 500, (name, response.text[:300])


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
