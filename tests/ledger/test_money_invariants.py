"""Random sequences of every operation on money, against limits that are added up anew from what was asked for."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime
from fractions import Fraction
from math import ceil, floor
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
from inferd.ledger import cap_operations, money_operations, operations
from inferd.ledger.epochs import begin
from inferd.ledger.grants import ExpireGrants
from inferd.ledger.reports import usage_report
from inferd.money import parse_usd
from inferd.plans import SHIPPED
from inferd.price import Price
from inferd.usage import Usage
from tests.ledger.books import memory_books

DAY_MS = 86_400_000
PRICES = [
    *(Price(1_000, 1_000, 1_000), Price(2_000, 2_000), Price(1_333, 777, 111), Price(1, 5_000)),
    *(Price(1_333, 777).times(1_500_000), Price(2_000, 2_000, 333).times(500_000), Price.by_time(1_777)),
]
TIERS = {1_000_000: "default", 1_500_000: "priority", 500_000: "batch"}
MAX_COMPUTE_MS = 9
OWNERS = [{}, {"user": "ada"}, {"project": "web"}, {"user": "bob", "project": "web"}]


@dataclass
class Request:
    """What was asked for, and what became of it."""

    id: str
    owner: dict[str, str]
    price: Price
    prompt: int
    completion: int
    admitted_at_ms: int
    held: int
    cost: int = 0
    refunded: int = 0
    over: bool = False


class Money(RuleBasedStateMachine):
    """Team acme, its users, projects and one key."""

    @initialize()
    def begin(self) -> None:
        self.books = memory_books()
        self.requests: list[Request] = []
        self.budgets: dict[tuple[str, str], int] = {}
        self.raises: list[tuple[int, int, int]] = []
        who: Any = {"actor": "test", "now_ms": self.books.now_ms}
        for user in ("ada", "bob"):
            operations.create_user(self.books.conn, "acme", user, **who)
        operations.create_project(self.books.conn, "acme", "web", **who)
        cap_operations.set_team(self.books.conn, "acme", tier=1, **who)

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
        return {"actor": "test", "now_ms": self.books.now_ms}

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

    def room(self, owner: dict[str, str]) -> int:
        """The largest hold that every rule allows."""
        team = self.books.conn.execute("SELECT plan, tier_override FROM teams WHERE team = 'acme'").fetchone()
        plan, tier = SHIPPED.plans[team[0]], team[1]
        now_ms = self.books.now_ms
        raised = sum(amount for from_ms, until_ms, amount in self.raises if from_ms <= now_ms < until_ms)
        limits = [("team", plan.cap_period, plan.cap_nanousd), ("team", "month", SHIPPED.tiers[tier].monthly_nanousd)]
        limits += [(scope, kind, amount) for (scope, kind), amount in self.budgets.items() if scope in scopes(owner)]
        left = []
        for scope, kind, amount in limits:
            if amount is not None:
                posted, held = self.scope_sums(scope, kind)
                left.append(amount + (raised if scope == "team" else 0) - posted - held)
        if self.books.credit().overage != "postpaid":
            unexpired = self.books.one(
                "SELECT coalesce(sum(remaining_nanousd), 0) FROM grants WHERE (expires_at_ms IS NULL "
                "OR expires_at_ms > ?) AND grant_id NOT IN (SELECT grant_id FROM voids)",
                now_ms,
            )
            left.append(unexpired - self.scope_sums("team", "lifetime")[1])
        return max(0, min(left))

    @rule(
        amount=st.integers(1, 60),
        kind=st.sampled_from(["paid", "promotional"]),
        days=st.none() | st.integers(1, 40),
    )
    def grant(self, amount: int, kind: str, days: int | None) -> None:
        self.books.grant(amount, kind, expires_at_ms=None if days is None else self.books.now_ms + days * DAY_MS)

    @rule(days=st.sampled_from([1, 9, 31, 200]))
    def wait(self, days: int) -> None:
        self.books.now_ms += days * DAY_MS

    @rule(
        overage=st.sampled_from(["block", "postpaid", "contact"]),
        plan=st.sampled_from(["academic", "pro", "enterprise"]),
        tier=st.sampled_from([1, 4, 5]),
    )
    def set_team(self, overage: Any, plan: str, tier: int) -> None:
        cap_operations.set_team(self.books.conn, "acme", overage=overage, plan=plan, tier=tier, **self.who)

    @rule(
        owner=st.sampled_from([{}, {"user": "ada"}, {"project": "web"}, "key"]),
        kind=st.sampled_from(["month", "year", "lifetime"]),
        amount=st.integers(0, 120),
    )
    def set_budget(self, owner: Any, kind: Any, amount: int) -> None:
        own = {"key_id": self.books.key.id} if owner == "key" else owner
        cap_operations.set_budget(self.books.conn, "acme", amount, kind, **own, **self.who)
        scope = "key" if owner == "key" else "/".join(next(iter(owner.items()), ("team",)))
        self.budgets[scope, kind] = amount

    @rule(data=st.data())
    def remove_budget(self, data: Any) -> None:
        if self.budgets:
            scope, kind = data.draw(st.sampled_from(sorted(self.budgets)))
            name, _, value = scope.partition("/")
            own = {"team": {}, "key": {"key_id": self.books.key.id}}.get(name, {name: value})
            cap_operations.remove_budget(self.books.conn, "acme", kind, **own, **self.who)
            del self.budgets[scope, kind]

    @rule(amount=st.integers(1, 40), begin=st.integers(-3, 20), days=st.integers(1, 40))
    def raise_caps(self, amount: int, begin: int, days: int) -> None:
        from_ms = self.books.now_ms + begin * DAY_MS
        until_ms = from_ms + days * DAY_MS
        if self.attempt(cap_operations.raise_caps, "acme", amount, from_ms=from_ms, until_ms=until_ms, reason="a fair"):
            self.raises.append((from_ms, until_ms, amount))

    @rule(
        owner=st.sampled_from(OWNERS),
        price=st.sampled_from(PRICES),
        prompt=st.integers(0, 30),
        completion=st.integers(0, 30),
    )
    def open_hold(self, owner: dict[str, str], price: Price, prompt: int, completion: int) -> None:
        limit: dict[str, Any] = {"max_compute_ms": MAX_COMPUTE_MS} if price.is_by_time else {}
        picousd = price.input_picousd * prompt + price.output_picousd * completion
        picousd += (price.compute_picousd or 0) * MAX_COMPUTE_MS
        amount = ceil(Fraction(picousd * price.multiplier_ppm, 1000 * 10**6))
        room = self.room(owner)
        before = self.books.conn.total_changes
        try:
            tier = TIERS[price.multiplier_ppm]
            request_id = self.books.hold(prompt, completion, price=price, service_tier=tier, **limit, **owner)
        except InsufficientCreditError:
            assert amount > room
            assert self.books.conn.total_changes == before
            return
        assert amount <= room
        self.requests.append(Request(request_id, owner, price, prompt, completion, self.books.now_ms, amount))

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
        usage = Usage(prompt, min(cached, prompt), completion, MAX_COMPUTE_MS * share // 10)
        cost = self.books.settle(request.id, usage=usage)
        price = request.price
        cached_picousd = price.cached_input_picousd
        per_cached = Fraction(price.input_picousd, 2) if cached_picousd is None else cached_picousd
        exact = (
            price.input_picousd * (prompt - usage.cached_tokens)
            + per_cached * usage.cached_tokens
            + price.output_picousd * completion
            + (price.compute_picousd or 0) * usage.compute_ms
        )
        exact_nanousd = Fraction(exact) * price.multiplier_ppm / (1000 * 10**6)
        assert cost == floor(exact_nanousd + Fraction(1, 2)) <= request.held
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
        made = self.attempt(money_operations.refund, request.id, amount, reason="test")
        assert (made is not None) == (0 < (left if amount is None else amount) <= left)
        if made is not None:
            request.refunded += made.amount_nanousd

    @rule(amount=st.integers(1, 30))
    def withdraw(self, amount: int) -> None:
        before = self.books.credit().balance_nanousd
        if self.attempt(money_operations.withdraw, "acme", amount, reason="test"):
            assert self.books.credit().balance_nanousd == before - amount

    @rule(data=st.data())
    def void_grant(self, data: Any) -> None:
        grants = [grant_id for (grant_id,) in self.books.conn.execute("SELECT grant_id FROM grants")]
        if grants:
            self.attempt(money_operations.void, data.draw(st.sampled_from(grants)), reason="test")

    @rule(data=st.data(), amount=st.none() | st.integers(1, 30))
    def pay(self, data: Any, amount: int | None) -> None:
        months = [statement.period for statement in money_operations.list_statements(self.books.conn, "acme")]
        if not months:
            return
        owed = self.books.credit().owed_nanousd
        paid = self.attempt(money_operations.pay_statement, "acme", data.draw(st.sampled_from(months)), amount)
        if paid is None:
            return
        assert self.books.credit().owed_nanousd == owed - paid.amount_nanousd
        if paid.raised_nanousd:
            raises = cap_operations.show_limits(self.books.conn, "acme", now_ms=self.books.now_ms).raises
            made = max(raises, key=lambda made: made.adjustment_id)
            self.raises.append((made.from_ms, made.until_ms, made.amount_nanousd))

    @rule()
    def sweep(self) -> None:
        self.books.apply(ExpireGrants(self.books.now_ms))

    @precondition(lambda self: any(not request.over for request in self.requests))
    @rule()
    def crash(self) -> None:
        self.books.epoch = begin(self.books.conn, 1, self.books.now_ms)
        for request in self.requests:
            request.over = True

    @invariant()
    def all_balances_add_up_to_zero(self) -> None:
        assert self.books.one("SELECT coalesce(sum(balance_nanousd), 0) FROM accounts") == 0

    @invariant()
    def the_dues_of_all_statements_are_what_the_team_owes(self) -> None:
        dues = [statement.due_nanousd for statement in money_operations.list_statements(self.books.conn, "acme")]
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
        rows = self.books.conn.execute("SELECT scope, period, posted_nanousd, held_nanousd FROM counters").fetchall()
        names = {"team:acme": "team", f"key:{self.books.key.id}": "key"}
        stored = {(names.get(scope, scope.replace(":acme", "")), period): rest for scope, period, *rest in rows}
        assert stored == {cell: [posted[cell], held[cell]] for cell in posted}

    @invariant()
    def what_is_held_without_leave_to_owe_is_covered(self) -> None:
        if self.books.one("SELECT count(postpaid) FROM holds WHERE state = 'held'") == 0:
            credit = self.books.one("SELECT coalesce(sum(remaining_nanousd), 0) FROM grants")
            assert self.scope_sums("team", "lifetime")[1] <= credit

    @invariant()
    def credit_is_never_negative_and_available_never_above_what_fits(self) -> None:
        credit = self.books.credit()
        assert credit.balance_nanousd >= 0
        assert credit.available_nanousd >= 0


def day(at_ms: int) -> str:
    return f"{datetime.fromtimestamp(at_ms // 1000, UTC):%Y-%m-%d}"


def scopes(owner: dict[str, str]) -> set[str]:
    mine = {"team", "key", f"project/{owner.get('project', 'inference')}"}
    return mine | ({f"user/{owner['user']}"} if "user" in owner else set())


def test_any_sequence_of_operations_on_money_keeps_every_limit_and_the_books_right():
    """R2, R6, R7, R8, R12, R16, R19"""
    run_state_machine_as_test(Money, settings=settings(stateful_step_count=25))
