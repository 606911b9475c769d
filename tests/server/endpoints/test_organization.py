"""OpenAI's usage and costs pages: the shapes that the official client reads, the ledger's sums, the own team only."""

from __future__ import annotations

import json
from decimal import Decimal

import httpx
import pytest
from openai import AsyncOpenAI

from inferd.attribution import Attribution
from inferd.instants import parse_instant_ms
from inferd.ledger import operations
from inferd.ledger.credit.refunds import refund_request
from inferd.ledger.requests.usage import UsageRow
from inferd.money import format_usd
from inferd.price import Price
from inferd.usage import Usage
from tests.server.test_errors import error_of
from tests.serving.provider import FREE, PRICED, cost_of, prompt_of

pytestmark = pytest.mark.anyio

DAY_S = 86_400
DAY_1 = parse_instant_ms("2026-11-01") // 1000
PRICE = Price(1_000, 2_000)


@pytest.fixture
async def used(provider):
    """Rows of free requests on three days of November 2026 by two teams, written as the ledger writes them."""
    with provider.store.immediate() as conn:
        acme, lab = "acme", "lab"
        operations.create_team(conn, lab, by=operations.Author("test", 1))
        operations.create_member(conn, "project", acme, "search", by=operations.Author("test", 1))
        operations.create_member(conn, "user", acme, "ada", by=operations.Author("test", 1))
        admin = operations.create_key(
            conn, lab, operations.KeyRequest(scopes=("admin",)), by=operations.Author("test", 1)
        )
        other = operations.create_key(conn, lab, by=operations.Author("test", 1))
        mine = provider.key.split("-")[2]
        rows = [
            (acme, "inference", None, mine, "local/tiny", DAY_1, 10, 4, 5),
            (acme, "search", "ada", mine, "local/tiny", DAY_1 + 3600, 20, 0, 6),
            (acme, "search", "ada", mine, "local/big", DAY_1 + DAY_S, 30, 30, 7),
            (lab, "inference", None, other.id, "local/tiny", DAY_1 + 2 * DAY_S, 40, 0, 8),
        ]
        for number, (team, project, user, key_id, model, at_s, prompt, cached, completion) in enumerate(rows):
            UsageRow(
                request_id=f"req-{number}",
                attribution=Attribution(team, project, user, key_id, model, "default"),
                price=None,
                usage=Usage(prompt, cached, completion, 1),
                cost_nanousd=0,
                status="completed",
                finish_reason="stop",
                admitted_at_ms=at_s * 1000,
                finished_at_ms=at_s * 1000 + 5,
                txn=None,
            ).insert(conn)
    provider.admin, provider.other = admin.key, other.key
    return provider


def as_key(key):
    return {"authorization": f"Bearer {key}"}


async def page(provider, path="usage/completions", key=None, **query):
    query = {"start_time": DAY_1, "end_time": DAY_1 + 4 * DAY_S} | query
    response = await provider.client.get(f"/v1/organization/{path}", params=query, headers=as_key(key or provider.key))
    assert response.status_code == 200, response.text
    return response.json()


async def test_usage_in_days(used):
    answer = await page(used)
    assert list(answer) == ["object", "data", "has_more", "next_page"]
    assert (answer["object"], answer["has_more"], answer["next_page"]) == ("page", False, None)
    assert [(b["object"], b["start_time"], b["end_time"]) for b in answer["data"]] == [
        ("bucket", DAY_1 + n * DAY_S, DAY_1 + (n + 1) * DAY_S) for n in range(4)
    ]
    assert answer["data"][0]["results"] == [
        {
            "object": "organization.usage.completions.result",
            "input_tokens": 30,
            "output_tokens": 11,
            "input_cached_tokens": 4,
            "input_audio_tokens": 0,
            "output_audio_tokens": 0,
            "num_model_requests": 2,
            "project_id": None,
            "user_id": None,
            "api_key_id": None,
            "model": None,
            "batch": None,
            "service_tier": None,
        }
    ]
    assert [len(b["results"]) for b in answer["data"]] == [1, 1, 0, 0]


