"""Every way in which a request ends, on every endpoint: what was delivered is billed, unless the server ended it (R14,
R16)."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import pytest

from inferd.chat.answer_reader import AnswerReader
from inferd.engine.grammar.constraint import Matcher
from inferd.engine.messages import FinishReason
from inferd.serving.endpoints.chat_prompt import PreparedChat
from tests.server.asgi_call import AsgiCall
from tests.serving.batches.customer import Customer, line
from tests.serving.provider import FREE, INPUT_NANOUSD, OUTPUT_NANOUSD, PRICED, TIMED, Provider, prompt_of

pytestmark = pytest.mark.anyio

SCHEMA = {"type": "object", "properties": {"a": {"enum": ["x", "y"]}}, "required": ["a"], "additionalProperties": False}
TIMED_NANOUSD = 1000
N_STEPS = 3
SHUTDOWN = "shutdown"
DEAD_END = "start: BODY DEAD\nBODY: /(.|\\n){6}/\nDEAD: /a/ & /b/\n"


def chat(n: int = 1, **fields: Any) -> tuple[str, dict[str, Any]]:
    return "/v1/chat/completions", {"messages": [{"role": "user", "content": "hello"}], "n": n, **fields}


def chat_of_json(n: int = 1) -> tuple[str, dict[str, Any]]:
    schema = {"name": "answer", "strict": True, "schema": SCHEMA}
    return chat(n, response_format={"type": "json_schema", "json_schema": schema})


def text(prompt: Any = "hello", n: int = 1) -> tuple[str, dict[str, Any]]:
    return "/v1/completions", {"prompt": prompt, "n": n}


def responses(**fields: Any) -> tuple[str, dict[str, Any]]:
    return "/v1/responses", {"input": "hello", **fields}


def messages(**fields: Any) -> tuple[str, dict[str, Any]]:
    return "/v1/messages", {"messages": [{"role": "user", "content": "hello"}], **fields}


PLAIN = [chat(), chat(3), text(), text(n=3), text(["hello", "world"]), responses(), messages()]
CONSTRAINED = [
    chat_of_json(),
    chat_of_json(3),
    chat(response_format={"type": "regex", "schema": "[a-z]{30}"}),
    chat(grammar="start: /[a-z]{30}/"),
    responses(text={"format": {"type": "json_schema", "name": "answer", "strict": True, "schema": SCHEMA}}),
    messages(output_config={"format": {"type": "json_schema", "schema": SCHEMA}}),
]


CUT_BY_LENGTH = {
    "/v1/chat/completions": '"finish_reason":"length"',
    "/v1/responses": '"incomplete_details":{"reason":"max_output_tokens"}',
    "/v1/messages": '"stop_reason":"max_tokens"',
}


class Endings:
    """Asks, and brings an end about."""

    def __init__(self, provider: Provider) -> None:
        self.provider = provider
        self.known: set[str] = set()
        provider.grant(10**12)

    def ask(self, endpoint: tuple[str, dict[str, Any]], model: str, *, stream: bool, max_tokens: int = 60) -> AsgiCall:
        path, body = endpoint
        limit = "max_output_tokens" if path == "/v1/responses" else "max_tokens"
        headers = {"authorization": f"Bearer {self.provider.key}", "content-type": "application/json"}
        body = {"model": model, "stream": stream, limit: max_tokens, **body}
        return AsgiCall(self.provider.app, "POST", path, headers=headers, body=json.dumps(body).encode())

    async def ended_by(self, end: Callable[[AsgiCall], Any], endpoint: Any, model: str, *, stream: bool) -> AsgiCall:
        """Some tokens were sampled before."""
        provider, runner = self.provider, self.provider.runner
        num_steps = len(runner.rows_per_step)
        runner.hold_back()
        call = self.ask(endpoint, model, stream=stream)
        num_sequences = endpoint[1].get("n", 1) * (2 if isinstance(endpoint[1].get("prompt"), list) else 1)
        (replica,) = provider.router.replicas
        await provider.until(lambda: runner.waits and replica.num_live == num_sequences)
        runner.allow(N_STEPS)
        await provider.until(lambda: len(runner.rows_per_step) == num_steps + N_STEPS and runner.waits)
        end(call)
        await provider.until(lambda: runner.crash is not None or provider.num_in_inbox == num_sequences)
        runner.let_go()
        await call.ended()
        await provider.idle()
        return call

    def new_rows(self) -> list[dict[str, Any]]:
        rows = [row for row in self.provider.rows("usage") if row["request_id"] not in self.known]
        self.known |= {row["request_id"] for row in rows}
        assert rows, "every request has a usage row"
        return rows

    def assert_billed(self, model: str, status: str, reason: FinishReason) -> None:
        """For what was computed; a request for each prompt."""
        for row in self.new_rows():
            assert (row["status"], row["finish_reason"]) == (status, reason.value)
            assert row["prompt_tokens"] > 0
            assert row["completion_tokens"] > 0
            assert row["cost_nanousd"] == {
                PRICED: row["prompt_tokens"] * INPUT_NANOUSD + row["completion_tokens"] * OUTPUT_NANOUSD,
                TIMED: row["compute_ms"] * TIMED_NANOUSD,
                FREE: 0,
            }.get(model)
            assert model == FREE or self.hold_of(row) == "settled"

    def assert_void(self, model: str) -> None:
        for row in self.new_rows():
            assert (row["status"], row["cost_nanousd"]) == ("failed", 0)
            assert (row["prompt_tokens"], row["completion_tokens"], row["compute_ms"]) == (0, 0, 0)
            assert model == FREE or self.hold_of(row) == "voided"

    def hold_of(self, row: dict[str, Any]) -> str:
        (hold,) = [hold for hold in self.provider.rows("holds") if hold["request_id"] == row["request_id"]]
        return str(hold["state"])


@pytest.fixture
def endings(provider):
    return Endings(provider)


def test_every_finish_reason_has_a_test_here():
    tested = {"stop", "length", "constraint", "cancelled", "error"}
    assert {reason.value for reason in FinishReason} == tested


MODELS = pytest.mark.parametrize("model", [PRICED, TIMED, FREE])


@MODELS
async def test_request_that_ends_by_itself_is_billed(endings, model):
    for endpoint in PLAIN:
        for stream in (False, True):
            endings.provider.runner._answer = None
            await endings.ask(endpoint, model, stream=stream, max_tokens=5).ended()
            endings.assert_billed(model, "completed", FinishReason.LENGTH)
            endings.provider.runner._answer = b"Hi!"
            await endings.ask(endpoint, model, stream=stream).ended()
            endings.assert_billed(model, "completed", FinishReason.STOP)


@MODELS
async def test_request_that_its_constraint_ends_is_billed_and_reads_as_cut_by_length(endings, model, monkeypatch):
    num_masks: dict[Matcher, int] = {}
    take_mask = Matcher.take_mask

    def take_some(matcher):
        num_masks[matcher] = num_masks.get(matcher, 0) + 1
        mask = take_mask(matcher)
        return None if num_masks[matcher] > 5 else mask

    monkeypatch.setattr(Matcher, "take_mask", take_some)
    for endpoint in CONSTRAINED:
        for stream in (False, True):
            call = endings.ask(endpoint, model, stream=stream)
            await call.ended()
            assert call.status == 200
            body = call.body.decode()
            assert CUT_BY_LENGTH[endpoint[0]] in body
            assert '"error":{' not in body
            (row,) = endings.provider.rows("usage")[-1:]
            assert row["completion_tokens"] == 5 * endpoint[1].get("n", 1)
            endings.assert_billed(model, "completed", FinishReason.CONSTRAINT)


@pytest.mark.parametrize("stream", [False, True])
async def test_grammar_that_runs_into_a_dead_end_is_billed_for_all_that_was_sampled(endings, stream):
    call = endings.ask(chat(n=2, grammar=DEAD_END), PRICED, stream=stream)
    await call.ended()
    (row,) = endings.provider.rows("usage")
    assert (row["completion_tokens"], row["finish_reason"]) == (12, "constraint")
    assert row["cost_nanousd"] == len(prompt_of()) * INPUT_NANOUSD + 12 * OUTPUT_NANOUSD
    assert call.body.count(b'"finish_reason":"length"') == 2
    assert '"completion_tokens":12' in call.body.decode() or stream


async def test_choice_that_its_constraint_ends_leaves_the_others_to_go_on(endings, monkeypatch):
    take_mask = Matcher.take_mask
    doomed: list[Matcher] = []

    def take_none_of_the_first(matcher):
        doomed.append(matcher)
        mask = take_mask(matcher)
        return None if matcher is doomed[0] and doomed.count(matcher) > 2 else mask

    monkeypatch.setattr(Matcher, "take_mask", take_none_of_the_first)
    response = await endings.provider.client.post(chat()[0], json={**chat_of_json(16)[1], "model": PRICED})
    choices = response.json()["choices"]
    assert sorted(choice["finish_reason"] for choice in choices) == ["length"] + ["stop"] * 15
    assert [json.loads(c["message"]["content"]).keys() for c in choices if c["finish_reason"] == "stop"] == [{"a"}] * 15
    sampled = sum(len(choice["message"]["content"]) for choice in choices)
    assert response.json()["usage"]["completion_tokens"] == sampled
    endings.assert_billed(PRICED, "completed", FinishReason.CONSTRAINT)


async def test_batch_line_that_its_constraint_ends_runs_once_and_is_billed(endings):
    provider, customer = endings.provider, Customer(endings.provider)
    async with provider.batching():
        batch = await customer.create([line("dead", grammar=DEAD_END, max_tokens=60)])
        batch = await customer.until(batch["id"], "completed")
    answered = (await customer.lines_of(batch["output_file_id"]))["dead"]["response"]
    assert answered["status_code"] == 200
    assert answered["body"]["choices"][0]["finish_reason"] == "length"
    assert answered["body"]["usage"]["completion_tokens"] == 6
    (row,) = provider.rows("usage")
    assert (row["finish_reason"], row["completion_tokens"]) == ("constraint", 6)
    assert row["cost_nanousd"] > 0


@MODELS
async def test_request_whose_client_hangs_up_is_billed_for_what_was_computed(endings, model):
    for endpoint in PLAIN:
        for stream in (False, True):
            await endings.ended_by(AsgiCall.hang_up, endpoint, model, stream=stream)
            endings.assert_billed(model, "cancelled", FinishReason.CANCELLED)


@MODELS
async def test_request_that_the_engine_fails_is_void(endings, model):
    runner = endings.provider.runner

    def crash(call):
        runner.crash = RuntimeError("the device is gone")

    for endpoint in PLAIN:
        for stream in (False, True):
            call = await endings.ended_by(crash, endpoint, model, stream=stream)
            runner.crash = None
            assert call.status == (200 if stream else 500)
            assert "not billed" in call.body.decode()
            endings.assert_void(model)


@MODELS
async def test_request_that_a_stop_of_the_server_cuts_off_is_void(endings, model):
    stopped = endings.provider.completions

    def stop(call):
        stopped.cut_off()

    for endpoint in PLAIN:
        for stream in (False, True):
            call = await endings.ended_by(stop, endpoint, model, stream=stream)
            stopped._is_closed = False
            assert call.status == (200 if stream else 503)
            assert call.complete
            assert "shutting down: your request was cut off, and you were not billed" in call.body.decode()
            assert stream or call.headers["retry-after"] == "5"
            endings.assert_void(model)


@pytest.mark.parametrize("stream", [False, True])
async def test_request_whose_answer_cannot_be_written_is_void(endings, monkeypatch, stream):
    """A bug of the server is not a hang-up."""

    def fail(*arguments):
        raise RuntimeError("a bug")

    provider, runner = endings.provider, endings.provider.runner
    monkeypatch.setattr(AnswerReader, "push", fail)
    for endpoint in (chat(), chat(3), responses(), messages()):
        runner.hold_back()
        call = endings.ask(endpoint, PRICED, stream=stream)
        await provider.until(lambda: runner.waits)
        runner.allow(1)
        await provider.until(lambda: provider.num_in_inbox > 0 or provider.completions.num_live == 0)
        runner.let_go()
        with nullcontext() if stream else pytest.raises(RuntimeError, match="a bug"):
            await call.ended()
        await provider.idle()
        assert call.status == (200 if stream else 500)
        assert "The server had an error while processing your request" in call.body.decode()
        endings.assert_void(PRICED)


async def test_request_that_was_hung_up_before_a_stop_is_billed(endings):
    def hang_up_and_stop(call):
        call.hang_up()
        asyncio.get_running_loop().call_later(0.05, endings.provider.completions.cut_off)

    await endings.ended_by(hang_up_and_stop, chat(), PRICED, stream=True)
    endings.assert_billed(PRICED, "cancelled", FinishReason.CANCELLED)


async def test_request_that_is_still_prepared_is_refused_by_a_stop_and_holds_nothing(endings, monkeypatch):
    provider = endings.provider
    reached, go_on = asyncio.Event(), asyncio.Event()
    compile_constraint = PreparedChat.compile

    async def compile_late(*arguments, **options):
        reached.set()
        await go_on.wait()
        return await compile_constraint(*arguments, **options)

    monkeypatch.setattr(PreparedChat, "compile", compile_late)
    call = endings.ask(chat(), PRICED, stream=False)
    await reached.wait()
    provider.completions.cut_off()
    await call.ended()
    assert call.status == 503
    assert json.loads(call.body)["error"]["code"] == "server_overloaded"
    go_on.set()
    await provider.idle()
    assert (provider.rows("holds"), provider.rows("usage")) == ([], [])
