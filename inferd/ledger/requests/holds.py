"""Holds: the worst case of a request, kept from its team's credit until it is settled or voided (BILLING R4, R16).

A hold is resolved exactly once, and never for more than was held. Resolving writes the usage row, the entries, the
counters and the hold's state in the one transaction that the command runs in.
"""

from __future__ import annotations

import logging
import sqlite3
from typing import ClassVar, Literal

import msgspec

from inferd.attribution import Attribution
from inferd.ledger.alerts.alerts import alert_exhausted, alert_low_balance, alert_no_credit, alert_spending
from inferd.ledger.credit import grants, included_credit, statements
from inferd.ledger.credit.accounts import BY_RULE, revenue_account
from inferd.ledger.requests.price_columns import price_of, values_of
from inferd.ledger.requests.pricing import cost_nanousd, hold_nanousd
from inferd.ledger.requests.refusal import Funds, WorstCase, refusal
from inferd.ledger.requests.usage import UsageRow
from inferd.ledger.storage.rows import insert_covered
from inferd.ledger.terms import counters
from inferd.ledger.terms.caps import caps_of
from inferd.ledger.terms.expiry_clock import expiry_ms
from inferd.ledger.terms.periods import LIFETIME, periods_of
from inferd.ledger.terms.team_snapshot import standing_of
from inferd.ledger.terms.terms import Terms
from inferd.price import Price
from inferd.subjects import team_subject
from inferd.usage import Usage

_log = logging.getLogger(__name__)


class HoldResolvedError(AssertionError):
    """A hold was resolved before, or never opened: a programmer's fault. Nothing was changed."""


class Hold(msgspec.Struct, frozen=True):
    """An open hold."""

    request_id: str
    amount_nanousd: int


class Settlement(msgspec.Struct, frozen=True):
    """What a request cost in the end."""

    cost_nanousd: int


class OpenHold(msgspec.Struct, frozen=True):
    """Admit a priced request: hold its worst case, see `hold_nanousd`.

    Attributes:
        request_id: the server's own; never used before.
        max_completion_tokens: the engine's stop, so that the cost cannot exceed the hold; of all choices together.
        epoch: what `begin_epoch` returned.

        max_compute_ms: the engine's other stop, if the price is by time; of all choices together.
        n_choices: among how many a refusal divides what would fit.
        contact: whom a team that is out of credit asks, if its plan says so.

    Raises (from apply):
        InsufficientCreditError: its credit or a cap does not cover it; nothing was changed. Code
            `credit_balance_exhausted` or `SCOPE_spend_limit_exceeded`; or `in_flight_budget_exhausted`, with a
            Retry-After, if all would once the open holds come to nothing.
    """

    # A hold that a power cut takes back died with its request.
    durable: ClassVar[bool] = False
    request_id: str
    attribution: Attribution
    price: Price
    prompt_tokens: int
    max_completion_tokens: int
    epoch: int
    admitted_at_ms: int
    contact: str | None = None
    max_compute_ms: int | None = None
    n_choices: int = 1

    @property
    def amount_nanousd(self) -> int:
        """What it can cost at most."""
        return hold_nanousd(self.price, self.prompt_tokens, self.max_completion_tokens, self.max_compute_ms or 0)

    def apply(self, conn: sqlite3.Connection) -> Hold:
        amount_nanousd, team = self.amount_nanousd, self.attribution.team
        standing = standing_of(conn, team, self.admitted_at_ms)
        terms = standing.terms
        open_grants = grants.open_grants(conn, team)
        at_ms = self.admitted_at_ms
        can_expire = grants.can_expire(open_grants)
        if terms.plan.included_nanousd or can_expire:
            at_ms = expiry_ms(conn, at_ms)
        is_due = included_credit.is_due(conn, team, terms.plan, at_ms)
        with_due = [*open_grants, included_credit.due(terms.plan, at_ms)] if is_due else open_grants
        held_nanousd = standing.counts[team_subject(team), LIFETIME].held_nanousd
        balance_nanousd = grants.available_nanousd(with_due, 0, at_ms)
        funds = Funds(
            team=team,
            terms=terms,
            caps=caps_of(conn, terms, self.attribution, self.admitted_at_ms, standing.counts),
            available_nanousd=max(0, balance_nanousd - held_nanousd),
            balance_nanousd=balance_nanousd,
        )
        if amount_nanousd > funds.left_nanousd:
            raise refusal(funds, self._worst_case(amount_nanousd), self.contact)
        if is_due:
            included_credit.give(conn, team, terms.plan, at_ms, self.admitted_at_ms)
        elif can_expire:
            grants.expire(conn, team, open_grants, self.admitted_at_ms)
        self._insert(conn, amount_nanousd, postpaid=amount_nanousd > funds.available_nanousd)
        return Hold(self.request_id, amount_nanousd)

    def _worst_case(self, amount_nanousd: int) -> WorstCase:
        return WorstCase(
            *(amount_nanousd, self.price, self.prompt_tokens, self.max_completion_tokens, self.max_compute_ms),
            n_choices=self.n_choices,
        )

    def _insert(self, conn: sqlite3.Connection, amount_nanousd: int, *, postpaid: bool) -> None:
        input_picousd, cached_input_picousd, output_picousd, compute_picousd, multiplier_ppm = values_of(self.price)
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
            self.max_compute_ms,
        )
        insert_covered(conn, "holds", covered, ("held", None))


