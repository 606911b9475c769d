"""Responses in the background: polled, cancelled, deleted, streamed again; what a crash or a stop leaves of them."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import openai
import pytest

from inferd.sealed import KeyRing
from inferd.serving.responses import stored_responses
from inferd.serving.responses.response_store import ResponseStore
from inferd.serving.responses.stored_responses import CUT_OFF, StoredResponses
from tests.serving.provider import PATIENCE_S, PRICED, Provider, cost_of
from tests.serving.responses.memory import ANSWER, asked, files

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("memory")]


async def until_ended(client: Any, response_id: str) -> Any:
    async with asyncio.timeout(PATIENCE_S):
        while (response := await client.responses.retrieve(response_id)).status in ("queued", "in_progress"):
            await asyncio.sleep(0.01)
    return response


def started_anew(provider: Provider) -> StoredResponses:
    """Return the responses of the same folder as another process finds them."""
    store = ResponseStore(provider.data_dir, KeyRing(provider.data_dir))
    store.scan()
    return StoredResponses(store, provider.ledger, lambda: 0, days=30)


async def test_response_in_the_background_is_queued_runs_and_is_billed(tmp_path, monkeypatch):
    async with asked(tmp_path, monkeypatch) as (provider, client):
        provider.runner.hold_back()
        queued = await client.responses.create(model=PRICED, input="Why?", background=True)
        assert (queued.status, queued.background, queued.output, queued.usage) == ("queued", True, [], None)
        assert files(provider) == [f"{queued.id}.open"]
        provider.runner.allow(3)
        await provider.until(lambda: provider.runner.waits)
        assert (await client.responses.retrieve(queued.id)).status in ("queued", "in_progress")
        with pytest.raises(openai.BadRequestError) as refused:
            await client.responses.create(model=PRICED, input="And?", previous_response_id=queued.id)
        assert refused.value.code == "response_in_progress"
        provider.runner.let_go()
        done = await until_ended(client, queued.id)
        assert (done.status, done.output_text, done.created_at) == ("completed", ANSWER, queued.created_at)
        row = provider.usage_row()
        assert row["cost_nanousd"] == cost_of(row["prompt_tokens"], row["completion_tokens"])
        await provider.responses.stop()
        assert files(provider) == [queued.id]
        (event,) = provider.rows("events")
        assert (event["type"], event["object_id"], event["team"]) == ("response.completed", queued.id, "acme")
        assert (await client.responses.cancel(queued.id)).status == "completed", "cancelling again changes nothing"
        follow_up = await client.responses.create(model=PRICED, input="And?", previous_response_id=queued.id)
        assert follow_up.status == "completed"


async def test_refusal_of_a_response_in_the_background_is_an_error_at_once(tmp_path, monkeypatch):
    async with asked(tmp_path, monkeypatch) as (provider, client):
        with pytest.raises(openai.BadRequestError) as refused:
            await client.responses.create(model=PRICED, input="x" * 9_000, background=True)
        assert (refused.value.code, refused.value.param) == ("context_length_exceeded", "input")
        with pytest.raises(openai.BadRequestError, match="needs 'store'"):
            await client.responses.create(model=PRICED, input="Why?", background=True, store=False)
        await provider.responses.stop()
        assert files(provider) == []


async def test_cancelled_response_is_billed_for_what_was_computed(tmp_path, monkeypatch):
    async with asked(tmp_path, monkeypatch) as (provider, client):
        provider.runner.hold_back()
        queued = await client.responses.create(model=PRICED, input="Why?", background=True)
        provider.runner.allow(5)
        await provider.until(lambda: provider.runner.waits)
        cancelling = asyncio.create_task(client.responses.cancel(queued.id))
        await asyncio.sleep(0.1)
        provider.runner.let_go()
        cancelled = await cancelling
        row = provider.usage_row()
        assert (cancelled.status, row["status"], row["finish_reason"]) == ("cancelled", "cancelled", "cancelled")
        assert cancelled.usage.output_tokens == row["completion_tokens"] > 0
        assert ANSWER.startswith(cancelled.output_text)
        assert (await client.responses.retrieve(queued.id)).to_dict() == cancelled.to_dict()
        assert (await client.responses.cancel(queued.id)).status == "cancelled"
        sync = await client.responses.create(model=PRICED, input="Why?")
        with pytest.raises(openai.BadRequestError, match="synchronous"):
            await client.responses.cancel(sync.id)


async def test_races_of_cancel_delete_and_completion_bill_each_response_once(tmp_path, monkeypatch):
    async with asked(tmp_path, monkeypatch) as (provider, client):

        async def race(number: int) -> str:
            queued = await client.responses.create(model=PRICED, input=str(number), background=True)
            await asyncio.sleep(number * 0.004)
            if number % 2:
                await asyncio.gather(
                    client.responses.delete(queued.id), client.responses.cancel(queued.id), return_exceptions=True
                )
                return "deleted"
            first, second = await asyncio.gather(*(client.responses.cancel(queued.id) for _ in range(2)))
            assert first.status == second.status
            return str(first.status)

        ends = await asyncio.gather(*map(race, range(24)))
        await provider.idle()
        rows = {row["request_id"]: row["status"] for row in provider.rows("usage")}
        assert len(rows) == 24
        assert set(ends) <= {"deleted", "cancelled", "completed"}
        await provider.responses.stop()
        assert len(files(provider)) == 12
        await provider.responses.stop()
        assert not any(name.endswith(".open") for name in files(provider))


async def test_deleted_response_is_ended_billed_and_leaves_nothing(tmp_path, monkeypatch):
    async with asked(tmp_path, monkeypatch) as (provider, client):
        provider.runner.hold_back()
        queued = await client.responses.create(model=PRICED, input="Why?", background=True)
        provider.runner.allow(5)
        await provider.until(lambda: provider.runner.waits)
        deleting = asyncio.create_task(client.responses.delete(queued.id))
        await asyncio.sleep(0.1)
        provider.runner.let_go()
        await deleting
        await provider.responses.stop()
        assert files(provider) == []
        assert provider.usage_row()["status"] == "cancelled"
        with pytest.raises(openai.NotFoundError):
            await client.responses.retrieve(queued.id)


async def test_stream_of_a_response_in_the_background_is_read_again_from_any_event(tmp_path, monkeypatch):
    async with asked(tmp_path, monkeypatch) as (provider, client):
        provider.runner.hold_back()
        stream = await client.responses.create(model=PRICED, input="Why?", background=True, stream=True)
        created = await anext(stream)
        queued = await anext(stream)
        assert (created.type, queued.type, created.response.status) == ("response.created", "response.queued", "queued")
        await stream.close()  # the client goes away, and the response goes on
        response_id = created.response.id
        reading = asyncio.create_task(client.responses.retrieve(response_id, stream=True))
        provider.runner.let_go()
        events = [event async for event in await reading]
        assert [event.sequence_number for event in events] == list(range(len(events)))
        assert events[-1].response.output_text == ANSWER
        rest = await client.responses.retrieve(response_id, stream=True, starting_after=5)
        assert [event.sequence_number async for event in rest] == list(range(6, len(events)))
        assert "".join(event.delta for event in events if event.type == "response.output_text.delta") == ANSWER
        monkeypatch.setattr(stored_responses, "MAX_REPLAY_BYTES", 0)
        other = await client.responses.create(model=PRICED, input="Why?", background=True)
        await until_ended(client, other.id)
        with pytest.raises(openai.BadRequestError, match="cannot be streamed"):
            await client.responses.retrieve(other.id, stream=True)


async def test_engine_failure_is_a_failed_response_unbilled(tmp_path, monkeypatch):
    async with asked(tmp_path, monkeypatch) as (provider, client):
        provider.runner.hold_back()
        queued = await client.responses.create(model=PRICED, input="Why?", background=True)
        provider.runner.crash = RuntimeError("out of luck")
        provider.runner.let_go()
        failed = await until_ended(client, queued.id)
        assert (failed.status, failed.error.code, failed.usage) == ("failed", "server_error", None)
        assert "not billed" in failed.error.message
        assert provider.usage_row()["cost_nanousd"] == 0
        await provider.responses.stop()
        assert files(provider) == [queued.id]


async def test_stop_of_the_server_fails_the_response_unbilled(tmp_path, monkeypatch):
    async with asked(tmp_path, monkeypatch) as (provider, client):
        provider.runner.hold_back()
        queued = await client.responses.create(model=PRICED, input="Why?", background=True)
        provider.completions.cut_off()
        failed = await until_ended(client, queued.id)
        assert (failed.status, "shutting down" in failed.error.message) == ("failed", True)
        provider.runner.let_go()
        await provider.idle()
        assert provider.hold_states() == ["voided"]


async def test_crash_in_the_background_is_a_failed_response_after_the_next_start(tmp_path, monkeypatch):
    async with asked(tmp_path, monkeypatch) as (provider, client):
        provider.runner.hold_back()
        queued = await client.responses.create(model=PRICED, input="Why?", background=True)
        caller = provider.responses._runs["acme", queued.id].caller
        again = started_anew(provider)  # the hold is voided by the start of an epoch, which other tests cover
        await again.recover()
        failed = json.loads(await again.find(caller, queued.id))
        assert (failed["status"], failed["error"]["message"], failed["output"]) == ("failed", CUT_OFF, [])
        assert files(provider) == [queued.id]
        provider.runner.let_go()


@pytest.mark.parametrize("background", [False, True])
async def test_crash_between_the_commit_and_the_file_is_completed_from_the_ledger(tmp_path, monkeypatch, background):
    async with asked(tmp_path, monkeypatch) as (provider, client):
        monkeypatch.setattr(provider.response_store, "publish", _crash)
        answer = await client.responses.create(model=PRICED, input="Why?", background=background)
        await provider.idle()
        await provider.responses.stop()
        assert files(provider) == [f"{answer.id}.open"]
        again = started_anew(provider)
        await again.recover()
        caller = provider.authenticator.authenticate(provider.key, 0)
        read = json.loads(await again.find(caller, answer.id))
        assert (read["status"], read["output"][0]["content"][0]["text"]) == ("completed", ANSWER)
        cost_nanousd = provider.usage_row()["cost_nanousd"]
        assert read["usage"]["cost"] == f"{cost_nanousd / 1e9:.9f}"
        await provider.responses.stop()
        assert files(provider) == [answer.id]


@pytest.mark.parametrize("background", [False, True])
async def test_crash_between_the_file_and_the_commit_leaves_no_answer_unbilled(tmp_path, monkeypatch, background):
    async with asked(tmp_path, monkeypatch) as (provider, client):
        holds = provider.holds
        resolve = holds.resolve

        async def crash(request_id: str, command: Any) -> int:
            again = started_anew(provider)
            await again.recover()
            caller = provider.authenticator.authenticate(provider.key, 0)
            found.append((files(provider), await _found(again, caller, request_id)))
            return await resolve(request_id, command)

        found: list[Any] = []
        monkeypatch.setattr(holds, "resolve", crash)
        answer = await client.responses.create(model=PRICED, input="Why?", background=background)
        await provider.idle()
        ((names, status),) = found
        await provider.responses.stop()
        assert (names, status) == (([answer.id], "failed") if background else ([], None))


async def test_disk_that_cannot_store_the_answer_makes_it_free(tmp_path, monkeypatch):
    async with asked(tmp_path, monkeypatch) as (provider, client):
        monkeypatch.setattr(provider.response_store, "write_open", _crash)
        with pytest.raises(openai.InternalServerError, match="could not store the response"):
            await client.responses.create(model=PRICED, input="Why?")
        with pytest.raises(openai.InternalServerError, match="cannot be stored") as refused:
            await client.responses.create(model=PRICED, input="Why?", background=True)
        assert refused.value.status_code == 503
        await provider.idle()
        assert [row["cost_nanousd"] for row in provider.rows("usage")] == [0, 0]


def _crash(*_: Any) -> None:
    raise OSError(28, "No space left on device")


async def _found(stored: StoredResponses, caller: Any, request_id: str) -> str | None:
    try:
        return json.loads(await stored.find(caller, request_id.replace("req_", "resp_")))["status"]
    except Exception:  # noqa: BLE001 - nothing was found
        return None
