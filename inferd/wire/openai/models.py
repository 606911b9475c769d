"""What `GET /v1/models` answers: the fields of OpenAI and of Anthropic, so that the SDKs of both read it, and what a
caller wants to know before it chooses."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import msgspec


class ModelObject(msgspec.Struct, frozen=True, kw_only=True):
    """One deployment.

    Attributes:
        created, created_at: Unix time in seconds, for OpenAI; a moment by RFC 3339, for Anthropic.
        owned_by: the owner in `owner/name`.
        max_model_len: most tokens of prompt and completion together; vLLM's name, which tools look for.
        default_max_tokens: the limit of a request that names none.
        serverless: public, and billed by what is used.
        free: it has no price.
        lifecycle: `deprecated` from the moment on at which callers are told that it goes.
        free_until, deprecated_at, retires_at: moments by RFC 3339, null if there is none.
        service_tiers: those that it serves, and the multiple of the price in each.
        max_compute_ms: the most that a request computes, where compute is what costs.
    """

    id: str
    object: Literal["model"] = "model"
    type: Literal["model"] = "model"
    display_name: str
    created: int
    created_at: str
    owned_by: str
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
    """A page, as Anthropic has them; a whole list unless a page was asked for."""

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
