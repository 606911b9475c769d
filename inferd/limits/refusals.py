"""What a caller is told who goes too fast: which limit, how much is used, when to come back, whom to ask."""

from __future__ import annotations

import math

from inferd.errors import RateLimitError
from inferd.limits.rate_limits import CHANGES_A_MINUTE
from inferd.limits.rate_window import RateStatus
from inferd.limits.token_rates import TokenKind, Wait

CONCURRENCY_RETRY_AFTER_S = 1.0
"""When a request under way will end cannot be known."""
_TOKEN_KINDS = {
    TokenKind.PROMPT: ("prompt_token_rate_limit_exceeded", "prompt tokens per min, cached ones included"),
    TokenKind.UNCACHED_PROMPT: ("uncached_prompt_token_rate_limit_exceeded", "uncached prompt tokens per min"),
    TokenKind.GENERATED: ("generated_token_rate_limit_exceeded", "generated tokens per min"),
}


def request_refusal(
    team: str, status: RateStatus, wait_ms: int, *, is_free: bool, contact: str | None
) -> RateLimitError:
    """The RPM of a team, or its RPM on free deployments."""
    what = "requests to free models per min" if is_free else "requests per min (RPM)"
    return RateLimitError(
        f"Rate limit reached for team `{team}` on {what}: Limit {status.limit}, Used {status.used}, Requested 1. "
        f"{_advice(wait_ms, contact)}",
        code="free_rate_limit_exceeded" if is_free else "rate_limit_exceeded",
        retry_after_s=wait_ms / 1000,
    )


def token_refusal(
    wait: Wait, status: RateStatus, amount: int, team: str, model: str, contact: str | None
) -> RateLimitError:
    """One of the token rates of a team and model."""
    code, what = _TOKEN_KINDS[wait.kind]
    return RateLimitError(
        f"Rate limit reached for `{model}` in team `{team}` on {what}: Limit {status.limit}, Used {status.used}, "
        f"Requested {amount}. {_advice(wait.wait_ms, contact)}",
        code=code,
        limits="tokens",
        retry_after_s=wait.wait_ms / 1000,
    )


def concurrency_refusal(scope: str, limit: int, contact: str | None) -> RateLimitError:
    """`scope`: `project:TEAM/NAME` or `user:TEAM/NAME`."""
    kind, _, name = scope.partition(":")
    return RateLimitError(
        f"Concurrency limit reached for requests: {kind} `{name}` has {limit} under way, the most that it may have. "
        f"Please try again when one of them has ended. {_whom_to_ask(contact)}",
        code=f"{kind}_concurrency_limit_reached",
        retry_after_s=CONCURRENCY_RETRY_AFTER_S,
    )


def change_refusal(team: str, wait_ms: int, contact: str | None) -> RateLimitError:
    """A change by a key with the scope `manage`."""
    return RateLimitError(
        f"Team `{team}` makes too many changes: its keys with the scope `manage` may make {CHANGES_A_MINUTE} a minute. "
        f"{_advice(wait_ms, contact)}",
        code="too_many_changes",
        retry_after_s=wait_ms / 1000,
    )


def _advice(wait_ms: int, contact: str | None) -> str:
    return f"Please try again in {math.ceil(wait_ms / 1000)}s. {_whom_to_ask(contact)}"


def _whom_to_ask(contact: str | None) -> str:
    return f"For a higher limit, ask {contact or 'the operator of this server'}."
