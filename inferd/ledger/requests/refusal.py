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
from inferd.plans import Unit
from inferd.price import Price
from inferd.subjects import team_subject
from inferd.units import Amounts, display_amount

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

    def left(self, unit: Unit) -> int | None:
        """Return the largest hold in a unit that credit and every cap cover; None: any. Under postpaid only the caps
        count."""
        left = [cap.left for cap in self.caps if cap.unit == unit]
        if unit == "usd" and not self.terms.postpaid:
            left.append(self.available_nanousd)
        return min(left, default=None)

    def covers(self, amounts: Amounts) -> bool:
        """Return whether a hold of these amounts fits."""
        if not self.terms.postpaid and amounts.nanousd > self.available_nanousd:
            return False
        return all(amounts.of(cap.unit) <= cap.left for cap in self.caps)


class WorstCase(msgspec.Struct, frozen=True):
    """The most that a request can use, all its choices together.

    Attributes:
        amounts: its cost, its tokens, and its compute time if that is bounded.
        price: None: it is free.
    """

    amounts: Amounts
    price: Price | None
    prompt_tokens: int
    max_completion_tokens: int
    n_choices: int = 1

    @property
    def _by_time(self) -> bool:
        return self.price is not None and self.price.is_by_time

    def describe(self, unit: Unit) -> str:
        """Return the most that it can use of a unit, and what that follows from."""
        amount = display_amount(unit, self.amounts.of(unit))
        if unit == "compute_ms":
            return f"This request can take up to {amount} of compute time"
        if unit == "usd" and self._by_time:
            return f"This request can cost up to {amount} ({self.amounts.compute_ms} ms of compute)"
        verb = "cost" if unit == "usd" else "use"
        tokens = f"{self.prompt_tokens} prompt tokens"
        if self.max_completion_tokens:
            tokens += f" and at most {self.max_completion_tokens} completion tokens"
        choices = f" in {self.n_choices} choices" if self.n_choices > 1 else ""
        return f"This request can {verb} up to {amount} ({tokens}{choices})"

    def remedy(self, unit: Unit, funds: Funds) -> str:
        """Return the advice for a request that needs more of a unit than `funds` have left."""
        if unit == "compute_ms":
            return "each request to this model takes that much into account, whatever its max_tokens"
        if unit == "usd" and self._by_time:
            return "this model is billed by time, so a smaller max_tokens does not help"
        if not self.max_completion_tokens:
            return "fewer or shorter inputs at once would take less"
        fits = self._fitting_tokens(funds) // self.n_choices
        if fits:
            return f"the largest max_tokens that would fit is {fits}"
        return "not even one completion token is covered"

    def _fitting_tokens(self, funds: Funds) -> int:
        """Return the most completion tokens, of all choices, that fit in credit and caps of money and of tokens."""
        fits = []
        left_nanousd, left_tokens = funds.left("usd"), funds.left("tokens")
        if self.price is not None and not self._by_time and left_nanousd is not None:
            fits.append(largest_max_tokens(self.price, self.prompt_tokens, left_nanousd))
        if left_tokens is not None:
            fits.append(max(0, left_tokens - self.prompt_tokens))
        return min((number for number in fits if number is not None), default=0)


def refusal(funds: Funds, worst_case: WorstCase, contact: str | None) -> InsufficientCreditError:
    """Return the error of a hold that `funds` do not cover. Permanent causes take precedence over temporary ones."""
    needed, terms = worst_case.amounts, funds.terms
    credit = (
        f"{worst_case.describe('usd')}, but team '{funds.team}' has {display_usd(funds.available_nanousd)} available; "
        f"{worst_case.remedy('usd', funds)}."
    )
    if not terms.postpaid and needed.nanousd > funds.balance_nanousd:
        return InsufficientCreditError(f"{credit} {_advice(terms, contact)}")
    for cap in funds.caps:
        if needed.of(cap.unit) > cap.left_without_holds:
            resets_at_ms = cap.resets_at_ms
            reset = "never resets" if resets_at_ms is None else f"resets at {format_instant(resets_at_ms)}"
            ask = _raise_advice(cap, funds.team, contact)
            return InsufficientCreditError(f"{_over(cap, worst_case, funds)} This limit {reset}. {ask}", code=cap.code)
    if not terms.postpaid and needed.nanousd > funds.available_nanousd:
        message = f"{credit} Requests under way hold {display_usd(funds.balance_nanousd - funds.available_nanousd)}"
    else:
        cap = next(cap for cap in funds.caps if needed.of(cap.unit) > cap.left)
        message = f"{_over(cap, worst_case, funds)} Requests under way hold the rest"
    error = InsufficientCreditError(
        f"{message}: try again when they have ended.",
        code="in_flight_budget_exhausted",
        retry_after_s=_IN_FLIGHT_RETRY_AFTER_S,
    )
    error.missing = _missing(funds, needed)
    return error


def _over(cap: Cap, worst_case: WorstCase, funds: Funds) -> str:
    """Return what the request needs, what the cap says, and what would fit."""
    return f"{worst_case.describe(cap.unit)}, but {cap.describe()}; {worst_case.remedy(cap.unit, funds)}."


def _missing(funds: Funds, needed: Amounts) -> dict[tuple[str, Unit], int]:
    """Return, by scope and unit, the amount of open holds that must be freed before the request is covered."""
    missing: dict[tuple[str, Unit], int] = {}
    if not funds.terms.postpaid and needed.nanousd > funds.available_nanousd:
        missing[team_subject(funds.team), "usd"] = needed.nanousd - funds.available_nanousd
    for cap in funds.caps:
        over = needed.of(cap.unit) - cap.left
        if over > 0:
            missing[cap.scope, cap.unit] = max(over, missing.get((cap.scope, cap.unit), 0))
    return missing


def _raise_advice(cap: Cap, team: str, contact: str | None) -> str:
    if cap.set_by_team:
        return f"Team '{team}' set this budget itself; a key of it with the scope `manage` can change it."
    return f"To raise it, ask {contact or _OPERATOR}."


def _advice(terms: Terms, contact: str | None) -> str:
    if terms.overage == "contact":
        return f"For more credit, contact {contact or _OPERATOR}."
    if terms.plan.payment_method_required and terms.tier > 0:
        return f"Ask {contact or _OPERATOR} for credit, switch pay-as-you-go on, or lower max_tokens."
    return f"Ask {contact or _OPERATOR} for credit, or lower max_tokens."
