"""What operators do, and the mistakes they are told about."""

from __future__ import annotations

import pytest

from inferd.errors import ConflictError, InvalidValueError, NotFoundError
from inferd.ledger import operations
from inferd.ledger.identity.authenticator import authenticate
from inferd.ledger.reports.money_records import credit_record
from inferd.money import NANOUSD_PER_USD

WHO = {"by": operations.Author("cli:ada", 1_795_176_000_000)}
SIGNUP = 5 * NANOUSD_PER_USD


def test_a_free_team_gets_its_sign_up_credit_once(books):
    """R3"""
    team = operations.create_team(books.conn, "lab", **WHO)
    assert (team.plan, team.tier_override, team.created_by) == ("free", None, "cli:ada")
    assert operations.show_credit(books.conn, "lab", now_ms=1).balance_nanousd == SIGNUP
    assert books.conn.execute("SELECT kind, origin, expires_at_ms FROM grants WHERE team = 'lab'").fetchall() == [
        ("promotional", "signup:free", None)
    ]
    with pytest.raises(ConflictError, match="team 'lab' already"):
        operations.create_team(books.conn, "lab", **WHO)
    assert operations.show_credit(books.conn, "lab", now_ms=1).balance_nanousd == SIGNUP


@pytest.mark.parametrize("plan", ["academic", "pro", "enterprise"])
def test_other_plans_begin_with_nothing(books, plan):
    """R3"""
    operations.create_team(books.conn, "lab", plan, **WHO)
    assert operations.show_credit(books.conn, "lab", now_ms=1).balance_nanousd == 0


def test_every_team_has_project_inference(books):
    """R9"""
    details = operations.show_team(books.conn, "acme", now_ms=1)
    assert [project.name for project in details.projects] == ["inference"]


def test_the_default_team_is_made_once_and_only_in_an_empty_ledger(store):
    """R1"""
    with store.immediate() as conn:
        key = operations.ensure_default_team(conn, **WHO)
        assert operations.ensure_default_team(conn, **WHO) is None
        details = operations.show_team(conn, "default", now_ms=1)
        assert (details.team.plan, details.team.tier_override) == ("enterprise", 5)
        assert details.credit.balance_nanousd == SIGNUP
        assert [shown.key_id for shown in details.keys] == [key.id]
        assert authenticate(conn, key.key, 1).team == "default"


def test_no_default_team_beside_another(books):
    """R1"""
    assert operations.ensure_default_team(books.conn, **WHO) is None


def test_teams_are_listed_by_name_and_shown_with_all_they_have(books):
    operations.create_team(books.conn, "aaa", **WHO)
    operations.create_member(books.conn, "project", "acme", "search", **WHO)
    operations.create_member(books.conn, "user", "acme", "ada", **WHO)
    assert [team.team for team in operations.list_teams(books.conn)] == ["aaa", "acme"]
    details = operations.show_team(books.conn, "acme", now_ms=1)
    assert [project.name for project in details.projects] == ["inference", "search"]
    assert [user.name for user in details.users] == ["ada"]
    assert credit_record(details.credit) == {
        "team": "acme",
        "balance_usd": "0.000000000",
        "held_usd": "0.000000000",
        "available_usd": "0.000000000",
        "owed_usd": "0.000000000",
        "overage": "block",
    }


@pytest.mark.parametrize("name", ["", "a:b", "team/project", ".hidden", "-x", "ä", "a b", "a\n", "x" * 65])
def test_a_bad_name_is_refused_with_the_rule(books, name):
    for create in (
        lambda: operations.create_team(books.conn, name, **WHO),
        lambda: operations.create_member(books.conn, "project", "acme", name, **WHO),
    ):
        with pytest.raises(InvalidValueError, match="1 to 64 ASCII letters"):
            create()


@pytest.mark.parametrize("name", ["", "a:b", "team/project", ".hidden", "-x", "a\n", "x" * 255])
def test_a_bad_name_of_a_user_is_refused_with_the_rule(books, name):
    with pytest.raises(InvalidValueError, match="1 to 254 letters, digits, spaces"):
        operations.create_member(books.conn, "user", "acme", name, **WHO)


@pytest.mark.parametrize("name", ["a", "Team-1", "ada@example.org", "x" * 64, "1.2_3+4", "ä", "a b", "x" * 254])
def test_a_good_name_is_taken(books, name):
    assert operations.create_member(books.conn, "user", "acme", name, **WHO).name == name


def test_names_that_exist_or_do_not_are_told_apart(books):
    """R9: each is created explicitly, in exactly one team."""
    with pytest.raises(InvalidValueError, match="free, academic, pro, enterprise"):
        operations.create_team(books.conn, "lab", "gold", **WHO)
    with pytest.raises(ConflictError):
        operations.create_member(books.conn, "project", "acme", "inference", **WHO)
    operations.create_member(books.conn, "user", "acme", "ada", **WHO)
    with pytest.raises(ConflictError):
        operations.create_member(books.conn, "user", "acme", "ada", **WHO)
    for kind in ("project", "user"):
        with pytest.raises(NotFoundError, match="no team 'nobody'"):
            operations.create_member(books.conn, kind, "nobody", "x", **WHO)
    with pytest.raises(NotFoundError):
        operations.show_team(books.conn, "nobody", now_ms=1)
    with pytest.raises(NotFoundError):
        operations.show_credit(books.conn, "nobody", now_ms=1)
    with pytest.raises(NotFoundError):
        operations.create_key(books.conn, "nobody", **WHO)
    with pytest.raises(NotFoundError, match="team 'acme' has no project 'p'"):
        operations.create_key(books.conn, "acme", operations.KeyRequest(project="p"), **WHO)
    with pytest.raises(NotFoundError, match="team 'acme' has no user 'u'"):
        operations.create_key(books.conn, "acme", operations.KeyRequest(user="u"), **WHO)
    with pytest.raises(NotFoundError):
        operations.list_keys(books.conn, "nobody")
    with pytest.raises(NotFoundError, match="no key 'nobody'"):
        operations.revoke_key(books.conn, "nobody", **WHO)


