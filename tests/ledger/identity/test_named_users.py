"""Trusted keys in the ledger: names of users, their creation on first sight, and who may make such a key (R9)."""

from __future__ import annotations

import pytest

from inferd.errors import InvalidValueError, PermissionDeniedError
from inferd.ledger import operations
from inferd.ledger.audit.run import audit
from inferd.ledger.identity import find_key
from inferd.ledger.identity.authenticator import authenticate, name_user, recall, stand_in
from inferd.ledger.identity.delegation import granted_key
from inferd.ledger.identity.teams import MAX_USER_NAME, user_name
from inferd.ledger.reports.listings import key_status, listed_keys

WHO = {"by": operations.Author("cli:ada", 1)}


def new_key(books, **options):
    return operations.create_key(books.conn, "acme", operations.KeyRequest(**options), **WHO)


@pytest.fixture
def trusted(books):
    return new_key(books, trusted=True)


def named(books, key, name):
    return name_user(books.conn, authenticate(books.conn, key.key, 1), user_name(name))


def make(books, name, **options):
    return operations.make_named_user(books.conn, "acme", user_name(name), **WHO, **options)


def users(books):
    return [row[0] for row in books.conn.execute("SELECT user FROM users WHERE team = 'acme' ORDER BY user")]


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("ada", "ada"),
        ("Ada", "Ada"),
        ("Ada@Example.ORG", "ada@example.org"),
        ("Jo\u0308rg", "J\u00f6rg"),
        ("JO\u0308RG@lab.org", "j\u00f6rg@lab.org"),
        ("Zo\u00eb O'Neil", "Zo\u00eb O'Neil"),
        ("7c0f6a52-5d61-4a52-9d8e-0a4b7a1c2d3e", "7c0f6a52-5d61-4a52-9d8e-0a4b7a1c2d3e"),
        ("auth0|5f7c8ec7", "auth0|5f7c8ec7"),
        ("a" * MAX_USER_NAME, "a" * MAX_USER_NAME),
        ("\u5c71\u7530", "\u5c71\u7530"),
    ],
)
def test_user_name_is_nfc_and_an_address_in_lower_case(text, name):
    assert user_name(text) == name
    assert user_name(name) == name


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a/b",
        "a:b",
        "a\nb",
        "a\x00",
        "a\u202eb",
        "a\u200bb",
        "=1+1",
        "-x",
        " a",
        "a ",
        "[red]a",
        "a" * 255,
        "a\ud800",
    ],
)
def test_user_name_of_other_characters_is_refused(text):
    with pytest.raises(InvalidValueError, match="cannot be the name of a user"):
        user_name(text)


def test_user_of_the_operator_may_have_the_name_of_a_header(books):
    operations.create_member(books.conn, "user", "acme", "j\u00f6rg@lab.org", **WHO)
    for other in ("J\u00f6rg@lab.org", "jo\u0308rg@lab.org"):
        with pytest.raises(InvalidValueError, match="write 'j\u00f6rg@lab\\.org'"):
            operations.create_member(books.conn, "user", "acme", other, **WHO)
    assert users(books) == ["j\u00f6rg@lab.org"]


def test_user_is_made_once_and_logged(books, trusted):
    assert named(books, trusted, "Ada@lab.org").is_new_user
    assert [make(books, "Ada@lab.org") for _ in range(3)] == ["ada@lab.org"] * 3
    assert users(books) == ["ada@lab.org"]
    caller = named(books, trusted, "ADA@lab.org")
    assert (caller.user, caller.is_new_user) == ("ada@lab.org", False)
    (entry,) = operations.read_log(books.conn, operations.LogQuery(action="users"))
    assert (entry.action, entry.team, entry.details) == ("users.create", "acme", {"name": "ada@lab.org"})
    books.assert_clean()


def test_user_that_the_operator_wrote_in_capitals_is_found(books, trusted):
    """Else a budget of `Ada@Lab.org` would not bound the requests that Open WebUI sends for her."""
    operations.create_member(books.conn, "user", "acme", "Ada@Lab.org", **WHO)
    caller = named(books, trusted, "ada@lab.org")
    assert (caller.user, caller.is_new_user) == ("Ada@Lab.org", False)
    assert make(books, "ADA@lab.org") == "Ada@Lab.org"
    assert named(books, trusted, "ada").is_new_user
    operations.create_member(books.conn, "user", "acme", "Bob", **WHO)
    assert named(books, trusted, "bob").is_new_user, "only addresses have no case"


