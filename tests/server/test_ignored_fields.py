"""Requests as real clients send them: what has no effect is taken, and the answer names it."""

from __future__ import annotations

import json
import logging
from typing import Any

import pytest

from tests.serving import provider as providers
from tests.serving.provider import FREE, PRICED, chat_body, running_provider

pytestmark = pytest.mark.anyio

HI = [{"role": "user", "content": "hi"}]
BODIES: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": chat_body(),
    "/v1/completions": {"model": PRICED, "prompt": "a", "max_tokens": 2},
    "/v1/embeddings": {"model": PRICED, "input": "a"},
    "/v1/responses": {"model": PRICED, "input": "a", "max_output_tokens": 2},
    "/v1/messages": {"model": PRICED, "messages": HI, "max_tokens": 2},
    "/v1/messages/count_tokens": {"model": PRICED, "messages": HI},
    "/api/chat": {"model": PRICED, "messages": HI, "options": {"num_predict": 2}},
    "/api/generate": {"model": PRICED, "prompt": "a", "options": {"num_predict": 2}},
    "/api/embed": {"model": PRICED, "input": "a"},
    "/api/embeddings": {"model": PRICED, "prompt": "a"},
    "/api/show": {"model": PRICED},
    "/tokenize": {"model": PRICED, "messages": HI},
    "/detokenize": {"model": PRICED, "tokens": [1]},
    "/apply-template": {"model": PRICED, "messages": HI},
}
"""Path -> the least that it takes."""
STREAMS = ("/v1/chat/completions", "/v1/completions", "/v1/responses", "/v1/messages", "/api/chat", "/api/generate")


@pytest.mark.parametrize("path", BODIES)
async def test_unknown_field_is_ignored_and_named_on_every_endpoint(provider, path):
    answer = await provider.client.post(path, json=BODIES[path] | {"some_client_field": 1, "other": [2]})
    assert (answer.status_code, answer.headers["inferd-ignored"]) == (200, "some_client_field, other")
    assert "inferd-ignored" not in (await provider.client.post(path, json=BODIES[path])).headers


@pytest.mark.parametrize("path", STREAMS)
async def test_stream_names_what_is_ignored(provider, path):
    answer = await provider.client.post(path, json=BODIES[path] | {"stream": True, "some_client_field": 1})
    assert (answer.status_code, answer.headers["inferd-ignored"]) == (200, "some_client_field")


async def test_refusal_names_what_is_ignored(provider):
    answer = await provider.client.post("/v1/chat/completions", json=chat_body(some_client_field=1, n=17))
    assert (answer.status_code, answer.headers["inferd-ignored"]) == (400, "some_client_field")


async def test_log_has_one_line_at_debug_level(provider, caplog):
    with caplog.at_level(logging.DEBUG, logger="inferd.server.middleware.response_headers"):
        answer = await provider.client.post("/v1/chat/completions", json=chat_body(a_field=1, b_field=2))
    (record,) = [each for each in caplog.records if each.name == "inferd.server.middleware.response_headers"]
    assert record.getMessage() == f"{answer.headers['x-request-id']}: ignored a_field, b_field"


@pytest.mark.parametrize("path", BODIES)
async def test_strict_server_refuses_what_it_would_ignore(tmp_path, monkeypatch, path):
    monkeypatch.setattr(providers.Provider, "strict", True)
    async with running_provider(tmp_path, monkeypatch) as provider:
        answer = await provider.client.post(path, json=BODIES[path] | {"some_client_field": 1})
        assert (answer.status_code, "some_client_field" in answer.text) == (400, True)
        assert (await provider.client.post(path, json=BODIES[path])).status_code == 200