def test_a_whole_key_given_for_its_id_is_not_repeated(books):
    """R21"""
    secret = f"sk-inferd-{'A' * 12}-{'b' * 43}"
    with pytest.raises(NotFoundError, match="A" * 12) as caught:
        operations.revoke_key(books.conn, secret, **WHO)
    assert "b" * 43 not in str(caught.value)


def test_keys_are_listed_and_revoked_without_their_secret(books):
    """R21"""
    operations.create_team(books.conn, "lab", **WHO)
    key = operations.create_key(books.conn, "lab", operations.KeyRequest(label="ci"), **WHO)
    assert [shown.key_id for shown in operations.list_keys(books.conn)] == [books.key.id, key.id]
    (shown,) = operations.list_keys(books.conn, "lab")
    assert (shown.label, shown.last4, shown.revoked_at_ms) == ("ci", key.key[-4:], None)
    assert key.key not in repr(shown)
    revoked = operations.revoke_key(books.conn, key.id, by=operations.Author("cli:bob", 7))
    assert (revoked.revoked_at_ms, revoked.revoked_by) == (7, "cli:bob")
    assert operations.revoke_key(books.conn, key.id, by=operations.Author("cli:eve", 8)) == revoked


def test_a_label_and_an_expiry_make_sense(books):
    for options in ({"label": ""}, {"label": "a\nb"}, {"label": "x" * 201}, {"expires_at_ms": WHO["by"].now_ms}):
        with pytest.raises(InvalidValueError):
            operations.create_key(books.conn, "acme", operations.KeyRequest(**options), **WHO)


def test_a_grant_is_two_entries_with_its_actor(books):
    grant = operations.grant_credit(books.conn, "acme", operations.NewGrant(12_500_000_000, note="invoice 7"), **WHO)
    assert (grant.kind, grant.amount_nanousd, grant.note, grant.created_by) == (
        *("paid", 12_500_000_000, "invoice 7", "cli:ada"),
    )
    assert books.conn.execute("SELECT kind, actor, reason FROM transactions").fetchall() == [
        ("grant", "cli:ada", "invoice 7")
    ]
    assert books.conn.execute("SELECT account, amount_nanousd FROM entries ORDER BY line").fetchall() == [
        ("funding:paid", -12_500_000_000),
        ("team:acme:credit:1", 12_500_000_000),
    ]


@pytest.mark.parametrize(
    "options",
    [
        {"nanousd": 0},
        {"nanousd": -1},
        {"nanousd": 10**18},
        {"kind": "gift"},
        {"priority": 101},
        {"expires_at_ms": WHO["by"].now_ms},
        {"note": ""},
        {"idempotency_key": ""},
    ],
)
def test_a_grant_that_makes_no_sense_changes_nothing(books, options):
    before = books.dump()
    with pytest.raises(InvalidValueError):
        books.grant(**{"nanousd": 5, **options}, actor=WHO["by"].actor, now_ms=WHO["by"].now_ms)
    assert books.dump() == before


def test_grants_never_reach_the_end_of_64_bits(books):
    for _ in range(40):
        books.grant(10**17)
    with pytest.raises(InvalidValueError, match="together"):
        books.grant(1)
    books.grant(1, "promotional")
    assert books.credit().balance_nanousd == 40 * 10**17 + 1


def test_the_same_key_and_body_give_the_stored_answer(books):
    """R22"""
    first = books.grant(100, note="a", idempotency_key="k", expires_at_ms=books.now_ms + 10)
    books.now_ms += 10**12
    assert books.grant(100, note="a", idempotency_key="k", expires_at_ms=first.expires_at_ms, actor="bob") == first
    assert books.one("SELECT count(*) FROM grants") == 1


@pytest.mark.parametrize("change", [{"nanousd": 101}, {"note": "b"}, {"kind": "promotional"}, {"priority": 1}])
def test_the_same_key_with_another_body_is_a_conflict(books, change):
    """R22"""
    books.grant(100, idempotency_key="k")
    with pytest.raises(ConflictError, match="'k' stands for another grant of team"):
        books.grant(**{"nanousd": 100, "idempotency_key": "k", **change})
    assert books.one("SELECT count(*) FROM grants") == 1


def test_an_idempotency_key_is_the_teams_own(books):
    """R22"""
    operations.create_team(books.conn, "lab", "pro", **WHO)
    books.grant(100, idempotency_key="k")
    operations.grant_credit(books.conn, "lab", operations.NewGrant(200), idempotency_key="k", **WHO)
    assert operations.show_credit(books.conn, "lab", now_ms=1).balance_nanousd == 200


def test_without_a_key_every_grant_is_a_new_one(books):
    """R22"""
    books.grant(100)
    books.grant(100)
    assert books.credit().balance_nanousd == 200


def test_a_refused_grant_leaves_its_key_free(books):
    """R22"""
    with pytest.raises(InvalidValueError):
        books.grant(100, idempotency_key="k", expires_at_ms=1)
    books.grant(100, idempotency_key="k")
