"""Tests of refunds, withdrawals, voids and payments: the accounts they reach, their bounds, their repetition."""

from __future__ import annotations

import pytest

from inferd.errors import ConflictError, InvalidValueError, NotFoundError
from inferd.instants import parse_instant_ms
from inferd.ledger import operations
from inferd.ledger.terms.expiry_clock import PauseClock
from inferd.ledger.terms.terms import terms_of
from inferd.money import NANOUSD_PER_USD


def who(books, **more):
    return {"reason": "test", "by": operations.Author("test", books.now_ms), **more}


def refund(books, request, amount=None, **more):
    return operations.refund_request(books.conn, request, amount, **who(books, **more))


def postpaid(books):
    operations.set_team(
        books.conn, "acme", operations.TeamChange(overage="postpaid"), by=operations.Author("test", books.now_ms)
    )


def spent(books, cost):
    return_id = books.hold(cost)
    books.settle(return_id, cost)
    return return_id


def test_refund_goes_to_the_grants_that_paid_the_last_debited_first(books):
    """R19"""
    books.grant(10, "promotional")
    books.grant(10)
    request = spent(books, 15)
    made = refund(books, request, 7)
    assert (made.amount_nanousd, made.left_nanousd) == (7, 8)
    assert books.remaining() == {1: 2, 2: 10}
    refund(books, request)
    assert books.remaining() == {1: 10, 2: 10}
    assert books.one("SELECT balance_nanousd FROM accounts WHERE account = 'refunds'") == -15
    assert books.one("SELECT balance_nanousd FROM accounts WHERE account = 'revenue:local/tiny'") == 15


def test_refund_to_a_spent_grant_can_be_spent_again(books):
    """R19"""
    books.grant(10)
    request = spent(books, 10)
    assert books.one("SELECT used_up FROM grants") == 1
    refund(books, request, 4)
    assert books.one("SELECT used_up FROM grants") is None
    spent(books, 4)
    assert books.remaining() == {1: 0}
    books.assert_clean()


@pytest.mark.parametrize(
    ("amount", "said"),
    [
        (0, r"a refund must be more than \$0\.00, not \$0\.00"),
        (16, r"cost \$0\.00000002, of which \$0\.000000015 is not refunded yet: refund at most that"),
        (-1, "a refund must be more than"),
    ],
)
def test_refund_above_the_rest_of_the_cost_is_refused(books, amount, said):
    """R19"""
    books.grant(100)
    request = spent(books, 20)
    refund(books, request, 5)
    before = books.dump()
    with pytest.raises(InvalidValueError, match=said):
        refund(books, request, amount)
    assert books.dump() == before


def test_refund_of_a_free_or_running_request_is_refused(books):
    """R19"""
    books.grant(100)
    voided = books.hold(5)
    books.apply(books.void(voided))
    with pytest.raises(InvalidValueError):
        refund(books, voided)
    for request in (books.hold(5), "nix"):
        with pytest.raises(NotFoundError):
            refund(books, request)


def test_refund_lowers_the_counters_of_the_period_of_admission(books):
    """R7, R19"""
    books.grant(100)
    books.now_ms = parse_instant_ms("2026-11-30T23:59:59Z")
    request = spent(books, 30)
    books.now_ms = parse_instant_ms("2027-01-02")
    spent(books, 1)
    refund(books, request, 12)
    posted = dict(
        books.conn.execute("SELECT period, posted_nanousd FROM counters WHERE scope = 'team:acme'").fetchall()
    )
    assert posted == {"2026-11": 18, "2026": 18, "2027-01": 1, "2027": 1, "lifetime": 19}
    narrow = books.conn.execute(
        "SELECT posted_nanousd FROM counters WHERE scope IN ('project:acme/inference', ?) AND period = '2026-11'",
        (f"key:{books.key.id}",),
    )
    assert [row[0] for row in narrow] == [18, 18]


def test_refund_makes_room_under_a_cap(books):
    """R7"""
    books.grant(100)
    operations.set_budget(books.conn, "acme", 30, by=operations.Author("test", books.now_ms))
    request = spent(books, 30)
    refund(books, request, 10)
    books.hold(10)


def test_refund_to_an_expired_grant_expires_at_once(books):
    """R19, R8"""
    books.grant(20, expires_at_ms=books.now_ms + 5)
    request = spent(books, 15)
    books.now_ms += 5
    refund(books, request)
    assert books.remaining() == {1: 0}
    assert books.one("SELECT balance_nanousd FROM accounts WHERE account = 'expired'") == 20
    assert books.credit().balance_nanousd == 0