@pytest.mark.parametrize(
    ("fields", "ignored"),
    [
        ({"reasoning_effort": "high"}, "reasoning_effort"),
        ({"reasoning_effort": "none"}, ""),
        ({"chat_template_kwargs": {"enable_thinking": False}}, "chat_template_kwargs.enable_thinking"),
        ({"stream_options": {"include_usage": True}}, "stream_options"),
        ({"max_tokens": -1, "stop": ["\n", ""]}, "max_tokens"),
        ({"store": True, "verbosity": "low"}, "store, verbosity"),
        ({"repetition_penalty": 1.1, "min_tokens": 1, "ignore_eos": True, "num_predict": 2}, ""),
        ({"repeat_last_n": 64}, "repeat_last_n"),
        ({"reasoning": {"effort": "high"}}, "reasoning.effort"),
        ({"reasoning": {"effort": "none", "max_tokens": 5}}, "reasoning.max_tokens"),
        ({"reasoning": {"effort": "huge"}}, "reasoning.effort"),
        ({"reasoning": {"effort": {}}, "reasoning_effort": "none"}, "reasoning.effort"),
        ({"reasoning": True}, "reasoning"),
        ({"num_ctx": 2048, "keep_alive": "5m", "options": {"num_predict": 1}}, "num_ctx, keep_alive, options"),
        ({"usage": {"include": True}, "cache_prompt": True, "top_a": 0.1}, "usage, top_a"),
        ({"prompt_cache_max_len": 0}, ""),
        ({"prompt_cache_max_len": 100}, "prompt_cache_max_len"),
        ({"cache_salt": "abc", "tools": [], "tool_choice": "auto"}, ""),
        ({"tools": [{"type": "web_search"}]}, "tools[0]"),
    ],
)
async def test_everyday_field_of_a_client_is_taken(provider, fields, ignored):
    answer = await provider.client.post("/v1/chat/completions", json=chat_body(max_tokens=2) | fields)
    assert (answer.status_code, answer.headers.get("inferd-ignored", "")) == (200, ignored)


@pytest.mark.parametrize(
    ("path", "fields", "name"),
    [
        ("/v1/responses", {"reasoning": {"effort": "high"}}, "reasoning.effort"),
        ("/v1/messages", {"output_config": {"effort": "max"}}, "output_config.effort"),
        ("/v1/messages", {"thinking": {"type": "enabled", "budget_tokens": 2000}}, "thinking"),
        ("/v1/messages/count_tokens", {"output_config": {"effort": "low"}}, "output_config.effort"),
    ],
)
async def test_effort_without_a_switch_is_named_as_the_caller_calls_it(provider, path, fields, name):
    answer = await provider.client.post(path, json=BODIES[path] | fields)
    assert (answer.status_code, answer.headers["inferd-ignored"]) == (200, name)


async def test_accounting_line_does_not_keep_sessions_from_sharing_a_prefix(tmp_path, monkeypatch):
    monkeypatch.setattr(providers.Provider, "reuses", True)

    def body(session: str) -> dict[str, Any]:
        line = {"type": "text", "text": f"x-anthropic-billing-header: cc_version=2.1.{session};"}
        return BODIES["/v1/messages"] | {"model": FREE, "system": [line, {"type": "text", "text": "harbour " * 16}]}

    async with running_provider(tmp_path, monkeypatch) as provider:
        await provider.client.post("/v1/messages", json=body("111"))
        usage = (await provider.client.post("/v1/messages", json=body("222"))).json()["usage"]
        counted = await provider.client.post("/v1/messages/count_tokens", json={**body("3"), "max_tokens": 1})
    assert usage["cache_read_input_tokens"] > 100
    prompt = usage["input_tokens"] + usage["cache_read_input_tokens"]
    assert counted.json()["input_tokens"] == prompt, "the line is not counted either"


@pytest.mark.parametrize(("strips", "named"), [(True, "system"), (False, None)])
async def test_accounting_line_is_kept_if_models_toml_says_so(tmp_path, monkeypatch, strips, named):
    body = BODIES["/v1/messages"] | {"model": FREE, "system": "x-anthropic-billing-header: cc_version=2;\nBe brief."}
    async with running_provider(tmp_path, monkeypatch, started=False) as provider:
        (replica,) = provider.router.replicas
        replica._strips_attribution = strips
        await replica.start()
        answer = await provider.client.post("/v1/messages", json=body)
        prompt = {field: body[field] for field in ("model", "messages", "system")}
        counted = await provider.client.post("/v1/messages/count_tokens", json=prompt)
        without = await provider.client.post("/v1/messages/count_tokens", json=prompt | {"system": "Be brief."})
    assert answer.headers.get("inferd-ignored") == counted.headers.get("inferd-ignored") == named
    num_left_out = answer.json()["usage"]["input_tokens"] - without.json()["input_tokens"]
    assert num_left_out == (0 if strips else len("x-anthropic-billing-header: cc_version=2;\n"))


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions"])
@pytest.mark.parametrize("fields", [{"cache_prompt": False}, {"prompt_cache_max_len": 0}])
async def test_request_without_the_prompt_cache_is_computed_anew(tmp_path, monkeypatch, path, fields):
    monkeypatch.setattr(providers.Provider, "reuses", True)
    prompt = {"messages": [{"role": "user", "content": "harbour " * 16}]} if "chat" in path else {"prompt": "a" * 128}
    body = {"model": FREE, "max_tokens": 2} | prompt

    async with running_provider(tmp_path, monkeypatch) as provider:

        async def cached(**more: Any) -> int:
            answer = (await provider.client.post(path, json=body | more)).json()
            return answer["usage"]["prompt_tokens_details"]["cached_tokens"]

        assert await cached() == 0
        assert await cached() > 100
        assert [await cached(**fields), await cached(**fields)] == [0, 0]


