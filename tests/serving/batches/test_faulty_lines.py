"""Lines with fields that have no effect, and lines that the server cannot read by a fault of its own."""

from __future__ import annotations

import pytest

from inferd.serving.batches.input_lines import LineReader
from inferd.serving.endpoints.chat import ChatCompletions
from tests.serving import provider as providers
from tests.serving.batches.customer import Customer, line
from tests.serving.provider import running_provider

pytestmark = pytest.mark.anyio
ENDED = ("completed", "failed", "expired", "cancelled")
LONE_SURROGATE = [
    {"role": "user", "content": "x"},
    {"role": "assistant", "tool_calls": [{"id": "c", "function": {"name": "f", "arguments": '{"a":"\\ud83d"}'}}]},
    {"role": "tool", "tool_call_id": "c", "content": None},
]


async def test_line_with_ignored_fields_is_answered_and_its_answer_names_them(provider, customer):
    async with provider.batching():
        bodies = [line("plain"), line("more", some_client_field=1, store=True), line("half", messages=LONE_SURROGATE)]
        batch = await customer.until((await customer.create([*bodies, line("envelope") | {"extra": 1}]))["id"], *ENDED)
    output = await customer.lines_of(batch["output_file_id"])
    named = {custom_id: answer["response"].get("inferd_ignored") for custom_id, answer in output.items()}
    assert named == {"plain": None, "more": "some_client_field, store", "half": None, "envelope": "extra"}


async def test_strict_server_fails_lines_with_ignored_fields(tmp_path, monkeypatch):
    monkeypatch.setattr(providers.Provider, "strict", True)
    async with running_provider(tmp_path, monkeypatch) as provider, provider.batching():
        customer = Customer(provider)
        created = await customer.create([line("plain"), line("more", some_client_field=1)])
        batch = await customer.until(created["id"], *ENDED)
    assert [(error["code"], error["param"]) for error in batch["errors"]["data"]] == [
        ("unknown_parameter", "some_client_field")
    ]


async def test_line_that_cannot_be_checked_by_a_fault_of_the_server_fails_alone(provider, customer, monkeypatch):
    """BILLING R23: it is in the error file, unbilled, and the others are answered."""
    prepare = ChatCompletions.prepare

    def failing(self, *arguments, **options):
        if self.chat.user == "unlucky":
            raise UnicodeEncodeError("utf-8", "x", 0, 1, "surrogates not allowed")
        return prepare(self, *arguments, **options)

    monkeypatch.setattr(ChatCompletions, "prepare", failing)
    async with provider.batching():
        created = await customer.create([line("good"), line("bad", user="unlucky"), line("fine")])
        batch = await customer.until(created["id"], *ENDED)
    assert batch["status"] == "completed"
    assert set(await customer.lines_of(batch["output_file_id"])) == {"good", "fine"}
    (error,) = (await customer.lines_of(batch["error_file_id"])).values()
    assert (error["custom_id"], error["error"]["code"]) == ("bad", "server_error")


async def test_line_that_cannot_be_read_again_fails_alone(provider, customer, monkeypatch):
    """After its validation, at the run."""
    read = LineReader.read
    seen: set[int] = set()

    def failing(self, raw):
        if raw.number == 2 and raw.number in seen:
            raise RuntimeError("out of luck")
        seen.add(raw.number)
        return read(self, raw)

    monkeypatch.setattr(LineReader, "read", failing)
    async with provider.batching():
        batch = await customer.until((await customer.create([line("a"), line("b"), line("c")]))["id"], *ENDED)
    assert batch["request_counts"] == {"total": 3, "completed": 2, "failed": 1}
    (error,) = (await customer.lines_of(batch["error_file_id"])).values()
    assert (error["custom_id"], error["response"]["status_code"]) == ("b", 500)
