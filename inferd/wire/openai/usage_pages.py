"""Pages of `GET /v1/organization/usage/completions` and `/v1/organization/costs`.

https://platform.openai.com/docs/api-reference/usage
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import msgspec

from inferd.money import format_usd


class CompletionsResult(msgspec.Struct, frozen=True, kw_only=True):
    """Tokens of one group in one bucket; dimensions that the page is not grouped by are null."""

    object: Literal["organization.usage.completions.result"] = "organization.usage.completions.result"
    input_tokens: int
    output_tokens: int
    input_cached_tokens: int
    input_audio_tokens: Literal[0] = 0
    output_audio_tokens: Literal[0] = 0
    num_model_requests: int
    project_id: str | None = None
    user_id: str | None = None
    api_key_id: str | None = None
    model: str | None = None
    batch: bool | None = None
    service_tier: str | None = None


class Amount(msgspec.Struct, frozen=True):
    """Amount of money; `value` is a JSON number with all nine decimals."""

    value: msgspec.Raw
    currency: Literal["usd"] = "usd"


class CostsResult(msgspec.Struct, frozen=True, kw_only=True):
    """Cost of one group in one bucket, less refunds."""

    object: Literal["organization.costs.result"] = "organization.costs.result"
    amount: Amount
    line_item: str | None = None
    project_id: str | None = None
    api_key_id: str | None = None


Result = CompletionsResult | CostsResult


class Bucket(msgspec.Struct, frozen=True, kw_only=True):
    """Interval [start_time, end_time) in Unix seconds."""

    object: Literal["bucket"] = "bucket"
    start_time: int
    end_time: int
    results: Sequence[Result]


class Page(msgspec.Struct, frozen=True, kw_only=True):
    object: Literal["page"] = "page"
    data: Sequence[Bucket]
    has_more: bool
    next_page: str | None


def amount_of(nanousd: int) -> Amount:
    return Amount(msgspec.Raw(format_usd(nanousd).encode()))


def encode_page(page: Page) -> bytes:
    return msgspec.json.encode(page)
