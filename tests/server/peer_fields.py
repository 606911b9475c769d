"""Request fields of vLLM, llama-server and Ollama, as their sources list them, and what inferd does with each.

A field has a value that asks for something, so that a field without effect is named in the header `inferd-ignored`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}
SCHEMA = {"type": "object", "properties": {"a": {"enum": ["x"]}}, "required": ["a"], "additionalProperties": False}

CHAT = "/v1/chat/completions"
TEXT = "/v1/completions"


@dataclass(frozen=True)
class PeerFields:
    """Fields of one endpoint of another server.

    Attributes:
        source: file and commit that the names were read from.
        path: endpoint of inferd that takes the same requests.
        values: field -> a usual value.
    """

    source: str
    path: str
    values: dict[str, Any] = field(repr=False)


OPENAI_SAMPLING: dict[str, Any] = {
    "frequency_penalty": 0.5,
    "presence_penalty": 0.5,
    "logit_bias": {"97": 1},
    "max_tokens": 4,
    "n": 2,
    "seed": 7,
    "stop": ["\n"],
    "stream": False,
    "temperature": 0.7,
    "top_p": 0.9,
    "user": "ann",
}
VLLM: dict[str, Any] = {
    **OPENAI_SAMPLING,
    "response_format": {"type": "json_object"},
    "use_beam_search": True,
    "top_k": 40,
    "min_p": 0.05,
    "repetition_penalty": 1.1,
    "watermarking": True,
    "length_penalty": 1.2,
    "stop_token_ids": [98],
    "include_stop_str_in_output": True,
    "ignore_eos": True,
    "min_tokens": 2,
    "skip_special_tokens": False,
    "spaces_between_special_tokens": False,
    "truncate_prompt_tokens": 100,
    "truncation_side": "left",
    "logprob_token_ids": [97],
    "allowed_token_ids": [97, 98],
    "bad_words": ["no"],
    "add_special_tokens": False,
    "structured_outputs": {"regex": "ab"},
    "priority": 1,
    "request_id": "abc",
    "session_id": "abc",
    "return_tokens_as_token_ids": True,
    "return_token_ids": True,
    "routed_experts_prompt_start": 1,
    "return_token_offsets": True,
    "return_mm_kwargs": False,
    "cache_salt": "salt",
    "kv_transfer_params": {"a": 1},
    "ec_transfer_params": {"a": 1},
    "vllm_xargs": {"a": 1},
    "repetition_detection": {"max_pattern_size": 4},
    "thinking_token_budget": 100,
    "stream_interval": 4,
}
VLLM_CHAT = PeerFields(
    "vllm-project/vllm vllm/entrypoints/openai/chat_completion/protocol.py 002032ee2b18e1f7bd924ec47b62504ba3866063",
    CHAT,
    {
        **VLLM,
        "logprobs": True,
        "max_completion_tokens": 4,
        "tools": [TOOL],
        "tool_choice": "none",
        "reasoning_effort": "none",
        "include_reasoning": False,
        "parallel_tool_calls": True,
        "echo": True,
        "add_generation_prompt": False,
        "continue_final_message": True,
        "documents": [{"title": "a", "text": "b"}],
        "chat_template": "{{ messages }}",
        "chat_template_kwargs": {"enable_thinking": False},
        "media_io_kwargs": {"image": {"a": 1}},
        "mm_processor_kwargs": {"a": 1},
        "return_prompt_text": True,
    },
)
VLLM_TEXT = PeerFields(
    "vllm-project/vllm vllm/entrypoints/openai/completion/protocol.py 002032ee2b18e1f7bd924ec47b62504ba3866063",
    TEXT,
    {**VLLM, "echo": True, "logprobs": 1, "suffix": "end", "prompt_embeds": "AAAA"},
)
LLAMA_SERVER: dict[str, Any] = {
    **OPENAI_SAMPLING,
    "verbose": True,
    "timings_per_token": True,
    "cache_prompt": False,
    "return_tokens": True,
    "return_progress": True,
    "sse_ping_interval": 10,
    "n_predict": 4,
    "n_indent": 2,
    "n_keep": 4,
    "n_discard": 4,
    "n_cmpl": 2,
    "n_cache_reuse": 4,
    "t_max_predict_ms": 1000,
    "response_fields": ["content"],
    "top_k": 40,
    "min_p": 0.05,
    "top_n_sigma": 1.0,
    "xtc_probability": 0.5,
    "xtc_threshold": 0.1,
    "typical_p": 0.9,
    "dynatemp_range": 0.5,
    "dynatemp_exponent": 1.2,
    "repeat_last_n": 32,
    "repeat_penalty": 1.1,
    "dry_multiplier": 0.8,
    "dry_base": 1.75,
    "dry_allowed_length": 2,
    "dry_penalty_last_n": 64,
    "dry_sequence_breakers": ["\n"],
    "mirostat": 2,
    "mirostat_tau": 5.0,
    "mirostat_eta": 0.1,
    "adaptive_target": 0.5,
    "adaptive_decay": 0.9,
    "n_probs": 3,
    "min_keep": 1,
    "backend_sampling": True,
    "post_sampling_probs": True,
    "lora": [{"id": 0, "scale": 0.5}],
    "json_schema": SCHEMA,
    "grammar": 'root ::= "ab"',
    "grammar_lazy": True,
    "chat_format": 1,
    "parse_tool_calls": True,
    "reasoning_control": True,
    "reasoning_budget_tokens": 100,
    "reasoning_budget_message": "enough",
    "preserved_tokens": ["<a>"],
    "grammar_triggers": [{"type": 0, "value": "a"}],
    "ignore_eos": True,
    "samplers": ["top_k", "temperature"],
    "id_slot": 0,
}
LLAMA_SERVER_SOURCE = "ggml-org/llama.cpp tools/server/server-schema.cpp 0177c34227eb45eb4c72088b8573c3c8a97673e1"
LLAMA_SERVER_CHAT = PeerFields(
    LLAMA_SERVER_SOURCE,
    CHAT,
    {
        **LLAMA_SERVER,
        "max_completion_tokens": 4,
        "logprobs": True,
        "response_format": {"type": "json_schema", "json_schema": {"schema": SCHEMA}},
        "tools": [TOOL],
        "tool_choice": "auto",
        "parallel_tool_calls": True,
        "add_generation_prompt": True,
        "continue_final_message": True,
        "chat_template_kwargs": {"enable_thinking": False},
        "reasoning_format": "deepseek",
        "modalities": ["text"],
    },
)
LLAMA_SERVER_TEXT = PeerFields(LLAMA_SERVER_SOURCE, TEXT, {**LLAMA_SERVER, "logprobs": 1, "echo": True})
OLLAMA_SOURCE = "ollama/ollama openai/openai.go fb30760996871fa9460115c753afd2c60d4ab0f7"
OLLAMA_CHAT = PeerFields(
    OLLAMA_SOURCE,
    CHAT,
    {
        **{name: value for name, value in OPENAI_SAMPLING.items() if name not in ("n", "user", "logit_bias")},
        "response_format": {"type": "json_schema", "json_schema": {"schema": SCHEMA}},
        "tools": [TOOL],
        "reasoning": {"effort": "none"},
        "reasoning_effort": "none",
        "logprobs": True,
        "_debug_render_only": True,
    },
)
OLLAMA_TEXT = PeerFields(
    OLLAMA_SOURCE,
    TEXT,
    {
        **{name: value for name, value in OPENAI_SAMPLING.items() if name not in ("n", "user", "logit_bias")},
        "suffix": "end",
        "logprobs": 1,
        "_debug_render_only": True,
    },
)
OLLAMA_OPTIONS = PeerFields(
    "ollama/ollama api/types.go fb30760996871fa9460115c753afd2c60d4ab0f7, options that clients send to /v1 too",
    CHAT,
    {
        "num_predict": 4,
        "num_ctx": 2048,
        "num_keep": 4,
        "num_batch": 512,
        "num_gpu": 1,
        "num_thread": 4,
        "keep_alive": "5m",
        "format": "json",
        "options": {"num_predict": 4},
        "think": True,
        "raw": True,
        "tfs_z": 1.0,
        "repeat_last_n": 64,
        "penalize_newline": True,
    },
)
PEERS = {
    "vllm chat": VLLM_CHAT,
    "vllm text": VLLM_TEXT,
    "llama-server chat": LLAMA_SERVER_CHAT,
    "llama-server text": LLAMA_SERVER_TEXT,
    "ollama chat": OLLAMA_CHAT,
    "ollama text": OLLAMA_TEXT,
    "ollama options": OLLAMA_OPTIONS,
}

REFUSED = {
    "bad_words": "the answer would hold words that the caller excluded",
    "chat_template": "the caller would get another prompt; only the operator sets templates, which are programs",
    "suffix": "the text would not lead to the suffix; vLLM refuses it too",
}
"""Field -> why it is a 400 here. Each other field of a peer is answered with 200."""
HONOURED = frozenset(
    {
        *OPENAI_SAMPLING,
        *("response_format", "structured_outputs", "json_schema", "grammar", "format"),
        *("top_k", "min_p", "typical_p", "repetition_penalty", "repeat_penalty", "allowed_token_ids"),
        *("stop_token_ids", "include_stop_str_in_output", "ignore_eos", "min_tokens"),
        *("n_predict", "num_predict", "max_completion_tokens", "cache_salt", "cache_prompt"),
        *("logprobs", "tools", "tool_choice", "parallel_tool_calls", "modalities"),
        *("add_generation_prompt", "continue_final_message"),
        *("reasoning", "reasoning_effort", "include_reasoning", "reasoning_format"),
    }
)
"""Fields that have their effect. All fields that are neither honoured nor refused are ignored and named."""
NEEDS: dict[str, dict[str, Any]] = {
    "continue_final_message": {"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "a"}]}
}
"""Field -> other fields of a request that has it."""
DEPENDS = frozenset({"echo", "chat_template_kwargs", "parallel_tool_calls"})
"""Fields whose effect depends on the endpoint, on the model's template or on other fields."""
