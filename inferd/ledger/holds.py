"""Holds: the worst case of a request, kept from its team's credit until it is settled or voided (BILLING R4, R16).

A hold is resolved exactly once, and never for more than was held. Resolving writes the usage row, the entries, the
counters and the hold's state in the one transaction that the command runs in.
"""

from __future__ import annotations

import logging
import sqlite3
from dataclasses import dataclass
from typing import ClassVar, Literal

from inferd.errors import InsufficientCreditError
from inferd.ledger import counters, grants
from inferd.ledger.accounts import BY_RULE, revenue_account
from inferd.ledger.clock import expiry_ms
from inferd.ledger.pricing import cost_nanousd, hold_nanousd, largest_max_tokens
from inferd.ledger.rows import insert
from inferd.ledger.usage import add_usage
from inferd.money import format_usd
from inferd.price import Price
from inferd.usage import Usage

_log = logging.getLogger(__name__)

# When credit is enough but held by requests under way: the least that a Retry-After can say.
_IN_FLIGHT_RETRY_AFTER_S = 1.0


class HoldResolvedError(AssertionError):
    """A hold was resolved before, or never opened: a programmer's fault. Nothing was changed."""


@dataclass(frozen=True, slots=True)
class Hold:
    """An open hold."""

    request_id: str
    amount_nanousd: int


@dataclass(frozen=True, slots=True)
class Settlement:
    """What a request cost in the end."""

    cost_nanousd: int


@dataclass(frozen=True, slots=True)
class OpenHold:
    """Admit a priced request: hold its worst case, `hold_nanousd(price, prompt_tokens, max_completion_tokens)`.

    Attributes:
        request_id: the server's own; never used before.
        max_completion_tokens: the engine's stop, so that the cost cannot exceed the hold.
        epoch: what `Store.begin_epoch` returned.

    Raises (from apply):
        InsufficientCreditError: the team's credit does not cover it. Code `in_flight_budget_exhausted`, with a
            Retry-After, if it would once the open holds are resolved; else `credit_balance_exhausted`.
    """

    # A hold that a power cut takes back died with its request.
    durable: ClassVar[bool] = False
    request_id: str
    team: str
    project: str
    user: str | None
    key_id: str
    deployment: str
    service_tier: str
    price: Price
    prompt_tokens: int
    max_completion_tokens: int
    epoch: int
    admitted_at_ms: int

    def apply(self, conn: sqlite3.Connection) -> Hold:
        amount_nanousd = hold_nanousd(self.price, self.prompt_tokens, self.max_completion_tokens)
        open_grants = grants.open_grants(conn, self.team)
        held_nanousd = counters.held_nanousd(conn, self.team)
        at_ms = expiry_ms(conn, self.admitted_at_ms)
        available_nanousd = grants.available_nanousd(open_grants, held_nanousd, at_ms)
        if amount_nanousd > available_nanousd:
            balance_nanousd = grants.available_nanousd(open_grants, 0, at_ms)
            raise self._refusal(amount_nanousd, available_nanousd, balance_nanousd)
        grants.expire(conn, self.team, open_grants, self.admitted_at_ms)
        self._insert(conn, amount_nanousd)
        counters.add_hold(conn, counters.team_scope(self.team), amount_nanousd, self.admitted_at_ms)
        return Hold(self.request_id, amount_nanousd)

    def _insert(self, conn: sqlite3.Connection, amount_nanousd: int) -> None:
        values = {
            "request_id": self.request_id,
            "epoch": self.epoch,
            "team": self.team,
            "project": self.project,
            "user": self.user,
            "key_id": self.key_id,
            "deployment": self.deployment,
            "service_tier": self.service_tier,
            "input_picousd": self.price.input_picousd,
            "cached_input_picousd": self.price.cached_input_picousd,
            "output_picousd": self.price.output_picousd,
            "prompt_tokens": self.prompt_tokens,
            "max_completion_tokens": self.max_completion_tokens,
            "amount_nanousd": amount_nanousd,
            "admitted_at_ms": self.admitted_at_ms,
            "state": "held",
            "resolved_at_ms": None,
        }
        insert(conn, "holds", values)

    def _refusal(self, amount_nanousd: int, available_nanousd: int, balance_nanousd: int) -> InsufficientCreditError:
        fits = largest_max_tokens(self.price, self.prompt_tokens, available_nanousd)
        remedy = (
            f"the largest max_tokens that would fit is {fits}"
            if fits
            else "the largest max_tokens that would fit is 0: not even one token is covered"
        )
        message = (
            f"This request can cost up to ${format_usd(amount_nanousd)} ({self.prompt_tokens} prompt tokens and at "
            f"most {self.max_completion_tokens} completion tokens), but team '{self.team}' has "
            f"${format_usd(available_nanousd)} available; {remedy}."
        )
        if amount_nanousd <= balance_nanousd:
            held = format_usd(balance_nanousd - available_nanousd)
            return InsufficientCreditError(
                f"{message} Requests under way hold ${held}: try again when they have ended.",
                code="in_flight_budget_exhausted",
                retry_after_s=_IN_FLIGHT_RETRY_AFTER_S,
            )
        return InsufficientCreditError(f"{message} Add credit to the team, or lower max_tokens.")