def test_refund_to_a_voided_grant_is_voided_at_once(books):
    """R19"""
    books.grant(20, "promotional")
    request = spent(books, 15)
    operations.void_grant(books.conn, 1, **who(books))
    refund(books, request)
    assert books.remaining() == {1: 0}
    assert books.one("SELECT balance_nanousd FROM accounts WHERE account = 'funding:promotional'") == 0


def test_refund_of_a_postpaid_request_lowers_the_debt(books):
    """R6, R19"""
    postpaid(books)
    books.grant(10)
    request = spent(books, 25)
    assert refund(books, request, 20).left_nanousd == 5
    assert (books.remaining(), books.credit().owed_nanousd) == ({1: 5}, 0)
    assert books.conn.execute("SELECT charged_nanousd, refunded_nanousd FROM statements").fetchall() == [(15, 15)]


def test_refund_after_the_payment_of_its_statement_lowers_the_debt(books):
    """R6, R19"""
    postpaid(books)
    request = spent(books, 25)
    pay(books, "2026-11")
    refund(books, request)
    (statement,) = operations.list_statements(books.conn, "acme")
    assert statement.due_nanousd == books.credit().owed_nanousd == -25
    spent(books, 40)
    assert books.credit().owed_nanousd == 15


def test_refund_repeated_with_its_idempotency_key_is_one_refund(books):
    """R22"""
    books.grant(100)
    request = spent(books, 30)
    first = refund(books, request, 10, idempotency_key="k")
    assert refund(books, request, 10, idempotency_key="k") == first
    with pytest.raises(ConflictError):
        refund(books, request, 11, idempotency_key="k")
    assert books.remaining() == {1: 80}


def withdraw(books, amount):
    return operations.withdraw_credit(books.conn, "acme", amount, **who(books))


def test_withdrawal_takes_unspent_paid_credit_only(books):
    """R19"""
    books.grant(10, "promotional")
    books.grant(10)
    books.grant(10, expires_at_ms=books.now_ms + 5)
    withdraw(books, 12)
    assert books.remaining() == {1: 10, 2: 0, 3: 8}
    assert books.one("SELECT balance_nanousd FROM accounts WHERE account = 'funding:paid'") == -8
    books.now_ms += 5
    for amount, said in ((1, "has no unspent paid credit"), (0, r"a withdrawal must be more than \$0\.00")):
        with pytest.raises(InvalidValueError, match=said):
            withdraw(books, amount)


def test_withdrawal_leaves_the_credit_of_open_holds(books):
    """R19, R4"""
    books.grant(30)
    books.hold(20)
    with pytest.raises(InvalidValueError, match=r"withdraw at most \$0\.00000001, not"):
        withdraw(books, 11)
    withdraw(books, 10)
    assert books.credit().available_nanousd == 0


def test_void_takes_the_credit_of_open_holds_when_they_end(books):
    """R19"""
    books.grant(30)
    request = books.hold(20)
    assert operations.void_grant(books.conn, 1, **who(books)).amount_nanousd == 10
    assert books.credit().available_nanousd == 0
    books.settle(request, 5)
    assert books.remaining() == {1: 0}
    assert books.one("SELECT balance_nanousd FROM accounts WHERE account = 'funding:paid'") == -5
    reasons = books.conn.execute("SELECT actor, reason FROM transactions WHERE kind = 'void'").fetchall()
    assert reasons == [("test", "test")] * 2


def test_void_applies_while_the_clock_is_paused(books):
    """R19, R20"""
    books.grant(30)
    books.apply(PauseClock("the clock went back"))
    operations.void_grant(books.conn, 1, **who(books))
    assert books.credit().balance_nanousd == 0


def test_grant_voided_twice_is_refused(books):
    """R19"""
    books.grant(30)
    operations.void_grant(books.conn, 1, **who(books))
    with pytest.raises(InvalidValueError, match="voided already"):
        operations.void_grant(books.conn, 1, **who(books))
    with pytest.raises(NotFoundError):
        operations.void_grant(books.conn, 2, **who(books))


@pytest.mark.parametrize("reason", ["", "x" * 201, "a\nb"])
def test_refund_withdrawal_and_void_need_a_reason(books, reason):
    """R19"""
    books.grant(30)
    with pytest.raises(InvalidValueError, match="reason"):
        operations.withdraw_credit(books.conn, "acme", 1, reason=reason, by=operations.Author("test", 1))


