"""Random sequences of all operations on money against limits recomputed from the requests."""

from __future__ import annotations

from collections import Counter
from fractions import Fraction
from math import ceil, floor, inf
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from inferd.errors import InsufficientCreditError, OperationError
from inferd.ledger import operations
from inferd.ledger.credit.grants import ExpireGrants
from inferd.ledger.reports.usage import usage_report
from inferd.ledger.requests.settlement import next_epoch
from inferd.money import parse_usd
from inferd.price import PPM, Price
from inferd.usage import Usage
from tests.ledger.books import memory_books
from tests.ledger.money_model import CATALOG, DAY_MS, OWNERS, PRICES, Request, day, scopes


class Money(RuleBasedStateMachine):
    """Team acme, its users, projects and one key."""

    @initialize()
    def begin(self) -> None:
        self.books = memory_books()
        self.requests: list[Request] = []
        self.budgets: dict[tuple[str, str], int] = {}
        self.raises: list[tuple[int, int, int]] = []
        who: Any = {"by": operations.Author("test", self.books.now_ms)}
        for user in ("ada", "bob"):
            operations.create_member(self.books.conn, "user", "acme", user, **who)
        operations.create_member(self.books.conn, "project", "acme", "web", **who)
        operations.apply_plans(self.books.conn, CATALOG, **who)
        self.plan, self.overage, self.payment_method, self.earned = CATALOG.plans["academic"], None, False, 0
        self.override: tuple[int, float] | None = None
        self.given: set[tuple[str, str]] = set()

    def teardown(self) -> None:
        self.books.assert_clean()
        spent = sum(request.cost for request in self.requests)
        refunded = sum(request.refunded for request in self.requests)
        for by in ("model", "day", "key", "team", "request", "project", "user", "service_tier"):
            report = usage_report(self.books.conn, by)
            assert sum(parse_usd(row["cost_usd"]) for row in report.rows) == spent
            assert sum(parse_usd(row["refunded_usd"]) for row in report.rows) == refunded
        self.books.conn.close()

    @property
    def who(self) -> Any:
        return {"by": operations.Author("test", self.books.now_ms)}

    def attempt(self, operation: Any, *args: Any, **options: Any) -> Any:
        """An operation that a state may refuse; then it has changed nothing."""
        before = self.books.conn.total_changes
        try:
            return operation(self.books.conn, *args, **options, **self.who)
        except OperationError:
            assert self.books.conn.total_changes == before
            return None

    def scope_sums(self, scope: str, kind: str) -> tuple[int, int]:
        """(posted, held) of a scope in the present month, year, or ever."""
        length = {"month": 7, "year": 4, "lifetime": 0}[kind]
        now = day(self.books.now_ms)[:length]
        mine = [
            request
            for request in self.requests
            if scope in scopes(request.owner) and day(request.admitted_at_ms)[:length] == now
        ]
        return sum(r.cost - r.refunded for r in mine), sum(0 if r.over else r.held for r in mine)

    @property
    def tier(self) -> int:
        if self.override is not None and self.books.now_ms < self.override[1]:
            return self.override[0]
        return max(self.earned, self.plan.tier_floor)

    @property
    def postpaid(self) -> bool:
        wanted = (self.overage or self.plan.overage) == "postpaid"
        return wanted and self.tier > 0 and (self.payment_method or not self.plan.payment_method_required)

    @property
    def due(self) -> tuple[str, str] | None:
        """The plan and the period whose included credit nobody had yet."""
        period = "once" if self.plan.included_every == "once" else day(self.books.now_ms)[:7]
        return None if (self.plan.name, period) in self.given else (self.plan.name, period)

    def money_came_in(self) -> None:
        """R2, from the accounts: what was paid for credit and on statements, less what was taken back."""
        balances = dict(self.books.conn.execute("SELECT account, balance_nanousd FROM accounts").fetchall())
        qualifying = -balances.get("funding:paid", 0) - balances.get("payments", 0)
        reached = [number for number in (2, 3, 4) if qualifying >= (CATALOG.tiers[number].qualifying_nanousd or 0)]
        self.earned = max(self.earned, int(self.payment_method or qualifying > 0), *reached)

    def room(self, owner: dict[str, str]) -> int:
        """The largest hold that every rule allows."""
        plan, tier = self.plan, CATALOG.tiers[self.tier]
        now_ms = self.books.now_ms
        raised = sum(amount for from_ms, until_ms, amount in self.raises if from_ms <= now_ms < until_ms)
        limits = [("team", plan.cap_period, plan.cap_nanousd), ("team", "month", tier.monthly_nanousd)]
        limits += [(scope, kind, amount) for (scope, kind), amount in self.budgets.items() if scope in scopes(owner)]
        left = []
        for scope, kind, amount in limits:
            if amount is not None:
                posted, held = self.scope_sums(scope, kind)
                left.append(amount + (raised if scope == "team" else 0) - posted - held)
        if not self.postpaid:
            left.append(self.unheld)
        return max(0, min(left))

    @property
    def unheld(self) -> int:
        """What is left of credit beside the open holds; below zero if some were admitted without it."""
        unexpired: int = self.books.one(
            "SELECT coalesce(sum(remaining_nanousd), 0) FROM grants WHERE (expires_at_ms IS NULL "
            "OR expires_at_ms > ?) AND grant_id NOT IN (SELECT grant_id FROM voids)",
            self.books.now_ms,
        )
        due_nanousd = self.plan.included_nanousd if self.due else 0
        return unexpired + due_nanousd - self.scope_sums("team", "lifetime")[1]

    @rule(
        amount=st.integers(1, 60),
        kind=st.sampled_from(["paid", "promotional"]),
        days=st.none() | st.integers(1, 40),
    )
    def grant(self, amount: int, kind: str, days: int | None) -> None:
        self.books.grant(amount, kind, expires_at_ms=None if days is None else self.books.now_ms + days * DAY_MS)
        self.money_came_in()

    @rule(days=st.sampled_from([1, 9, 31, 200]))
    def wait(self, days: int) -> None:
        self.books.now_ms += days * DAY_MS

    @rule(plan=st.sampled_from(sorted(CATALOG.plans)))
    def change_plan(self, plan: str) -> None:
        operations.set_team(self.books.conn, "acme", operations.TeamChange(plan=plan), **self.who)
        self.plan = CATALOG.plans[plan]

    @rule(tier=st.sampled_from([0, 1, 2, 4, 5]), days=st.none() | st.integers(1, 40))
    def override_tier(self, tier: int, days: int | None) -> None:
        until_ms = None if days is None else self.books.now_ms + days * DAY_MS
        operations.set_team(
            self.books.conn, "acme", operations.TeamChange(tier=tier, tier_until_ms=until_ms), **self.who
        )
        self.override = tier, inf if until_ms is None else until_ms

    @rule()
    def earn_the_tier_again(self) -> None:
        operations.set_team(self.books.conn, "acme", operations.TeamChange(earn_tier=True), **self.who)
        self.override = None

    @rule(on=st.booleans())
    def change_payment_method(self, on: bool) -> None:
        operations.set_team(self.books.conn, "acme", operations.TeamChange(payment_method=on), **self.who)
        self.payment_method = on
        if on:
            self.money_came_in()

    @rule(overage=st.sampled_from(["block", "postpaid", "contact"]))
    def change_overage(self, overage: Any) -> None:
        before, self.overage = self.overage, overage
        allowed = overage != "postpaid" or self.postpaid
        self.books.conn.execute("SAVEPOINT change")
        try:
            operations.set_team(self.books.conn, "acme", operations.TeamChange(overage=overage), **self.who)
            assert allowed
        except OperationError:
            assert not allowed
            self.overage = before
            self.books.conn.execute("ROLLBACK TO change")
        finally:
            self.books.conn.execute("RELEASE change")

    @rule(
        owner=st.sampled_from([{}, {"user": "ada"}, {"project": "web"}, "key"]),
        kind=st.sampled_from(["month", "year", "lifetime"]),
        amount=st.integers(0, 120),
    )
    def set_budget(self, owner: Any, kind: Any, amount: int) -> None:
        own = {"key_id": self.books.key.id} if owner == "key" else owner
        operations.set_budget(self.books.conn, "acme", amount, kind, operations.BudgetOwner(**own), **self.who)
        scope = "key" if owner == "key" else "/".join(next(iter(owner.items()), ("team",)))
        self.budgets[scope, kind] = amount

    @rule(data=st.data())
    def remove_budget(self, data: Any) -> None:
        if self.budgets:
            scope, kind = data.draw(st.sampled_from(sorted(self.budgets)))
            name, _, value = scope.partition("/")
            own = {"team": {}, "key": {"key_id": self.books.key.id}}.get(name, {name: value})
            operations.remove_budget(self.books.conn, "acme", kind, operations.BudgetOwner(**own), **self.who)
            del self.budgets[scope, kind]

    @rule(amount=st.integers(1, 40), begin=st.integers(-3, 20), days=st.integers(1, 40))
    def raise_caps(self, amount: int, begin: int, days: int) -> None:
        from_ms = self.books.now_ms + begin * DAY_MS
        until_ms = from_ms + days * DAY_MS
        if self.attempt(operations.raise_caps, "acme", operations.NewRaise(amount, until_ms, "a fair", from_ms)):
            self.raises.append((from_ms, until_ms, amount))

    @rule(
        owner=st.sampled_from(OWNERS),
        price=st.sampled_from(PRICES),
        prompt=st.integers(0, 30),
        completion=st.integers(0, 30),
    )
    def open_hold(self, owner: dict[str, str], price: Price, prompt: int, completion: int) -> None:
        max_compute_ms = completion + 1 if price.is_by_time else None
        exact = price.input_picousd * prompt + price.output_picousd * completion
        exact += (price.compute_picousd or 0) * (max_compute_ms or 0)
        amount = ceil(Fraction(exact * price.multiplier_ppm, 1000 * PPM))
        room, unheld = self.room(owner), self.unheld
        before = self.books.conn.total_changes
        try:
            request_id = self.books.hold(prompt, completion, price=price, max_compute_ms=max_compute_ms, **owner)
        except InsufficientCreditError:
            assert amount > room
            assert self.books.conn.total_changes == before
            return
        assert amount <= room
        if self.due and self.plan.included_nanousd:
            self.given.add(self.due)
        self.requests.append(
            Request(request_id, owner, price, prompt, completion, self.books.now_ms, amount, owes=amount > unheld)
        )

    @rule(owner=st.sampled_from(OWNERS), over=st.sampled_from([0, 1]))
    def take_all_there_is(self, owner: dict[str, str], over: int) -> None:
        """What random sizes seldom meet: the last nano-dollar, and one more."""
        room = self.room(owner)
        self.open_hold(owner, PRICES[0], min(room, 10**6) + over, 0)

    def choose(self, data: Any, over: bool) -> Request | None:
        found = [request for request in self.requests if request.over == over]
        return data.draw(st.sampled_from(found)) if found else None

    @rule(data=st.data(), cached=st.integers(0, 30), share=st.sampled_from([0, 3, 7, 10]))
    def settle(self, data: Any, cached: int, share: int) -> None:
        request = self.choose(data, over=False)
        if request is None:
            return
        prompt, completion = request.prompt * share // 10, request.completion * share // 10
        compute_ms = (request.completion + 1) * share // 10 if request.price.is_by_time else 3
        usage = Usage(prompt, min(cached, prompt), completion, compute_ms)
        cost = self.books.settle(request.id, usage=usage)
        price = request.price
        cached_picousd = price.cached_input_picousd
        per_cached = Fraction(price.input_picousd, 2) if cached_picousd is None else cached_picousd
        exact = (
            price.input_picousd * (prompt - usage.cached_tokens)
            + per_cached * usage.cached_tokens
            + price.output_picousd * completion
            + (price.compute_picousd or 0) * compute_ms
        ) * Fraction(price.multiplier_ppm, PPM)
        assert cost == floor(Fraction(exact) / 1000 + Fraction(1, 2)) <= request.held
        request.over, request.cost = True, cost

    @rule(data=st.data())
    def void_hold(self, data: Any) -> None:
        request = self.choose(data, over=False)
        if request is not None:
            self.books.apply(self.books.void(request.id))
            request.over = True

    @rule(data=st.data(), amount=st.none() | st.integers(1, 20))
    def refund(self, data: Any, amount: int | None) -> None:
        request = self.choose(data, over=True)
        if request is None:
            return
        left = request.cost - request.refunded
        made = self.attempt(operations.refund_request, request.id, amount, reason="test")
        assert (made is not None) == (0 < (left if amount is None else amount) <= left)
        if made is not None:
            request.refunded += made.amount_nanousd

    @rule(amount=st.integers(1, 30))
    def withdraw(self, amount: int) -> None:
        before = self.books.credit().balance_nanousd
        if self.attempt(operations.withdraw_credit, "acme", amount, reason="test"):
            assert self.books.credit().balance_nanousd == before - amount

    @rule(data=st.data())
    def void_grant(self, data: Any) -> None:
        grants = [grant_id for (grant_id,) in self.books.conn.execute("SELECT grant_id FROM grants")]
        if grants:
            self.attempt(operations.void_grant, data.draw(st.sampled_from(grants)), reason="test")

    @rule(data=st.data(), amount=st.none() | st.integers(1, 30))
    def pay(self, data: Any, amount: int | None) -> None:
        months = [statement.period for statement in operations.list_statements(self.books.conn, "acme")]
        if not months:
            return
        owed = self.books.credit().owed_nanousd
        paid = self.attempt(
            operations.pay_statement, "acme", operations.NewPayment(data.draw(st.sampled_from(months)), amount)
        )
        if paid is None:
            return
        assert self.books.credit().owed_nanousd == owed - paid.amount_nanousd
        self.money_came_in()
        if paid.raised_nanousd:
            raises = operations.show_limits(self.books.conn, "acme", now_ms=self.books.now_ms).raises
            made = max(raises, key=lambda made: made.adjustment_id)
            self.raises.append((made.from_ms, made.until_ms, made.amount_nanousd))

    @rule()
    def sweep(self) -> None:
        self.books.apply(ExpireGrants(self.books.now_ms))

    @precondition(lambda self: any(not request.over for request in self.requests))
    @rule()
    def crash(self) -> None:
        self.books.epoch = next_epoch(self.books.conn, 1, self.books.now_ms)
        for request in self.requests:
            request.over = True

    @invariant()
    def all_balances_add_up_to_zero(self) -> None:
        assert self.books.one("SELECT coalesce(sum(balance_nanousd), 0) FROM balances") == 0

    @invariant()
    def the_dues_of_all_statements_are_what_the_team_owes(self) -> None:
        dues = [statement.due_nanousd for statement in operations.list_statements(self.books.conn, "acme")]
        assert sum(dues) == self.books.credit().owed_nanousd

    @invariant()
    def counters_are_what_the_requests_cost(self) -> None:
        posted: Counter[tuple[str, str]] = Counter()
        held: Counter[tuple[str, str]] = Counter()
        for request in self.requests:
            month = day(request.admitted_at_ms)[:7]
            for scope in scopes(request.owner):
                for period in (month, month[:4], "lifetime") if scope == "team" else (month,):
                    posted[scope, period] += request.cost - request.refunded
                    held[scope, period] += 0 if request.over else request.held
        rows = self.books.conn.execute("SELECT scope, period, posted_nanousd, held_nanousd FROM counts").fetchall()
        names = {"team:acme": "team", f"key:{self.books.key.id}": "key"}
        stored = {(names.get(scope, scope.replace(":acme", "")), period): rest for scope, period, *rest in rows}
        assert {cell: rest for cell, rest in stored.items() if any(rest)} == {
            cell: [posted[cell], held[cell]] for cell in posted if posted[cell] or held[cell]
        }

    @invariant()
    def what_credit_covered_stays_covered_until_somebody_owes(self) -> None:
        since_covered = [request.owes for request in reversed(self.requests) if request.owes or not request.over]
        if since_covered and not since_covered[0]:
            credit = self.books.one("SELECT coalesce(sum(remaining_nanousd), 0) FROM grants")
            assert self.scope_sums("team", "lifetime")[1] <= credit

    @invariant()
    def the_terms_are_those_of_what_was_set_and_paid(self) -> None:
        limits = operations.show_limits(self.books.conn, "acme", now_ms=self.books.now_ms)
        assert (limits.terms.plan, limits.terms.tier, limits.terms.earned_tier) == (self.plan, self.tier, self.earned)
        assert limits.terms.postpaid == self.postpaid
        assert limits.rates.tier == CATALOG.tiers[self.tier]

    @invariant()
    def included_credit_was_given_once_a_plan_and_period(self) -> None:
        origins = self.books.conn.execute("SELECT origin FROM grants WHERE origin IS NOT NULL").fetchall()
        assert sorted(origins) == sorted((f"included:{plan}:{period}",) for plan, period in self.given)

    @invariant()
    def credit_is_never_negative_and_available_never_above_what_fits(self) -> None:
        credit = self.books.credit()
        assert credit.balance_nanousd >= 0
        assert credit.available_nanousd >= 0


def test_money_operations_in_any_order_keep_limits_and_ledger_consistent():
    """R1, R2, R3, R6, R7, R8, R12, R16, R17, R19, R23"""
    run_state_machine_as_test(Money, settings=settings(stateful_step_count=25))
