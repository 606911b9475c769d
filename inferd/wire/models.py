"""Answer of `GET /v1/models`: one object with the fields of OpenAI, Anthropic, OpenRouter, vLLM, LM Studio and
llama-server, whose clients all read it, and our own fields for prices, tiers and retirement."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import msgspec

from inferd.wire.model_capabilities import ModelCapabilities

TEXT_PARAMETERS = (
    *("max_tokens", "temperature", "top_p", "top_k", "min_p", "frequency_penalty", "presence_penalty"),
    *("repetition_penalty", "stop", "seed", "logit_bias", "logprobs", "response_format", "structured_outputs"),
)
CHAT_PARAMETERS = (*("max_completion_tokens", "top_logprobs", "tools", "tool_choice", "parallel_tool_calls"),)
REASONING_PARAMETERS = ("reasoning_effort",)
"""OpenRouter's `supported_parameters`: of every text, of chats too, and of chats whose template hears an effort."""


class Architecture(msgspec.Struct, frozen=True, kw_only=True):
    """OpenRouter's modalities: texts become a text, `embeddings`, or scores: `rerank` or `classification`."""

    modality: str
    input_modalities: list[str]
    output_modalities: list[str]


class TopProvider(msgspec.Struct, frozen=True, kw_only=True):
    """OpenRouter's limits of the provider that it prefers: here, the only one."""

    context_length: int
    max_completion_tokens: int | None
    is_moderated: bool = False


class ReasoningSupport(msgspec.Struct, frozen=True, kw_only=True):
    """OpenRouter's `reasoning`.

    Attributes:
        mandatory: whether no request turns it off.
        default_enabled: whether a request that does not mention it has it.
        supported_efforts: values of `reasoning_effort` that make a difference, the highest first.
    """

    mandatory: bool
    default_enabled: bool
    supported_efforts: list[str]


class ModelMeta(msgspec.Struct, frozen=True, kw_only=True):
    """llama-server's `meta`: numbers of the GGUF's header; `size` is in bytes."""

    n_vocab: int
    n_ctx_train: int
    n_embd: int
    n_params: int
    size: int


class ModelObject(msgspec.Struct, frozen=True, kw_only=True):
    """One deployment.

    Attributes:
        name, display_name: the id again, for OpenRouter and Anthropic.
        created: Unix time in seconds, for OpenAI.
        created_at: time by RFC 3339, for Anthropic.
        owned_by, publisher: the owner in `owner/name`.
        aliases: its other names, and patterns of them.
        max_model_len: most tokens of prompt and completion together; vLLM's name, which tools look for.
        context_length, max_context_length: the same, for OpenRouter and LM Studio.
        max_input_tokens, max_tokens: Anthropic's: the same, and the most completion tokens that the caller may have.
        default_max_tokens: limit of a request without one.
        capabilities: Anthropic's.
        reasoning_mode: whether answers hold reasoning: always, unless turned off (on) or on (off), or none.
        state: LM Studio's.
        arch, quantization, params_string, size_bytes: LM Studio's, from the GGUF; null until its header was read.
        serverless: whether it is public and billed by use.
        free: whether it has no price.
        lifecycle: `deprecated` once its retirement is announced.
        free_until, deprecated_at, retires_at: times by RFC 3339, or null.
        service_tiers: tiers that it serves -> multiple of the price.
        max_compute_ms: most compute time of a request, for a deployment billed by time.
    """

    id: str
    object: Literal["model"] = "model"
    type: Literal["model"] = "model"
    name: str
    display_name: str
    created: int
    created_at: str
    owned_by: str
    publisher: str
    aliases: list[str]
    max_model_len: int
    context_length: int
    max_context_length: int
    max_input_tokens: int
    max_tokens: int | None
    default_max_tokens: int
    architecture: Architecture
    top_provider: TopProvider
    supported_parameters: list[str]
    capabilities: ModelCapabilities
    reasoning: ReasoningSupport | None
    reasoning_mode: str
    state: Literal["loaded", "not-loaded"]
    arch: str | None
    quantization: str | None
    params_string: str | None
    size_bytes: int | None
    meta: ModelMeta | None
    serverless: bool
    free: bool
    free_until: str | None
    input_usd_per_1m_tokens: str | None
    cached_input_usd_per_1m_tokens: str | None
    output_usd_per_1m_tokens: str | None
    usd_per_second: str | None
    max_compute_ms: int | None
    service_tiers: dict[str, float]
    lifecycle: Literal["active", "deprecated"]
    deprecated_at: str | None
    retires_at: str | None


class ModelList(msgspec.Struct, frozen=True, kw_only=True):
    """Page of deployments, as at Anthropic; the whole list unless the caller asked for a page."""

    object: Literal["list"] = "list"
    data: list[ModelObject]
    has_more: bool
    first_id: str | None
    last_id: str | None


def encode_model(model: ModelObject) -> bytes:
    return msgspec.json.encode(model)


def encode_model_list(models: Sequence[ModelObject], *, has_more: bool = False) -> bytes:
    first, last = (models[0].id, models[-1].id) if models else (None, None)
    return msgspec.json.encode(ModelList(data=list(models), has_more=has_more, first_id=first, last_id=last))
