"""Tests of budgets of tokens and compute time, by day and week, and of defaults for each user, key and project."""

from __future__ import annotations

from dataclasses import replace

import pytest

from inferd.errors import InsufficientCreditError, InvalidValueError, PermissionDeniedError
from inferd.instants import DAY_MS, parse_instant_ms
from inferd.ledger import operations
from inferd.ledger.alerts.alerts import all_alerts
from inferd.ledger.audit.run import audit
from inferd.ledger.identity.authenticator import authenticate
from inferd.ledger.identity.keys import KeyRequest
from inferd.ledger.maintenance.retention import RollUpUsage
from inferd.ledger.operations import BudgetOwner
from inferd.ledger.requests.settlement import next_epoch
from inferd.ledger.requests.usage import RecordFree
from inferd.price import Price
from inferd.usage import Usage
from tests.ledger.audit.test_run import tamper

SCOPES = ["team", "project", "key", "user"]
PERIODS = ["day", "week", "month", "year", "lifetime"]
MAX_MS = 60


@pytest.fixture
def lab(books):
    """Team acme with users ada and bob, and no credit at all."""
    for name in ("ada", "bob"):
        operations.create_member(books.conn, "user", "acme", name, **who(books))
    return books


def who(books, actor="test"):
    return {"by": operations.Author(actor, books.now_ms)}


def owner(books, scope, unit="tokens"):
    owner = {
        "team": BudgetOwner(),
        "project": BudgetOwner(project="inference"),
        "key": BudgetOwner(key_id=books.key.id),
        "user": BudgetOwner(user="ada"),
        "each": BudgetOwner(each="user"),
    }[scope]
    return replace(owner, unit=unit)


def budget(books, amount, unit="tokens", period="month", scope="user", actor="test"):
    return operations.set_budget(books.conn, "acme", amount, period, owner(books, scope, unit), **who(books, actor))


def free(books, prompt, completion, *, user="ada", **changes):
    """Hold of a request to a free deployment."""
    return books.hold(prompt, completion, user=user, price=None, max_compute_ms=MAX_MS, **changes)


def refused(books, prompt, completion, **changes):
    before = books.dump()
    with pytest.raises(InsufficientCreditError) as found:
        free(books, prompt, completion, **changes)
    assert books.dump() == before
    return found.value


@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize("period", PERIODS)
def test_token_budget_is_used_to_the_last_token_and_not_one_more(lab, scope, period):
    """R7: for a free deployment, by holds without credit."""
    budget(lab, 30, period=period, scope=scope)
    lab.settle(free(lab, 6, 14), 6, 4)
    assert refused(lab, 10, 11).code == f"{scope}_token_limit_exceeded"
    free(lab, 10, 10)
    error = refused(lab, 1, 0)
    assert (error.code, error.retry_after_s) == ("in_flight_budget_exhausted", 1.0)
    assert [key[1] for key in error.missing] == ["tokens"]
    assert list(error.missing.values()) == [1]


@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize("period", PERIODS)
def test_compute_budget_holds_what_the_engine_may_use_and_counts_what_it_used(lab, scope, period):
    """R7"""
    budget(lab, 2 * MAX_MS, "compute_ms", period, scope)
    hold = lab.apply(lab.open_hold(1, 1, user="ada", price=None, max_compute_ms=MAX_MS))
    assert hold.max_compute_ms == MAX_MS
    lab.settle(hold.request_id, usage=Usage(1, 0, 1, 1))
    error = None
    free(lab, 1, 1)
    error = refused(lab, 1, 1)
    assert error.missing == {(next(iter(error.missing))[0], "compute_ms"): 1}
    lab.settle(free_of(lab), usage=Usage(1, 0, 1, MAX_MS))
    assert refused(lab, 1, 1).code == f"{scope}_compute_limit_exceeded"


def free_of(books):
    return books.one("SELECT request_id FROM holds WHERE state = 'held'")


def test_refusal_by_tokens_names_limit_source_use_fit_and_reset(lab):
    """R7"""
    budget(lab, 1_000, period="day", scope="each")
    lab.settle(free(lab, 400, 100), 400, 100)
    message = refused(lab, 100, 1_000).message
    assert message.startswith(
        "This request can use up to 1,100 tokens (100 prompt tokens and at most 1000 completion tokens), but "
        "user 'ada' may use 1,000 tokens on 2026-11-20 (default of each user), of which 500 tokens are used and "
        "0 tokens held by requests under way; the largest max_tokens that would fit is 400. "
        "This limit resets at 2026-11-21T00:00:00.000Z."
    )


