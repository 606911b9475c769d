"""Answer of `GET /v1/models`: the fields of OpenAI and of Anthropic, whose SDKs both read it, and our own fields for
prices, tiers and retirement."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import msgspec


class ModelObject(msgspec.Struct, frozen=True, kw_only=True):
    """One deployment.

    Attributes:
        created: Unix time in seconds, for OpenAI.
        created_at: time by RFC 3339, for Anthropic.
        owned_by: the owner in `owner/name`.
        aliases: its other names, and patterns of them.
        max_model_len: most tokens of prompt and completion together; vLLM's name, which tools look for.
        default_max_tokens: limit of a request without one.
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
    display_name: str
    created: int
    created_at: str
    owned_by: str
    aliases: list[str]
    max_model_len: int
    default_max_tokens: int
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
