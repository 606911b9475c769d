"""Rerankers and classifiers: generated files through real contexts, against a low-level evaluation of llama.cpp."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import gguf
import llama_cpp
import numpy as np
import pytest

from inferd.config import ModelConfig
from inferd.deployments.local_replica import check_model
from inferd.engine.embeddings.core import EmbeddingCore
from inferd.engine.embeddings.pooling import Pooling
from inferd.engine.llama.embedder import LlamaEmbedder
from inferd.engine.llama.loading import load_model
from inferd.engine.llama.model import Model
from inferd.engine.messages import EmbedRequest, FinishReason
from inferd.errors import ConfigError
from inferd.tokenizer import Segment
from tests.engine.llama.tiny_bert import CLS, SEP, write_bert
from tests.engine.llama.tiny_models import write_plain
from tests.engine.llama.tiny_rerankers import (
    LABELS,
    TEMPLATE,
    write_bert_classifier,
    write_bert_reranker,
    write_qwen3_reranker,
)

WRITERS: dict[str, Callable[[Path], None]] = {
    "bert": write_bert_reranker,
    "classifier": write_bert_classifier,
    "qwen3": write_qwen3_reranker,
}
QUERY = "the cat sat"
DOCUMENTS = ("the dog ran", "cat", "a b c", "the cat sat the cat", "")
MAX_TOKENS = 96


@pytest.fixture(scope="module", params=WRITERS)
def model(request, tmp_path_factory) -> Iterator[Model]:
    path = tmp_path_factory.mktemp("models") / f"{request.param}.gguf"
    WRITERS[request.param](path)
    model = load_model(path, n_gpu_layers=0)
    yield model
    model.close()


def outputs(model: Model, *requests: Sequence[tuple[int, ...]], n_ubatch: int = MAX_TOKENS) -> list[np.ndarray]:
    """The head's outputs of all inputs, in order, computed together."""
    embedder = LlamaEmbedder(model, max_tokens=MAX_TOKENS, n_ubatch=n_ubatch, n_threads=1)
    core = EmbeddingCore(lambda: embedder, max_step_ms=100.0)
    for number, inputs in enumerate(requests):
        core.add_request(EmbedRequest(f"{number:03}", tuple(inputs), "acme"))
    while core.has_work:
        core.step()
    found = sorted(core.take_outputs(), key=lambda output: output.request_id)
    core.close()
    assert {output.finish_reason for output in found} == {FinishReason.STOP}
    assert [output.usage.prompt_tokens for output in found] == [sum(map(len, inputs)) for inputs in requests]
    return [row for output in found for row in output.embeddings]


def low_level(model: Model, token_ids: Sequence[int]) -> list[float]:
    """The head's outputs of one input by llama.cpp alone, in a context of its own."""
    params = llama_cpp.llama_context_default_params()
    params.n_ctx = params.n_batch = params.n_ubatch = 256
    params.n_threads = params.n_threads_batch = 1
    params.embeddings, params.pooling_type = True, llama_cpp.LLAMA_POOLING_TYPE_RANK
    context = llama_cpp.llama_init_from_model(model.handle, params)
    batch = llama_cpp.llama_batch_init(256, 0, 1)
    batch.n_tokens = len(token_ids)
    for position, token_id in enumerate(token_ids):
        batch.token[position], batch.pos[position], batch.logits[position] = token_id, position, 1
        batch.n_seq_id[position], batch.seq_id[position][0] = 1, 0
    assert llama_cpp.llama_decode(context, batch) == 0
    found = llama_cpp.llama_get_embeddings_seq(context, 0)[: llama_cpp.llama_model_n_cls_out(model.handle)]
    llama_cpp.llama_batch_free(batch)
    llama_cpp.llama_free(context)
    return found


def pairs_of(model: Model) -> list[tuple[int, ...]]:
    pairs = model.pair_format().of_query(QUERY, MAX_TOKENS)
    return [pairs.pair(document).token_ids for document in DOCUMENTS]


def test_outputs_of_inputs_that_share_steps_are_llama_cpps_of_each_alone(model):
    pairs = pairs_of(model)
    wanted = [low_level(model, pair) for pair in pairs]
    assert np.allclose(outputs(model, pairs, pairs[:2]), [*wanted, *wanted[:2]], atol=2e-3)
    assert np.ptp([row[0] for row in wanted]) > 0.02, "the documents differ"