def test_earned_tier_stays_after_a_withdrawal(books):
    """R2"""
    books.grant(600 * NANOUSD_PER_USD)
    withdraw(books, 600 * NANOUSD_PER_USD)
    assert terms_of(books.conn, "acme", books.now_ms).tier == 3
    books.grant(1)
    assert terms_of(books.conn, "acme", books.now_ms).tier == 3


def test_withdrawn_credit_does_not_qualify_for_a_tier(books):
    """R2"""
    books.grant(40 * NANOUSD_PER_USD)
    withdraw(books, 30 * NANOUSD_PER_USD)
    books.grant(39 * NANOUSD_PER_USD)
    assert terms_of(books.conn, "acme", books.now_ms).tier == 1
    books.grant(1 * NANOUSD_PER_USD)
    assert terms_of(books.conn, "acme", books.now_ms).tier == 2


def pay(books, period, amount=None, **more):
    return operations.pay_statement(
        books.conn, "acme", operations.NewPayment(period, amount), by=operations.Author("test", books.now_ms), **more
    )


def test_statement_has_the_month_of_admission(books):
    """R6"""
    postpaid(books)
    books.now_ms = parse_instant_ms("2026-11-30T23:59:59Z")
    late = books.hold(10)
    books.now_ms = parse_instant_ms("2026-12-01T00:01")
    books.settle(late, 10)
    spent(books, 7)
    november, december = operations.list_statements(books.conn, "acme")
    assert (november.period, november.charged_nanousd, november.state(books.now_ms)) == ("2026-11", 10, "due")
    assert (december.period, december.charged_nanousd, december.state(books.now_ms)) == ("2026-12", 7, "open")
    assert pay(books, "2026-11").raised_nanousd == 0
    assert operations.list_statements(books.conn, "acme")[0].state(books.now_ms) == "paid"
    assert books.credit().owed_nanousd == 7


def test_payment_of_the_open_statement_lifts_the_caps_of_its_period(books):
    """R7"""
    postpaid(books)
    operations.set_budget(books.conn, "acme", 30, by=operations.Author("test", books.now_ms))
    spent(books, 30)
    assert books.credit().available_nanousd == 0
    assert pay(books, "2026-11", 20).raised_nanousd == 20
    assert books.credit().available_nanousd == 20
    spent(books, 20)
    books.now_ms = parse_instant_ms("2026-12-01")
    assert books.credit().available_nanousd == 30


@pytest.mark.parametrize(
    ("amount", "said"),
    [(0, r"a payment must be more than \$0\.00"), (31, r"owes \$0\.00000003 for 2026-11: pay at most that")],
)
def test_payment_above_the_due_amount_is_refused(books, amount, said):
    """R6"""
    postpaid(books)
    spent(books, 30)
    with pytest.raises(InvalidValueError, match=said):
        pay(books, "2026-11", amount)


def test_payment_earns_a_tier(books):
    """R2"""
    operations.set_team(
        books.conn,
        "acme",
        operations.TeamChange(plan="free", payment_method=True),
        by=operations.Author("test", books.now_ms),
    )
    postpaid(books)
    spent(books, 50 * NANOUSD_PER_USD)
    pay(books, "2026-11")
    assert terms_of(books.conn, "acme", books.now_ms).tier == 2


def test_payment_repeated_with_its_idempotency_key_is_one_payment(books):
    """R22"""
    postpaid(books)
    spent(books, 30)
    assert pay(books, "2026-11", 10, idempotency_key="k") == pay(books, "2026-11", 10, idempotency_key="k")
    assert books.credit().owed_nanousd == 20


def test_list_of_grants_shows_rest_and_state(books):
    """R8: no read shows expired credit, written down or not."""
    books.grant(5, expires_at_ms=books.now_ms + 5)
    books.grant(6)
    books.grant(7)
    operations.void_grant(books.conn, 3, **who(books))
    request = books.hold(8)
    books.now_ms += 5
    shown = [(g.remaining_nanousd, g.state) for g in operations.list_grants(books.conn, "acme", now_ms=books.now_ms)]
    assert shown == [(2, "expired"), (6, "open"), (0, "voided")]
    books.settle(request, 8)
    shown = [(g.remaining_nanousd, g.state) for g in operations.list_grants(books.conn, "acme", now_ms=0)]
    assert shown == [(0, "spent"), (0, "spent"), (0, "voided")]
