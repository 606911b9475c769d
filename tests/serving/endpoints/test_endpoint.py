"""Hints of a call about prefix caching."""

from __future__ import annotations

import json

import pytest

from inferd.serving.endpoints.chat import ChatCompletions
from inferd.serving.endpoints.endpoint import CacheHints
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
        (None, {}, None),
    ],
)
def test_session_is_the_header_else_the_cache_key_else_the_user(affinity, fields, session):
    assert CacheHints(affinity).or_else(hints(**fields)).session == session


def test_isolation_key_of_the_header_precedes_that_of_the_body():
    asked = hints(prompt_cache_isolation_key="body")
    assert CacheHints().or_else(asked).isolation_key == "body"
    assert CacheHints(isolation_key="header").or_else(asked).isolation_key == "header"
