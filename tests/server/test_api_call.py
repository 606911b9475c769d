"""Headers that name a conversation, from the request to the engine."""

from __future__ import annotations

import itertools
import re

import pytest

from inferd.errors import InvalidRequestError
from inferd.server.api_call import ISOLATION_HEADER, SESSION_HEADERS, header_hints
from tests.serving.provider import FREE, running_provider

pytestmark = pytest.mark.anyio

HI = [{"role": "user", "content": "hi"}]
BODIES = {
    "/v1/chat/completions": {"messages": HI, "max_tokens": 1, "user": "body"},
    "/v1/responses": {"input": "hi", "max_output_tokens": 1, "user": "body"},
    "/v1/messages": {"messages": HI, "max_tokens": 1, "metadata": {"user_id": "body"}},
    "/v1/completions": {"prompt": "hi", "max_tokens": 1, "user": "body"},
}


@pytest.fixture
async def provider(tmp_path, monkeypatch):
    async with running_provider(tmp_path, monkeypatch) as running:
        yield running


@pytest.mark.parametrize(("first", "second"), list(itertools.pairwise(SESSION_HEADERS)))
def test_session_is_that_of_the_first_header_in_the_order_of_the_list(first, second):
    assert header_hints({second: "b", first: "a"}).session == "a"
    assert header_hints({second: "b"}).session == "b"


@pytest.mark.parametrize("value", ["", "a" * 513, "a\tb", "a\x00", "\x7f", "\x1b[31m"])
def test_session_header_that_is_no_plain_text_or_too_long_is_passed_over(value):
    assert header_hints({"x-session-affinity": value, "session_id": "next"}).session == "next"
    assert header_hints({"x-session-affinity": value}).session is None


def test_isolation_key_that_is_too_long_is_refused():
    assert header_hints({ISOLATION_HEADER: "a" * 512}).isolation_key == "a" * 512
    with pytest.raises(InvalidRequestError) as caught:
        header_hints({ISOLATION_HEADER: "a" * 513})
    assert caught.value.param == ISOLATION_HEADER


@pytest.mark.parametrize("path", BODIES)
async def test_session_reaches_the_engine_as_a_digest(provider, path):
    (replica,) = provider.router.replicas
    asked, submit = [], replica.submit

    def watched(request):
        asked.append(request.session)
        return submit(request)

    replica.submit = watched
    body = {"model": FREE, **BODIES[path]}
    for headers in ({"x-amp-thread-id": "T-1"}, {"x-amp-thread-id": "T-1"}, {"session-id": "T-2"}, {}):
        assert (await provider.client.post(path, json=body, headers=headers)).status_code == 200
    first, again, other, of_body = asked
    assert first == again
    assert len({first, other, of_body}) == 3
    assert all(re.fullmatch("[0-9a-f]{32}", session) for session in asked)
    key = provider.new_key("other")
    headers = {"x-amp-thread-id": "T-1", "authorization": f"Bearer {key}"}
    assert (await provider.client.post(path, json=body, headers=headers)).status_code == 200
    assert asked[-1] != first, "another team's session"


async def test_session_header_that_is_hostile_is_no_reason_for_a_400(provider):
    for value in (b"\xff" * 5000, b"a\tb", b"\xff"):
        answer = await provider.client.post(
            "/v1/chat/completions",
            json={"model": FREE, **BODIES["/v1/chat/completions"]},
            headers=[(b"x-session-id", value)],
        )
        assert answer.status_code == 200
