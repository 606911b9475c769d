"""Holds: the worst case of a request, reserved from its team's credit until it is settled or voided (BILLING R4)."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import ClassVar

import msgspec

from inferd.attribution import Attribution
from inferd.ledger.alerts.alerts import alert_exhausted, alert_no_credit
from inferd.ledger.credit import grants
from inferd.ledger.credit.included_credit import due_grant
from inferd.ledger.requests.pricing import FREE, hold_nanousd, values_of
from inferd.ledger.requests.refusal import Funds, WorstCase, refusal
from inferd.ledger.storage.rows import insert_covered
from inferd.ledger.terms.caps import Cap, caps_of
from inferd.ledger.terms.expiry_clock import expiry_ms
from inferd.ledger.terms.periods import LIFETIME
from inferd.ledger.terms.team_snapshot import snapshot_of
from inferd.ledger.terms.terms import Terms
from inferd.price import Price
from inferd.subjects import team_subject
from inferd.units import Amounts


class Hold(msgspec.Struct, frozen=True):
    """An open hold.

    Attributes:
        max_compute_ms: where the engine must stop, all choices together; None: compute time is neither billed nor
            bounded by a budget.
    """

    request_id: str
    amount_nanousd: int
    max_compute_ms: int | None


class OpenHold(msgspec.Struct, frozen=True):
    """Admit a request and hold the most that it can use: its cost, see `hold_nanousd`, its tokens and, if a cap or
    the price counts it, its compute time.

    Attributes:
        request_id: the server's own; never used before.
        price: None for a free deployment, which needs a hold only if tokens or compute time of its team are bounded.
        max_completion_tokens: where the engine stops, all choices together: so the cost cannot exceed the hold.
        epoch: the result of `begin_epoch`.
        contact: named in the refusal of a team without credit, if its plan says so.
        max_compute_ms: where the engine stops if the price is by time or compute time is bounded, all choices
            together.
        n_choices: a refusal says how many tokens of each choice the credit covers.

    Raises (from apply):
        InsufficientCreditError: credit or a cap does not cover the hold; nothing was changed. Code
            `credit_balance_exhausted`, or `SCOPE_spend_limit_exceeded`, `SCOPE_token_limit_exceeded` or
            `SCOPE_compute_limit_exceeded`; or `in_flight_budget_exhausted`, with a Retry-After, if they would cover it
            without the open holds.
    """

    # Not synced: a power cut that loses the hold ends its request too.
    durable: ClassVar[bool] = False
    request_id: str
    attribution: Attribution
    price: Price | None
    prompt_tokens: int
    max_completion_tokens: int
    epoch: int
    admitted_at_ms: int
    contact: str | None = None
    max_compute_ms: int | None = None
    n_choices: int = 1

    @property
    def amount_nanousd(self) -> int:
        """The most that the request can cost."""
        if self.price is None:
            return 0
        return hold_nanousd(self.price, self.prompt_tokens, self.max_completion_tokens, self.max_compute_ms or 0)

    @property
    def amounts(self) -> Amounts:
        """The most that the request can use in each unit."""
        tokens = self.prompt_tokens + self.max_completion_tokens
        return Amounts(self.amount_nanousd, tokens, self.max_compute_ms or 0)

    def apply(self, conn: sqlite3.Connection) -> Hold:
        amounts, team = self.amounts, self.attribution.team
        snapshot = snapshot_of(conn, team, self.admitted_at_ms)
        terms = snapshot.terms
        open_grants = grants.open_grants(conn, team)
        at_ms = self.admitted_at_ms
        can_expire = grants.can_expire(open_grants)
        if terms.plan.included_nanousd or can_expire:
            at_ms = expiry_ms(conn, at_ms)
        due = due_grant(conn, team, terms.plan, at_ms, self.admitted_at_ms)
        with_due = open_grants if due is None else [*open_grants, due]
        held_nanousd = snapshot.spend[team_subject(team), "usd", LIFETIME].held
        balance_nanousd = grants.available_nanousd(with_due, 0, at_ms)
        funds = Funds(
            team=team,
            terms=terms,
            caps=caps_of(conn, terms, self.attribution, self.admitted_at_ms, snapshot.spend),
            available_nanousd=max(0, balance_nanousd - held_nanousd),
            balance_nanousd=balance_nanousd,
        )
        if not funds.covers(amounts):
            raise refusal(funds, self._worst_case(amounts), self.contact)
        if due is not None:
            grants.add_grant(conn, due)
        elif can_expire:
            grants.expire(conn, team, open_grants, self.admitted_at_ms)
        max_compute_ms = self.max_compute_ms if self._counts_compute(funds.caps) else None
        postpaid = amounts.nanousd > funds.available_nanousd
        self._insert(conn, amounts.nanousd, max_compute_ms, postpaid=postpaid)
        return Hold(self.request_id, amounts.nanousd, max_compute_ms)

    def _counts_compute(self, caps: Sequence[Cap]) -> bool:
        """Return whether the price or a cap counts compute time."""
        if self.price is not None and self.price.is_by_time:
            return True
        if not any(cap.unit == "compute_ms" for cap in caps):
            return False
        assert self.max_compute_ms is not None, "a request whose compute time is bounded has a limit of it"
        return True

    def _worst_case(self, amounts: Amounts) -> WorstCase:
        return WorstCase(amounts, self.price, self.prompt_tokens, self.max_completion_tokens, self.n_choices)

    def _insert(
        self, conn: sqlite3.Connection, amount_nanousd: int, max_compute_ms: int | None, *, postpaid: bool
    ) -> None:
        price = FREE if self.price is None else self.price
        input_picousd, cached_input_picousd, output_picousd, compute_picousd, multiplier_ppm = values_of(price)
        covered = (
            self.request_id,
            self.epoch,
            *msgspec.structs.astuple(self.attribution),
            input_picousd,
            cached_input_picousd,
            output_picousd,
            self.prompt_tokens,
            self.max_completion_tokens,
            amount_nanousd,
            self.admitted_at_ms,
            1 if postpaid else None,
            compute_picousd,
            multiplier_ppm,
            max_compute_ms,
            1 if self.price is None else None,
        )
        insert_covered(conn, "holds", covered, ("held", None))


class AlertRefusal(msgspec.Struct, frozen=True):
    """Alert that a hold was refused: by a spent cap, once a period, as its 100 %; or for lack of credit, once a grant.

    A command of its own, since a refused hold changes nothing.
    """

    durable: ClassVar[bool] = False
    hold: OpenHold

    def apply(self, conn: sqlite3.Connection) -> None:
        hold, team = self.hold, self.hold.attribution.team
        snapshot = snapshot_of(conn, team, hold.admitted_at_ms)
        caps = caps_of(conn, snapshot.terms, hold.attribution, hold.admitted_at_ms, snapshot.spend)
        alert_exhausted(conn, team, caps, hold.amounts, hold.admitted_at_ms)
        if not snapshot.terms.postpaid:
            self._alert_no_credit(conn, snapshot.terms)

    def _alert_no_credit(self, conn: sqlite3.Connection, terms: Terms) -> None:
        """Alert if the credit, with the plan's included credit and without the open holds, is too little."""
        team, now_ms = self.hold.attribution.team, self.hold.admitted_at_ms
        at_ms = expiry_ms(conn, now_ms)
        found = [*grants.expire(conn, team, grants.open_grants(conn, team), now_ms)]
        due = due_grant(conn, team, terms.plan, at_ms, now_ms)
        if due is not None:
            found.append(due)
        left_nanousd = grants.available_nanousd(found, 0, at_ms)
        if self.hold.amount_nanousd > left_nanousd:
            alert_no_credit(conn, team, left_nanousd, terms.alerts, now_ms=now_ms)
