"""Random sequences of all operations against a model that counts single nano-USD and sweeps at every moment."""

from __future__ import annotations

from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    invariant,
    multiple,
    rule,
    run_state_machine_as_test,
)

from inferd.errors import InsufficientCreditError
from inferd.ledger.credit.grants import ExpireGrants
from inferd.ledger.reports.usage import usage_report
from inferd.ledger.requests.settlement import next_epoch
from inferd.money import parse_usd
from tests.ledger.books import memory_books
from tests.ledger.credit_model import Model, ModelGrant

MINUTE_MS = 60_000
MONTH_MINUTES = 31 * 24 * 60


class Ledger(RuleBasedStateMachine):
    """The ledger and its model, side by side."""

    open_requests: Bundle[Any] = Bundle("open_requests")

    def __init__(self) -> None:
        super().__init__()
        self.books = memory_books()
        self.model = Model()

    def teardown(self) -> None:
        self.books.assert_clean()
        self.check_usage_adds_up_to_revenue_under_every_grouping()
        self.books.conn.close()

    def check_usage_adds_up_to_revenue_under_every_grouping(self) -> None:
        for by in ("model", "day", "key", "team", "request"):
            report = usage_report(self.books.conn, by)
            assert sum(parse_usd(row["cost_usd"]) for row in report.rows) == self.model.spent
            assert parse_usd(report.total["cost_usd"]) == self.model.spent

    @rule(
        amount=st.integers(1, 6),
        kind=st.sampled_from(["paid", "promotional"]),
        priority=st.sampled_from([10, 50, 90]),
        minutes=st.none() | st.integers(1, 3),
    )
    def grant(self, amount: int, kind: str, priority: int, minutes: int | None) -> None:
        expires_at_ms = None if minutes is None else self.books.now_ms + minutes * MINUTE_MS
        grant = self.books.grant(amount, kind, priority=priority, expires_at_ms=expires_at_ms)
        self.model.sweep(self.books.now_ms)
        self.model.grants.append(ModelGrant(grant.grant_id, kind, priority, amount, expires_at_ms))
        self.model.sweep(self.books.now_ms)

    @rule(minutes=st.sampled_from([1, 2, 3, MONTH_MINUTES]))
    def wait(self, minutes: int) -> None:
        self.books.now_ms += minutes * MINUTE_MS

    @rule(target=open_requests, prompt=st.integers(0, 2), completion=st.integers(0, 4))
    def open_hold(self, prompt: int, completion: int) -> Any:
        available = max(0, self.model.unexpired(self.books.now_ms) - self.model.held())
        try:
            request_id = self.books.hold(prompt, completion)
        except InsufficientCreditError:
            assert prompt + completion > available
            return multiple()
        assert prompt + completion <= available
        self.model.sweep(self.books.now_ms)
        self.model.holds[request_id] = prompt + completion
        return (request_id, prompt, completion)

    @rule(
        target=open_requests,
        grants=st.lists(st.tuples(st.integers(1, 6), st.sampled_from([10, 50]), st.integers(1, 3)), max_size=3),
        left_over=st.integers(0, 6),
        minutes=st.integers(0, 3),
    )
    def let_expire_under_a_hold(self, grants: Any, left_over: int, minutes: int) -> Any:
        """What random rules seldom come upon: a hold that expired grants have to cover."""
        for amount, priority, lasts_minutes in grants:
            self.grant(amount, "paid", priority, lasts_minutes)
        available = max(0, self.model.unexpired(self.books.now_ms) - self.model.held())
        request = self.open_hold(0, max(0, available - left_over))
        self.wait(minutes)
        return request

    @rule(
        request=consumes(open_requests),
        share=st.sampled_from([0, 0.5, 0.8, 1]),
        status=st.sampled_from(["completed", "cancelled"]),
    )
    def settle(self, request: Any, share: float, status: str) -> None:
        request_id, prompt, completion = request
        if request_id not in self.model.holds:
            return
        used = (int(prompt * share), int(completion * share))
        self.model.sweep(self.books.now_ms)
        assert self.books.settle(request_id, *used, status=status) == sum(used)
        self.model.pay(sum(used))
        del self.model.holds[request_id]
        self.model.sweep(self.books.now_ms)

    @rule(request=consumes(open_requests))
    def void(self, request: Any) -> None:
        if request[0] not in self.model.holds:
            return
        self.model.sweep(self.books.now_ms)
        self.books.apply(self.books.void(request[0]))
        del self.model.holds[request[0]]
        self.model.sweep(self.books.now_ms)

    @rule()
    def sweep(self) -> None:
        self.books.apply(ExpireGrants(self.books.now_ms))
        self.model.sweep(self.books.now_ms)

    @rule()
    def crash(self) -> None:
        self.books.epoch = next_epoch(self.books.conn, 1, self.books.now_ms)
        if self.model.holds:
            self.model.sweep(self.books.now_ms)
            self.model.holds.clear()
            self.model.sweep(self.books.now_ms)

    @invariant()
    def credit_is_that_of_the_model(self) -> None:
        now_ms = self.books.now_ms
        credit = self.books.credit()
        assert credit.held_nanousd == self.model.held()
        assert credit.available_nanousd == max(0, self.model.unexpired(now_ms) - self.model.held())

    @invariant()
    def every_grant_has_left_what_the_model_says(self) -> None:
        assert self.books.remaining() == {grant.number: grant.left for grant in self.model.grants}
        balances = dict(self.books.conn.execute("SELECT account, balance_nanousd FROM balances").fetchall())
        assert sum(balances.values()) == 0
        assert balances.get("expired", 0) == self.model.expired
        assert balances.get("revenue:local/tiny", 0) == self.model.spent

    @invariant()
    def every_grant_paid_and_lost_what_the_model_says(self) -> None:
        moved = self.books.conn.execute(
            "SELECT kind, CAST(substr(account, length('team:acme:credit:') + 1) AS INTEGER), -sum(amount_nanousd) "
            "FROM entries JOIN transactions USING (txn) WHERE account LIKE 'team:%' AND kind <> 'grant' "
            "GROUP BY 1, 2"
        )
        expected = {("settlement", grant.number, grant.paid) for grant in self.model.grants if grant.paid}
        expected |= {("expiry", grant.number, grant.expired) for grant in self.model.grants if grant.expired}
        assert set(moved) == expected

    @invariant()
    def holds_are_covered(self) -> None:
        assert self.model.held() <= self.books.one("SELECT coalesce(sum(remaining_nanousd), 0) FROM grants")


def test_operations_in_any_order_keep_the_ledger_consistent():
    """R4, R8, R16: covered holds, exact draws, lazy expiry that is as good as an eager one, clean audits."""
    run_state_machine_as_test(Ledger, settings=settings(stateful_step_count=30))
