"""Rerankers of some megabytes with random weights: one like Qwen3's, with a rerank template, and BERTs."""

from __future__ import annotations

from pathlib import Path

import gguf

from tests.engine.llama.tiny_bert import write_bert
from tests.engine.llama.tiny_models import HEAD_SIZE, N_EMBD, N_HEAD, N_HEAD_KV, ModelWriter
from tests.engine.llama.tiny_vocabularies import add_smollm2_tokens, smollm2_tokens

TEMPLATE = (
    "<|im_start|>system\nIs the document about the query? Answer yes or no.<|im_end|>\n"
    "<|im_start|>user\n<Query>: {query}\n<Document>: {document}<|im_end|>\n<|im_start|>assistant\n"
)
LABELS = ("joy", "anger", "fear")


def write_bert_reranker(path: Path) -> None:
    write_bert(path, None, num_labels=1)


def write_bert_classifier(path: Path) -> None:
    write_bert(path, None, num_labels=len(LABELS), labels=LABELS)


def write_qwen3_reranker(
    path: Path, template: str | None = TEMPLATE, *, has_head: bool = True, n_layers: int = 2
) -> None:
    """SmolLM2's vocabulary, whose tokens merge across the borders of query and document."""
    writer = ModelWriter(path, "qwen3", n_layers, add_vocabulary=_add_tokens, num_vocabulary=len(smollm2_tokens()[0]))
    writer.gguf.add_head_count(N_HEAD)
    writer.gguf.add_head_count_kv(N_HEAD_KV)
    writer.gguf.add_key_length(HEAD_SIZE)
    writer.gguf.add_value_length(HEAD_SIZE)
    writer.gguf.add_rope_dimension_count(HEAD_SIZE)
    writer.gguf.add_pooling_type(gguf.PoolingType.RANK)
    writer.gguf.add_classifier_output_labels(["yes", "no"])
    if template is not None:
        writer.gguf.add_chat_template([{"name": "rerank", "template": template}])
    writer.vector("output_norm.weight", N_EMBD)
    if has_head:
        writer.matrix("cls.output.weight", 2, N_EMBD)
    for number in range(n_layers):
        layer = f"blk.{number}"
        writer.vector(f"{layer}.attn_norm.weight", N_EMBD)
        writer.attention(layer, norms=True)
        writer.feed_forward(layer)
    writer.close()


def _add_tokens(writer: gguf.GGUFWriter) -> None:
    add_smollm2_tokens(writer, "smollm")
