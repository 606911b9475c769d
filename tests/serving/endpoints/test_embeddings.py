"""`POST /v1/embeddings`: vectors of what was sent, of length 1, for the price of the input."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Callable
from typing import Any

import httpx
import httpx2
import numpy as np
import openai
import pytest

from inferd.engine import engine as engine_module
from inferd.engine.embeddings.core import EmbeddingCore
from tests import fake_embedder
from tests.fake_embedder import FakeEmbedder
from tests.fakes import BEGIN, FakeClock
from tests.server.transport.test_server import served_on_socket
from tests.serving.batches.customer import Customer
from tests.serving.provider import (
    FREE,
    INPUT_NANOUSD,
    MAX_CONTEXT,
    PRICED,
    TIMED,
    Provider,
    running_provider,
)

pytestmark = pytest.mark.anyio
N_UBATCH = 64


async def post(provider: Provider, **fields: Any) -> httpx.Response:
    return await provider.client.post("/v1/embeddings", json={"model": PRICED, "input": "hello"} | fields)


def vectors_of(response: httpx.Response) -> list[list[float]]:
    assert response.status_code == 200, response.text
    data = response.json()["data"]
    assert [one["index"] for one in data] == list(range(len(data)))
    return [one["embedding"] for one in data]


async def test_embedding_has_openais_shape_and_bills_its_input(provider):
    response = await post(provider)
    body = response.json()
    assert vectors_of(response)[0] == FakeEmbedder.vector([BEGIN, *b"hello"]).tolist()
    usage = {"prompt_tokens": 6, "total_tokens": 6, "cost": "0.000000012"}
    assert body == {"object": "list", "model": PRICED, "data": body["data"], "usage": usage}
    assert body["data"][0].keys() == {"object", "index", "embedding"}
    row = provider.usage_row()
    assert row["request_id"] == response.headers["x-request-id"]
    assert (row["prompt_tokens"], row["cached_tokens"], row["completion_tokens"]) == (6, 0, 0)
    assert row["cost_nanousd"] == 6 * INPUT_NANOUSD
    assert provider.runner.rows_per_step == [], "no token was generated"


async def test_embedding_of_text_adds_the_vocabularys_tokens_and_of_token_ids_none(provider):
    for given, inputs in (
        ("hé", [[BEGIN, *"hé".encode()]]),
        ("<|end|>", [[BEGIN, *b"<|end|>"]]),
        (["a", "bc"], [[BEGIN, 97], [BEGIN, 98, 99]]),
        ([97, 98], [[97, 98]]),
        ([[97], [98, 99]], [[97], [98, 99]]),
    ):
        found = vectors_of(await post(provider, input=given))
        assert np.allclose(found, [FakeEmbedder.vector(token_ids) for token_ids in inputs], atol=1e-6)


async def test_embedding_inputs_share_one_hold(provider):
    """R4."""
    response = await post(provider, input=[f"text {number}" for number in range(300)])
    assert len(vectors_of(response)) == 300
    assert len(provider.rows("holds")) == len(provider.rows("usage")) == 1
    (hold,) = provider.rows("holds")
    assert hold["amount_nanousd"] == provider.usage_row()["cost_nanousd"], "the input is known: it holds what it costs"


async def test_embedding_base64_is_little_endian_and_cut_dimensions_have_length_one(provider):
    whole = np.array(vectors_of(await post(provider))[0])
    (encoded,) = vectors_of(await post(provider, encoding_format="base64"))
    assert np.frombuffer(base64.b64decode(encoded), dtype="<f4").tolist() == whole.tolist()
    (short,) = vectors_of(await post(provider, dimensions=3))
    assert short == pytest.approx(whole[:3] / np.linalg.norm(whole[:3]))
    assert vectors_of(await post(provider, dimensions=FakeEmbedder.embedding_size))[0] == whole.tolist()
    assert np.linalg.norm(whole) == pytest.approx(1)


REFUSED: list[tuple[dict[str, Any], str, str]] = [
    ({"input": ""}, "invalid_value", "input"),
    ({"input": []}, "invalid_value", "input"),
    ({"input": ["a", ""]}, "invalid_value", "input[1]"),
    ({"input": [[1], []]}, "invalid_value", "input[1]"),
    ({"input": ["a", 1]}, "invalid_value", "input"),
    ({"input": [258]}, "invalid_value", "input"),
    ({"input": [[1], [-1]]}, "invalid_value", "input[1]"),
    ({"input": ["a"] * 2049}, "invalid_value", "input"),
    ({"input": None}, "invalid_type", "input"),
    ({"input": ["ok", "a" * MAX_CONTEXT]}, "context_length_exceeded", "input[1]"),
    ({"input": [1] * (MAX_CONTEXT + 1)}, "context_length_exceeded", "input"),
    ({"dimensions": 0}, "invalid_value", "dimensions"),
    ({"dimensions": FakeEmbedder.embedding_size + 1}, "invalid_value", "dimensions"),
    ({"encoding_format": "int8"}, "invalid_value", "encoding_format"),
    ({"user": "a" * 513}, "invalid_value", "user"),
    ({"model": ""}, "invalid_value", "model"),
    ({"dimensons": 2}, "unknown_parameter", "dimensons"),
]


async def test_embedding_with_a_wrong_field_is_refused_without_a_hold(provider):
    for fields, code, param in REFUSED:
        response = await post(provider, **fields)
        error = response.json()["error"]
        assert (response.status_code, error["code"], error["param"]) == (400, code, param)
    assert provider.rows("holds") == []


async def test_embedding_input_may_fill_the_context(provider):
    assert (await post(provider, input=[1] * MAX_CONTEXT)).json()["usage"]["prompt_tokens"] == MAX_CONTEXT


async def test_embedding_needs_scope_and_credit(tmp_path, monkeypatch):
    async with running_provider(tmp_path, monkeypatch, credit_nanousd=6 * INPUT_NANOUSD) as provider:
        assert (await post(provider, input="hello!")).status_code == 402
        assert (await post(provider)).status_code == 200, "to the last nano-dollar"
        assert (await post(provider)).status_code == 402
        free = await post(provider, model=FREE)
        assert free.json()["usage"]["cost"] == "0.000000000"
        assert (await post(provider, model="local/nothing")).status_code == 404
        for key, status in (
            ("", 401),
            (provider.new_key("acme", scopes=("usage",)), 403),
            (provider.new_key("acme", models=(FREE,)), 403),
        ):
            headers = {"authorization": f"Bearer {key}"}
            body = {"model": PRICED, "input": "a"}
            assert (await provider.client.post("/v1/embeddings", json=body, headers=headers)).status_code == status


async def test_embedding_by_time_shows_its_compute_time(provider):
    provider.grant(10**9)
    assert "compute_ms" in (await post(provider, model=TIMED)).json()["usage"]


@pytest.fixture
async def timed(tmp_path, monkeypatch):
    """A token takes a millisecond of compute; a request may have 200."""
    clock = FakeClock()

    def embeddings(is_alone: Callable[[], bool], **options: Any) -> EmbeddingCore:
        embedder = FakeEmbedder(clock=clock, row_ms=1.0, **options)
        return EmbeddingCore(lambda: embedder, clock, max_step_ms=50.0, is_alone=is_alone)

    monkeypatch.setattr(fake_embedder, "fake_embeddings", embeddings)
    monkeypatch.setattr(engine_module, "SPEED_INTERVAL_S", 0.0)
    async with running_provider(tmp_path, monkeypatch, credit_nanousd=10**9) as provider:
        object.__setattr__(provider.router.find(TIMED), "max_compute_ms", 200)
        yield provider


def inputs(*lengths: int) -> list[list[int]]:
    return [[7] * length for length in lengths]


async def test_embedding_above_its_compute_limit_is_charged_the_limit(timed):
    """R14: nothing was measured before, so that it is admitted."""
    response = await post(timed, model=TIMED, input=inputs(100, 100, 100))
    assert len(vectors_of(response)) == 3
    assert response.json()["usage"]["compute_ms"] == 200
    row = timed.usage_row()
    assert (row["status"], row["prompt_tokens"], row["compute_ms"]) == ("completed", 300, 200)
    assert row["cost_nanousd"] == 200 * 1000
    timed.assert_books_closed()


async def test_embedding_above_twice_its_compute_limit_fails_and_is_charged_the_limit(timed):
    """R14."""
    response = await post(timed, model=TIMED, input=inputs(*[100] * 10))
    assert (response.status_code, response.json()["error"]["code"]) == (400, "max_compute_exceeded")
    assert "200 ms were billed" in response.json()["error"]["message"]
    row = timed.usage_row()
    assert (row["status"], row["finish_reason"], row["compute_ms"]) == ("completed", "length", 200)
    assert 400 < row["prompt_tokens"] < 600
    assert row["cost_nanousd"] == 200 * 1000
    timed.assert_books_closed()


async def test_embedding_expected_above_its_compute_limit_is_refused(timed):
    """R14: with the number of inputs that fit."""
    assert (await post(timed, model=TIMED, input=inputs(100))).status_code == 200
    refused = await post(timed, model=TIMED, input=inputs(50, 100, 50, 1, 9))
    assert (refused.status_code, refused.json()["error"]["code"]) == (400, "max_compute_exceeded")
    assert "about 210 ms" in refused.json()["error"]["message"]
    assert "at most the first 3" in refused.json()["error"]["message"]
    assert (await post(timed, model=TIMED, input=inputs(50, 100, 50))).json()["usage"]["compute_ms"] == 200
    assert "Shorten the first" in (await post(timed, model=TIMED, input=inputs(201))).json()["error"]["message"]
    for model in (PRICED, FREE):
        assert (await post(timed, model=model, input=inputs(150, 150))).status_code == 200, "not by time"
    assert len(timed.rows("usage")) == 4
    timed.assert_books_closed()


async def test_embedding_line_above_twice_its_compute_limit_is_refused_unbilled(timed):
    """R14, R23"""
    customer = Customer(timed)
    body = {"model": TIMED, "input": inputs(*[100] * 10)}
    async with timed.batching():
        batch = await customer.create(
            [{"custom_id": "a", "method": "POST", "url": "/v1/embeddings", "body": body}], endpoint="/v1/embeddings"
        )
        batch = await customer.until(batch["id"], "completed")
    response = (await customer.lines_of(batch["error_file_id"]))["a"]["response"]
    assert (response["status_code"], response["body"]["error"]["code"]) == (400, "max_compute_exceeded")
    assert "Nothing was billed" in response["body"]["error"]["message"]
    assert timed.usage_row()["cost_nanousd"] == 0
    timed.assert_books_closed()


async def test_embedding_step_that_fails_is_a_500_unbilled(provider, monkeypatch):
    monkeypatch.setattr(FakeEmbedder, "compute", lambda self, chunks: None)
    response = await post(provider)
    assert response.status_code == 500
    assert "not billed" in response.json()["error"]["message"]
    await provider.idle()
    assert provider.usage_row()["cost_nanousd"] == 0


async def test_embeddings_and_text_of_one_model_run_at_once(provider):
    chats = [provider.chat(max_tokens=20) for _ in range(4)]
    answers = await asyncio.gather(*chats, *(post(provider, input=["a" * 200] * 20) for _ in range(3)))
    assert [answer.status_code for answer in answers] == [200] * 7


async def test_embedding_model_refuses_text(tmp_path, monkeypatch):
    async with running_provider(tmp_path, monkeypatch, is_causal=False) as provider:
        assert len(vectors_of(await post(provider, input=["a", "bcd"]))) == 2
        too_long = await post(provider, input=["a" * (N_UBATCH - 1), "a" * N_UBATCH])
        assert (too_long.json()["error"]["code"], too_long.json()["error"]["param"]) == (
            "context_length_exceeded",
            "input[1]",
        )
        message = {"role": "user", "content": "hello"}
        for path, fields in (
            ("/v1/chat/completions", {"messages": [message]}),
            ("/v1/completions", {"prompt": "hello"}),
            ("/tokenize", {"messages": [message]}),
        ):
            response = await provider.client.post(path, json={"model": PRICED, **fields})
            assert (response.status_code, response.json()["error"]["code"]) == (400, "model_not_supported")
            assert "/v1/embeddings" in response.json()["error"]["message"]
        tokens = await provider.client.post("/tokenize", json={"model": PRICED, "content": "a"})
        assert tokens.json()["tokens"] == [97]


async def test_embedding_hang_up_is_billed_for_computed_inputs(provider, monkeypatch):
    gate = asyncio.Event()
    loop = asyncio.get_running_loop()
    step = EmbeddingCore.step

    def slow(self: EmbeddingCore) -> None:
        step(self)
        loop.call_soon_threadsafe(gate.set)

    monkeypatch.setattr(EmbeddingCore, "step", slow)
    task = asyncio.create_task(post(provider, input=[[7] * 200] * 2000))
    await gate.wait()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await provider.idle()
    row = provider.usage_row()
    assert row["status"] in ("cancelled", "completed")
    assert row["cost_nanousd"] == row["prompt_tokens"] * INPUT_NANOUSD


async def test_embedding_by_the_openai_sdk_over_a_socket(provider):
    async with served_on_socket(provider) as served:
        client = openai.AsyncOpenAI(
            api_key=provider.key, base_url=f"http://127.0.0.1:{served.port}/v1", http_client=httpx2.AsyncClient()
        )
        async with client:
            answer = await client.embeddings.create(model=PRICED, input=["hello", "there"])
            plain = await client.embeddings.create(
                model=PRICED, input="hello", encoding_format="float", dimensions=4, user="u"
            )
    assert np.allclose(answer.data[0].embedding, FakeEmbedder.vector([BEGIN, *b"hello"]))
    assert (answer.usage.prompt_tokens, answer.usage.total_tokens) == (12, 12)
    assert len(plain.data[0].embedding) == 4
