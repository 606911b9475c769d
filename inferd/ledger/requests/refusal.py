"""Refusals of holds (BILLING R4, R6, R7): one code for each cause, with the available credit and a limit that fits."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from inferd.errors import InsufficientCreditError
from inferd.instants import format_instant
from inferd.ledger.requests.pricing import largest_max_tokens
from inferd.ledger.terms.caps import Cap
from inferd.ledger.terms.terms import Terms
from inferd.money import display_usd
from inferd.price import Price
from inferd.subjects import team_subject

# For credit that is held by requests under way. The server replaces it by the engines' estimate of when these end.
_IN_FLIGHT_RETRY_AFTER_S = 1.0
_OPERATOR = "the operator of this server"


class Funds(msgspec.Struct, frozen=True):
    """The credit and the caps that a new hold must fit in.

    Attributes:
        caps: all that bound the request.
        available_nanousd: unexpired credit without the open holds.
        balance_nanousd: unexpired credit.
    """

    team: str
    terms: Terms
    caps: Sequence[Cap]
    available_nanousd: int
    balance_nanousd: int

    @property
    def left_nanousd(self) -> int:
        """The largest hold that credit and every cap cover; under postpaid only the caps count."""
        left = min(cap.left_nanousd for cap in self.caps)
        return left if self.terms.postpaid else min(left, self.available_nanousd)


class WorstCase(msgspec.Struct, frozen=True):
    """The most that a request can use, all its choices together, and its cost.

    Attributes:
        max_compute_ms: for a price by time.
    """

    amount_nanousd: int
    price: Price
    prompt_tokens: int
    max_completion_tokens: int
    max_compute_ms: int | None = None
    n_choices: int = 1

    def describe(self) -> str:
        most = f"This request can cost up to {display_usd(self.amount_nanousd)}"
        if self.max_compute_ms is not None:
            return f"{most} ({self.max_compute_ms} ms of compute)"
        tokens = f"{self.prompt_tokens} prompt tokens and at most {self.max_completion_tokens} completion tokens"
        return f"{most} ({tokens}{f' in {self.n_choices} choices' if self.n_choices > 1 else ''})"

    def remedy(self, left_nanousd: int) -> str:
        """Return the advice for a request that may cost at most `left_nanousd`."""
        if self.price.is_by_time:
            return "this model is billed by time, so a smaller max_tokens does not help"
        fits = (largest_max_tokens(self.price, self.prompt_tokens, left_nanousd) or 0) // self.n_choices
        if fits:
            return f"the largest max_tokens that would fit is {fits}"
        return "not even one completion token is covered"


def refusal(funds: Funds, worst_case: WorstCase, contact: str | None) -> InsufficientCreditError:
    """Return the error of a hold that `funds` do not cover. Permanent causes take precedence over temporary ones."""
    amount_nanousd = worst_case.amount_nanousd
    cost = f"{worst_case.describe()}, but"
    remedy = worst_case.remedy(funds.left_nanousd)
    terms = funds.terms
    credit = f"{cost} team '{funds.team}' has {display_usd(funds.available_nanousd)} available; {remedy}."
    if not terms.postpaid and amount_nanousd > funds.balance_nanousd:
        return InsufficientCreditError(f"{credit} {_advice(terms, contact)}")
    for cap in funds.caps:
        if amount_nanousd > cap.left_without_holds_nanousd:
            resets_at_ms = cap.resets_at_ms
            reset = "never resets" if resets_at_ms is None else f"resets at {format_instant(resets_at_ms)}"
            ask = _raise_advice(cap, funds.team, contact)
            return InsufficientCreditError(
                f"{cost} {cap.describe()}; {remedy}. This limit {reset}. {ask}", code=cap.code
            )
    if not terms.postpaid and amount_nanousd > funds.available_nanousd:
        message = f"{credit} Requests under way hold {display_usd(funds.balance_nanousd - funds.available_nanousd)}"
    else:
        cap = next(cap for cap in funds.caps if amount_nanousd > cap.left_nanousd)
        message = f"{cost} {cap.describe()}; {remedy}. Requests under way hold the rest"
    error = InsufficientCreditError(
        f"{message}: try again when they have ended.",
        code="in_flight_budget_exhausted",
        retry_after_s=_IN_FLIGHT_RETRY_AFTER_S,
    )
    error.held_nanousd = _held_nanousd(funds, amount_nanousd)
    return error


def _held_nanousd(funds: Funds, amount_nanousd: int) -> dict[str, int]:
    """Return, by scope, the nano-USD of open holds that must be freed before the amount is covered."""
    held_nanousd: dict[str, int] = {}
    if not funds.terms.postpaid and amount_nanousd > funds.available_nanousd:
        held_nanousd[team_subject(funds.team)] = amount_nanousd - funds.available_nanousd
    for cap in funds.caps:
        if amount_nanousd > cap.left_nanousd:
            missing_nanousd = amount_nanousd - cap.left_nanousd
            held_nanousd[cap.scope] = max(missing_nanousd, held_nanousd.get(cap.scope, 0))
    return held_nanousd


def _raise_advice(cap: Cap, team: str, contact: str | None) -> str:
    if cap.source == "team_budget":
        return f"Team '{team}' set this budget itself; a key of it with the scope `manage` can change it."
    return f"To raise it, ask {contact or _OPERATOR}."


def _advice(terms: Terms, contact: str | None) -> str:
    if terms.overage == "contact":
        return f"For more credit, contact {contact or _OPERATOR}."
    if terms.plan.payment_method_required and terms.tier > 0:
        return f"Ask {contact or _OPERATOR} for credit, switch pay-as-you-go on, or lower max_tokens."
    return f"Ask {contact or _OPERATOR} for credit, or lower max_tokens."
