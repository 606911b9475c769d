"""The part of its team's limits that one request has taken, from its key to its end (BILLING R10, R11, R15).

take_request   right after authentication        the team's minute
enter          once the deployment is known      the minute of free deployments, concurrency
reserve        once the prompt is tokenised      token rates
generated      with each sampled token           more of the rate of generated tokens, in blocks
settle         at the terminal output            real counts for reserved ones, concurrency left
refuse         instead, from any of them on      undone, as docs/rate-limits.md says
"""

from __future__ import annotations

import math
from dataclasses import replace

from inferd.errors import InsufficientCreditError, OverloadedError, RateLimitError
from inferd.limits.allowance import UNLIMITED, Allowance
from inferd.limits.rate_limits import MAX_CHANGES_A_MINUTE, RateLimits
from inferd.limits.rate_window import RateStatus, RateWindow, Slot
from inferd.limits.token_rates import Amounts, Reservation, TokenKind, TokenRates, Wait, amounts_of
from inferd.usage import Usage

_GIVES_BACK = (RateLimitError, InsufficientCreditError, OverloadedError)
"""Refusals after which a request does not count; any other is the caller's fault, and counts."""
NOTHING: Amounts = (0, 0, 0)
BLOCK_TOKENS = 1024
"""The least reservation of generated tokens for a completion with a larger limit, and the step by which it grows
(BILLING R15). Coding agents ask for 32,000 tokens and get some hundreds: a reservation of the limit would make their
second request wait for a minute."""


CONCURRENCY_RETRY_AFTER_S = 1.0
"""A guess: the end of a request under way is unknown."""
_TOKEN_KINDS = {
    TokenKind.PROMPT: ("prompt_token_rate_limit_exceeded", "prompt tokens per min, cached ones included"),
    TokenKind.UNCACHED_PROMPT: ("uncached_prompt_token_rate_limit_exceeded", "uncached prompt tokens per min"),
    TokenKind.GENERATED: ("generated_token_rate_limit_exceeded", "generated tokens per min"),
}


class RateLimitTicket:
    """One request's place in its team's limits. Belongs to the event loop. Every ticket ends with `settle` or `refuse`;
    later calls do nothing.

    Args:
        contact: named in refusals, for higher limits.

    Attributes:
        num_generated: tokens sampled so far, of all choices.
        num_expected: tokens reserved for them; grows as they exceed it.
    """

    def __init__(self, limits: RateLimits, allowance: Allowance, contact: str | None = None) -> None:
        self._limits = limits
        self._allowance = allowance
        self._shares = allowance.shares
        self._contact = contact
        self._windows: list[RateWindow] = []
        self._slots: list[tuple[RateWindow, Slot]] = []
        self._model = ""
        self._is_inside = False
        self._n_choices = 1
        self._max_generated = 0
        self.num_generated = 0
        self.num_expected = 0
        self._tokens: TokenRates | None = None
        self._reservation: Reservation | None = None

    @property
    def max_output_tokens(self) -> int | None:
        """The most completion tokens of a request in the caller's tier; None: no limit."""
        return self._allowance.max_output_tokens

    def another(self) -> RateLimitTicket:
        """Return a ticket of the same caller, for a further request of its call."""
        return RateLimitTicket(self._limits, self._allowance, self._contact)

    def take_request(self) -> None:
        """Count one request against the team's requests per minute. Raise RateLimitError if they are used up."""
        bounds = self._allowance.rates.requests
        if bounds is not None:
            now_ms = self._limits.now_ms()
            self._take(self._limits.requests(self._allowance.team, bounds, now_ms), is_free=False, now_ms=now_ms)

    def enter(self, model: str, *, is_free: bool) -> None:
        """Count the request as under way. Raises RateLimitError; then this step has taken nothing."""
        limits, allowance = self._limits, self._allowance
        now_ms = limits.now_ms()
        self._model = model
        bounds = allowance.rates.free_requests
        if is_free and bounds is not None:
            self._take(limits.free_requests(allowance.team, bounds, now_ms), is_free=True, now_ms=now_ms)
        full = limits.concurrency.enter(self._shares)
        if full is not None:
            subject, limit = self._shares[full]
            raise concurrency_refusal(subject, limit or 0, self._contact)
        self._is_inside = True

    def reserve(self, prompt_tokens: int, max_tokens: int, *, n_choices: int = 1) -> None:
        """Take tokens: the prompt as if none of it were cached; for each choice its limit or, if that is less, twice
        the mean of the deployment's completions, at least a block. Raises RateLimitError."""
        mean = self._limits.completion_tokens(self._model).mean or 0.0
        self._n_choices = n_choices
        self._max_generated = n_choices * max_tokens
        self.num_expected = n_choices * min(max_tokens, max(BLOCK_TOKENS, round(2 * mean)))
        rates = self._allowance.rates.tokens
        if rates is None:
            return
        now_ms = self._limits.now_ms()
        amounts = (prompt_tokens, prompt_tokens, self.num_expected)
        tokens = self._tokens = self._limits.tokens(self._allowance.team, self._model, rates, now_ms)
        wait = tokens.wait(amounts, rates, now_ms)
        if wait is not None:
            status = tokens.status(now_ms)[wait.kind]
            raise token_refusal(wait, status, amounts[wait.kind], self._allowance.team, self._model, self._contact)
        self._reservation = tokens.reserve(amounts, now_ms)

    def generated(self, n_tokens: int) -> None:
        """Count sampled tokens. Never refuses a running request; the next admission waits instead."""
        self.num_generated += n_tokens
        while self.num_generated > self.num_expected < self._max_generated:
            block = min(BLOCK_TOKENS, self._max_generated - self.num_expected)
            self.num_expected += block
            if self._reservation is not None and self._tokens is not None:
                self._tokens.extend(self._reservation, block, self._limits.now_ms())

    def settle(self, usage: Usage) -> None:
        """Replace the reservation by the real counts, and leave."""
        self._end(amounts_of(usage))
        if usage.completion_tokens:
            n_choices = self._n_choices
            self._limits.completion_tokens(self._model).add(usage.completion_tokens / n_choices, n_choices)

    def refuse(self, error: BaseException) -> None:
        """Undo the request, which was refused before any token was generated."""
        if isinstance(error, _GIVES_BACK):
            now_ms = self._limits.now_ms()
            for window, slot in self._slots:
                window.give_back(slot, 1, now_ms)
            self._slots.clear()
        self._end(NOTHING)

    def request_status(self) -> RateStatus | None:
        """Return the tighter of the windows that the request counts in; None: it has no limit."""
        now_ms = self._limits.now_ms()
        room = self._limits.room(now_ms)
        return min((w.status(room, now_ms) for w in self._windows), key=lambda s: s.remaining, default=None)

    def token_status(self) -> tuple[RateStatus, RateStatus, RateStatus] | None:
        """Return total prompt, uncached prompt, generated; None: no limits, or refused before `reserve`."""
        return None if self._tokens is None else self._tokens.status(self._limits.now_ms())

    def _take(self, window: RateWindow, *, is_free: bool, now_ms: int) -> None:
        bounds = self._allowance.rates.free_requests if is_free else self._allowance.rates.requests
        assert bounds is not None, "a window has bounds"
        self._windows.append(window)
        room = self._limits.room(now_ms) if bounds.sheds else 1.0
        wait_ms = window.wait_ms(1, bounds, room, now_ms)
        if wait_ms:
            status = window.status(room, now_ms)
            raise request_refusal(self._allowance.team, status, wait_ms, is_free=is_free, contact=self._contact)
        self._slots.append((window, window.add(1, now_ms)))

    def _end(self, amounts: Amounts) -> None:
        if self._reservation is not None:
            assert self._tokens is not None, "what was reserved was reserved somewhere"
            self._tokens.reconcile(self._reservation, amounts, self._limits.now_ms())
            self._reservation = None
        if self._is_inside:
            self._limits.concurrency.leave(self._shares)
            self._is_inside = False


