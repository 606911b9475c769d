"""What one request has taken of its team's limits, from its key to its end (BILLING R10, R11, R15).

take_request   right after authentication        the team's minute
enter          once the deployment is known      the minute of free deployments, concurrency
reserve        once the prompt is tokenised      token rates
generated      with each sampled token           more of the rate of generated tokens, in blocks
settle         at the terminal output            real counts for reserved ones, concurrency left
refuse         instead, from any of them on      undone, as docs/rate-limits.md says
"""

from __future__ import annotations

from dataclasses import replace

from inferd.errors import InsufficientCreditError, OverloadedError, RateLimitError
from inferd.limits.allowance import UNLIMITED, Allowance
from inferd.limits.rate_limits import RateLimits
from inferd.limits.rate_window import RateStatus, RateWindow
from inferd.limits.refusals import concurrency_refusal, request_refusal, token_refusal
from inferd.limits.sliding_window import Slot
from inferd.limits.token_rates import Amounts, Reservation, TokenRates, amounts_of
from inferd.usage import Usage

_GIVES_BACK = (RateLimitError, InsufficientCreditError, OverloadedError)
"""Refusals after which a request has not counted; any other is the caller's, and counts."""
NOTHING: Amounts = (0, 0, 0)
BLOCK_TOKENS = 1024
"""Least generated tokens that are reserved of a completion whose limit is no smaller, and by which a reservation
grows (BILLING R15). Coding agents ask for 32,000 tokens and get some hundreds: a reservation of the limit would make
their second request wait for a minute."""


class Ticket:
    """Belongs to the event loop. Every ticket ends with `settle` or `refuse`; what comes after that does nothing.

    Args:
        contact: whom to ask for more.

    Attributes:
        num_generated: tokens that were sampled so far, of all choices.
        num_expected: tokens that are reserved for them; grows as they exceed it.
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
        """The most completion tokens that the caller's tier allows a request; None: any."""
        return self._allowance.max_output_tokens

    def take_request(self) -> None:
        """Raises RateLimitError."""
        bounds = self._allowance.rates.requests
        if bounds is not None:
            now_ms = self._limits.now_ms()
            self._take(self._limits.requests(self._allowance.team, bounds, now_ms), is_free=False, now_ms=now_ms)

    def enter(self, model: str, *, is_free: bool) -> None:
        """Begin to count as under way. Raises RateLimitError, and has taken nothing of this step then."""
        limits, allowance = self._limits, self._allowance
        now_ms = limits.now_ms()
        self._model = model
        bounds = allowance.rates.free_requests
        if is_free and bounds is not None:
            self._take(limits.free_requests(allowance.team, bounds, now_ms), is_free=True, now_ms=now_ms)
        full = limits.concurrency.enter(self._shares)
        if full is not None:
            scope, limit = self._shares[full]
            raise concurrency_refusal(scope, limit or 0, self._contact)
        self._is_inside = True

    def reserve(self, prompt_tokens: int, max_tokens: int, *, n_choices: int = 1) -> None:
        """Take tokens: the prompt as if nothing of it were cached, and for each choice its limit, or if that is less
        twice the mean of the deployment's completions, at least a block. Raises RateLimitError."""
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
        """More tokens were sampled. Never refuses a running request; the next admission waits instead."""
        self.num_generated += n_tokens
        while self.num_generated > self.num_expected < self._max_generated:
            block = min(BLOCK_TOKENS, self._max_generated - self.num_expected)
            self.num_expected += block
            if self._reservation is not None and self._tokens is not None:
                self._tokens.extend(self._reservation, block, self._limits.now_ms())

    def settle(self, usage: Usage) -> None:
        """It has ended, and came to this."""
        self._end(amounts_of(usage))
        if usage.completion_tokens:
            n_choices = self._n_choices
            self._limits.completion_tokens(self._model).add(usage.completion_tokens / n_choices, n_choices)

    def refuse(self, error: BaseException) -> None:
        """It was refused, and nothing was generated."""
        if isinstance(error, _GIVES_BACK):
            now_ms = self._limits.now_ms()
            for window, slot in self._slots:
                window.give_back(slot, 1, now_ms)
            self._slots.clear()
        self._end(NOTHING)

    def request_status(self) -> RateStatus | None:
        """The tighter of the windows that the request counts in; None: it has no limit."""
        now_ms = self._limits.now_ms()
        room = self._limits.room(now_ms)
        return min((w.status(room, now_ms) for w in self._windows), key=lambda s: s.remaining, default=None)

    def token_status(self) -> tuple[RateStatus, RateStatus, RateStatus] | None:
        """Total prompt, uncached prompt, generated; None: there are no limits, or it did not get as far as them."""
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


def unlimited_ticket(max_output_tokens: int | None = None) -> Ticket:
    """Of a request that counts in no limit; its length may still have one (BILLING R18)."""
    return Ticket(RateLimits(lambda: 0), replace(UNLIMITED, max_output_tokens=max_output_tokens))
