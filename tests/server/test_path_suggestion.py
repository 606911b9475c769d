"""Which path a caller may have meant."""

from __future__ import annotations

import pytest

from inferd.server.path_suggestion import near_path

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
def test_the_usual_slips_are_known(path, meant):
    assert near_path(path, KNOWN) == meant


@pytest.mark.parametrize("path", ["/favicon.ico", "/v1/audio/speech", "/v1/moderations", "/", "/" + "x" * 30_000])
def test_what_is_not_there_is_not_guessed(path):
    assert near_path(path, KNOWN) is None
