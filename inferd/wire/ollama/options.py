"""`options` of Ollama's requests: sampling and limits, with Ollama's defaults."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from inferd.wire.ignored_fields import IgnoredFields

_FIELDS = {
    "num_predict": "max_tokens",
    "temperature": "temperature",
    "top_k": "top_k",
    "top_p": "top_p",
    "min_p": "min_p",
    "typical_p": "typical_p",
    "seed": "seed",
    "stop": "stop",
    "repeat_penalty": "repeat_penalty",
    "repeat_last_n": "repeat_last_n",
    "presence_penalty": "presence_penalty",
    "frequency_penalty": "frequency_penalty",
}
OPTION_NAMES: Mapping[str, str] = {chat: f"options.{own}" for own, chat in _FIELDS.items()}
"""Fields of a chat request -> the caller's paths."""

_DEFAULTS: Mapping[str, float] = {"temperature": 0.8, "top_k": 40, "top_p": 0.9}
"""Ollama's own, of `DefaultOptions` in its api/types.go."""
_LIMITS: Mapping[str, tuple[float, float]] = {
    "temperature": (0, 2),
    "top_k": (-1, 2**31 - 1),
    "top_p": (0, 1),
    "min_p": (0, 1),
    "typical_p": (0, 1),
    "repeat_penalty": (0.01, 10),
    "presence_penalty": (-2, 2),
    "frequency_penalty": (-2, 2),
}
"""Ranges of a chat request. Ollama takes any number; the nearest one in the range is used."""
_SAME_BEYOND = frozenset({"top_k", "top_p", "min_p", "typical_p"})
"""Options that mean the same beyond their range as at its end: no limit, or only the best token."""


class Options(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Options of a request as they came. A negative `seed` is a random one."""

    num_predict: int | None = None
    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    typical_p: float | None = None
    seed: int | None = None
    stop: str | list[str] | None = None
    repeat_penalty: float | None = None
    repeat_last_n: int | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None

    # Known, but without effect: how a model is loaded is the operator's, and other samplers do not exist here.
    draft_num_predict: Any = None
    embedding_only: Any = None
    f16_kv: Any = None
    logits_all: Any = None
    low_vram: Any = None
    main_gpu: Any = None
    mirostat: Any = None
    mirostat_eta: Any = None
    mirostat_tau: Any = None
    num_batch: Any = None
    num_ctx: Any = None
    num_gpu: Any = None
    num_gqa: Any = None
    num_keep: Any = None
    num_thread: Any = None
    numa: Any = None
    penalize_newline: Any = None
    rope_frequency_base: Any = None
    rope_frequency_scale: Any = None
    tfs_z: Any = None
    use_mlock: Any = None
    use_mmap: Any = None
    vocab_only: Any = None


_WITHOUT_EFFECT = tuple(name for name in Options.__struct_fields__ if name not in _FIELDS)


def sampling_fields(options: Options | None, ignored: IgnoredFields) -> dict[str, Any]:
    """Return the fields of a chat request that the options stand for, with Ollama's defaults. Record the options
    without effect."""
    options = options or Options()
    record_options_without_effect(options, ignored)
    given = {chat: value for own, chat in _FIELDS.items() if (value := getattr(options, own)) is not None}
    if given.get("seed", 0) < 0:
        del given["seed"]
    if given.get("max_tokens") == 0:
        given["max_tokens"] = -1  # Ollama's server leaves a zero out, so that its model has no limit
    for name, (low, high) in _LIMITS.items():
        value = given.get(name)
        if value is not None and not low <= value <= high:
            given[name] = min(max(value, low), high)
            if name not in _SAME_BEYOND:
                ignored.add(OPTION_NAMES[name], f"must lie between {low} and {high}")
    return {**_DEFAULTS, **given}


def record_options_without_effect(options: Options, ignored: IgnoredFields) -> None:
    for name in _WITHOUT_EFFECT:
        if getattr(options, name) is not None:
            ignored.add(f"options.{name}")


def record_all_options(options: Options | None, ignored: IgnoredFields) -> None:
    """Record every option of a request that samples nothing."""
    for name in Options.__struct_fields__ if options is not None else ():
        if getattr(options, name) is not None:
            ignored.add(f"options.{name}")
