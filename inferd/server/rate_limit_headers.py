"""Headers of rate limits (docs/rate-limits.md): Fireworks' and OpenAI's, and on Anthropic's paths its own."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Protocol

from starlette.requests import Request

from inferd.limits.rate_window import RateStatus
from inferd.wire.anthropic.errors import speaks_messages

_PER_SECOND = (
    "x-ratelimit-limit-tokens-prompt",
    "x-ratelimit-limit-tokens-cache-adjusted-prompt",
    "x-ratelimit-limit-tokens-generated",
)


class LimitStatus(Protocol):
    """Use of a caller's rate limits, which a ticket reports."""

    def request_status(self) -> RateStatus | None: ...

    def token_status(self) -> tuple[RateStatus, RateStatus, RateStatus] | None: ...


def remember_limits(request: Request, limits: LimitStatus) -> None:
    """Have every answer to this request, a refusal too, show its limits from now on."""
    request.state.limits = limits


def limit_headers(request: Request) -> dict[str, str]:
    """Return headers of the limits that the request has met so far; a limit that does not exist has none.

    Tokens are the three rates in tokens a second, and, in OpenAI's headers, the one of them that is nearest its limit.
    """
    limits: LimitStatus | None = getattr(request.state, "limits", None)
    if limits is None:
        return {}
    if speaks_messages(request.url.path):
        return _anthropic_headers(limits, datetime.now(UTC))
    headers: dict[str, str] = {}
    requests = limits.request_status()
    if requests is not None:
        headers |= _openai_headers("requests", requests)
    tokens = limits.token_status()
    if tokens is not None:
        headers |= {name: str(status.limit // 60) for name, status in zip(_PER_SECOND, tokens, strict=True)}
        headers |= _openai_headers("tokens", min(tokens, key=lambda status: status.remaining / status.limit))
    return headers


def _anthropic_headers(limits: LimitStatus, now: datetime) -> dict[str, str]:
    """A limit is reset at a moment, in RFC 3339. https://platform.claude.com/docs/en/api/rate-limits"""
    named = {"requests": limits.request_status()}
    tokens = limits.token_status()
    if tokens is not None:
        named["input-tokens"], _, named["output-tokens"] = tokens
        named["tokens"] = min(tokens, key=lambda status: status.remaining / status.limit)
    headers = {}
    for what, status in named.items():
        if status is not None:
            reset = now + timedelta(milliseconds=status.reset_ms)
            headers[f"anthropic-ratelimit-{what}-limit"] = str(status.limit)
            headers[f"anthropic-ratelimit-{what}-remaining"] = str(status.remaining)
            headers[f"anthropic-ratelimit-{what}-reset"] = reset.strftime("%Y-%m-%dT%H:%M:%SZ")
    return headers


def _openai_headers(what: str, status: RateStatus) -> dict[str, str]:
    return {
        f"x-ratelimit-limit-{what}": str(status.limit),
        f"x-ratelimit-remaining-{what}": str(status.remaining),
        f"x-ratelimit-reset-{what}": duration(status.reset_ms),
    }


def duration(ms: int) -> str:
    """Return a duration as Go and OpenAI write it: `12ms`, `1s`, `59.5s`, `1m0s`."""
    if 0 < ms < 1_000:
        return f"{ms}ms"
    minutes, rest_ms = divmod(ms, 60_000)
    seconds = f"{rest_ms / 1_000:g}s"
    return f"{minutes}m{seconds}" if minutes else seconds
