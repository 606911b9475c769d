"""What an input file may look like, and what the files look like that come of it."""

from __future__ import annotations

import codecs
import json

import pytest

from inferd.serving.batches.batch_context import InputLimits
from tests.serving.batches.customer import line
from tests.serving.batches.test_adversity import ENDED, lines

pytestmark = pytest.mark.anyio


async def test_input_file_with_bom_and_crlf_is_read(provider, customer):
    """A byte order mark, CRLF, empty lines, spaces around, no end of the last line."""
    texts = [json.dumps(each).encode() for each in lines(3)]
    content = codecs.BOM_UTF8 + texts[0] + b"\r\n\r\n   \r\n  " + texts[1] + b"  \r\n" + texts[2]
    file = await customer.upload(content)
    body = {"input_file_id": file["id"], "endpoint": "/v1/chat/completions", "completion_window": "24h"}
    async with provider.batching():
        batch = await customer.post("/v1/batches", json=body)
        batch = await customer.until(batch["id"], *ENDED)
    assert batch["request_counts"] == {"total": 3, "completed": 3, "failed": 0}


async def test_unreadable_lines_are_named_by_number_and_the_others_run(provider, customer):
    provider.start_batches_anew(limits=InputLimits(max_line_bytes=1000))
    bad = [
        json.dumps(line("long", "x" * 2000)).encode(),
        b'{"custom_id": "utf8", "method": "POST", "url": "/v1/chat/completions", "body": {"model": "\xff"}}',
        b'{"custom_id": "\\ud800", "method": "POST", "url": "/v1/chat/completions", "body": {}}',
        b'{"custom_id": ' + b"[" * 900,
        b"\0\0\0",
        b'"text"',
        json.dumps(line("")).encode(),
        json.dumps(line("c" * 513)).encode(),
        codecs.BOM_UTF8 + json.dumps(line("in the middle")).encode(),
        json.dumps(line("good") | {"custom_id": 7}).encode(),
        json.dumps({"custom_id": "no body", "method": "POST", "url": "/v1/chat/completions"}).encode(),
    ]
    async with provider.batching():
        batch = await customer.create([line("good"), *bad, line("good too")])
        batch = await customer.until(batch["id"], *ENDED)
    assert batch["request_counts"] == {"total": 13, "completed": 2, "failed": 11}
    assert [error["line"] for error in batch["errors"]["data"]] == list(range(2, 13))
    assert batch["errors"]["data"][0]["code"] == "line_too_long"
    assert (await customer.lines_of(batch["output_file_id"])).keys() == {"good", "good too"}
    content = (await provider.client.get(f"/v1/files/{batch['error_file_id']}/content")).text
    named = [json.loads(text)["custom_id"] for text in content.splitlines()]
    assert (len(named), named[-1]) == (11, "no body")


async def test_ended_batch_shows_the_usage_of_its_answers(provider, customer):
    """R14, R23"""
    async with provider.batching():
        provider.runner.hold_back()
        batch = await customer.create([*lines(5), line("bad", temperature=9)])
        assert (await customer.until(batch["id"], "in_progress"))["usage"] is None
        provider.runner.let_go()
        batch = await customer.until(batch["id"], *ENDED)
        none = await customer.create([line("bad", temperature=9)])
        assert (await customer.until(none["id"], *ENDED))["usage"] is None
    rows = provider.rows("usage")
    prompt, completion, cost = (
        sum(row[name] for row in rows) for name in ("prompt_tokens", "completion_tokens", "cost_nanousd")
    )
    assert batch["usage"] == {
        "input_tokens": prompt,
        "input_tokens_details": {"cached_tokens": 0},
        "output_tokens": completion,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": prompt + completion,
        "cost": f"0.{cost:09d}",
    }


async def test_output_file_expires_as_its_batch_asked(provider, customer):
    """R23"""
    async with provider.batching() as batches:
        policy = {"anchor": "created_at", "seconds": 3600}
        batch = await customer.create([line("a"), line("bad", temperature=9)], output_expires_after=policy)
        batch = await customer.until(batch["id"], *ENDED)
        for name in ("output_file_id", "error_file_id"):
            file = await customer.get(f"/v1/files/{batch[name]}")
            assert file["expires_at"] - file["created_at"] == 3600
        provider.ahead_ms = 2 * 3_600_000
        await batches.expire_files()
    assert [file["id"] for file in (await customer.get("/v1/files"))["data"]] == [batch["input_file_id"]]


async def test_output_lines_have_openais_shape(provider, customer):
    """https://platform.openai.com/docs/guides/batch: id, custom_id, response {status_code, request_id, body}, error."""
    async with provider.batching():
        batch = await customer.create([line("a"), line("bad", temperature=9), line("too dear", max_tokens=1)])
        batch = await customer.until(batch["id"], *ENDED)
    for name in ("output_file_id", "error_file_id"):
        for each in (await customer.lines_of(batch[name])).values():
            assert each.keys() == {"id", "custom_id", "response", "error"}
            assert each["id"].startswith("batch_req_")
            assert (each["response"] is None) == (each["error"] is not None)
            if each["response"] is not None:
                assert each["response"].keys() == {"status_code", "request_id", "body"}
            else:
                assert each["error"].keys() == {"code", "message", "param", "line"}