def test_refusal_by_compute_says_that_max_tokens_does_not_help(lab):
    """R7"""
    budget(lab, 59, "compute_ms", "week")
    message = refused(lab, 1, 1).message
    assert "can take up to 0.06 s of compute time" in message
    assert "may use 0.059 s of compute time in 2026-W47 (budget)" in message
    assert "whatever its max_tokens" in message
    assert "resets at 2026-11-23T00:00:00.000Z" in message


def test_priced_request_is_bound_by_credit_and_by_tokens_at_once(lab):
    """R7: the remedy fits in both."""
    lab.grant(1_000)
    budget(lab, 300)
    assert "the largest max_tokens that would fit is 290" in refusal_of(lab, 10, 2_000)
    lab.settle(lab.hold(100, 150, user="ada"), 100, 150)
    assert "the largest max_tokens that would fit is 40" in refusal_of(lab, 10, 41)
    assert lab.credit().balance_nanousd == 750


def refusal_of(books, prompt, completion):
    with pytest.raises(InsufficientCreditError) as found:
        books.hold(prompt, completion, user="ada")
    return found.value.message


def test_cached_prompt_tokens_count_as_tokens(lab):
    """R7, R14: the total tokens of the response."""
    budget(lab, 10)
    lab.settle(free(lab, 9, 1), usage=Usage(9, 9, 1, 2))
    assert refused(lab, 1, 0).code == "user_token_limit_exceeded"


def test_time_price_is_held_without_a_compute_budget_and_token_prices_are_not(lab):
    """R4"""
    lab.grant(100_000)
    by_time = lab.open_hold(1, 1, price=Price.by_time(1_000), max_compute_ms=MAX_MS)
    assert lab.apply(by_time).max_compute_ms == MAX_MS
    assert lab.apply(lab.open_hold(1, 1, max_compute_ms=MAX_MS)).max_compute_ms is None
    budget(lab, 1_000, "compute_ms", scope="team")
    assert lab.apply(lab.open_hold(1, 1, max_compute_ms=MAX_MS)).max_compute_ms == MAX_MS


def test_free_hold_needs_no_credit_bills_nothing_and_is_resolved_once(lab):
    """R7"""
    budget(lab, 100)
    request = free(lab, 10, 20)
    assert lab.one("SELECT free FROM holds") == 1
    assert lab.settle(request, 10, 5) == 0
    row = lab.usage_row(request)
    assert (row["input_picousd"], row["cost_nanousd"], row["txn"], row["completion_tokens"]) == (None, 0, None, 5)
    with pytest.raises(AssertionError, match="is settled already"):
        lab.settle(request, 10, 5)
    with pytest.raises(AssertionError, match="is settled already"):
        lab.apply(lab.void(request))


def test_voided_free_hold_uses_nothing_of_a_budget(lab):
    """R16"""
    budget(lab, 30)
    lab.apply(lab.void(free(lab, 10, 20)))
    free(lab, 10, 20)


def test_free_hold_of_an_earlier_server_is_voided(lab):
    """R20"""
    budget(lab, 30)
    free(lab, 10, 20)
    lab.epoch = next_epoch(lab.conn, 1, lab.now_ms)
    assert lab.one("SELECT state FROM holds") == "voided"
    free(lab, 10, 20)


@pytest.mark.parametrize("period", PERIODS)
def test_budget_counts_what_was_used_in_its_period_before_it_was_set(lab, period):
    """R7: by free requests, by priced ones and by rolled up ones."""
    lab.grant(100)
    lab.settle(lab.hold(3, 4, user="ada"), 3, 4)
    attribution = lab.open_hold(user="ada").attribution
    lab.apply(RecordFree("free", attribution, Usage(2, 1, 3, 9), "completed", lab.now_ms, lab.now_ms))
    budget(lab, 12 + 10, period=period)
    assert refused(lab, 10, 1).code == "user_token_limit_exceeded"
    free(lab, 5, 5)


def test_rolled_up_tokens_count_on(lab):
    """R7, R20"""
    old_ms = lab.now_ms - 100 * DAY_MS
    lab.grant(100)
    lab.settle(lab.hold(3, 4, user="ada", admitted_at_ms=old_ms), 3, 4)
    lab.apply(RollUpUsage(old_ms + 1, lab.now_ms))
    budget(lab, 10, period="year")
    assert refused(lab, 4, 0).code == "user_token_limit_exceeded"


