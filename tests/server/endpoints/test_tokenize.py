"""`/tokenize` and `/detokenize`: what the engine would see, for nothing."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from inferd.wire.openai import tokenize as tokenize_module
from tests.fakes import BEGIN, END
from tests.serving import provider as providers
from tests.serving.provider import FREE, MAX_CONTEXT, PRICED, Provider, prompt_of, running_provider

pytestmark = pytest.mark.anyio


async def tokens(provider: Provider, **fields: Any) -> dict[str, Any]:
    response = await provider.client.post("/tokenize", json={"model": PRICED, **fields})
    assert response.status_code == 200, response.text
    return dict(response.json())


async def refused(provider: Provider, path: str = "/tokenize", **fields: Any) -> tuple[str, str]:
    response = await provider.client.post(path, json={"model": PRICED, **fields})
    assert response.status_code == 400, response.text
    return response.json()["error"]["code"], response.json()["error"]["param"]


async def test_a_prompt_begins_with_bos_as_vllm_has_it_and_content_does_not_as_llama_server_has_it(provider):
    assert await tokens(provider, prompt="hé") == {
        "tokens": [BEGIN, *"hé".encode()],
        "count": 4,
        "max_model_len": MAX_CONTEXT,
        "token_strs": None,
    }
    assert (await tokens(provider, content="ab"))["tokens"] == [*b"ab"]
    assert (await tokens(provider, prompt="ab", add_special_tokens=False))["tokens"] == [*b"ab"]
    assert (await tokens(provider, content="ab", add_special=True))["tokens"] == [BEGIN, *b"ab"]


async def test_control_tokens_are_read_unless_told_otherwise(provider):
    assert (await tokens(provider, content="<|end|>"))["tokens"] == [END]
    assert (await tokens(provider, content="<|end|>", parse_special=False))["tokens"] == [*b"<|end|>"]


async def test_messages_come_to_what_a_chat_completion_bills(provider):
    found = await tokens(provider, messages=[{"role": "user", "content": "hello <|end|>"}])
    assert found["tokens"] == prompt_of("hello <|end|>")
    billed = (await provider.chat(content="hello <|end|>", max_tokens=1)).json()["usage"]["prompt_tokens"]
    assert found["count"] == billed


TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"tools": [TOOL]},
        {"tools": [TOOL], "tool_choice": "none"},
        {"tools": [TOOL, {"type": "web_search"}], "tool_choice": "required", "parallel_tool_calls": False},
        {"tools": [TOOL], "reasoning_effort": "high", "chat_template_kwargs": {"enable_thinking": False}},
    ],
)
async def test_chat_is_tokenised_and_rendered_as_it_is_billed(tmp_path, monkeypatch, fields):
    monkeypatch.setattr(providers, "MAX_CONTEXT", 2048)
    async with running_provider(tmp_path, monkeypatch) as provider:
        await check_tokens_of_chat(provider, fields)


async def check_tokens_of_chat(provider: Provider, fields: dict[str, Any]) -> None:
    chat = {"messages": [{"role": "system", "content": "be brief"}, {"role": "user", "content": "hé"}], **fields}
    chat |= {"model": PRICED}
    counted = await tokens(provider, **chat)
    rendered = await provider.client.post("/apply-template", json=chat | {"max_tokens": 1, "temperature": 0})
    assert rendered.status_code == 200, rendered.text
    again = await tokens(provider, prompt=rendered.json()["prompt"])
    answer = await provider.client.post("/v1/chat/completions", json=chat | {"max_tokens": 1})
    assert counted["count"] == answer.json()["usage"]["prompt_tokens"]
    assert again["tokens"] == counted["tokens"], "the rendered prompt comes to the same tokens"
    assert "web_search" not in rendered.text


async def test_template_is_applied_for_a_key_that_may_use_the_model_and_is_never_billed(provider):
    asked = {"model": PRICED, "messages": [{"role": "user", "content": "a"}]}
    for headers, status in (
        ({"authorization": ""}, 401),
        ({"authorization": f"Bearer {provider.new_key('acme', scopes=('usage',))}"}, 403),
        ({"authorization": f"Bearer {provider.new_key('acme', models=(FREE,))}"}, 403),
    ):
        assert (await provider.client.post("/apply-template", json=asked, headers=headers)).status_code == status
        response = await provider.client.get("/tokenizer_info", params={"model": PRICED}, headers=headers)
        assert response.status_code == status
    assert (await provider.client.post("/apply-template", json=asked)).json() == {
        "prompt": "<|begin|>user\na<|end|><|begin|>assistant:"
    }
    assert provider.rows("holds") == provider.rows("usage") == []


async def test_tokenizer_info_has_the_names_that_vllm_uses(provider):
    info = (await provider.client.get("/tokenizer_info", params={"model": PRICED})).json()
    assert (info["bos_token"], info["eos_token"], info["pad_token"]) == ("<|begin|>", "<|end|>", None)
    assert "messages" in info["chat_template"]
    assert info["model_max_length"] == MAX_CONTEXT


async def test_model_may_be_left_out_if_the_key_may_use_one_only(provider):
    """lm-eval's remote tokenizer names no model."""
    only = {"authorization": f"Bearer {provider.new_key('acme', models=(PRICED,))}"}
    client = provider.client
    assert (await client.get("/tokenizer_info", headers=only)).json()["model"] == PRICED
    assert (await client.post("/tokenize", json={"prompt": "a"}, headers=only)).json()["tokens"] == [BEGIN, 97]
    assert (await client.post("/detokenize", json={"tokens": [97]}, headers=only)).json()["prompt"] == "a"
    for response in (
        await client.get("/tokenizer_info"),
        await client.post("/tokenize", json={"prompt": "a"}),
        await client.post("/detokenize", json={"tokens": [97]}),
    ):
        error = response.json()["error"]
        assert (response.status_code, error["code"], error["param"]) == (400, "missing_required_parameter", "model")


