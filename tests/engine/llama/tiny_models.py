"""Models of a few hundred kilobytes with random weights, one of each kind of memory that llama.cpp has. They say
nothing of sense, but what they say depends on every token before, which is all that these tests need."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import gguf
import numpy as np

N_EMBD, N_HEAD, N_HEAD_KV, N_FF, N_CTX = 64, 4, 2, 128, 1024
HEAD_SIZE = N_EMBD // N_HEAD
WINDOW = 32
N_VOCAB = 3 + 256


class ModelWriter:
    def __init__(
        self,
        path: Path,
        architecture: str,
        n_layers: int,
        n_ctx: int = N_CTX,
        tensors_per_shard: int = 0,
        add_vocabulary: Callable[[gguf.GGUFWriter], None] | None = None,
        num_vocabulary: int = N_VOCAB,
    ) -> None:
        self.gguf = gguf.GGUFWriter(path, architecture, split_max_tensors=tensors_per_shard)
        self._random = np.random.default_rng(7)
        self.gguf.add_block_count(n_layers)
        self.gguf.add_context_length(n_ctx)
        self.gguf.add_embedding_length(N_EMBD)
        self.gguf.add_feed_forward_length(N_FF)
        self.gguf.add_layer_norm_rms_eps(1e-5)
        if add_vocabulary is None:
            self._add_vocabulary()
        else:
            add_vocabulary(self.gguf)
        self.matrix("token_embd.weight", num_vocabulary, N_EMBD, scale=1.0)

    def _add_vocabulary(self) -> None:
        """SentencePiece's bytes, and nothing else."""
        kinds = gguf.TokenType
        self.gguf.add_tokenizer_model("llama")
        self.gguf.add_token_list(["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))])
        self.gguf.add_token_scores([0.0] * N_VOCAB)
        self.gguf.add_token_types([kinds.UNKNOWN, kinds.CONTROL, kinds.CONTROL, *[kinds.BYTE] * 256])
        self.gguf.add_bos_token_id(1)
        self.gguf.add_eos_token_id(2)

    def matrix(self, name: str, n_out: int, n_in: int, *, scale: float | None = None) -> None:
        values = self._random.standard_normal((n_out, n_in)) * (scale or n_in**-0.5)
        self.gguf.add_tensor(name, values.astype(np.float32))

    def vector(self, name: str, n: int, value: float = 1.0) -> None:
        self.gguf.add_tensor(name, np.full(n, value, dtype=np.float32))

    def attention(self, layer: str, *, norms: bool) -> None:
        for name, n_heads in (("q", N_HEAD), ("k", N_HEAD_KV), ("v", N_HEAD_KV)):
            self.matrix(f"{layer}.attn_{name}.weight", n_heads * HEAD_SIZE, N_EMBD)
        self.matrix(f"{layer}.attn_output.weight", N_EMBD, N_EMBD)
        if norms:
            self.vector(f"{layer}.attn_q_norm.weight", HEAD_SIZE)
            self.vector(f"{layer}.attn_k_norm.weight", HEAD_SIZE)

    def feed_forward(self, layer: str) -> None:
        self.vector(f"{layer}.ffn_norm.weight", N_EMBD)
        self.matrix(f"{layer}.ffn_gate.weight", N_FF, N_EMBD)
        self.matrix(f"{layer}.ffn_up.weight", N_FF, N_EMBD)
        self.matrix(f"{layer}.ffn_down.weight", N_EMBD, N_FF)

    def close(self) -> None:
        self.gguf.write_header_to_file()
        self.gguf.write_kv_data_to_file()
        self.gguf.write_tensors_to_file()
        self.gguf.close()


def write_plain(path: Path) -> None:
    """Llama: attention over all that came before."""
    _write_llama(path, n_layers=3, n_ctx=N_CTX)


def write_long(path: Path, n_ctx: int) -> None:
    """Llama with one layer, which is fast enough to fill a context of `n_ctx` tokens in a test."""
    _write_llama(path, n_layers=1, n_ctx=n_ctx)


def write_shards(path: Path) -> list[Path]:
    """The model of `write_plain` in four files; `path` is their name without `-00001-of-00004`."""
    _write_llama(path, n_layers=3, n_ctx=N_CTX, tensors_per_shard=8)
    return sorted(path.parent.glob(f"{path.stem}-*-of-*.gguf"))


def write_other(path: Path, architecture: str, kind: str) -> None:
    """A GGUF file that holds no model: `kind` is its general.type, such as `mmproj`, `imatrix` or `adapter`."""
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_string("general.type", kind)
    writer.add_tensor("a", np.zeros((2, 2), dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def write_with_vocabulary(path: Path, add_vocabulary: Callable[[gguf.GGUFWriter], None]) -> None:
    """Llama with one layer and another vocabulary of N_VOCAB tokens, which `add_vocabulary` writes."""
    _write_llama(path, n_layers=1, n_ctx=N_CTX, add_vocabulary=add_vocabulary)


def _write_llama(
    path: Path,
    n_layers: int,
    n_ctx: int,
    tensors_per_shard: int = 0,
    add_vocabulary: Callable[[gguf.GGUFWriter], None] | None = None,
) -> None:
    writer = ModelWriter(path, "llama", n_layers, n_ctx, tensors_per_shard, add_vocabulary)
    writer.gguf.add_head_count(N_HEAD)
    writer.gguf.add_head_count_kv(N_HEAD_KV)
    writer.gguf.add_rope_dimension_count(HEAD_SIZE)
    writer.gguf.add_vocab_size(N_VOCAB)
    writer.vector("output_norm.weight", N_EMBD)
    for number in range(n_layers):
        layer = f"blk.{number}"
        writer.vector(f"{layer}.attn_norm.weight", N_EMBD)
        writer.attention(layer, norms=False)
        writer.feed_forward(layer)
    writer.close()


def write_window(path: Path) -> None:
    """Gemma 3: five layers with a sliding window, then one without."""
    n_layers = 6
    writer = ModelWriter(path, "gemma3", n_layers)
    writer.gguf.add_head_count(N_HEAD)
    writer.gguf.add_head_count_kv(N_HEAD_KV)
    writer.gguf.add_key_length(HEAD_SIZE)
    writer.gguf.add_value_length(HEAD_SIZE)
    writer.gguf.add_sliding_window(WINDOW)
    writer.vector("output_norm.weight", N_EMBD)
    for number in range(n_layers):
        layer = f"blk.{number}"
        writer.vector(f"{layer}.attn_norm.weight", N_EMBD)
        writer.attention(layer, norms=True)
        writer.vector(f"{layer}.post_attention_norm.weight", N_EMBD)
        writer.feed_forward(layer)
        writer.vector(f"{layer}.post_ffw_norm.weight", N_EMBD)
    writer.close()


def write_recurrent(path: Path) -> None:
    """Mamba: a state and nothing else."""
    n_inner, n_state, n_conv, rank, n_layers = 2 * N_EMBD, 8, 4, 4, 3
    writer = ModelWriter(path, "mamba", n_layers)
    writer.gguf.add_head_count(0)
    writer.gguf.add_ssm_conv_kernel(n_conv)
    writer.gguf.add_ssm_inner_size(n_inner)
    writer.gguf.add_ssm_state_size(n_state)
    writer.gguf.add_ssm_time_step_rank(rank)
    writer.vector("output_norm.weight", N_EMBD)
    for number in range(n_layers):
        layer = f"blk.{number}"
        writer.vector(f"{layer}.attn_norm.weight", N_EMBD)
        writer.matrix(f"{layer}.ssm_in.weight", 2 * n_inner, N_EMBD)
        writer.matrix(f"{layer}.ssm_conv1d.weight", n_inner, n_conv)
        writer.vector(f"{layer}.ssm_conv1d.bias", n_inner, 0.0)
        writer.matrix(f"{layer}.ssm_x.weight", rank + 2 * n_state, n_inner)
        writer.matrix(f"{layer}.ssm_dt.weight", n_inner, rank)
        writer.vector(f"{layer}.ssm_dt.bias", n_inner, -2.0)  # a slow decay: the state remembers
        decay = -np.tile(np.arange(1, n_state + 1, dtype=np.float32), (n_inner, 1))
        writer.gguf.add_tensor(f"{layer}.ssm_a", decay)
        writer.vector(f"{layer}.ssm_d", n_inner)
        writer.matrix(f"{layer}.ssm_out.weight", N_EMBD, n_inner)
    writer.close()


def write_hybrid(path: Path) -> None:
    """LFM2: short convolutions, which keep a state, and attention."""
    is_attention = [False, True, False, True]
    writer = ModelWriter(path, "lfm2", len(is_attention))
    writer.gguf.add_head_count(N_HEAD)
    writer.gguf.add_head_count_kv([N_HEAD_KV if attends else 0 for attends in is_attention])
    writer.gguf.add_shortconv_l_cache(3)
    writer.gguf.add_vocab_size(N_VOCAB)
    writer.vector("token_embd_norm.weight", N_EMBD)
    for number, attends in enumerate(is_attention):
        layer = f"blk.{number}"
        writer.vector(f"{layer}.attn_norm.weight", N_EMBD)
        if attends:
            writer.attention(layer, norms=True)
        else:
            writer.matrix(f"{layer}.shortconv.conv.weight", N_EMBD, 3)
            writer.matrix(f"{layer}.shortconv.in_proj.weight", 3 * N_EMBD, N_EMBD)
            writer.matrix(f"{layer}.shortconv.out_proj.weight", N_EMBD, N_EMBD)
        writer.feed_forward(layer)
    writer.close()


WRITERS: dict[str, Callable[[Path], None]] = {
    "window": write_window,
    "recurrent": write_recurrent,
    "hybrid": write_hybrid,
}