@pytest.mark.parametrize(
    ("field", "values"),
    [
        ("model", ["local/tiny", "local/big"]),
        ("project_id", ["acme/inference", "acme/search", "acme/search"]),
        ("user_id", [None, "acme/ada", "acme/ada"]),
        ("batch", [False, False]),
        ("service_tier", ["default", "default"]),
    ],
)
async def test_each_field_groups_and_keeps_the_sums(used, field, values):
    answer = await page(used, group_by=field)
    results = [result for bucket in answer["data"] for result in bucket["results"]]
    assert [result[field] for result in results] == values
    assert sum(result["input_tokens"] for result in results) == 60
    assert sum(result["num_model_requests"] for result in results) == 3
    assert all(result[name] is None for result in results for name in ("model", "user_id", "batch") if name != field)


async def test_several_fields_and_keys_group_together(used):
    key_id = used.key.split("-")[2]
    answer = await page(used, **{"group_by[]": ["model", "api_key_id"]})
    results = [result for bucket in answer["data"] for result in bucket["results"]]
    assert [(result["model"], result["api_key_id"]) for result in results] == [
        ("local/tiny", key_id),
        ("local/big", key_id),
    ]


@pytest.mark.parametrize(
    ("query", "tokens"),
    [
        ({"models": "local/big"}, 30),
        ({"models": ["local/big", "local/tiny"]}, 60),
        ({"project_ids": "search"}, 50),
        ({"project_ids[]": "acme/search"}, 50),
        ({"project_ids": "lab/inference"}, 0),
        ({"user_ids": "ada"}, 50),
        ({"user_ids": "acme/ada", "models": "local/tiny"}, 20),
        ({"api_key_ids": "nobody"}, 0),
        ({"batch": "true"}, 0),
        ({"batch": "false"}, 60),
        ({"start_time": DAY_1 + 1, "end_time": DAY_1 + DAY_S}, 20),
        ({"start_time": DAY_1, "end_time": DAY_1 + 3600}, 10),
    ],
)
async def test_filters_and_a_half_open_range(used, query, tokens):
    answer = await page(used, **query)
    assert sum(result["input_tokens"] for bucket in answer["data"] for result in bucket["results"]) == tokens


async def test_pages_follow_each_other_without_gap_or_overlap(used):
    whole = (await page(used, bucket_width="1h", limit=168))["data"]
    collected, cursor = [], {}
    for _ in range(100):
        answer = await page(used, bucket_width="1h", limit=7, **cursor)
        collected += answer["data"]
        if not answer["has_more"]:
            break
        cursor = {"page": answer["next_page"]}
    assert collected == whole
    assert len(whole) == 96


async def test_a_page_beyond_the_end_is_empty(used):
    for number in (DAY_1 + 30 * DAY_S, 2**53, 10**18, 10**19 - 1):
        answer = await page(used, page=f"page_{number}")
        assert (answer["data"], answer["has_more"], answer["next_page"]) == ([], False, None)


async def test_minutes_and_a_range_that_is_not_aligned(used):
    answer = await page(used, bucket_width="1m", start_time=DAY_1 + 30, end_time=DAY_1 + 90)
    assert [(b["start_time"] - DAY_1, b["end_time"] - DAY_1) for b in answer["data"]] == [(30, 60), (60, 90)]


async def test_an_admin_sees_every_team_and_others_their_own(used):
    """R21"""
    everything = await page(used, key=used.admin, group_by="project_id")
    seen = [result["project_id"] for bucket in everything["data"] for result in bucket["results"]]
    assert seen == ["acme/inference", "acme/search", "acme/search", "lab/inference"]
    other = await page(used, key=used.other, group_by="project_id", project_ids="acme/search")
    assert all(bucket["results"] == [] for bucket in other["data"])
    other = await page(used, key=used.other, group_by="project_id")
    assert [result["project_id"] for bucket in other["data"] for result in bucket["results"]] == ["lab/inference"]


