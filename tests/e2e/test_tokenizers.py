"""Texts that ended the process in llama.cpp's tokenizer, for a server with a small stack; a stop amid tokenising."""

from __future__ import annotations

import re
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.e2e.conftest import EngineSlot
from tests.e2e.server_process import INFERD, ServerProcess, Team
from tests.engine.llama.tiny_vocabularies import write_model

SMALL_STACK = ("bash", "-c", 'ulimit -s 1024; exec "$0" "$@"', *INFERD)
MODEL = "local/tiny"
MODELS_TOML = """
[models.tiny]
source = "tiny.gguf"
max_context = 4096
n_parallel = 2

[deployments."local/tiny"]
model = "tiny"
serverless = true
input_usd_per_1m_tokens = 0.1
output_usd_per_1m_tokens = 0.1
"""
LONG_RUN, LINE_BREAKS = "Z" * 28_000, "\n" * 200_000
TOOL = {"type": "function", "function": {"name": "f", "description": LONG_RUN, "parameters": {"type": "object"}}}
SCHEMA = {"type": "object", "properties": {"a": {"const": LONG_RUN}}, "required": ["a"], "additionalProperties": False}
HI = [{"role": "user", "content": "hi"}]
CALLS: dict[str, tuple[str, dict[str, Any]]] = {
    "chat": ("chat/completions", {"messages": [{"role": "user", "content": LONG_RUN}], "max_tokens": 4}),
    "tool": ("chat/completions", {"messages": HI, "tools": [TOOL], "max_tokens": 4}),
    "completion": ("completions", {"prompt": LINE_BREAKS, "max_tokens": 4}),
    "embedding": ("embeddings", {"input": LONG_RUN}),
    "tokenize": ("../tokenize", {"content": LINE_BREAKS}),
    "count_tokens": ("messages/count_tokens", {"messages": [{"role": "user", "content": LONG_RUN}]}),
    "schema": (
        "chat/completions",
        {
            "messages": HI,
            "max_tokens": 8,
            "response_format": {"type": "json_schema", "json_schema": {"name": "s", "schema": SCHEMA, "strict": True}},
        },
    ),
}


@pytest.fixture(scope="module")
def tiny_server(slot: EngineSlot, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A model of gpt-4o's pre-tokenizer; starts when it is not running."""
    folder: Path = tmp_path_factory.mktemp("tiny")
    write_model(folder / "tiny.gguf", "gpt-4o")
    server = ServerProcess(folder, MODELS_TOML)
    yield server
    slot.clear()


@pytest.mark.parametrize("call", CALLS)
def test_long_run_without_a_word_is_answered_by_a_server_with_a_small_stack(slot, tiny_server, call):
    slot.give_to(tiny_server, SMALL_STACK)
    team = tiny_server.team(call.replace("_", "-"), 10**9)
    path, body = CALLS[call]
    url, key = f"{tiny_server.base_url}/{path}", {"authorization": f"Bearer {team.key}"}
    response = httpx.post(url, json={"model": MODEL, **body}, headers=key, timeout=60)
    assert response.status_code in (200, 400), response.text
    after = {"model": MODEL, "messages": HI, "max_tokens": 1}
    answer = httpx.post(f"{tiny_server.base_url}/chat/completions", json=after, headers=key, timeout=60)
    assert answer.status_code == 200, tiny_server.log


def embed_much(server: ServerProcess, team: Team) -> None:
    body = {"model": MODEL, "input": ["word " * 300] * 2000}
    headers = {"authorization": f"Bearer {team.key}"}
    with suppress(httpx.HTTPError):  # the server ends
        httpx.post(f"{server.base_url}/embeddings", json=body, headers=headers, timeout=60)


def test_stop_while_inputs_are_tokenised_frees_nothing_that_is_in_use(slot, tiny_server):
    slot.give_to(tiny_server, SMALL_STACK)
    team = tiny_server.team("embedder", 10**9)
    calls = [threading.Thread(target=embed_much, args=(tiny_server, team)) for _ in range(6)]
    for call in calls:
        call.start()
    time.sleep(2)  # amid tokenising, which takes seconds for each 3 MB
    tiny_server.signal(signal.SIGTERM)
    tiny_server.until_it_prints(re.compile("Waiting for"))
    tiny_server.signal(signal.SIGTERM)
    status = tiny_server.wait()
    for call in calls:
        call.join()
    assert status == 0, tiny_server.log
    tiny_server.assert_audit_clean()