@pytest.mark.parametrize(
    ("period", "begin"),
    [("day", "2026-11-20"), ("week", "2026-11-16"), ("month", "2026-11-01"), ("year", "2026-01-01")],
)
def test_budget_begins_anew_at_midnight_utc_of_its_period(lab, period, begin):
    """R7: half-open; a week begins on Monday."""
    lab.now_ms = parse_instant_ms(begin) - 1
    budget(lab, 20, period=period)
    late = free(lab, 5, 15)
    lab.now_ms += 1
    free(lab, 5, 15)
    assert refused(lab, 1, 0).code == "in_flight_budget_exhausted"
    lab.settle(late, 5, 15)
    assert refused(lab, 1, 0).code == "in_flight_budget_exhausted"


def test_iso_week_spans_the_turn_of_the_year(lab):
    """R7"""
    lab.now_ms = parse_instant_ms("2026-12-31")
    assert budget(lab, 20, period="week").period == "week"
    lab.settle(free(lab, 5, 15), 5, 15)
    lab.now_ms = parse_instant_ms("2027-01-03T23:59:59Z")
    assert "in 2026-W53" in refused(lab, 1, 0).message
    lab.now_ms += 1_000
    free(lab, 5, 15)


def test_default_of_each_user_bounds_present_and_future_users_apart(lab):
    """R7"""
    budget(lab, 20, scope="each")
    operations.create_member(lab.conn, "user", "acme", "eve", **who(lab))
    for user in ("ada", "bob", "eve"):
        free(lab, 5, 15, user=user)
        assert refused(lab, 1, 0, user=user).code == "in_flight_budget_exhausted"
    free(lab, 500, 500, user=None)


@pytest.mark.parametrize("own", [10, 40])
def test_own_budget_overrides_the_default_larger_or_smaller(lab, own):
    """R7"""
    budget(lab, 20, scope="each")
    budget(lab, own, scope="user")
    free(lab, own, 0)
    assert "(budget)" in refused(lab, 1, 0).message
    assert "(default of each user)" in refused(lab, 21, 0, user="bob").message


def test_own_budget_of_another_unit_period_or_authority_leaves_the_default(lab):
    """R7, R21"""
    manager = operations.create_key(lab.conn, "acme", KeyRequest(scopes=("manage",)), **who(lab))
    budget(lab, 20, scope="each")
    budget(lab, 100, "compute_ms")
    budget(lab, 100, period="year")
    with pytest.raises(PermissionDeniedError, match="the operator set a budget of 20 tokens by month for each-user"):
        budget(lab, 21, scope="user", actor=f"key:{manager.id}")
    budget(lab, 15, scope="user", actor=f"key:{manager.id}")
    assert "(budget of the team)" in refused(lab, 16, 0).message
    assert "(default of each user)" in refused(lab, 21, 0, user="bob").message


def test_default_of_the_team_itself_can_only_be_stricter(lab):
    """R21"""
    manager = operations.create_key(lab.conn, "acme", KeyRequest(scopes=("manage",)), **who(lab))
    budget(lab, 20, scope="each")
    with pytest.raises(PermissionDeniedError):
        budget(lab, 21, scope="each", actor=f"key:{manager.id}")
    budget(lab, 10, scope="each", actor=f"key:{manager.id}")
    error = refused(lab, 11, 0)
    assert "(default of each user, set by the team)" in error.message
    assert "a key of it with the scope `manage` can change it" in error.message
    operations.remove_budget(lab.conn, "acme", "month", owner(lab, "each"), **who(lab, f"key:{manager.id}"))
    with pytest.raises(PermissionDeniedError):
        operations.remove_budget(lab.conn, "acme", "month", owner(lab, "each"), **who(lab, f"key:{manager.id}"))
    free(lab, 20, 0)


def test_removed_default_bounds_no_more(lab):
    """R7"""
    budget(lab, 20, scope="each", period="day")
    removed = operations.remove_budget(lab.conn, "acme", "day", owner(lab, "each"), **who(lab))
    assert (removed.scope, removed.amount) == ("each-user:acme", 20)
    free(lab, 500, 500)
    assert lab.one("SELECT count(*) FROM day_counting") == 0
    assert lab.one("SELECT count(*) FROM day_counters") == 0


@pytest.mark.parametrize(("unit", "use"), [("tokens", (10, 0, 6, 1)), ("compute_ms", (1, 0, 1, 16))])
def test_token_and_compute_caps_alert_at_their_thresholds_once(lab, unit, use):
    """R7: also for a free deployment and for a default."""
    lab.alert((50, 80), 0)
    budget(lab, 20, unit, "week", "each")
    if unit == "compute_ms":
        lab.settle(lab.hold(1, 1, user="ada", price=None, max_compute_ms=20), usage=Usage(*use))
    else:
        lab.settle(free(lab, 10, 10), usage=Usage(*use))
    assert [
        (alert.scope, alert.source, alert.period, alert.unit, alert.threshold_percent, alert.value_amount)
        for alert in all_alerts(lab.conn)
    ] == [("user:acme/ada", "default", "2026-W47", unit, percent, 16) for percent in (50, 80)]


