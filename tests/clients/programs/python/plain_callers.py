"""Bodies that are written for other servers: vLLM, llama-server, LM Studio, OpenRouter, Fireworks, W&B."""

from __future__ import annotations

import json

import runner
from http_calls import content_of, send, streamed
from runner import HELLO, JUDGE, MODEL, VERDICT_SCHEMA

CHAT = {"model": MODEL, "messages": [{"role": "user", "content": HELLO}], "max_tokens": 20}
JUDGING = CHAT | {"messages": [{"role": "user", "content": JUDGE}], "max_tokens": 40}
TEXT = {"model": MODEL, "prompt": "Once upon a time", "max_tokens": 4}
FORM = {"type": "json_schema", "json_schema": {"name": "v", "schema": VERDICT_SCHEMA}}
CHATS = {
    "vllm": (
        CHAT | {"min_tokens": 2, "top_k": 20, "min_p": 0.1, "repetition_penalty": 1.05},
        CHAT | {"ignore_eos": True, "min_tokens": 3, "max_tokens": 3},
        CHAT | {"chat_template_kwargs": {"enable_thinking": False}, "include_reasoning": False},
        CHAT | {"cache_salt": "team", "priority": 1, "skip_special_tokens": True, "add_generation_prompt": True},
        CHAT | {"stop_token_ids": [2], "include_stop_str_in_output": False, "spaces_between_special_tokens": True},
        JUDGING | {"guided_json": VERDICT_SCHEMA},
        JUDGING | {"structured_outputs": {"json": VERDICT_SCHEMA}},
        CHAT | {"guided_choice": ["The lighthouse is ready."]},
        CHAT | {"stream": True, "stream_options": {"include_usage": True, "continuous_usage_stats": True}},
        CHAT | {"echo": False, "best_of": 1, "use_beam_search": False, "length_penalty": 1.0},
        CHAT | {"logprobs": True, "top_logprobs": 3, "return_tokens_as_token_ids": False},
        CHAT | {"request_id": "r-1", "return_token_ids": False, "mm_processor_kwargs": None},
        CHAT | {"prompt_logprobs": 1},
    ),
    "llama-server": (
        CHAT | {"cache_prompt": True, "id_slot": -1, "n_predict": 20, "timings_per_token": True},
        CHAT | {"dynatemp_range": 0, "dynatemp_exponent": 1, "xtc_probability": 0, "xtc_threshold": 0.1},
        CHAT | {"typical_p": 1, "repeat_last_n": 64, "repeat_penalty": 1, "dry_multiplier": 0, "samplers": "kt"},
        CHAT | {"reasoning_format": "auto", "return_progress": True, "stream": True},
        CHAT | {"chat_template_kwargs": {"enable_thinking": True}, "thinking_forced_open": False},
        CHAT | {"n_probs": 0, "post_sampling_probs": False, "seed": -1},
    ),
    "lm-studio": (
        CHAT | {"ttl": 300, "repeat_penalty": 1.1, "top_k": 40},
        JUDGING | {"response_format": FORM, "stream": False},
        CHAT | {"max_tokens": -1},
        CHAT | {"draft_model": "small", "reasoning": {"effort": "low"}},
    ),
    "openrouter": (
        CHAT | {"usage": {"include": True}},
        CHAT | {"provider": {"order": ["x"], "allow_fallbacks": False}, "route": "fallback", "transforms": []},
        CHAT | {"reasoning": {"effort": "low", "exclude": True}},
        CHAT | {"reasoning": {"max_tokens": 100}, "top_a": 0.5},
        CHAT | {"models": [MODEL], "plugins": [], "include_reasoning": True, "verbosity": "low"},
    ),
    "fireworks": (
        CHAT
        | {
            "perf_metrics_in_response": True,
            "prompt_cache_isolation_key": "a",
            "context_length_exceeded_behavior": "truncate",
        },
        CHAT | {"prompt_truncate_len": 1000, "ignore_eos": False, "raw_output": False, "mirostat_lr": 0.1},
        CHAT | {"prompt_cache_max_len": 0, "service_tier": "priority"},
    ),
    "echoes": (
        CHAT
        | {
            "messages": [
                *CHAT["messages"],
                {"role": "assistant", "content": "Hi", "reasoning": "r", "refusal": None},
                *CHAT["messages"],
            ]
        },
        CHAT
        | {
            "messages": [
                *CHAT["messages"],
                {"role": "assistant", "content": "Hi", "reasoning_content": "r", "audio": None, "annotations": []},
                *CHAT["messages"],
            ]
        },
        CHAT
        | {
            "messages": [
                *CHAT["messages"],
                {"role": "assistant", "content": "Hi", "reasoning_details": [{"type": "reasoning.text", "text": "r"}]},
                *CHAT["messages"],
            ]
        },
        CHAT
        | {
            "messages": [
                {
                    "role": "user",
                    "name": "ann",
                    "content": [{"type": "text", "text": HELLO, "cache_control": {"type": "ephemeral"}}],
                }
            ]
        },
    ),
}
TEXTS = (
    TEXT,
    TEXT | {"echo": True, "logprobs": 1, "max_tokens": 1},
    TEXT | {"prompt": [1, 2, 3], "temperature": 0},
    TEXT | {"prompt": [[1, 2], [3, 4]], "n": 1},
    TEXT | {"suffix": None, "best_of": 1, "min_tokens": 1, "stop": ["\n"]},
    TEXT
    | {"stream": True, "stream_options": {"include_usage": True, "continuous_usage_stats": True}, "ignore_eos": True},
    TEXT | {"guided_regex": "[a-z ]+", "max_tokens": 3},
)
OTHERS = (
    ("/v1/embeddings", {"model": MODEL, "input": "a", "truncate_prompt_tokens": 10}),
    ("/v1/embeddings", {"model": MODEL, "input": ["a"], "encoding_format": "base64", "input_type": "query"}),
    ("/tokenize", {"model": MODEL, "content": "hello", "add_special": True, "with_pieces": True}),
    ("/tokenize", {"model": MODEL, "messages": CHAT["messages"]}),
    ("/tokenize", {"model": MODEL, "prompt": "hello"}),
    ("/detokenize", {"model": MODEL, "tokens": [100, 101]}),
    ("/apply-template", {"model": MODEL, "messages": CHAT["messages"]}),
    ("/v1/models", None),
)


def post(body: dict, path: str = "/v1/chat/completions", key: str = runner.KEY) -> str:
    return send(path, body, key)


if __name__ == "__main__":
    whole = json.loads(post(CHAT))
    usage = whole["usage"]
    runner.report(
        chat=whole["choices"][0]["message"]["content"],
        stream=content_of(streamed(post(CHAT | {"stream": True}))),
        usage=[[usage["prompt_tokens"], usage["completion_tokens"]]],
        errors=runner.errors(lambda key: post(CHAT, key=key)),
    )
    runner.vary(
        [
            *(lambda body=body: post(body) for bodies in CHATS.values() for body in bodies),
            *(lambda body=body: post(body, "/v1/completions") for body in TEXTS),
            *(lambda path=path, body=body: post(body, path) for path, body in OTHERS),
        ]
    )