class AlertRefusal(msgspec.Struct, frozen=True):
    """A hold was refused by a cap that is used up, which is alerted once a period, as its 100 %; or for lack of credit,
    which is alerted once a grant.

    A command of its own, since a refused hold changes nothing.
    """

    durable: ClassVar[bool] = False
    hold: OpenHold

    def apply(self, conn: sqlite3.Connection) -> None:
        hold, team = self.hold, self.hold.attribution.team
        standing = standing_of(conn, team, hold.admitted_at_ms)
        caps = caps_of(conn, standing.terms, hold.attribution, hold.admitted_at_ms, standing.counts)
        alert_exhausted(conn, team, caps, hold.amount_nanousd, hold.admitted_at_ms)
        if not standing.terms.postpaid:
            self._alert_no_credit(conn, standing.terms)

    def _alert_no_credit(self, conn: sqlite3.Connection, terms: Terms) -> None:
        """If the credit is too little, open holds aside; with what the plan includes and is due."""
        team, now_ms = self.hold.attribution.team, self.hold.admitted_at_ms
        at_ms = expiry_ms(conn, now_ms)
        found = [*grants.expire(conn, team, grants.open_grants(conn, team), now_ms)]
        if included_credit.is_due(conn, team, terms.plan, at_ms):
            found.append(included_credit.due(terms.plan, at_ms))
        left_nanousd = grants.available_nanousd(found, 0, at_ms)
        if self.hold.amount_nanousd > left_nanousd:
            alert_no_credit(conn, team, left_nanousd, terms.alerts, now_ms=now_ms)


class SettleHold(msgspec.Struct, frozen=True):
    """A request has ended and is billed for `usage`, at the price of its hold.

    Raises (from apply):
        HoldResolvedError: it was resolved before, or never held.
    """

    durable: ClassVar[bool] = True
    request_id: str
    usage: Usage
    status: Literal["completed", "cancelled"]
    finished_at_ms: int
    finish_reason: str | None = None

    def apply(self, conn: sqlite3.Connection) -> Settlement:
        held = _find_held(conn, self.request_id, "settled")
        team = held.attribution.team
        cost = cost_nanousd(held.price, self.usage)
        if cost > held.amount_nanousd:
            _log.error(
                "bug: request %s used %s, worth %d nano-USD, above its hold of %d; only the hold is charged",
                *(self.request_id, self.usage, cost, held.amount_nanousd),
            )
            cost = held.amount_nanousd
        open_grants = grants.expire(conn, team, grants.open_grants(conn, team), self.finished_at_ms)
        txn = None
        if cost > 0:
            month = periods_of(held.admitted_at_ms)[0]
            drawing = grants.draw(
                conn,
                team,
                open_grants,
                cost,
                to=revenue_account(held.attribution.deployment),
                request_id=self.request_id,
                period=month,
                actor=BY_RULE,
                at_ms=self.finished_at_ms,
            )
            txn, open_grants = drawing.txn, drawing.grants
            if drawing.owed_nanousd:
                statements.change(conn, team, month, charged=drawing.owed_nanousd)
        row = UsageRow(
            request_id=self.request_id,
            attribution=held.attribution,
            price=held.price,
            usage=self.usage,
            cost_nanousd=cost,
            status=self.status,
            finish_reason=self.finish_reason,
            admitted_at_ms=held.admitted_at_ms,
            finished_at_ms=self.finished_at_ms,
            txn=txn,
        )
        _resolve(conn, held, row, "settled")
        open_grants = grants.expire(conn, team, open_grants, self.finished_at_ms)
        if txn is not None:
            self._alert(conn, held, sum(grant.remaining_nanousd for grant in open_grants))
        return Settlement(cost)

    def _alert(self, conn: sqlite3.Connection, held: _HeldRow, left_nanousd: int) -> None:
        team = held.attribution.team
        standing = standing_of(conn, team, held.admitted_at_ms)
        caps = caps_of(conn, standing.terms, held.attribution, held.admitted_at_ms, standing.counts)
        alerts = standing.terms.alerts
        alert_spending(conn, team, caps, alerts, now_ms=self.finished_at_ms)
        alert_low_balance(conn, team, left_nanousd, alerts, now_ms=self.finished_at_ms)