def test_caller_of_a_team_with_a_usage_budget_says_so(lab):
    def says():
        return authenticate(lab.conn, lab.key.key, lab.now_ms).has_usage_budgets

    assert not says()
    budget(lab, 20, "usd", scope="each")
    assert not says()
    budget(lab, 20, "compute_ms", scope="each")
    assert says()


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE counters SET posted_tokens = posted_tokens - 1 WHERE scope = 'user:acme/ada'",
        "UPDATE counters SET posted_compute_ms = posted_compute_ms + 1 WHERE scope LIKE 'key:%'",
        "UPDATE day_counters SET posted_tokens = posted_tokens + 1 WHERE scope = 'user:acme/ada'",
        "UPDATE day_counters SET posted_compute_ms = 0 WHERE scope = 'team:acme'",
        "UPDATE day_counters SET posted_nanousd = 3 WHERE scope = 'team:acme'",
        "DELETE FROM day_counters WHERE scope = 'user:acme/ada'",
        "DELETE FROM counters WHERE scope = 'user:acme/ada'",
        "DELETE FROM day_counting",
        "UPDATE day_counting SET first_day_ms = first_day_ms + 10 * 86400000",
        "UPDATE budgets SET unit = 'compute_ms'",
        "UPDATE budgets SET scope = 'each-key:acme' WHERE scope LIKE 'each%'",
        "DELETE FROM budgets WHERE unit = 'tokens'",
        "UPDATE alerts SET value_amount = value_amount + 1000 WHERE alert_id = 1",
        "UPDATE holds SET free = NULL",
    ],
)
def test_changed_counter_budget_or_free_hold_is_found(lab, change):
    """R7, R20: the audit refolds tokens, compute time and days."""
    budget(lab, 20, "tokens", "day", "each")
    lab.settle(free(lab, 5, 15), usage=Usage(5, 0, 15, 7))
    lab.assert_clean()
    lab.conn.execute("SAVEPOINT before")
    tamper(lab, change)
    assert audit(lab.conn).findings
    lab.conn.execute("ROLLBACK TO before")
    lab.conn.execute("RELEASE before")


def test_request_admitted_before_the_counted_days_changes_none_of_them(lab):
    """R7: admitted on Sunday, settled after a budget by day was set on Monday."""
    lab.now_ms = parse_instant_ms("2026-11-15T23:59:00Z")
    budget(lab, 100, period="month")
    late = free(lab, 5, 15)
    lab.now_ms += 120_000
    budget(lab, 100, period="day")
    lab.settle(late, 5, 15)
    assert lab.one("SELECT count(*) FROM day_counters") == 0
    lab.settle(free(lab, 5, 15), 5, 15)
    assert lab.one("SELECT posted_tokens FROM day_counters WHERE scope = 'user:acme/ada'") == 20


def test_refund_lowers_money_of_its_day_and_no_tokens(lab):
    """R7: only a refund lowers posted."""
    lab.grant(100)
    operations.set_budget(lab.conn, "acme", 100, "day", **who(lab))
    request = lab.hold(5, 15, user="ada")
    lab.settle(request, 5, 15)
    operations.refund_request(lab.conn, request, 7, reason="bad", **who(lab))
    row = lab.conn.execute("SELECT posted_nanousd, posted_tokens FROM day_counters WHERE scope = 'team:acme'")
    assert row.fetchall() == [(13, 20)]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"amount": -1}, "the amount of a budget must be"),
        (
            {"amount": -1, "owner": BudgetOwner(unit="tokens")},
            "a budget must be 0 to",
        ),
        ({"period": "hour"}, "no period of budgets 'hour'"),
        ({"owner": BudgetOwner(unit="gpus")}, "no unit of budgets 'gpus'"),
        ({"owner": BudgetOwner(each="team")}, "no kind of owner 'team'"),
        ({"owner": BudgetOwner("inference", "ada")}, "one project, one user or one key"),
    ],
)
def test_budget_with_invalid_values_is_refused(lab, change, message):
    words = {"amount": 1, **change}
    with pytest.raises(InvalidValueError, match=message):
        operations.set_budget(lab.conn, "acme", **words, **who(lab))
