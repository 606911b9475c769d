"""Every field that vLLM, llama-server or Ollama take is taken here too, or refused for a reason that is listed."""

from __future__ import annotations

from typing import Any

import pytest

from inferd.wire.openai.chat_request import ChatRequest
from inferd.wire.openai.text_completions import TextRequest
from tests.server.peer_fields import CHAT, DEPENDS, HONOURED, NEEDS, PEERS, REFUSED, TEXT
from tests.serving import provider as providers
from tests.serving.provider import PRICED, running_provider

BODIES: dict[str, dict[str, Any]] = {
    CHAT: {"model": PRICED, "messages": [{"role": "user", "content": "hi"}], "max_completion_tokens": 4},
    TEXT: {"model": PRICED, "prompt": "hi", "max_tokens": 4},
}


async def faults_of(provider, name: str) -> list[str]:
    """Return what is wrong with the answers to requests with one field of a peer each."""
    peer = PEERS[name]
    found = []
    for field, value in peer.values.items():
        answer = await provider.client.post(peer.path, json=BODIES[peer.path] | NEEDS.get(field, {}) | {field: value})
        ignored = answer.headers.get("inferd-ignored", "").partition(".")[0].split(", ")[0]
        if field in REFUSED:
            is_right = answer.status_code == 400 and answer.json()["error"]["param"] == field
        else:
            is_named = field in DEPENDS or (ignored == field) == (field not in HONOURED)
            is_right = answer.status_code == 200 and is_named
        if not is_right:
            found.append(f"{field}: {answer.status_code}, ignored: {ignored!r}, {answer.text[:200]}")
    return found


@pytest.mark.anyio
@pytest.mark.parametrize("name", PEERS)
async def test_each_field_of_a_peer_is_honoured_or_named_or_refused_for_a_reason(tmp_path, monkeypatch, name):
    monkeypatch.setattr(providers, "MAX_CONTEXT", 2048)
    async with running_provider(tmp_path, monkeypatch, credit_nanousd=10**12) as provider:
        assert await faults_of(provider, name) == []


def test_honoured_field_is_a_field_of_the_request():
    known = {CHAT: set(ChatRequest.__struct_fields__), TEXT: set(TextRequest.__struct_fields__)}
    for peer in PEERS.values():
        assert (HONOURED & set(peer.values)) - known[peer.path] <= DEPENDS, peer.source