@dataclass(frozen=True, slots=True)
class SettleHold:
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
        held = _take(conn, self.request_id, "settled", self.finished_at_ms)
        cost = cost_nanousd(held.price, self.usage)
        if cost > held.amount_nanousd:
            _log.error(
                "bug: request %s used %s, worth %d nano-USD, above its hold of %d; only the hold is charged",
                *(self.request_id, self.usage, cost, held.amount_nanousd),
            )
            cost = held.amount_nanousd
        open_grants = grants.expire(conn, held.team, grants.open_grants(conn, held.team), self.finished_at_ms)
        txn = None
        if cost > 0:
            txn, open_grants = grants.draw(
                conn,
                held.team,
                open_grants,
                cost,
                to=revenue_account(held.deployment),
                request_id=self.request_id,
                actor=BY_RULE,
                at_ms=self.finished_at_ms,
            )
        held.finish(conn, self.usage, cost, self.status, self.finish_reason, self.finished_at_ms, txn)
        grants.expire(conn, held.team, open_grants, self.finished_at_ms)
        return Settlement(cost)


@dataclass(frozen=True, slots=True)
class VoidHold:
    """A request came to nothing and costs nothing: a usage row at cost 0 that counts no tokens (R16).

    Raises (from apply):
        HoldResolvedError: it was resolved before, or never held.
    """

    durable: ClassVar[bool] = True
    request_id: str
    status: Literal["failed", "cancelled"]
    finished_at_ms: int

    def apply(self, conn: sqlite3.Connection) -> None:
        held = _take(conn, self.request_id, "voided", self.finished_at_ms)
        open_grants = grants.expire(conn, held.team, grants.open_grants(conn, held.team), self.finished_at_ms)
        held.finish(conn, Usage(), 0, self.status, None, self.finished_at_ms, None)
        grants.expire(conn, held.team, open_grants, self.finished_at_ms)


@dataclass(frozen=True, slots=True)
class _HeldRow:
    """What a hold that is being resolved was opened with."""

    request_id: str
    team: str
    project: str
    user: str | None
    key_id: str
    deployment: str
    service_tier: str
    price: Price
    amount_nanousd: int
    admitted_at_ms: int

    def finish(
        self,
        conn: sqlite3.Connection,
        usage: Usage,
        cost_nanousd: int,
        status: Literal["completed", "cancelled", "failed"],
        finish_reason: str | None,
        finished_at_ms: int,
        txn: int | None,
    ) -> None:
        """Write the usage row and turn what the counters hold into what they have posted."""
        add_usage(
            conn,
            request_id=self.request_id,
            team=self.team,
            project=self.project,
            user=self.user,
            key_id=self.key_id,
            deployment=self.deployment,
            service_tier=self.service_tier,
            price=self.price,
            usage=usage,
            cost_nanousd=cost_nanousd,
            status=status,
            finish_reason=finish_reason,
            admitted_at_ms=self.admitted_at_ms,
            finished_at_ms=finished_at_ms,
            txn=txn,
        )
        counters.resolve_hold(
            conn, counters.team_scope(self.team), self.amount_nanousd, cost_nanousd, self.admitted_at_ms
        )


def _take(conn: sqlite3.Connection, request_id: str, state: Literal["settled", "voided"], at_ms: int) -> _HeldRow:
    """Resolve the hold, if it is still held."""
    rows = conn.execute(
        "UPDATE holds SET state = ?, resolved_at_ms = ? WHERE request_id = ? AND state = 'held' "
        "RETURNING team, project, user, key_id, deployment, service_tier, input_picousd, output_picousd, "
        "cached_input_picousd, amount_nanousd, admitted_at_ms",
        (state, at_ms, request_id),
    ).fetchall()
    if not rows:
        before = conn.execute("SELECT state FROM holds WHERE request_id = ?", (request_id,)).fetchone()
        was = "was never opened" if before is None else f"is {before[0]} already"
        raise HoldResolvedError(f"request {request_id} cannot be {state}: its hold {was}")
    team, project, user, key_id, deployment, service_tier, *price, amount_nanousd, admitted_at_ms = rows[0]
    return _HeldRow(
        request_id=request_id,
        team=team,
        project=project,
        user=user,
        key_id=key_id,
        deployment=deployment,
        service_tier=service_tier,
        price=Price(*price),
        amount_nanousd=amount_nanousd,
        admitted_at_ms=admitted_at_ms,
    )