def unlimited_ticket(max_output_tokens: int | None = None) -> RateLimitTicket:
    """Return the ticket of a request that counts in no limit; its length may still have one (BILLING R18)."""
    return RateLimitTicket(RateLimits(lambda: 0), replace(UNLIMITED, max_output_tokens=max_output_tokens))


def request_refusal(
    team: str, status: RateStatus, wait_ms: int, *, is_free: bool, contact: str | None
) -> RateLimitError:
    """Return the error for the RPM of a team, or for its RPM on free deployments."""
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
    """Return the error for one of the token rates of a team and model."""
    code, what = _TOKEN_KINDS[wait.kind]
    return RateLimitError(
        f"Rate limit reached for `{model}` in team `{team}` on {what}: Limit {status.limit}, Used {status.used}, "
        f"Requested {amount}. {_advice(wait.wait_ms, contact)}",
        code=code,
        limits="tokens",
        retry_after_s=wait.wait_ms / 1000,
    )


def concurrency_refusal(subject: str, limit: int, contact: str | None) -> RateLimitError:
    """Return the error for a full project or user. `subject`: `project:TEAM/NAME` or `user:TEAM/NAME`."""
    kind, _, name = subject.partition(":")
    return RateLimitError(
        f"Concurrency limit reached for requests: {kind} `{name}` has {limit} under way, the most that it may have. "
        f"Please try again when one of them has ended. {_contact_advice(contact)}",
        code=f"{kind}_concurrency_limit_reached",
        retry_after_s=CONCURRENCY_RETRY_AFTER_S,
    )


def change_refusal(team: str, wait_ms: int, contact: str | None) -> RateLimitError:
    """Return the error for a change by a key with the scope `manage`."""
    return RateLimitError(
        f"Team `{team}` makes too many changes: its keys with the scope `manage` may make {MAX_CHANGES_A_MINUTE} "
        f"a minute. {_advice(wait_ms, contact)}",
        code="too_many_changes",
        retry_after_s=wait_ms / 1000,
    )


def _advice(wait_ms: int, contact: str | None) -> str:
    return f"Please try again in {math.ceil(wait_ms / 1000)}s. {_contact_advice(contact)}"


def _contact_advice(contact: str | None) -> str:
    return f"For a higher limit, ask {contact or 'the operator of this server'}."
