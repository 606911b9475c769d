"""The official OpenAI client against a running server, on the real model."""

from __future__ import annotations

import httpx
import openai
import pytest

from tests.e2e.models import FREE_MODEL, MAX_CONTEXT, MODEL, ask, cost_of
from tests.e2e.refold import nanousd
from tests.e2e.server_process import ServerProcess, Team


@pytest.fixture(scope="module")
def teams() -> dict[str, Team]:
    return {}


@pytest.fixture
def team(server: ServerProcess, teams: dict[str, Team]) -> Team:
    if "sdk" not in teams:
        teams["sdk"] = server.team("sdk", 10**9)
    return teams["sdk"]


def test_chat(team):
    done = team.openai().chat.completions.create(
        model=MODEL,
        messages=ask("What is the capital of France? Answer in one sentence."),
        max_tokens=32,
        temperature=0,
    )
    (choice,) = done.choices
    assert "Paris" in choice.message.content
    assert choice.message.role == "assistant"
    assert "<|im_end|>" not in choice.message.content
    assert choice.finish_reason in ("stop", "length")
    assert (done.model, done.object, done.service_tier) == (MODEL, "chat.completion", "default")
    assert done.id.startswith("chatcmpl-")
    usage = done.usage
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens
    assert usage.prompt_tokens_details.cached_tokens <= usage.prompt_tokens
    if not usage.prompt_tokens_details.cached_tokens:
        assert nanousd(usage.cost) == cost_of(usage.prompt_tokens, usage.completion_tokens)
    (row,) = [row for row in team.usage_rows() if row["request"] == done._request_id]
    assert (row["cost_usd"], row["status"]) == (usage.cost, "completed")
    assert (row["prompt_tokens"], row["completion_tokens"]) == (usage.prompt_tokens, usage.completion_tokens)


def test_streamed_chat_with_usage(team):
    chunks = list(
        team.openai().chat.completions.create(
            model=MODEL,
            messages=ask("Count to five."),
            max_tokens=24,
            stream=True,
            stream_options={"include_usage": True},
        )
    )
    assert len({chunk.id for chunk in chunks}) == 1
    assert chunks[0].choices[0].delta.role == "assistant"
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks[:-1])
    reasons = [chunk.choices[0].finish_reason for chunk in chunks[:-1]]
    assert reasons[-1] in ("stop", "length")
    assert set(reasons[:-1]) == {None}
    assert all(chunk.usage is None for chunk in chunks[:-1])
    assert chunks[-1].choices == []
    assert chunks[-1].usage.completion_tokens <= 24


def test_streamed_chat_without_usage(team):
    chunks = list(
        team.openai().chat.completions.create(model=FREE_MODEL, messages=ask("Hi"), max_tokens=5, stream=True)
    )
    assert chunks[-1].choices[0].finish_reason in ("stop", "length")
    assert all(chunk.usage is None for chunk in chunks)


def test_models(team):
    models = list(team.openai().models.list())
    assert [model.id for model in models] == [MODEL, FREE_MODEL]
    one = team.openai().models.retrieve(MODEL)
    assert (one.id, one.owned_by, one.object) == (MODEL, "local", "model")
    assert one.created > 0


def test_a_wrong_key_is_an_authentication_error(team):
    client = team.openai().with_options(api_key=team.key[:-5] + "AAAAA")
    with pytest.raises(openai.AuthenticationError) as caught:
        client.models.list()
    assert (caught.value.status_code, caught.value.code) == (401, "invalid_api_key")


def test_an_unknown_model_is_a_not_found_error(team):
    with pytest.raises(openai.NotFoundError) as caught:
        team.openai().chat.completions.create(model="local/nothing", messages=ask("Hi"))
    assert (caught.value.status_code, caught.value.code, caught.value.param) == (404, "model_not_found", "model")
    with pytest.raises(openai.NotFoundError):
        team.openai().models.retrieve("local/nothing")


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"temperature": 9}, "temperature"),
        ({"extra_body": {"max_tokens": "many"}}, "max_tokens"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"n": 17}, "n"),
        ({"extra_body": {"max_token": 1}}, "max_token"),
    ],
)
def test_a_broken_body_is_a_bad_request_that_names_the_field(team, fields, param):
    with pytest.raises(openai.BadRequestError) as caught:
        team.openai().chat.completions.create(model=MODEL, messages=ask("Hi"), **fields)
    assert (caught.value.status_code, caught.value.param) == (400, param)


def test_a_body_that_is_no_json_is_400(team):
    headers = {"authorization": f"Bearer {team.key}"}
    response = httpx.post(f"{team.server.base_url}/chat/completions", content=b'{"model": ', headers=headers)
    assert response.status_code == 400
    assert response.json()["error"]["code"] == "invalid_json"


def test_a_prompt_too_long_is_a_bad_request_with_the_context_and_what_was_counted(team):
    with pytest.raises(openai.BadRequestError) as caught:
        team.openai().chat.completions.create(model=MODEL, messages=ask("word " * 2000))
    assert (caught.value.code, caught.value.param) == ("context_length_exceeded", "messages")
    numbers = [int(word) for word in caught.value.message.split() if word.isdigit()]
    assert MAX_CONTEXT in numbers
    assert any(MAX_CONTEXT < number <= 2200 for number in numbers), "counting ends soon after the context"


def test_no_credit_is_402_and_a_free_deployment_answers_all_the_same(server):
    broke = server.team("broke", 0)
    with pytest.raises(openai.APIStatusError) as caught:
        broke.openai().with_options(max_retries=2).chat.completions.create(model=MODEL, messages=ask("Hi"))
    assert (caught.value.status_code, caught.value.code) == (402, "credit_balance_exhausted")
    done = broke.openai().chat.completions.create(model=FREE_MODEL, messages=ask("Hi"), max_tokens=3)
    assert nanousd(done.usage.cost) == 0
    (row,) = broke.usage_rows()
    assert (row["cost_usd"], row["completion_tokens"]) == ("0.000000000", done.usage.completion_tokens)


def test_a_control_token_in_a_message_is_text(team):
    def n_prompt(content: str) -> int:
        done = team.openai().chat.completions.create(model=FREE_MODEL, messages=ask(content), max_tokens=1)
        return done.usage.prompt_tokens

    # As the control token it would be one id; as text it is several.
    assert n_prompt("a<|im_start|>system") - n_prompt("asystem") >= 4
    assert n_prompt("a<|im_end|>b") - n_prompt("ab") >= 4


def test_a_limit_above_the_context_is_clamped_and_said(team):
    raw = team.openai().chat.completions.with_raw_response.create(
        model=MODEL, messages=ask("Say yes."), max_tokens=100_000, stop=["."]
    )
    prompt_tokens = raw.parse().usage.prompt_tokens
    assert int(raw.headers["inferd-max-tokens"]) == MAX_CONTEXT - prompt_tokens


def test_health_needs_no_key(server):
    response = httpx.get(server.base_url.removesuffix("/v1") + "/health")
    assert (response.status_code, response.json()) == (200, {"status": "ok"})
