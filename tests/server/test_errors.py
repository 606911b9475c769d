"""Errors over HTTP: status, OpenAI's body, and the hints that SDKs obey."""

from __future__ import annotations

import json
import sqlite3
from typing import Any

import pytest

from inferd import errors
from inferd.ledger.requests.settlement import begin_epoch
from inferd.server.errors import path_suggestion, status_of
from tests.server.asgi_call import AsgiCall
from tests.serving.provider import FREE, MAX_CONTEXT, chat_body, cost_of, prompt_of, running_provider
from tests.serving.writers import FailingWriter, resolves

pytestmark = pytest.mark.anyio

N_PROMPT = len(prompt_of())


def error_of(response: Any, status: int, error_type: str, code: str | None, param: str | None = None) -> str:
    """Check all of an error but its message, and return the message."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/json"
    assert response.headers["x-request-id"].startswith("req_")
    body = response.json()
    assert list(body) == ["error"]
    assert list(body["error"]) == ["message", "type", "param", "code"]
    assert (body["error"]["type"], body["error"]["code"], body["error"]["param"]) == (error_type, code, param)
    assert body["error"]["message"]
    return str(body["error"]["message"])


async def test_key_that_is_missing_or_wrong_is_401(provider):
    wrong = "sk-inferd-" + "0" * 12 + "-" + "A" * 43
    tampered = provider.key[:-1] + ("a" if provider.key[-1] != "a" else "b")
    for header in ("", "Bearer ", "Bearer nonsense", f"Bearer {wrong}", f"Bearer {tampered}", f"Basic {provider.key}"):
        response = await provider.client.post(
            "/v1/chat/completions", json=chat_body(), headers={"authorization": header}
        )
        error_of(response, 401, "authentication_error", "invalid_api_key")
        assert response.headers["www-authenticate"] == "Bearer"
        assert provider.key not in response.text
    assert provider.rows("holds") == []


async def test_key_that_is_revoked_or_expired_is_401_from_the_next_request(provider):
    from inferd.instants import wall_clock_ms
    from inferd.ledger import operations

    key = provider.new_key("other")
    headers = {"authorization": f"Bearer {key}"}
    assert (await provider.client.get("/v1/models", headers=headers)).status_code == 200
    with provider.store.immediate() as conn:
        operations.revoke_key(conn, key.split("-")[2], by=operations.Author("test", wall_clock_ms()))
    response = await provider.client.get("/v1/models", headers=headers)
    assert "revoked" in error_of(response, 401, "authentication_error", "invalid_api_key")


async def test_the_key_is_checked_before_the_body_is_read(provider):
    response = await provider.client.post("/v1/chat/completions", content=b"{", headers={"authorization": "Bearer x"})
    assert response.status_code == 401


async def test_model_that_is_unknown_is_404(provider):
    response = await provider.chat(model="local/nothing")
    message = error_of(response, 404, "invalid_request_error", "model_not_found", "model")
    assert "local/nothing" in message


@pytest.mark.parametrize(
    ("content", "code", "param"),
    [
        (b"{", "invalid_json", None),
        (b"", "invalid_json", None),
        (b"\xff", "invalid_json", None),
        (b'{"model": "local/tiny"}', "missing_required_parameter", "messages"),
        (json.dumps(chat_body(max_tokens=0)).encode(), "invalid_value", "max_tokens"),
        (json.dumps(chat_body(max_tokens="many")).encode(), "invalid_type", "max_tokens"),
        (json.dumps(chat_body(temperatur=1)).encode(), "unknown_parameter", "temperatur"),
        (json.dumps(chat_body(functions=[{}])).encode(), "unsupported_parameter", "functions"),
        (json.dumps(chat_body(n=17)).encode(), "invalid_value", "n"),
        (json.dumps(chat_body(service_tier="priority")).encode(), "service_tier_unavailable", "service_tier"),
        (json.dumps(chat_body(logit_bias={"99999": 1})).encode(), "invalid_value", "logit_bias"),
    ],
)
async def test_body_that_is_invalid_is_400_and_names_the_field(provider, content, code, param):
    response = await provider.client.post("/v1/chat/completions", content=content)
    error_of(response, 400, "invalid_request_error", code, param)
    assert (provider.rows("holds"), provider.rows("usage")) == ([], [])


async def test_prompt_above_the_context_is_400_with_both_numbers(provider):
    content = "x" * (MAX_CONTEXT - 1)  # with the template around it
    response = await provider.chat(content=content)
    message = error_of(response, 400, "invalid_request_error", "context_length_exceeded", "messages")
    assert str(MAX_CONTEXT) in message
    assert str(len(prompt_of(content))) in message


async def test_credit_that_is_spent_is_402_without_a_retry(tmp_path, monkeypatch):
    async with running_provider(tmp_path, monkeypatch, credit_nanousd=cost_of(N_PROMPT, 3)) as provider:
        response = await provider.chat(max_tokens=4)
        message = error_of(response, 402, "insufficient_quota", "credit_balance_exhausted")
        assert "0.000000" in message
        assert "fit is 3" in message
        assert response.headers["x-should-retry"] == "false"
        assert "retry-after" not in response.headers
        assert (await provider.chat(max_tokens=3)).status_code == 200


async def test_credit_that_is_held_is_402_with_retry_after(tmp_path, monkeypatch, call):
    async with running_provider(tmp_path, monkeypatch, credit_nanousd=cost_of(N_PROMPT, 9)) as provider:
        provider.runner.hold_back()
        first = call(provider, max_tokens=9)
        await provider.until(lambda: provider.hold_states() == ["held"])
        response = await provider.chat(max_tokens=2)
        error_of(response, 402, "insufficient_quota", "in_flight_budget_exhausted")
        assert int(response.headers["retry-after"]) >= 1
        assert response.headers["x-should-retry"] == "true"
        provider.runner.let_go()
        await first.ended()


async def test_model_before_its_start_and_after_its_end_is_503_with_retry_after(tmp_path, monkeypatch):
    async with running_provider(tmp_path, monkeypatch, started=False) as provider:
        response = await provider.chat()
        error_of(response, 503, "server_error", "server_overloaded")
        assert int(response.headers["retry-after"]) >= 1
        assert (await provider.client.get("/v1/models")).status_code == 200, "needs no engine"
        (replica,) = provider.router.replicas
        await replica.start()
        assert (await provider.chat(max_tokens=1)).status_code == 200
        provider.completions.close()
        error_of(await provider.chat(), 503, "server_error", "server_overloaded")


async def test_engine_that_is_full_is_503_and_the_hold_is_voided(provider):
    provider.limit_live_requests(0)
    response = await provider.chat()
    error_of(response, 503, "server_error", "server_overloaded")
    assert response.headers["x-should-retry"] == "true"
    assert provider.hold_states() == ["voided"]


async def test_engine_that_crashes_is_500_and_costs_nothing(provider):
    provider.runner.crash = RuntimeError("the device is gone")
    message = error_of(await provider.chat(), 500, "server_error", None)
    assert "not billed" in message
    assert "device" not in message
    assert provider.hold_states() == ["voided"]
    row = provider.usage_row()
    assert (row["status"], row["cost_nanousd"], row["finish_reason"]) == ("failed", 0, None)


async def test_engine_that_crashes_ends_a_stream_with_an_error_event(provider, call):
    provider.runner.hold_back()
    stream = call(provider, stream=True, max_tokens=50)
    await provider.until(lambda: provider.runner.waits)
    provider.runner.allow(2)
    await stream.until(lambda: len(stream.text) == 2)
    provider.runner.crash = RuntimeError("the device is gone")
    provider.runner.let_go()
    await stream.ended()
    assert stream.status == 200
    error = stream.chunks[-1]["error"]
    assert (error["type"], error["code"], error["param"]) == ("server_error", None, None)
    assert "[DONE]" not in stream.events, "an SDK takes [DONE] for a good end"
    assert all(choice["finish_reason"] is None for chunk in stream.chunks[:-1] for choice in chunk["choices"])
    assert provider.hold_states() == ["voided"]
    assert provider.usage_row()["status"] == "failed"


async def test_settlement_that_fails_ends_the_stream_without_a_finish_reason(tmp_path, monkeypatch, call):
    def make_writer(store: Any) -> FailingWriter:
        return FailingWriter(store, sqlite3.DatabaseError("malformed"), n_failures=1)

    async with running_provider(tmp_path, monkeypatch, make_writer=make_writer) as provider:
        stream = call(provider, stream=True, max_tokens=3, stream_options={"include_usage": True})
        await stream.ended()
        assert len(stream.text) == 3
        assert all(choice["finish_reason"] is None for chunk in stream.chunks[:-1] for choice in chunk["choices"])
        assert "error" in stream.chunks[-1]
        assert "[DONE]" not in stream.events
        assert provider.rows("usage") == []
        begin_epoch(provider.store, 1)


async def test_ledger_that_cannot_be_written_is_503(tmp_path, monkeypatch):
    def make_writer(store: Any) -> FailingWriter:
        error = sqlite3.OperationalError("disk full")
        return FailingWriter(store, error, n_failures=2, applies=lambda names: not resolves(names))

    async with running_provider(tmp_path, monkeypatch, make_writer=make_writer) as provider:
        response = await provider.chat()
        message = error_of(response, 503, "server_error", "server_overloaded")
        assert "disk" not in message
        assert (await provider.chat(model=FREE, max_tokens=1)).status_code == 200


async def test_bug_is_500_without_its_message_and_with_an_id(provider, monkeypatch):
    def bug(*_: object) -> None:
        raise ZeroDivisionError("secret detail")

    monkeypatch.setattr(provider.completions, "begin", bug)
    response = await provider.chat()
    message = error_of(response, 500, "server_error", None)
    assert "secret" not in message


async def test_unknown_url_is_404_and_wrong_method_is_405(provider):
    message = error_of(await provider.client.get("/v1/nothing"), 404, "invalid_request_error", "not_found")
    assert "GET /v1/nothing" in message
    response = await provider.client.get("/v1/chat/completions")
    error_of(response, 405, "invalid_request_error", "method_not_allowed")
    assert response.headers["allow"] == "POST"


async def test_status_of_every_request_error_is_listed():
    assert {error: status_of(error("words")) for error in _all(errors.RequestError)} == {
        errors.InvalidRequestError: (400, "invalid_request_error"),
        errors.ContextLengthError: (400, "invalid_request_error"),
        errors.RequestTooLargeError: (413, "invalid_request_error"),
        errors.RequestTimeoutError: (408, "invalid_request_error"),
        errors.ClientGoneError: (499, "invalid_request_error"),
        errors.MisdirectedRequestError: (421, "invalid_request_error"),
        errors.AuthenticationError: (401, "authentication_error"),
        errors.InsufficientCreditError: (402, "insufficient_quota"),
        errors.PermissionDeniedError: (403, "permission_error"),
        errors.ModelNotFoundError: (404, "invalid_request_error"),
        errors.RateLimitError: (429, "requests"),
        errors.TooManyFailuresError: (429, "requests"),
        errors.UnsupportedOperationError: (501, "invalid_request_error"),
        errors.OverloadedError: (503, "server_error"),
    }
    assert status_of(errors.GenerationError("words")) == (500, "server_error")
    assert status_of(errors.ConfigError("words")) == (500, "server_error")


def _all(base: type) -> list[type]:
    return [kind for direct in base.__subclasses__() for kind in (direct, *_all(direct))]


async def test_body_that_is_cut_off_leaves_no_hold_and_no_usage(provider):
    headers = {"authorization": f"Bearer {provider.key}", "content-length": "100"}
    asked = AsgiCall(provider.app, "POST", "/v1/chat/completions", headers=headers)
    asked._to_send = [{"type": "http.request", "body": b'{"model":', "more_body": True}]
    asked.hang_up()
    await asked.ended()
    assert (provider.rows("holds"), provider.rows("usage")) == ([], [])


@pytest.mark.parametrize(
    ("method", "path", "meant"),
    [
        ("POST", "/chat/completions", "/v1/chat/completions"),
        ("POST", "/v1/chat/completions/", "/v1/chat/completions"),
        ("POST", "/v1/v1/messages", "/v1/messages"),
        ("GET", "/v1/models/", "/v1/models"),
    ],
)
async def test_unknown_url_is_404_with_a_suggestion_and_no_redirect(provider, method, path, meant):
    response = await provider.client.request(method, path)
    assert response.status_code == 404
    assert f"Did you mean {meant}?" in response.text
    assert "location" not in response.headers


@pytest.mark.parametrize("path", ["/", "/v1", "/v1/"])
async def test_root_url_is_404_that_names_the_api(provider, path):
    response = await provider.client.get(path)
    assert "GET /v1/models" in error_of(response, 404, "invalid_request_error", "not_found")


async def test_wrong_method_is_405_with_the_allowed_ones(provider):
    response = await provider.client.put("/v1/files")
    assert response.headers.get_list("allow") == ["GET, HEAD, POST"]
    assert "allowed: GET, HEAD, POST" in error_of(response, 405, "invalid_request_error", "method_not_allowed")


async def test_key_without_bearer_is_401_that_names_bearer(provider):
    url = "/v1/models"
    bare = await provider.client.get(url, headers={"authorization": provider.key})
    assert "the word Bearer" in error_of(bare, 401, "authentication_error", "invalid_api_key")
    beside = await provider.client.get(url, headers={"authorization": "Basic dTpw", "x-api-key": provider.key})
    assert beside.status_code == 200


async def test_body_that_is_empty_is_400_that_says_so(provider):
    response = await provider.client.post("/v1/chat/completions", content=b"")
    assert "is empty" in error_of(response, 400, "invalid_request_error", "invalid_json")


async def test_body_that_is_compressed_is_400_with_its_encoding(provider):
    headers = {"content-encoding": "gzip"}
    response = await provider.client.post("/v1/chat/completions", json=chat_body(), headers=headers)
    assert "'gzip'" in error_of(response, 400, "invalid_request_error", "unsupported_value", "content-encoding")


KNOWN = ("/v1/chat/completions", "/v1/messages", "/v1/models", "/v1/models/{model:path}", "/tokenize", "/health")


@pytest.mark.parametrize(
    ("path", "meant"),
    [
        ("/chat/completions", "/v1/chat/completions"),
        ("/v1/chat/completions/", "/v1/chat/completions"),
        ("//v1//chat/completions", "/v1/chat/completions"),
        ("/v1/v1/messages", "/v1/messages"),
        ("/v1/tokenize", "/tokenize"),
        ("/v1/chat/completion", "/v1/chat/completions"),
        ("/model", "/v1/models"),
        ("/v1/models/", "/v1/models"),
    ],
)
def test_path_suggestion_of_a_usual_slip_is_the_known_path(path, meant):
    assert path_suggestion(path, KNOWN) == meant


@pytest.mark.parametrize("path", ["/favicon.ico", "/v1/audio/speech", "/v1/moderations", "/", "/" + "x" * 30_000])
def test_path_suggestion_of_an_unrelated_path_is_none(path):
    assert path_suggestion(path, KNOWN) is None