async def test_costs_are_exact_less_refunds_and_without_what_was_free(provider):
    """R19"""
    for _ in range(2):
        answer = (await provider.chat(max_tokens=3)).json()
    assert (await provider.chat(max_tokens=3, model=FREE)).status_code == 200
    cost = cost_of(len(prompt_of()), 3)
    assert answer["usage"]["cost"] == format_usd(cost)
    request_id = provider.rows("usage")[0]["request_id"]
    with provider.store.immediate() as conn:
        refund_request(
            conn, request_id, 4, reason="slow", actor="test", now_ms=provider.rows("usage")[0]["admitted_at_ms"]
        )
    start = provider.rows("usage")[0]["admitted_at_ms"] // 1000 // DAY_S * DAY_S
    response = await provider.client.get(
        "/v1/organization/costs", params={"start_time": start, "group_by": ["line_item", "project_id"]}
    )
    answer = json.loads(response.text, parse_float=Decimal)
    (result,) = [result for bucket in answer["data"] for result in bucket["results"]]
    assert result == {
        "object": "organization.costs.result",
        "amount": {"value": Decimal(2 * cost - 4) / 10**9, "currency": "usd"},
        "line_item": PRICED,
        "project_id": "acme/inference",
        "api_key_id": None,
    }


async def test_the_official_client_reads_both(used):
    transport = httpx.ASGITransport(used.app)
    async with httpx.AsyncClient(transport=transport) as http_client:
        client = AsyncOpenAI(
            api_key=used.key, admin_api_key=used.admin, base_url="http://localhost/v1", http_client=http_client
        )
        usage = client.admin.organization.usage
        answer = await usage.completions(start_time=DAY_1, end_time=DAY_1 + DAY_S, group_by=["model", "user_id"])
        (bucket,) = answer.data
        assert [(result.model, result.user_id, result.input_tokens) for result in bucket.results] == [
            ("local/tiny", None, 10),
            ("local/tiny", "acme/ada", 20),
        ]
        filtered = await usage.completions(
            start_time=DAY_1, models=["local/big"], project_ids=["search", "x"], limit=31
        )
        assert sum(result.input_tokens for bucket in filtered.data for result in bucket.results) == 30
        priced = await usage.costs(start_time=DAY_1, group_by=["line_item"], limit=180)
        assert priced.object == "page"


@pytest.mark.parametrize("path", ["usage/completions", "costs"])
@pytest.mark.parametrize(
    ("query", "code", "param"),
    [
        ({}, "missing_required_parameter", "start_time"),
        ({"start_time": "yesterday"}, "invalid_value", "start_time"),
        ({"start_time": "-1"}, "invalid_value", "start_time"),
        ({"start_time": 5, "end_time": 5}, "invalid_value", "end_time"),
        ({"start_time": 5, "bucket_width": "1w"}, "invalid_value", "bucket_width"),
        ({"start_time": 5, "limit": 0}, "invalid_value", "limit"),
        ({"start_time": 5, "limit": 1441}, "invalid_value", "limit"),
        ({"start_time": 5, "group_by": "color"}, "invalid_value", "group_by"),
        ({"start_time": 5, "page": "2"}, "invalid_value", "page"),
        ({"start_time": [5, 6]}, "invalid_value", "start_time"),
        ({"start_time": 5, "team": "lab"}, "unknown_parameter", "team"),
    ],
)
async def test_what_makes_no_sense_is_refused(provider, path, query, code, param):
    response = await provider.client.get(f"/v1/organization/{path}", params=query)
    error_of(response, 400, "invalid_request_error", code, param)


@pytest.mark.parametrize("path", ["usage/completions", "costs"])
async def test_a_key_without_the_scope_is_refused(provider, path):
    """R21"""
    key = provider.new_key("acme", scopes=("inference", "manage"))
    response = await provider.client.get(f"/v1/organization/{path}?start_time=1", headers=as_key(key))
    error_of(response, 403, "permission_error", "insufficient_scope")
    assert (
        await provider.client.get(f"/v1/organization/{path}?start_time=1", headers={"authorization": ""})
    ).status_code == 401
