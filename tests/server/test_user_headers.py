"""Requests with a trusted key, which name their user by header (R9)."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import httpx
import pytest
from starlette.datastructures import Headers

from inferd.config.server import USER_HEADERS, ServerConfig
from inferd.errors import InvalidRequestError
from inferd.instants import wall_clock_ms
from inferd.ledger import operations
from inferd.server.app import build_app
from inferd.server.auth import named_user
from tests.serving.provider import PRICED, Provider, chat_body

pytestmark = pytest.mark.anyio

EMAIL, ID, NAME = "x-openwebui-user-email", "x-openwebui-user-id", "x-openwebui-user-name"


def by() -> dict[str, Any]:
    return {"by": operations.Author("test", wall_clock_ms())}


def asking(provider: Provider, key: str, **config: Any) -> httpx.AsyncClient:
    transport = httpx.ASGITransport(build_app(provider.services, ServerConfig(**config)))
    headers = {"authorization": f"Bearer {key}"}
    return httpx.AsyncClient(transport=transport, base_url="http://localhost", headers=headers)


@pytest.fixture
async def trusted(provider):
    async with asking(provider, provider.new_key("acme", trusted=True)) as client:
        yield client


async def chat(client: httpx.AsyncClient, headers: Any = None, **fields: Any) -> httpx.Response:
    return await client.post("/v1/chat/completions", json=chat_body(**fields), headers=headers)


def users(provider: Provider) -> list[str]:
    return [row["user"] for row in provider.rows("users")]


def read(headers: dict[str, bytes], names: tuple[str, ...] = (*USER_HEADERS, NAME)) -> str | None:
    return named_user(Headers(raw=[(name.encode(), value) for name, value in headers.items()]), names)


@pytest.mark.parametrize(
    ("headers", "user"),
    [
        ({}, None),
        ({EMAIL: b""}, None),
        ({EMAIL: b" ", ID: b"u-1"}, "u-1"),
        ({EMAIL: b"Ada@Lab.org", ID: b"u-1"}, "ada@lab.org"),
        ({EMAIL: b"ada@lab.org", "inferd-user": b"root"}, "root"),
        ({EMAIL: "jörg@lab.org".encode()}, "jörg@lab.org"),
        ({"inferd-user": b"J%C3%B6rg%20M"}, "Jörg M"),
        ({"inferd-user": "Jörg M".encode()}, "Jörg M"),
        ({NAME: b"Jo%CC%88rg"}, "Jörg"),
    ],
)
async def test_first_header_that_is_not_empty_names_the_user(headers, user):
    assert read(headers) == user


@pytest.mark.parametrize(
    ("headers", "fault"),
    [
        ({EMAIL: b"\xff\xfe"}, "no UTF-8"),
        ({"inferd-user": b"%FF"}, "no UTF-8"),
        ({"inferd-user": b"a%0Ab"}, "cannot be the name"),
        ({"inferd-user": b"a%00"}, "cannot be the name"),
        ({EMAIL: b"a\tb@lab.org"}, "cannot be the name"),
        ({ID: b"x" * 255}, "cannot be the name"),
        # Decoded, a stranger's address would be that of another user.
        ({EMAIL: b"ad%61@lab.org"}, "cannot be the name"),
        ({EMAIL: b"ada%2Bb@lab.org"}, "cannot be the name"),
    ],
)
async def test_header_that_names_no_user_is_refused_with_its_name(headers, fault):
    (name,) = headers
    with pytest.raises(InvalidRequestError, match=f"The header {name} names no user: .*{fault}") as caught:
        read(headers)
    assert (caught.value.param, caught.value.code) == (name, "invalid_value")


async def test_header_that_came_twice_is_refused_unless_it_says_the_same():
    twice = [(EMAIL.encode(), b"ada@lab.org"), (EMAIL.encode(), b"bob@lab.org")]
    with pytest.raises(InvalidRequestError, match="came 2 times"):
        named_user(Headers(raw=twice), USER_HEADERS)
    assert named_user(Headers(raw=twice[:1] * 2), USER_HEADERS) == "ada@lab.org"


async def test_named_user_is_made_and_billed(provider, trusted):
    assert (await chat(trusted, {EMAIL: "Ada@Lab.org", ID: "u-1"})).status_code == 200
    assert users(provider) == ["ada@lab.org"]
    assert (provider.usage_row()["user"], provider.rows("holds")[0]["user"]) == ("ada@lab.org", "ada@lab.org")
    assert [row["action"] for row in provider.rows("log")][-1] == "users.create"
    (counted,) = [row for row in provider.rows("counters") if row["scope"] == "user:acme/ada@lab.org"]
    assert counted["posted_nanousd"] == provider.usage_row()["cost_nanousd"] > 0


async def test_header_of_another_key_is_ignored(provider):
    async with asking(provider, provider.key) as client:
        response = await chat(client, {EMAIL: "ada@lab.org", "inferd-user": "\x7f"})
    assert response.status_code == 200
    assert "inferd-ignored" not in response.headers
    assert (users(provider), provider.usage_row()["user"]) == ([], None)


@pytest.mark.parametrize(("names", "user"), [((), None), (("remote-user",), "bob"), ((ID, EMAIL), "u-1")])
async def test_operator_chooses_the_headers(provider, names, user):
    async with asking(provider, provider.new_key("acme", trusted=True), user_headers=names) as client:
        response = await chat(client, {EMAIL: "ada@lab.org", ID: "u-1", "remote-user": "bob"})
    assert response.status_code == 200
    assert provider.usage_row()["user"] == user


async def test_owner_of_the_key_is_the_user_without_a_header(provider):
    with provider.store.immediate() as conn:
        operations.create_member(conn, "user", "acme", "owner", **by())
    async with asking(provider, provider.new_key("acme", trusted=True, user="owner")) as client:
        for headers in ({}, {EMAIL: ""}, {EMAIL: "ada@lab.org"}):
            assert (await chat(client, headers)).status_code == 200
    assert sorted(row["user"] for row in provider.rows("usage")) == ["ada@lab.org", "owner", "owner"]


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/messages", "/api/chat"])
async def test_wrong_header_is_a_400_in_every_api_and_makes_no_user(provider, trusted, path):
    response = await trusted.post(path, json=chat_body(max_tokens=2), headers={"inferd-user": "a%00b"})
    assert response.status_code == 400
    assert "The header inferd-user names no user" in response.text
    assert users(provider) == []


async def test_40_first_requests_of_one_user_make_one(provider, trusted):
    responses = await asyncio.gather(*(chat(trusted, {ID: "u-1"}, max_tokens=1) for _ in range(40)))
    assert {response.status_code for response in responses} == {200}
    assert users(provider) == ["u-1"]
    assert [row["action"] for row in provider.rows("log")].count("users.create") == 1


async def test_user_of_another_team_is_untouched(provider, trusted):
    with provider.store.immediate() as conn:
        operations.create_team(conn, "other", "academic", **by())
        operations.create_member(conn, "user", "other", "ada@lab.org", **by())
        operations.suspend(conn, "user", ("other", "ada@lab.org"), **by())
    assert (await chat(trusted, {EMAIL: "ada@lab.org"})).status_code == 200
    assert {row["scope"] for row in provider.rows("counters") if "other" in row["scope"]} == set()


async def test_suspended_user_is_a_403_and_others_are_served(provider, trusted, caplog):
    caplog.set_level("INFO")
    assert (await chat(trusted, {ID: "ada"})).status_code == 200
    with provider.store.immediate() as conn:
        operations.suspend(conn, "user", ("acme", "ada"), **by())
    response = await chat(trusted, {ID: "ada"})
    assert (response.status_code, response.json()["error"]["code"]) == (403, "user_suspended")
    assert "403 user_suspended POST /v1/chat/completions team=acme project=inference user=ada" in caplog.text
    assert (await chat(trusted, {ID: "bob"})).status_code == 200


async def test_concurrency_of_the_named_user_bounds_that_user_alone(provider, trusted):
    assert (await chat(trusted, {ID: "ada"})).status_code == 200
    with provider.store.immediate() as conn:
        operations.set_concurrency(conn, "user", "acme", "ada", 1, **by())
    provider.runner.hold_back()
    first = asyncio.create_task(chat(trusted, {ID: "ada"}))
    await provider.until(lambda: provider.runner.waits)
    second = await chat(trusted, {ID: "ada"})
    assert (second.status_code, second.json()["error"]["code"]) == (429, "user_concurrency_limit_reached")
    other = asyncio.create_task(chat(trusted, {ID: "bob"}))
    provider.runner.let_go()
    assert [(await first).status_code, (await other).status_code] == [200, 200]


async def test_key_shows_the_limits_of_the_named_user_and_makes_none(provider, trusted):
    with provider.store.immediate() as conn:
        owner = operations.BudgetOwner(each="user", unit="tokens")
        operations.set_budget(conn, "acme", 1_000, "day", owner, **by())
    assert (await chat(trusted, {ID: "ada"})).status_code == 200
    used = {}
    for user in ("ada", "bob"):
        key = (await trusted.get("/v1/key", headers={ID: user})).json()
        assert (key["user"], key["trusted"]) == (user, True)
        (cap,) = [limit for limit in key["limits"] if limit["unit"] == "tokens"]
        used[user] = cap["posted"]
    assert used["ada"] > 0 == used["bob"]
    assert users(provider) == ["ada"]


async def test_request_without_a_place_in_the_minute_makes_no_user(provider, trusted):
    """A flood of new names is bounded by the requests a minute of the team."""
    limits = provider.authenticator.limits(provider.authenticator.authenticate(provider.key, 1), 1)
    rpm, statuses = limits.tier.rpm, []
    for start in range(0, rpm + 5, 35):
        asked = (
            trusted.post("/tokenize", json={"model": PRICED, "content": "a"}, headers={ID: f"u-{number}"})
            for number in range(start, min(start + 35, rpm + 5))
        )
        statuses += [response.status_code for response in await asyncio.gather(*asked)]
    assert (statuses.count(200), statuses.count(429)) == (rpm, 5)
    assert len(users(provider)) == rpm


async def test_user_beyond_the_bound_is_a_403_that_says_so(provider, trusted, monkeypatch):
    monkeypatch.setattr(operations.make_named_user, "__kwdefaults__", {"most": 1})
    monkeypatch.setattr(operations.check_user_room, "__defaults__", (1,))
    assert (await chat(trusted, {ID: "ada"})).status_code == 200
    response = await chat(trusted, {ID: "bob"})
    assert (response.status_code, response.json()["error"]["code"]) == (403, "too_many_users")
    assert (await chat(trusted, {ID: "ada"})).status_code == 200
    assert users(provider) == ["ada"]


async def test_lines_of_a_batch_are_of_the_user_that_created_it(provider, trusted):
    line = {"custom_id": "a", "method": "POST", "url": "/v1/chat/completions", "body": chat_body(max_tokens=2)}
    form = {"purpose": (None, "batch"), "file": ("in.jsonl", json.dumps(line))}
    file_id = (await trusted.post("/v1/files", files=form, headers={ID: "ada"})).json()["id"]
    body = {"endpoint": "/v1/chat/completions", "input_file_id": file_id, "completion_window": "24h"}
    async with provider.batching():
        batch_id = (await trusted.post("/v1/batches", json=body, headers={ID: "bob"})).json()["id"]
        await provider.until(lambda: provider.rows("batches")[0]["status"] == "completed")
    assert {row["file_id"]: row["user"] for row in provider.rows("files")}[file_id] == "ada"
    assert (provider.rows("batches")[0]["batch_id"], provider.rows("batches")[0]["user"]) == (batch_id, "bob")
    assert provider.usage_row()["user"] == "bob"


async def test_admin_key_makes_a_trusted_key_and_a_manager_does_not(provider):
    admin = provider.new_key("ops", scopes=("admin",))
    manager = provider.new_key("acme", scopes=("manage", "inference"))
    async with asking(provider, admin) as client:
        made = await client.post("/admin/teams/acme/keys", json={"trusted": True})
        assert (made.status_code, made.json()["trusted"]) == (200, True)
        listed = (await client.get("/admin/teams/acme/keys")).json()["keys"]
        assert [key["trusted"] for key in listed].count(True) == 1
    async with asking(provider, manager) as client:
        refused = await client.post("/admin/teams/acme/keys", json={"trusted": True})
    assert (refused.status_code, refused.json()["error"]["code"]) == (403, "beyond_own_limits")
    assert "a trusted key names the user of each request" in refused.json()["error"]["message"]
