"""`POST /v1/rerank` and `/classify`: scores of pairs and texts, for the price of what was computed."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator
from typing import Any

import httpx
import numpy as np
import pytest

from inferd.engine.embeddings.core import EmbeddingCore
from inferd.engine.embeddings.head import ClassificationHead
from inferd.serving.endpoints import rerank as rerank_endpoint
from tests.fake_embedder import FakeEmbedder
from tests.fakes import BEGIN, END
from tests.serving.provider import FREE, INPUT_NANOUSD, MAX_CONTEXT, PRICED, TIMED, Provider, running_provider

pytestmark = pytest.mark.anyio
RERANKER = ClassificationHead(("LABEL_0",), is_softmax=False)
CLASSIFIER = ClassificationHead(("joy", "anger", "fear"), is_softmax=False)
QUERY = "cat"
DOCUMENTS = ["a dog", "the cat", "nothing", "cats"]
NUM_TOKENS = sum(len(document) + 5 for document in DOCUMENTS)


@pytest.fixture
async def reranker(tmp_path, monkeypatch) -> AsyncIterator[Provider]:
    async with running_provider(tmp_path, monkeypatch, head=RERANKER) as provider:
        yield provider


async def post(provider: Provider, path: str = "/v1/rerank", **fields: Any) -> httpx.Response:
    body = {"model": PRICED, "query": QUERY, "documents": DOCUMENTS} | fields
    return await provider.client.post(path, json=body)


def logit(document: str, query: str = QUERY) -> float:
    return float(FakeEmbedder.row([BEGIN, *query.encode(), END, *document.encode()])[0])


def sigmoid(value: float) -> float:
    return 1.0 / (1.0 + math.exp(-value))


@pytest.mark.parametrize("path", ["/v1/rerank", "/rerank", "/v2/rerank"])
async def test_rerank_answers_in_the_shapes_of_jina_and_cohere_and_bills_every_pair(reranker, path):
    response = await post(reranker, path)
    body = response.json()
    order = sorted(range(4), key=lambda index: -logit(DOCUMENTS[index]))
    assert [result["index"] for result in body["results"]] == order
    assert [result["document"] for result in body["results"]] == [{"text": DOCUMENTS[index]} for index in order]
    scores = [result["relevance_score"] for result in body["results"]]
    assert scores == pytest.approx([sigmoid(logit(DOCUMENTS[index])) for index in order], abs=1e-6)
    cost = f"0.{NUM_TOKENS * INPUT_NANOUSD:09d}"
    assert body.keys() == {"id", "object", "model", "results", "usage", "meta"}
    assert (body["id"][:7], body["object"], body["model"]) == ("rerank-", "list", PRICED)
    assert body["usage"] == {"prompt_tokens": NUM_TOKENS, "total_tokens": NUM_TOKENS, "cost": cost}
    assert body["meta"] == {
        "billed_units": {"input_tokens": NUM_TOKENS, "total_tokens": NUM_TOKENS},
        "tokens": {"input_tokens": NUM_TOKENS},
    }
    (hold,) = reranker.rows("holds")
    row = reranker.usage_row()
    assert row["request_id"] == response.headers["x-request-id"]
    assert (row["prompt_tokens"], row["completion_tokens"]) == (NUM_TOKENS, 0)
    assert row["cost_nanousd"] == hold["amount_nanousd"] == NUM_TOKENS * INPUT_NANOUSD


async def test_rerank_returns_the_first_and_no_documents_if_asked(reranker):
    best = (await post(reranker)).json()["results"]
    two = (await post(reranker, top_n=2, return_documents=False)).json()
    assert two["results"] == [{key: one[key] for key in ("index", "relevance_score")} for one in best[:2]]
    assert two["usage"]["prompt_tokens"] == NUM_TOKENS, "all documents are scored"
    assert len((await post(reranker, top_n=0)).json()["results"]) == 4, "vLLM's default"
    assert len((await post(reranker, top_n=99)).json()["results"]) == 4


async def test_rerank_of_objects_returns_them_as_they_came(reranker):
    documents = [{"text": "a dog", "id": 7}, {"title": "the", "text": "cat"}]
    results = (await post(reranker, documents=documents, rank_fields=["title", "text"])).json()["results"]
    assert sorted(results, key=lambda one: one["index"])[1] == {
        "index": 1,
        "relevance_score": pytest.approx(sigmoid(logit("the\ncat"))),
        "document": documents[1],
    }


@pytest.mark.parametrize("fields", [{"raw_scores": True}, {"use_activation": False}])
async def test_rerank_returns_raw_scores_if_asked(reranker, fields):
    results = (await post(reranker, **fields)).json()["results"]
    assert {one["index"]: one["relevance_score"] for one in results} == {
        index: pytest.approx(logit(document)) for index, document in enumerate(DOCUMENTS)
    }


async def test_rerank_by_probabilities_returns_them_as_they_are(tmp_path, monkeypatch):
    head = ClassificationHead(("yes", "no"), is_softmax=True)
    async with running_provider(tmp_path, monkeypatch, head=head) as provider:
        results = (await post(provider, documents=["a dog"])).json()["results"]
        assert results[0]["relevance_score"] == pytest.approx(logit("a dog"))


async def test_rerank_cuts_long_documents_and_says_so(reranker):
    long = "x" * MAX_CONTEXT
    body = (await post(reranker, documents=["a dog", long])).json()
    room = MAX_CONTEXT - len(QUERY) - 2
    assert body["usage"]["prompt_tokens"] == 10 + MAX_CONTEXT
    scores = {one["index"]: one["relevance_score"] for one in body["results"]}
    assert scores[1] == pytest.approx(sigmoid(logit("x" * room)))
    assert body["meta"]["warnings"] == ["1 of 2 documents were too long; only their first tokens were scored."]
    few = (await post(reranker, documents=["a dog", long], max_tokens_per_doc=3)).json()
    assert few["usage"]["prompt_tokens"] == 2 * (len(QUERY) + 2 + 3)
    pairs = (await post(reranker, documents=[long], truncate_prompt_tokens=20)).json()
    assert pairs["usage"]["prompt_tokens"] == 20


async def test_rerank_without_truncation_refuses_a_long_document(reranker):
    response = await post(reranker, documents=["a", "x" * MAX_CONTEXT], truncation=False)
    error = response.json()["error"]
    assert (response.status_code, error["code"], error["param"]) == (400, "context_length_exceeded", "documents[1]")
    assert (await post(reranker, truncation=False)).status_code == 200
    assert len(reranker.rows("holds")) == 1


async def test_rerank_with_a_query_that_fills_the_context_is_refused(reranker):
    response = await post(reranker, query="q" * MAX_CONTEXT)
    error = response.json()["error"]
    assert (response.status_code, error["code"], error["param"]) == (400, "context_length_exceeded", "query")


async def test_rerank_of_too_many_tokens_together_is_refused(reranker, monkeypatch):
    monkeypatch.setattr(rerank_endpoint, "MAX_PAIR_TOKENS", 22)
    response = await post(reranker)
    assert (response.status_code, response.json()["error"]["param"]) == (400, "documents")
    assert "at most the first 2 documents" in response.json()["error"]["message"]
    assert (await post(reranker, documents=DOCUMENTS[:2])).status_code == 200


async def test_rerank_names_what_is_ignored(reranker):
    response = await post(reranker, some_client_field=1, max_chunks_per_doc=3)
    assert (response.status_code, response.headers["inferd-ignored"]) == (200, "some_client_field, max_chunks_per_doc")


async def test_rerank_needs_credit_for_every_pair(tmp_path, monkeypatch):
    credit = NUM_TOKENS * INPUT_NANOUSD
    async with running_provider(tmp_path, monkeypatch, head=RERANKER, credit_nanousd=credit) as provider:
        assert (await post(provider, query=QUERY + "s")).status_code == 402, "the query counts with each document"
        assert (await post(provider)).status_code == 200, "to the last nano-dollar"
        assert (await post(provider)).status_code == 402
        assert (await post(provider, model=FREE)).json()["usage"]["cost"] == "0.000000000"


async def test_rerank_by_time_shows_and_bills_its_compute_time(reranker):
    reranker.grant(10**9)
    usage = (await post(reranker, model=TIMED)).json()["usage"]
    assert usage["compute_ms"] == reranker.usage_row()["compute_ms"]


async def test_rerank_step_that_fails_is_a_500_unbilled(reranker, monkeypatch):
    monkeypatch.setattr(FakeEmbedder, "compute", lambda self, chunks: None)
    response = await post(reranker)
    assert response.status_code == 500
    await reranker.idle()
    assert reranker.usage_row()["cost_nanousd"] == 0


async def test_rerank_hang_up_is_billed_for_computed_pairs(reranker, monkeypatch):
    gate = asyncio.Event()
    loop = asyncio.get_running_loop()
    step = EmbeddingCore.step

    def slow(self: EmbeddingCore) -> None:
        step(self)
        loop.call_soon_threadsafe(gate.set)

    monkeypatch.setattr(EmbeddingCore, "step", slow)
    task = asyncio.create_task(post(reranker, documents=["x" * 200] * 1000))
    await gate.wait()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await reranker.idle()
    row = reranker.usage_row()
    assert row["status"] in ("cancelled", "completed")
    assert row["cost_nanousd"] == row["prompt_tokens"] * INPUT_NANOUSD


async def test_rerank_calls_share_steps(reranker, monkeypatch):
    steps: list[int] = []
    compute = FakeEmbedder.compute

    def counted(self: FakeEmbedder, chunks: Any) -> Any:
        steps.append(len(chunks))
        return compute(self, chunks)

    monkeypatch.setattr(FakeEmbedder, "compute", counted)
    alone = (await post(reranker)).json()["results"]
    answers = await asyncio.gather(*(post(reranker) for _ in range(16)))
    assert [answer.json()["results"] for answer in answers] == [alone] * 16
    assert max(steps) > 1
    assert len(steps) < 17 * len(DOCUMENTS)


@pytest.mark.parametrize(
    ("head", "kind", "path"), [(RERANKER, "a reranker", "/v1/rerank"), (CLASSIFIER, "a classifier", "/classify")]
)
async def test_model_for_scores_refuses_text_and_embeddings(tmp_path, monkeypatch, head, kind, path):
    message = {"role": "user", "content": "hello"}
    async with running_provider(tmp_path, monkeypatch, head=head) as provider:
        for other, fields in (
            ("/v1/chat/completions", {"messages": [message]}),
            ("/v1/messages", {"messages": [message], "max_tokens": 2}),
            ("/v1/completions", {"prompt": "hello"}),
            ("/v1/embeddings", {"input": "hello"}),
            ("/tokenize", {"messages": [message]}),
        ):
            response = await provider.client.post(other, json={"model": PRICED, **fields})
            assert response.status_code == 400
            assert f"is {kind} and has no" in response.json()["error"]["message"]
            assert f"POST {path}." in response.json()["error"]["message"]
        listed = (await provider.client.get("/v1/models")).json()["data"][0]
        output = "rerank" if head is RERANKER else "classification"
        assert listed["architecture"]["modality"] == f"text->{output}"
        assert listed["max_tokens"] is None
        shown = (await provider.client.post("/api/show", json={"model": PRICED})).json()
        assert shown["capabilities"] == [output]
        assert provider.rows("holds") == []


@pytest.mark.parametrize(("is_causal", "kind"), [(True, "a chat model"), (False, "an embedding model")])
async def test_other_models_refuse_scores(tmp_path, monkeypatch, is_causal, kind):
    async with running_provider(tmp_path, monkeypatch, is_causal=is_causal) as provider:
        for response in (
            await post(provider),
            await provider.client.post("/classify", json={"model": PRICED, "input": "a"}),
        ):
            assert (response.status_code, response.json()["error"]["code"]) == (400, "model_not_supported")
            assert f"is {kind} and has no" in response.json()["error"]["message"]


async def test_classify_returns_the_label_of_each_input_in_vllms_shape(tmp_path, monkeypatch):
    texts = ["hello", "you"]
    rows = np.stack([FakeEmbedder.row([BEGIN, *text.encode()])[:3] for text in texts]).astype(np.float64)
    probabilities = np.exp(rows) / np.exp(rows).sum(axis=1, keepdims=True)
    async with running_provider(tmp_path, monkeypatch, head=CLASSIFIER) as provider:
        assert (await post(provider)).status_code == 400, "three logits are no relevance"
        response = await provider.client.post("/classify", json={"model": PRICED, "input": texts})
        body = response.json()
        assert body["id"].startswith("classify-")
        assert body["data"] == [
            {
                "index": index,
                "label": CLASSIFIER.labels[int(np.argmax(row))],
                "probs": pytest.approx(row.tolist(), abs=1e-6),
                "num_classes": 3,
            }
            for index, row in enumerate(probabilities)
        ]
        assert body["usage"]["prompt_tokens"] == 10
        assert provider.usage_row()["cost_nanousd"] == 10 * INPUT_NANOUSD
        one = await provider.client.post("/classify", json={"model": PRICED, "input": "hello"})
        assert one.json()["data"] == body["data"][:1]