def test_more_users_than_the_bound_are_refused(books):
    key = operations.create_key(books.conn, "acme", operations.KeyRequest(trusted=True), **WHO)
    by_key = {"by": operations.Author(f"key:{key.id}", 2)}
    operations.create_member(books.conn, "user", "acme", "by-hand", **WHO)
    for number in range(3):
        operations.make_named_user(books.conn, "acme", f"user-{number}", most=3, **by_key)
    with pytest.raises(
        PermissionDeniedError, match="no user `user-3`, and its trusted keys have made 3 users"
    ) as caught:
        operations.make_named_user(books.conn, "acme", "user-3", most=3, **by_key)
    assert caught.value.code == "too_many_users"
    assert operations.make_named_user(books.conn, "acme", "user-2", most=3, **by_key) == "user-2"
    operations.check_user_room(books.conn, "acme", "user-2", 3)  # another request has made the last one meanwhile
    operations.create_member(books.conn, "user", "acme", "user-3", **WHO)
    assert operations.make_named_user(books.conn, "acme", "user-3", most=3, **by_key) == "user-3"
    operations.create_team(books.conn, "other", "academic", **WHO)
    assert operations.make_named_user(books.conn, "other", "user-3", most=3, **by_key) == "user-3"


def test_suspended_user_and_owner_are_refused_by_name(books):
    operations.create_member(books.conn, "user", "acme", "owner", **WHO)
    key = new_key(books, trusted=True, user="owner")
    assert authenticate(books.conn, key.key, 1).user == "owner"
    make(books, "ada")
    assert named(books, key, "ada").user == "ada"
    operations.suspend(books.conn, "user", ("acme", "ada"), **WHO)
    for ask in (lambda: named(books, key, "ada"), lambda: recall(books.conn, key.id, 1, "inference", "ada")):
        with pytest.raises(PermissionDeniedError, match="The user `acme/ada` is suspended") as caught:
            ask()
        assert caught.value.code == "user_suspended"
    assert named(books, key, "bob").user == "bob"
    operations.suspend(books.conn, "user", ("acme", "owner"), **WHO)
    with pytest.raises(PermissionDeniedError, match="`acme/owner` is suspended"):
        named(books, key, "bob")


def test_recall_keeps_the_user_of_the_request(books, trusted):
    make(books, "ada")
    assert recall(books.conn, trusted.id, 1, "inference", "ada").user == "ada"
    assert recall(books.conn, trusted.id, 1, "inference", None).user is None


def test_trusted_key_is_shown_and_covered_by_its_checksum(books, trusted):
    shown = {key["id"]: key["trusted"] for key in listed_keys(books.conn, "acme", now_ms=1)}
    assert shown == {books.key.id: False, trusted.id: True}
    caller = named(books, trusted, "ada")
    status = key_status(books.conn, caller, now_ms=books.now_ms)
    assert (status["user"], status["trusted"]) == ("ada", True)
    with pytest.raises(Exception, match="a key can only be revoked"):
        books.conn.execute("UPDATE keys SET trusted = 1 WHERE key_id = ?", (books.key.id,))
    books.conn.execute("BEGIN")
    books.conn.execute("DROP TRIGGER keys_fixed")
    books.conn.execute("UPDATE keys SET trusted = 1 WHERE key_id = ?", (books.key.id,))
    assert [finding.table for finding in audit(books.conn).findings if finding.row == books.key.id] == ["keys"]
    books.conn.execute("ROLLBACK")


def test_team_cannot_make_a_trusted_key(books):
    manager = find_key(books.conn, new_key(books, scopes=("inference", "usage", "manage")).id)
    with pytest.raises(
        PermissionDeniedError, match="could spend what other users have left; ask the operator"
    ) as caught:
        granted_key(books.conn, manager, operations.KeyRequest(trusted=True))
    assert caught.value.code == "beyond_own_limits"


@pytest.mark.parametrize("scopes", [("usage",), ("inference", "manage"), ("inference", "admin"), ("manage",)])
def test_trusted_key_only_makes_calls_and_reads_usage(books, scopes):
    with pytest.raises(InvalidValueError, match="a trusted key has the scope inference"):
        new_key(books, trusted=True, scopes=scopes)


def test_trusted_key_does_not_stand_in_for_requests_without_one(books, trusted):
    with pytest.raises(PermissionDeniedError, match="which is trusted to name users"):
        stand_in(books.conn, trusted.id, 1)


def test_log_line_has_the_name_as_one_word(books, trusted):
    assert named(books, trusted, "J\u00f6rg key=x").log_fields().split(" project=")[1] == (
        f'inference user="J\\u00f6rg key=x" key={trusted.id}'
    )
