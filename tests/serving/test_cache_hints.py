"""What a request says about prompt caching."""

from __future__ import annotations

import json

import pytest

from inferd.serving.cache_hints import CacheHints
from inferd.wire.openai.chat_request import parse_chat_request


def request(**fields):
    body = {"model": "o/m", "messages": [{"role": "user", "content": "hi"}], **fields}
    return parse_chat_request(json.dumps(body).encode())


@pytest.mark.parametrize(
    ("affinity", "fields", "session"),
    [
        ("h", {"prompt_cache_key": "k", "user": "u"}, "h"),
        (None, {"prompt_cache_key": "k", "user": "u"}, "k"),
        (None, {"user": "u"}, "u"),
        (None, {}, None),
    ],
)
def test_the_session_is_the_header_else_the_cache_key_else_the_user(affinity, fields, session):
    assert CacheHints.of(request(**fields), affinity=affinity, isolation_key=None).session == session


def test_the_isolation_key_of_the_header_goes_before_that_of_the_body():
    asked = request(prompt_cache_isolation_key="body")
    assert CacheHints.of(asked, affinity=None, isolation_key=None).isolation_key == "body"
    assert CacheHints.of(asked, affinity=None, isolation_key="header").isolation_key == "header"