def test_outputs_of_a_causal_reranker_do_not_depend_on_the_steps(tmp_path):
    write_qwen3_reranker(tmp_path / "qwen3.gguf")
    model = load_model(tmp_path / "qwen3.gguf", n_gpu_layers=0)
    pairs = pairs_of(model)
    assert np.allclose(outputs(model, pairs, n_ubatch=16), outputs(model, pairs), atol=2e-3)
    model.close()


def test_model_with_a_head_is_known_for_what_it_is(model):
    known = (model.pooling, model.makes_text, model.head.ranks, model.head.labels, model.head.is_softmax)
    assert (
        known
        == {
            "bert.gguf": (Pooling.RANK, False, True, ("LABEL_0",), False),
            "classifier.gguf": (Pooling.RANK, False, False, LABELS, False),
            "qwen3.gguf": (Pooling.RANK, False, True, ("yes", "no"), True),
        }[model.path.name]
    )


def test_pair_of_a_bert_is_written_as_llama_server_writes_it(tmp_path):
    write_bert_reranker(tmp_path / "bert.gguf")
    model = load_model(tmp_path / "bert.gguf", n_gpu_layers=0)
    assert model.pair_format().of_query("the cat", 64).pair("the dog ran").token_ids == (CLS, 5, 6, SEP, 5, 8, 9)
    model.close()


def test_pair_of_a_template_has_the_tokens_of_the_whole_text(tmp_path):
    """Tokens merge across the borders of query and document, as llama-server's do."""
    write_qwen3_reranker(tmp_path / "qwen3.gguf")
    model = load_model(tmp_path / "qwen3.gguf", n_gpu_layers=0)
    text = TEMPLATE.replace("{query}", QUERY).replace("{document}", "some Words")
    whole = model.vocabulary.encode([Segment(text, special=True)], add_bos=False)
    pairs = model.pair_format().of_query(QUERY, MAX_TOKENS)
    assert pairs.pair("some Words").token_ids == tuple(whole)
    control = pairs.pair("a<|im_end|>b").token_ids
    assert control.count(2) == 2, "a text is no control token"
    model.close()


def config_of(path: Path) -> ModelConfig:
    return ModelConfig("rank", path, str(path), max_context=64, n_parallel=2, n_ubatch=64, n_threads=1)


REFUSED: dict[str, tuple[Callable[[Path], None], str]] = {
    "head": (lambda path: write_qwen3_reranker(path, has_head=False), "has no classification head"),
    "bert": (lambda path: write_bert(path, gguf.PoolingType.RANK), "has no classification head"),
    "places": (lambda path: write_qwen3_reranker(path, "{query}"), "must have {query}"),
    "separator": (lambda path: write_qwen3_reranker(path, None), "nothing would stand between query and document"),
}


@pytest.mark.parametrize("fault", REFUSED)
def test_reranker_that_cannot_rank_is_refused_at_the_start(fault, tmp_path):
    write, why = REFUSED[fault]
    write(tmp_path / "rank.gguf")
    with pytest.raises(ConfigError, match=why):
        check_model(config_of(tmp_path / "rank.gguf"))


def test_file_without_a_head_and_a_pooling_type_is_no_reranker(tmp_path):
    write_bert(tmp_path / "bert.gguf", None)
    write_plain(tmp_path / "plain.gguf")
    for name in ("bert", "plain"):
        model = load_model(tmp_path / f"{name}.gguf", n_gpu_layers=0, header_only=True)
        assert (model.pooling, model.head) == (Pooling.MEAN, None)
        model.close()


def test_pooling_of_models_toml_replaces_the_files(tmp_path):
    write_bert(tmp_path / "bert.gguf", gguf.PoolingType.MEAN)
    write_plain(tmp_path / "plain.gguf")
    bert = load_model(tmp_path / "bert.gguf", n_gpu_layers=0, header_only=True, pooling="cls")
    plain = load_model(tmp_path / "plain.gguf", n_gpu_layers=0, header_only=True, pooling="last")
    assert (bert.pooling, plain.pooling, plain.is_for_embeddings) == (Pooling.CLS, Pooling.LAST, True)
    bert.close()
    plain.close()
    with pytest.raises(ConfigError, match="has no classification head"):
        load_model(tmp_path / "plain.gguf", n_gpu_layers=0, header_only=True, pooling="rank")
