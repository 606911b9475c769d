"""Stored responses with OpenAI's own SDK on a real socket: conversations, reading, deleting, other keys."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import openai
import pytest
from openai.types.responses import Response

from inferd.instants import wall_clock_ms
from inferd.ledger import operations
from tests.serving.provider import PRICED
from tests.serving.responses.memory import ANSWER, asked, files

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("memory")]

SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"], "additionalProperties": False}
TOOLS: list[Any] = [{"type": "function", "name": "add", "description": "Adds.", "parameters": SCHEMA, "strict": True}]
NUM_TURNS = 100
CALL = '<tool_call>\n{"name": "add", "arguments": {"a": 7}}\n</tool_call>'


async def test_conversation_goes_on_where_the_previous_response_ended(tmp_path, monkeypatch):
    async with asked(tmp_path, monkeypatch) as (provider, client):
        first = await client.responses.create(model=PRICED, input="Why is the sky blue?", instructions="Be brief.")
        assert (first.store, first.previous_response_id, first.output_text) == (True, None, ANSWER)
        second = await client.responses.create(model=PRICED, input="Sure?", previous_response_id=first.id)
        third = await client.responses.create(model=PRICED, input="Again?", previous_response_id=second.id)
        assert (third.previous_response_id, third.instructions) == (second.id, None)
        history = [
            {"role": "user", "content": "Why is the sky blue?"},
            *(item.to_dict() for item in first.output),
            {"role": "user", "content": "Sure?"},
            *(item.to_dict() for item in second.output),
            {"role": "user", "content": "Again?"},
        ]
        whole = await client.responses.create(model=PRICED, input=history, store=False)
        assert third.usage.input_tokens == whole.usage.input_tokens, "instructions are not inherited, items are"
        shared = second.usage.input_tokens + second.usage.output_tokens
        assert third.usage.input_tokens_details.cached_tokens >= 0.98 * shared
        assert len(provider.rows("usage")) == 4


async def test_reference_stands_for_the_stored_item(tmp_path, monkeypatch):
    async with asked(tmp_path, monkeypatch) as (provider, client):
        first = await client.responses.create(model=PRICED, input="Why?")
        (item,) = first.output
        asked_again = [{"role": "user", "content": "Why?"}, item.to_dict(), {"role": "user", "content": "Sure?"}]
        referring = [asked_again[0], {"type": "item_reference", "id": item.id}, asked_again[2]]
        whole = await client.responses.create(model=PRICED, input=asked_again)
        second = await client.responses.create(model=PRICED, input=referring)
        assert second.usage.input_tokens == whole.usage.input_tokens
        listed = await client.responses.input_items.list(second.id, order="asc")
        assert [each.id for each in listed.data][1] == item.id
        await client.responses.delete(first.id)
        for unknown in (item.id, f"{item.id}9", "msg_ab_0", "x", "../x", ""):
            with pytest.raises(openai.BadRequestError) as refused:
                await client.responses.create(model=PRICED, input=[{"type": "item_reference", "id": unknown}])
            assert (refused.value.code, refused.value.param) == ("item_not_found", "input[0]")
        assert len(provider.rows("usage")) == 3


async def test_response_is_read_as_it_was_answered(tmp_path, monkeypatch):
    async with asked(tmp_path, monkeypatch) as (provider, client):
        whole = await client.responses.create(model=PRICED, input="Why?", metadata={"a": "b"})
        async with client.responses.stream(model=PRICED, input="Why?") as stream:
            streamed = await stream.get_final_response()
        for answer in (whole, streamed):
            read = await client.responses.retrieve(answer.id)
            Response.model_validate(read.model_dump(), strict=True)
            assert read.to_dict() | {"output": []} == answer.to_dict() | {"output": []}
            assert (read.status, read.output_text, read.output[0].id) == ("completed", ANSWER, answer.output[0].id)
        await provider.responses.stop()
        assert files(provider) == sorted([whole.id, streamed.id])
        folder = provider.data_dir / "responses" / "acme"
        assert all(ANSWER.encode() not in path.read_bytes() for path in folder.iterdir())


async def test_response_with_store_false_leaves_nothing(tmp_path, monkeypatch):
    async with asked(tmp_path, monkeypatch) as (provider, client):
        answer = await client.responses.create(model=PRICED, input="Why?", store=False)
        assert answer.store is False
        with pytest.raises(openai.NotFoundError, match="not found"):
            await client.responses.retrieve(answer.id)
        assert not (provider.data_dir / "responses").exists()


async def test_deleted_response_is_gone_and_nothing_continues_it(tmp_path, monkeypatch):
    async with asked(tmp_path, monkeypatch) as (provider, client):
        first = await client.responses.create(model=PRICED, input="Why?")
        second = await client.responses.create(model=PRICED, input="Sure?", previous_response_id=first.id)
        await client.responses.delete(first.id)
        for gone in (client.responses.retrieve, client.responses.delete, client.responses.cancel):
            with pytest.raises(openai.NotFoundError):
                await gone(first.id)
        for previous_id in (first.id, second.id, "resp_1", "../../default.key"):
            with pytest.raises(openai.BadRequestError) as refused:
                await client.responses.create(model=PRICED, input="And?", previous_response_id=previous_id)
            error = refused.value
            assert (error.code, error.param) == ("previous_response_not_found", "previous_response_id")
        await provider.responses.stop()
        assert files(provider) == [second.id]


async def test_key_of_another_team_or_project_finds_no_response(tmp_path, monkeypatch):
    async with asked(tmp_path, monkeypatch) as (provider, client):
        first = await client.responses.create(model=PRICED, input="Why?")
        other_key = provider.new_key("lab")
        with provider.store.immediate() as conn:
            operations.create_member(conn, "project", "acme", "web", by=operations.Author("test", wall_clock_ms()))
        for headers in ({"authorization": f"Bearer {other_key}"}, {"openai-project": "web"}):
            get = await provider.client.get(f"/v1/responses/{first.id}", headers=headers)
            unknown = await provider.client.get(f"/v1/responses/{first.id[:-1]}x", headers=headers)
            assert (get.status_code, unknown.status_code) == (404, 404)
            same = {body["error"]["message"].split("'")[2] for body in (get.json(), unknown.json())}
            assert same == {" not found."}
            for method, path in (("DELETE", ""), ("POST", "/cancel"), ("GET", "/input_items")):
                answer = await provider.client.request(method, f"/v1/responses/{first.id}{path}", headers=headers)
                assert answer.status_code == 404
            body = {"model": PRICED, "input": "And?", "previous_response_id": first.id}
            answer = await provider.client.post("/v1/responses", json=body, headers=headers)
            assert answer.json()["error"]["code"] == "previous_response_not_found"
            body = {"model": PRICED, "input": [{"type": "item_reference", "id": first.output[0].id}]}
            answer = await provider.client.post("/v1/responses", json=body, headers=headers)
            assert answer.json()["error"]["code"] == "item_not_found"
        assert (await client.responses.retrieve(first.id)).id == first.id


async def test_input_items_are_listed_in_pages_with_those_of_earlier_turns(tmp_path, monkeypatch):
    async with asked(tmp_path, monkeypatch) as (_, client):
        first = await client.responses.create(model=PRICED, input="One")
        parts = [{"type": "input_text", "text": "Two"}]
        given: list[Any] = [{"role": "user", "content": parts, "id": "msg_own"}, {"role": "user", "content": "Three"}]
        second = await client.responses.create(model=PRICED, input=given, previous_response_id=first.id)
        page = await client.responses.input_items.list(second.id, order="asc", limit=3)
        texts = [item.content[0].text for item in page.data]
        assert (texts, page.has_more) == (["One", ANSWER, "Two"], True)
        assert page.data[2].id == "msg_own"
        all_ids = [item.id async for item in client.responses.input_items.list(second.id, order="asc", limit=1)]
        newest_first = [item.id async for item in client.responses.input_items.list(second.id)]
        assert all_ids == newest_first[::-1]
        assert len(set(all_ids)) == 4
        with pytest.raises(openai.BadRequestError, match="after"):
            await client.responses.input_items.list(second.id, after="msg_none")


async def test_call_of_a_stored_turn_is_answered_in_the_next(tmp_path, monkeypatch):
    async with asked(tmp_path, monkeypatch, CALL) as (_, client):
        first = await client.responses.create(model=PRICED, input="7?", tools=TOOLS)
        (call,) = first.output
        result = {"type": "function_call_output", "call_id": call.call_id, "output": "14"}
        second = await client.responses.create(model=PRICED, input=[result], tools=TOOLS, previous_response_id=first.id)
        assert second.usage.input_tokens > first.usage.input_tokens
        with pytest.raises(openai.BadRequestError, match="has no result"):
            await client.responses.create(model=PRICED, input="And?", tools=TOOLS, previous_response_id=first.id)


async def test_conversation_of_a_hundred_responses_goes_on(tmp_path, monkeypatch):
    async with asked(tmp_path, monkeypatch, "Yes.") as (provider, client):
        previous_id = None
        for number in range(NUM_TURNS):
            body = {"model": PRICED, "input": str(number), "previous_response_id": previous_id}
            answer = (await provider.client.post("/v1/responses", json=body)).json()
            previous_id = answer["id"]
        items = [item async for item in client.responses.input_items.list(previous_id, limit=100)]
        assert len(items) == 2 * NUM_TURNS - 1
        usage = answer["usage"]
        assert usage["input_tokens_details"]["cached_tokens"] > 0.95 * usage["input_tokens"]


async def test_damaged_file_is_a_404_and_can_be_deleted(tmp_path, monkeypatch):
    async with asked(tmp_path, monkeypatch) as (provider, client):
        first = await client.responses.create(model=PRICED, input="Why?")
        path = provider.data_dir / "responses" / "acme" / first.id
        await provider.responses.stop()
        content = bytearray(path.read_bytes())
        content[40] ^= 1
        path.write_bytes(content)
        with pytest.raises(openai.NotFoundError, match="was damaged"):
            await client.responses.retrieve(first.id)
        with pytest.raises(openai.BadRequestError, match="was damaged"):
            await client.responses.create(model=PRICED, input="And?", previous_response_id=first.id)
        await client.responses.delete(first.id)
        assert files(provider) == []


async def test_team_without_room_is_not_stored_by_default_and_refused_if_it_insists(tmp_path, monkeypatch):
    monkeypatch.setattr("inferd.serving.responses.response_store.MAX_TEAM_RESPONSES", 1)
    async with asked(tmp_path, monkeypatch) as (provider, client):
        first = await client.responses.create(model=PRICED, input="Why?")
        second = await client.responses.with_raw_response.create(model=PRICED, input="Why?")
        assert (second.headers["inferd-ignored"], second.parse().store) == ("store", False)
        with pytest.raises(openai.BadRequestError) as refused:
            await client.responses.create(model=PRICED, input="Why?", store=True)
        assert (refused.value.code, refused.value.param) == ("response_storage_full", "store")
        await client.responses.delete(first.id)
        assert (await client.responses.create(model=PRICED, input="Why?", store=True)).store is True
        assert len(provider.rows("usage")) == 3


async def test_client_that_hangs_up_leaves_no_response_and_pays(tmp_path, monkeypatch):
    async with asked(tmp_path, monkeypatch) as (provider, client):
        provider.runner.hold_back()
        waiting = asyncio.create_task(client.responses.create(model=PRICED, input="Why?"))
        provider.runner.allow(3)
        await provider.until(lambda: provider.runner.waits and provider.completions.num_live == 1)
        waiting.cancel()
        await asyncio.sleep(0.05)
        provider.runner.let_go()
        await provider.idle()
        assert provider.usage_row()["status"] == "cancelled"
        await provider.responses.stop()
        assert files(provider) == []


async def test_engine_failure_is_an_error_and_leaves_no_response(tmp_path, monkeypatch):
    async with asked(tmp_path, monkeypatch) as (provider, client):
        provider.runner.crash = RuntimeError("out of luck")
        with pytest.raises(openai.InternalServerError):
            await client.responses.create(model=PRICED, input="Why?")
        body = {"model": PRICED, "input": "Why?", "stream": True}
        stream = await provider.client.post("/v1/responses", json=body)
        if stream.status_code == 200:
            last = json.loads(stream.text.strip().rpartition("data: ")[2])
            assert last["type"] == "response.failed"
        await provider.idle()
        await provider.responses.stop()
        assert files(provider) == []