class VoidHold(msgspec.Struct, frozen=True):
    """A request came to nothing and costs nothing: a usage row at cost 0 that counts no tokens (R16).

    Raises (from apply):
        HoldResolvedError: it was resolved before, or never held.
    """

    durable: ClassVar[bool] = True
    request_id: str
    status: Literal["failed", "cancelled"]
    finished_at_ms: int

    def apply(self, conn: sqlite3.Connection) -> None:
        held = _find_held(conn, self.request_id, "voided")
        team = held.attribution.team
        open_grants = grants.expire(conn, team, grants.open_grants(conn, team), self.finished_at_ms)
        row = UsageRow(
            request_id=self.request_id,
            attribution=held.attribution,
            price=held.price,
            usage=Usage(),
            cost_nanousd=0,
            status=self.status,
            finish_reason=None,
            admitted_at_ms=held.admitted_at_ms,
            finished_at_ms=self.finished_at_ms,
            txn=None,
        )
        _resolve(conn, held, row, "voided")
        grants.expire(conn, team, open_grants, self.finished_at_ms)


class _HeldRow(msgspec.Struct, frozen=True):
    """The columns of an open hold that resolving it needs."""

    rowid: int
    attribution: Attribution
    price: Price
    amount_nanousd: int
    admitted_at_ms: int


def _find_held(conn: sqlite3.Connection, request_id: str, end: Literal["settled", "voided"]) -> _HeldRow:
    """Return the open hold of a request. Raises HoldResolvedError if there is none."""
    row = conn.execute(
        "SELECT rowid, state, amount_nanousd, admitted_at_ms, "
        "team, project, user, key_id, deployment, service_tier, "
        "input_picousd, cached_input_picousd, output_picousd, compute_picousd, multiplier_ppm "
        "FROM holds WHERE request_id = ?",
        (request_id,),
    ).fetchone()
    if row is None or row[1] != "held":
        was = "was never opened" if row is None else f"is {row[1]} already"
        raise HoldResolvedError(f"request {request_id} cannot be {end}: its hold {was}")
    rowid, _, amount_nanousd, admitted_at_ms, team, project, user, key_id, deployment, service_tier, *price = row
    attribution = Attribution(team, project, user, key_id, deployment, service_tier)
    return _HeldRow(rowid, attribution, price_of(tuple(price)), amount_nanousd, admitted_at_ms)


def _resolve(conn: sqlite3.Connection, held: _HeldRow, row: UsageRow, state: Literal["settled", "voided"]) -> None:
    """Write the usage row, count its cost and end the hold."""
    row.insert(conn)
    counters.post(conn, row.attribution, row.cost_nanousd, row.admitted_at_ms)
    # By rowid, after a query: UPDATE ... RETURNING instead of both takes 1.5 times as long.
    conn.execute(
        "UPDATE holds SET state = ?, resolved_at_ms = ? WHERE rowid = ?", (state, row.finished_at_ms, held.rowid)
    )
