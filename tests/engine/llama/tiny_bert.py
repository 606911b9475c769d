"""A BERT of some hundred kilobytes with random weights: an embedding model that sees both ways and cannot make text."""

from __future__ import annotations

import string
from collections.abc import Sequence
from pathlib import Path

import gguf
import numpy as np

N_EMBD, N_HEAD, N_FF, N_CTX, N_LAYERS = 32, 4, 64, 128, 2
WORDS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "▁the", "▁cat", "▁sat", "▁dog", "▁ran")
TOKENS = (*WORDS, *(f"▁{letter}" for letter in string.ascii_lowercase), *string.ascii_lowercase)
CLS, SEP = 2, 3


def write_bert(
    path: Path,
    pooling: gguf.PoolingType | None = gguf.PoolingType.CLS,
    *,
    num_labels: int = 0,
    labels: Sequence[str] = (),
) -> None:
    """`num_labels`: outputs of a classification head, 0 for none; converters write no pooling type with one."""
    random = np.random.default_rng(11)
    writer = gguf.GGUFWriter(path, "bert")
    writer.add_block_count(N_LAYERS)
    writer.add_context_length(N_CTX)
    writer.add_embedding_length(N_EMBD)
    writer.add_feed_forward_length(N_FF)
    writer.add_head_count(N_HEAD)
    writer.add_layer_norm_eps(1e-12)
    writer.add_causal_attention(False)
    if pooling is not None:
        writer.add_pooling_type(pooling)
    if labels:
        writer.add_classifier_output_labels(list(labels))
    writer.add_tokenizer_model("bert")
    writer.add_tokenizer_pre("jina-v2-en")
    writer.add_token_list(list(TOKENS))
    writer.add_token_types([gguf.TokenType.CONTROL] * 5 + [gguf.TokenType.NORMAL] * (len(TOKENS) - 5))
    writer.add_token_type_count(2)
    writer.add_pad_token_id(0)
    writer.add_unk_token_id(1)
    writer.add_bos_token_id(CLS)
    writer.add_sep_token_id(SEP)
    writer.add_mask_token_id(4)

    def tensor(name: str, *shape: int) -> None:
        writer.add_tensor(name, (random.standard_normal(shape) * shape[-1] ** -0.5).astype(np.float32))

    def norm(name: str) -> None:
        writer.add_tensor(f"{name}.weight", np.ones(N_EMBD, dtype=np.float32))
        tensor(f"{name}.bias", N_EMBD)

    tensor("token_embd.weight", len(TOKENS), N_EMBD)
    tensor("position_embd.weight", N_CTX, N_EMBD)
    tensor("token_types.weight", 2, N_EMBD)
    norm("token_embd_norm")
    for number in range(N_LAYERS):
        layer = f"blk.{number}"
        for name in ("attn_q", "attn_k", "attn_v", "attn_output"):
            tensor(f"{layer}.{name}.weight", N_EMBD, N_EMBD)
            tensor(f"{layer}.{name}.bias", N_EMBD)
        norm(f"{layer}.attn_output_norm")
        tensor(f"{layer}.ffn_up.weight", N_FF, N_EMBD)
        tensor(f"{layer}.ffn_up.bias", N_FF)
        tensor(f"{layer}.ffn_down.weight", N_EMBD, N_FF)
        tensor(f"{layer}.ffn_down.bias", N_EMBD)
        norm(f"{layer}.layer_output_norm")
    if num_labels:
        tensor("cls.weight", N_EMBD, N_EMBD)
        tensor("cls.bias", N_EMBD)
        tensor("cls.output.weight", num_labels, N_EMBD)
        tensor("cls.output.bias", num_labels)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
