"""Hints of a call about prefix caching."""

from __future__ import annotations

import json
import re

import pytest

from inferd.serving.endpoints.cache_hints import CacheHints
from inferd.serving.endpoints.chat import ChatCompletions
from inferd.serving.endpoints.messages import Messages
from inferd.serving.endpoints.responses import Responses
from inferd.serving.endpoints.text_completions import TextCompletions
from inferd.wire.ignored_fields import IgnoredFields
from inferd.wire.openai.chat_request import parse_chat_request


def hints(**fields):
    body = {"model": "o/m", "messages": [{"role": "user", "content": "hi"}], **fields}
    return ChatCompletions(parse_chat_request(json.dumps(body).encode())).cache_hints


@pytest.mark.parametrize(
    ("affinity", "fields", "session"),
    [
        ("h", {"prompt_cache_key": "k", "user": "u"}, "h"),
        (None, {"prompt_cache_key": "k", "user": "u"}, "k"),
        (None, {"user": "u"}, "u"),
        (None, {"prompt_cache_key": "k", "user": "user_1_account__session_s"}, "k"),
        (None, {"user": "user_1_account__session_s"}, "s"),
        (None, {"user": '{"session_id": "s"}'}, "s"),
        (None, {"user": ""}, None),
        (None, {}, None),
    ],
)
def test_session_is_the_header_else_the_cache_key_else_the_user(affinity, fields, session):
    assert CacheHints(affinity).or_else(hints(**fields)).session == session


def test_isolation_key_of_the_header_precedes_that_of_the_body():
    asked = hints(prompt_cache_isolation_key="body")
    assert CacheHints().or_else(asked).isolation_key == "body"
    assert CacheHints(isolation_key="header").or_else(asked).isolation_key == "header"


def test_session_of_a_team_is_a_digest_that_differs_between_teams():
    hints = CacheHints("thread of Ada")
    one, other = hints.session_of("a"), hints.session_of("b")
    assert one == hints.session_of("a") != other
    assert re.fullmatch("[0-9a-f]{32}", one)
    assert CacheHints().session_of("a") is None


BODIES = {
    ChatCompletions: {"messages": [{"role": "user", "content": "hi"}], "user": "s"},
    Responses: {"input": "hi", "prompt_cache_key": "s", "user": "u"},
    Messages: {
        "messages": [{"role": "user", "content": "hi"}],
        "max_tokens": 1,
        "metadata": {"user_id": '{"device_id": "d", "account_uuid": "", "session_id": "s"}'},
    },
    TextCompletions: {"prompt": "hi", "prompt_cache_key": "s", "user": "u"},
}


@pytest.mark.parametrize("kind", BODIES)
def test_session_of_the_body_is_read_by_every_endpoint_of_text(kind):
    body = json.dumps({"model": "o/m"} | BODIES[kind]).encode()
    assert kind.parse(body, IgnoredFields()).cache_hints.session == "s"
