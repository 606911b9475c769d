"""What an answer says of its caller's limits (docs/rate-limits.md), in the headers of Fireworks and of OpenAI, and on
Anthropic's paths in its own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

from starlette.requests import Request

from inferd.limits.rate_window import RateStatus
from inferd.limits.ticket import RateLimitTicket
from inferd.wire.anthropic.errors import speaks_messages

_PER_SECOND = (
    "x-ratelimit-limit-tokens-prompt",
    "x-ratelimit-limit-tokens-cache-adjusted-prompt",
    "x-ratelimit-limit-tokens-generated",
)


def remember_ticket(request: Request, ticket: RateLimitTicket) -> None:
    """From now on every answer to this request, a refusal too, says what its limits are."""
    request.state.ticket = ticket


@contextmanager
def given_back_if_refused(ticket: RateLimitTicket) -> Iterator[None]:
    """Until the request's own task has the ticket."""
    try:
        yield
    except BaseException as error:
        ticket.refuse(error)
        raise


def limit_headers(request: Request) -> dict[str, str]:
    """Those of the limits that the request has met so far; a limit that does not exist has none.

    Tokens are the three rates in tokens a second, and, in OpenAI's headers, the one of them that is nearest its limit.
    """
    ticket: RateLimitTicket | None = getattr(request.state, "ticket", None)
    if ticket is None:
        return {}
    if speaks_messages(request.url.path):
        return _anthropic_headers(ticket, datetime.now(UTC))
    headers: dict[str, str] = {}
    requests = ticket.request_status()
    if requests is not None:
        headers |= _openai_headers("requests", requests)
    tokens = ticket.token_status()
    if tokens is not None:
        headers |= {name: str(status.limit // 60) for name, status in zip(_PER_SECOND, tokens, strict=True)}
        headers |= _openai_headers("tokens", min(tokens, key=lambda status: status.remaining / status.limit))
    return headers


def _anthropic_headers(ticket: RateLimitTicket, now: datetime) -> dict[str, str]:
    """A limit is reset at a moment, by RFC 3339. https://platform.claude.com/docs/en/api/rate-limits"""
    named = {"requests": ticket.request_status()}
    tokens = ticket.token_status()
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
    """As Go and OpenAI write it: `12ms`, `1s`, `59.5s`, `1m0s`."""
    if 0 < ms < 1_000:
        return f"{ms}ms"
    minutes, rest_ms = divmod(ms, 60_000)
    seconds = f"{rest_ms / 1_000:g}s"
    return f"{minutes}m{seconds}" if minutes else seconds
