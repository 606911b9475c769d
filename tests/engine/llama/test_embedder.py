"""Vectors of real contexts: a tiny BERT, every kind of memory, and the demo model, where they mean something."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import gguf
import numpy as np
import pytest

from inferd.config import ModelConfig
from inferd.deployments.local_replica import LocalReplica
from inferd.engine.compute_turn import ComputeTurn
from inferd.engine.embeddings.core import EmbeddingCore
from inferd.engine.embeddings.embedder import EmbeddingChunk
from inferd.engine.embeddings.pooling import Pooling
from inferd.engine.llama.embedder import LlamaEmbedder
from inferd.engine.llama.loading import load_model
from inferd.engine.llama.model import Model
from inferd.engine.messages import EmbedRequest, FinishReason
from tests.engine.llama.tiny_bert import CLS, N_CTX, N_EMBD, SEP, write_bert
from tests.engine.llama.tiny_models import N_VOCAB, WRITERS, write_plain


def embedder_of(model: Model, n_ubatch: int = 64, max_tokens: int | None = None) -> LlamaEmbedder:
    max_tokens = max_tokens or (128 if model.is_causal else n_ubatch)
    return LlamaEmbedder(model, max_tokens=max_tokens, n_ubatch=n_ubatch, n_threads=1)


def vectors(embedder: LlamaEmbedder, *requests: tuple[tuple[int, ...], ...]) -> list[np.ndarray]:
    """Of all inputs, in order."""
    core = EmbeddingCore(lambda: embedder, max_step_ms=100.0)
    for number, inputs in enumerate(requests):
        core.add_request(EmbedRequest(f"{number:03}", inputs, "acme"))
    while core.has_work:
        core.step()
    outputs = sorted(core.take_outputs(), key=lambda output: output.request_id)
    assert {output.finish_reason for output in outputs} == {FinishReason.STOP}
    return [vector for output in outputs for vector in output.embeddings]


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Model]:
    path = tmp_path_factory.mktemp("models") / "bert.gguf"
    write_bert(path)
    model = load_model(path, n_gpu_layers=0)
    yield model
    model.close()


def test_a_bert_is_known_for_what_it_is(bert):
    assert (bert.is_causal, bert.is_for_embeddings, bert.pooling) == (False, True, Pooling.CLS)
    assert (bert.embedding_size, bert.chat_template) == (N_EMBD, None)
    assert bert.vocabulary.encode_document("The cat") == [CLS, 5, 6, SEP]
    assert SEP not in bert.vocabulary.encode_document("cat [SEP] cat")[1:-1], "a text is no control token"


def test_inputs_of_a_bert_that_share_a_step_do_not_see_each_other(bert):
    cat, dog, long = (CLS, 5, 6, 7, SEP), (CLS, 5, 8, 9, SEP), (CLS, *range(10, 50), SEP)
    embedder = embedder_of(bert)
    alone = [vectors(embedder, (one,))[0] for one in (cat, dog, long)]
    assert np.allclose(vectors(embedder, (cat, dog, long), (dog,)), [*alone, alone[1]], atol=1e-5)
    assert not np.allclose(alone[0], alone[1], atol=1e-3)
    assert np.linalg.norm(alone, axis=1) == pytest.approx(1, abs=1e-5)
    last_changed = vectors(embedder, ((CLS, 5, 6, 9, SEP),))[0]
    assert not np.allclose(alone[0], last_changed, atol=1e-3), "the first token sees what comes after it"
    embedder.close()


def test_an_input_as_long_as_a_bert_takes_and_one_row_of_it(bert):
    embedder = embedder_of(bert, n_ubatch=N_CTX)
    assert len(vectors(embedder, (tuple([5] * N_CTX), (6,)))) == 2
    embedder.close()


@pytest.mark.parametrize("kind", ["plain", *WRITERS])
def test_a_long_input_has_the_vector_that_it_has_in_one_step(kind, tmp_path):
    path = tmp_path / f"{kind}.gguf"
    (WRITERS.get(kind) or write_plain)(path)
    model = load_model(path, n_gpu_layers=0)
    tokens = np.random.default_rng(5).integers(3, N_VOCAB, 100)
    long, short = tuple(tokens.tolist()), tuple(tokens[:7].tolist())
    whole, pieces = embedder_of(model, 128), embedder_of(model, 32)
    wanted = vectors(whole, (long,))[0], vectors(whole, (short,))[0]
    found = vectors(pieces, (short, long, short), (short,))
    for vector, index in zip(found, (1, 0, 1, 1), strict=True):
        assert np.allclose(vector, wanted[index], atol=2e-3), f"{np.abs(vector - wanted[index]).max()}"
    assert np.abs(wanted[0] - wanted[1]).max() > 0.02
    whole.close()
    pieces.close()
    model.close()


def test_a_row_is_llama_cpps_own_by_token(bert):
    embedder = embedder_of(bert)
    one = EmbeddingChunk(0, 0, (CLS, 5, SEP))
    rows = embedder.compute([one])
    assert rows.shape == (3, N_EMBD)
    first = rows.copy()
    both = embedder.compute([EmbeddingChunk(1, 0, (CLS, 6, 7, SEP)), one])
    assert np.allclose(both[4:], first, atol=1e-5)
    embedder.close()


def test_the_demo_models_vectors_of_paraphrases_are_nearer_than_of_other_things(model_path):
    model = load_model(model_path, n_gpu_layers=0)
    assert (model.is_causal, model.is_for_embeddings, model.pooling) == (True, False, Pooling.MEAN)
    texts = (
        "The weather is sunny and warm today.",
        "Today it is warm and the sun is shining.",
        "The database index stores rows by their primary key.",
        "Rows are kept in the index of the database by primary key.",
    )
    embedder = embedder_of(model, 256)
    found = vectors(embedder, tuple(tuple(model.vocabulary.encode_document(text)) for text in texts))
    near = np.array(found) @ np.array(found).T
    assert min(near[0, 1], near[2, 3]) > max(near[0, 2], near[0, 3], near[1, 2], near[1, 3])
    embedder.close()
    model.close()


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_bert_is_served_without_a_chat_template(tmp_path: Path, anyio_backend):
    source = tmp_path / "bert.gguf"
    write_bert(source, gguf.PoolingType.MEAN)
    config = ModelConfig("bert", source, str(source), max_context=N_CTX, n_parallel=2, n_ubatch=64, n_threads=1)
    replica = LocalReplica(config, ComputeTurn())
    await replica.start()
    assert (replica.makes_text, replica.chats, replica.max_embedding_tokens) == (False, False, 64)
    inputs = tuple(tuple(replica.tokenizer.encode_document(text)) for text in ("the cat", "the dog ran"))
    output = await replica.submit(EmbedRequest("r", inputs, "acme")).forward(lambda _: None)
    assert output.embeddings.shape == (2, N_EMBD)
    assert output.usage.prompt_tokens == 4 + 5
    await replica.stop()