async def test_text_block_has_no_citations(provider):
    whole = (await provider.client.post("/v1/messages", json=BODIES["/v1/messages"])).json()
    assert set(whole["content"][0]) == {"type", "text"}
    stream = await provider.client.post("/v1/messages", json=BODIES["/v1/messages"] | {"stream": True})
    assert "citations" not in stream.text


async def test_response_says_what_it_did_of_store_and_truncation(provider):
    body = BODIES["/v1/responses"] | {"store": True, "truncation": "auto", "metadata": {"a": 1}}
    answer = await provider.client.post("/v1/responses", json=body)
    said = answer.json()
    assert (said["store"], said["truncation"], said["metadata"]) == (False, "disabled", {})
    assert answer.headers["inferd-ignored"] == "store, truncation, metadata"


LONE = '{"a":"\\ud83d"}'


@pytest.mark.parametrize(
    ("path", "fields"),
    [
        *(
            (
                path,
                {"messages": [*HI, {"role": "assistant", "tool_calls": [{"id": "c", "function": function}]}, result]},
            )
            for path in ("/v1/chat/completions", "/tokenize")
            for function in [{"name": "f", "arguments": LONE}]
            for result in [{"role": "tool", "tool_call_id": "c", "content": None}]
        ),
        (
            "/v1/responses",
            {
                "input": [
                    {"type": "function_call", "call_id": "c", "name": "f", "arguments": LONE},
                    {"type": "function_call_output", "call_id": "c", "output": "r"},
                ]
            },
        ),
        ("/v1/chat/completions", {"response_format": {"type": "regex", "schema": "RAW"}}),
        ("/v1/chat/completions", {"response_format": {"type": "json_object", "schema": {"const": "RAW"}}}),
    ],
)
async def test_half_a_character_is_no_fault_of_the_server(provider, path, fields):
    """In arguments it is replaced; in a schema it is no JSON."""
    content = json.dumps(BODIES[path] | fields).replace("RAW", "\\ud83d")
    answer = await provider.client.post(path, content=content)
    assert answer.status_code == (400 if "response_format" in fields else 200), answer.text


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ({"guided_regex": "ab"}, 200),
        ({"guided_choice": ["ab", "c d"]}, 200),
        ({"guided_json": {"const": 1}}, 200),
        ({"guided_json": '{"const": 1}'}, 200),
        ({"guided_grammar": 'start: "ab"'}, 200),
        ({"structured_outputs": {"regex": "ab"}}, 200),
        ({"structured_outputs": {"json_object": True}}, 200),
        ({"structured_outputs": {"structural_tag": {}}}, 400),
        ({"structured_outputs": {"regex": "ab", "choice": ["a"]}}, 400),
        ({"guided_json": {"not": {}}}, 400),
        ({"guided_json": "no schema"}, 400),
        ({"guided_choice": []}, 400),
        ({"guided_regex": "a", "response_format": {"type": "json_object"}}, 400),
        ({"guided_regex": "a", "response_format": {"type": "text"}}, 200),
    ],
)
async def test_constraint_in_vllms_words_holds_or_is_refused_by_name(provider, fields, status):
    answer = await provider.client.post("/v1/chat/completions", json=chat_body(max_tokens=40) | fields)
    assert answer.status_code == status, answer.text
    if status == 400:
        assert answer.json()["error"]["param"].split(".")[0] in fields
    elif "guided_choice" in fields:
        assert answer.json()["choices"][0]["message"]["content"] in ("ab", "c d")
