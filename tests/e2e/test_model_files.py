"""A model's file that changes, or cannot be served, ends that model and nothing else."""

from __future__ import annotations

import re
import sys
import threading

import httpx
import pytest

from tests.e2e.models import FAKE_MODELS_TOML
from tests.e2e.server_process import ServerProcess

FAKE = (sys.executable, "-m", "tests.e2e.launch", "--fake")
OTHER = """
[models.other]
source = "other.gguf"
max_context = 256

[deployments."local/other"]
model = "other"
serverless = true
"""


@pytest.fixture
def server(fake_server: ServerProcess) -> ServerProcess:
    """Two models on the fake engine."""
    (fake_server.folder / "other.gguf").write_bytes(b"GGUF")
    fake_server.config.write_text(FAKE_MODELS_TOML + OTHER)
    return fake_server


def ask(server: ServerProcess, key: str, model: str) -> httpx.Response:
    return httpx.post(
        f"{server.base_url}/completions",
        json={"model": model, "prompt": "a", "max_tokens": 1},
        headers={"authorization": f"Bearer {key}"},
        timeout=60,
    )


@pytest.mark.parametrize("change", ["overwrite", "truncate"])
def test_file_written_to_while_served_ends_its_model_unbilled_and_no_other(server, change):
    server.start(FAKE)
    team = server.team("readers", 10**9)
    path = server.folder / "tiny.gguf"
    body = {"model": "local/tiny", "prompt": "a", "max_tokens": 200, "logit_bias": {"256": -100}, "stream": True}
    writer = threading.Thread(target=path.write_bytes, args=(b"GGUF" * (change == "overwrite"),))
    lines = []
    while True:  # a writer without a lease is found within a second, which may be after a short answer's end
        with httpx.stream(
            "POST", f"{server.base_url}/completions", json=body, headers={"authorization": f"Bearer {team.key}"}
        ) as response:
            if response.status_code != 200:
                break
            lines = list(line for line in response.iter_lines() if _start(writer) or line)
    writer.join()
    cut = [row for row in team.usage_rows() if row["status"] == "failed"]
    assert [row["cost_usd"] for row in cut] == ["0.000000000"] * len(cut)
    assert "data: [DONE]" not in lines or not cut
    refused = ask(server, team.key, "local/tiny")
    assert (refused.status_code, refused.headers["retry-after"]) == (503, "60")
    assert "is not available: its operator has to start it again" in refused.json()["error"]["message"]
    assert ask(server, team.key, "local/other").status_code == 200
    assert httpx.get(server.base_url.replace("/v1", "/health")).status_code == 200
    assert re.search(rf"model tiny is not served any more: .*{re.escape(str(path))}", server.log)
    assert server.stop() == 0
    server.assert_audit_clean()


def _start(writer: threading.Thread) -> bool:
    if writer.ident is None:
        writer.start()
    return False


def test_model_that_cannot_be_loaded_is_left_out_and_the_others_serve(slot, own_server):
    slot.clear()
    (own_server.folder / "bad.gguf").write_bytes(b"GGUF")
    own_server.config.write_text(own_server.config.read_text() + OTHER.replace("other", "bad"))
    own_server.start()
    team = own_server.team("others", 10**9)
    assert ask(own_server, team.key, "local/smollm2-135m").status_code == 200
    assert ask(own_server, team.key, "local/bad").status_code == 503
    assert re.search(r"model bad is not served: .*bad\.gguf: its header is incomplete or damaged", own_server.log)
    assert "local/bad" not in own_server.output
    assert own_server.stop() == 0