async def test_pieces_come_in_both_shapes(provider):
    assert (await tokens(provider, prompt="a", return_token_strs=True))["token_strs"] == ["<|begin|>", "a"]
    assert (await tokens(provider, content="ab", with_pieces=True))["tokens"] == [
        {"id": 97, "piece": "a"},
        {"id": 98, "piece": "b"},
    ]


async def test_tokens_come_back_as_text(provider):
    response = await provider.client.post("/detokenize", json={"model": FREE, "tokens": [BEGIN, *"hé".encode(), END]})
    assert response.json() == {"prompt": "<|begin|>hé<|end|>", "content": "<|begin|>hé<|end|>"}


async def test_what_makes_no_sense_is_named(provider, monkeypatch):
    assert await refused(provider) == ("invalid_value", "prompt")
    assert await refused(provider, prompt="a", content="b") == ("invalid_value", "content")
    assert await refused(provider, messages=[]) == ("invalid_value", "messages")
    refusal = await refused(provider, messages=[{"role": "user", "content": "a"}], continue_final_message=True)
    assert refusal == ("invalid_value", "continue_final_message")
    assert await refused(provider, prompt="a", add_special=True, add_special_tokens=False) == (
        "invalid_value",
        "add_special",
    )
    assert await refused(provider, "/detokenize", tokens=[258]) == ("invalid_value", "tokens")
    assert await refused(provider, "/detokenize", tokens=[-1]) == ("invalid_value", "tokens")
    assert await refused(provider, "/detokenize", tokens=["a"]) == ("invalid_type", "tokens[0]")
    assert await refused(provider, prompt="a", promt="b") == ("unknown_parameter", "promt")
    monkeypatch.setattr(tokenize_module, "MAX_TEXT_BYTES", 3)
    assert await refused(provider, prompt="éé") == ("invalid_value", "prompt")


async def test_it_needs_a_key_that_may_use_the_model_and_is_never_billed(provider):
    body = {"model": PRICED, "content": "a", "tokens": [1]}
    for path, field in (("/tokenize", "content"), ("/detokenize", "tokens")):
        asked = {"model": PRICED, field: body[field]}
        for headers, status in (
            ({"authorization": ""}, 401),
            ({"authorization": f"Bearer {provider.new_key('acme', scopes=('usage',))}"}, 403),
            ({"authorization": f"Bearer {provider.new_key('acme', models=(FREE,))}"}, 403),
        ):
            assert (await provider.client.post(path, json=asked, headers=headers)).status_code == status
        assert (await provider.client.post(path, json=asked | {"model": "local/nothing"})).status_code == 404
        assert (await provider.client.post(path, json=asked)).status_code == 200
    assert provider.rows("holds") == provider.rows("usage") == []


async def test_a_text_longer_than_the_context_is_refused(provider):
    assert len((await tokens(provider, content="a" * MAX_CONTEXT))["tokens"]) == MAX_CONTEXT
    longer = "a" * (MAX_CONTEXT + 1)
    assert await refused(provider, content=longer) == ("context_length_exceeded", "content")
    assert await refused(provider, prompt=longer) == ("context_length_exceeded", "prompt")


@pytest.mark.parametrize(
    ("path", "fields"),
    [
        ("/tokenize", {"content": "a"}),
        ("/detokenize", {"tokens": [1]}),
        ("/v1/messages/count_tokens", {"messages": [{"role": "user", "content": "a"}]}),
    ],
)
async def test_tokenising_counts_in_concurrency_until_it_ends(provider, path, fields):
    tokenizers, concurrency = provider.completions.tokenizers, provider.limits.concurrency
    num_idle, tokenizers._num_idle = tokenizers._num_idle, 0
    asked = asyncio.create_task(provider.client.post(path, json={"model": PRICED, **fields}))
    await provider.until(lambda: tokenizers.num_waiting == 1)
    assert len(concurrency) > 0
    tokenizers._num_idle = num_idle
    tokenizers._start()
    assert (await asked).status_code == 200
    assert len(concurrency) == 0


async def test_message_to_continue_is_rendered_tokenised_and_billed_alike(provider):
    begun = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "Once <|end|>"}]
    body = {"model": PRICED, "messages": begun, "continue_final_message": True, "add_generation_prompt": False}
    rendered = await provider.client.post("/apply-template", json=body)
    assert rendered.json()["prompt"].endswith("<|begin|>assistant\nOnce <|end|>")
    tokenised = (await provider.client.post("/tokenize", json=body)).json()
    assert tokenised["tokens"][-12:] == [*b"Once <|end|>"], "a caller's text is no control token"
    answer = await provider.client.post("/v1/chat/completions", json=body | {"max_tokens": 4})
    assert answer.status_code == 200
    assert answer.json()["usage"]["prompt_tokens"] == tokenised["count"]
    assert "inferd-ignored" not in answer.headers
