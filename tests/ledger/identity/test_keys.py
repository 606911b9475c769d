"""Keys: their form, what is stored of them, and who they let in."""

from __future__ import annotations

import hashlib
import re
from contextlib import closing

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferd.errors import AuthenticationError
from inferd.ledger import operations
from inferd.ledger.identity import authenticator
from inferd.ledger.identity.authenticator import Caller, authenticate
from inferd.ledger.identity.keys import encode_base62


def create(books, **options):
    request = operations.KeyRequest(**options)
    return operations.create_key(books.conn, "acme", request, by=operations.Author("test", books.now_ms))


def test_a_key_has_its_documented_form(books):
    """R21"""
    key = create(books)
    assert re.fullmatch(r"sk-inferd-[0-9A-Za-z]{12}-[0-9A-Za-z]{43}", key.key)
    assert key.key.startswith(f"sk-inferd-{key.id}-")
    assert create(books).key != key.key


def test_stored_are_the_id_the_digest_and_the_last_four_characters(books):
    """R21"""
    key = create(books, label="laptop")
    stored = books.conn.execute("SELECT label, secret_sha256, last4 FROM keys WHERE key_id = ?", (key.id,)).fetchone()
    assert stored == ("laptop", hashlib.sha256(key.key.encode()).hexdigest(), key.key[-4:])
    assert key.key.rpartition("-")[2] not in "\n".join(books.dump())


@given(st.binary(min_size=32, max_size=32))
def test_32_bytes_are_43_digits_that_give_them_back(secret):
    """R21"""
    digits = encode_base62(secret)
    assert len(digits) == 43
    number = 0
    for digit in digits:
        number = number * 62 + "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz".index(digit)
    assert number.to_bytes(32, "big") == secret


def test_a_key_names_its_caller(books):
    """R21, R9"""
    operations.create_member(books.conn, "project", "acme", "search", by=operations.Author("test", 1))
    operations.create_member(books.conn, "user", "acme", "ada@example.org", by=operations.Author("test", 1))
    bound = create(books, project="search", user="ada@example.org")
    free = create(books)
    assert authenticate(books.conn, bound.key, 1) == Caller("acme", "search", "ada@example.org", bound.id, "academic")
    assert authenticate(books.conn, free.key, 1) == Caller("acme", "inference", None, free.id, "academic")


@pytest.mark.parametrize(
    "presented", ["", "sk-proj-1234", "sk-inferd-", "sk-inferd-{id}", "{key} ", "{key}x", "é" * 66]
)
def test_what_is_no_key_is_refused(books, presented):
    """R21"""
    key = create(books)
    with pytest.raises(AuthenticationError, match="not an API key of this server"):
        authenticate(books.conn, presented.format(id=key.id, key=key.key), 1)


def test_a_wrong_secret_and_an_unknown_id_are_refused_alike(books):
    """R21"""
    key = create(books)
    wrong_secret = key.key[:-1] + ("a" if key.key[-1] != "a" else "b")
    unknown_id = key.key.replace(key.id, "0" * 12)
    for presented, shown in ((wrong_secret, key.id), (unknown_id, "0" * 12)):
        with pytest.raises(AuthenticationError) as refusal:
            authenticate(books.conn, presented, 1)
        assert refusal.value.message == f"Incorrect API key provided: sk-inferd-{shown}-... is unknown here."
        assert refusal.value.code == "invalid_api_key"


def test_a_comparison_takes_place_for_unknown_ids_too(books, monkeypatch):
    """R21: in constant time."""
    compared = []
    compare_digest = authenticator.hmac.compare_digest
    monkeypatch.setattr(
        authenticator.hmac, "compare_digest", lambda a, b: compared.append((a, b)) or compare_digest(a, b)
    )
    key = create(books)
    authenticate(books.conn, key.key, 1)
    with pytest.raises(AuthenticationError):
        authenticate(books.conn, key.key.replace(key.id, "0" * 12), 1)
    assert [len(a) == len(b) == 64 for a, b in compared] == [True, True]


def test_a_revocation_by_another_connection_works_on_the_next_request(store, served):
    """R20, R21"""
    with closing(store.connect()) as reader:
        assert authenticate(reader, served.key.key, 1).key_id == served.key.id
        with store.immediate() as conn:
            operations.revoke_key(conn, served.key.id, by=operations.Author("cli", 5))
        with pytest.raises(AuthenticationError, match="has been revoked"):
            authenticate(reader, served.key.key, 6)


def test_a_key_expires_at_its_moment(books):
    """R21"""
    key = create(books, expires_at_ms=books.now_ms + 10)
    authenticate(books.conn, key.key, books.now_ms + 9)
    with pytest.raises(AuthenticationError, match="has expired"):
        authenticate(books.conn, key.key, books.now_ms + 10)
