"""Stored responses across SIGKILL: what a client saw complete is there, and no answer is stored that was not billed."""

from __future__ import annotations

import signal
import sys

import openai
import pytest

from tests.e2e.server_process import ServerProcess

FAKE = (sys.executable, "-m", "tests.e2e.launch", "--fake")
ASKED = {"model": "local/tiny", "max_output_tokens": 8}


@pytest.mark.parametrize(("moment", "ends"), [("before", "failed"), ("after", "incomplete")])
def test_kill_at_the_commit_leaves_the_end_that_was_billed(fake_server: ServerProcess, moment: str, ends: str) -> None:
    config = fake_server.config
    config.write_text(config.read_text() + "\n[server]\nresponses_days = 30\n")
    fake_server.start((*FAKE, "--die", moment, "SettleHold", "2"))
    team = fake_server.team("acme", 10**9)
    first = team.openai().responses.create(input="Why?", **ASKED)
    dying = team.openai().responses.create(input="And?", previous_response_id=first.id, background=True, **ASKED)
    assert fake_server.wait() == -signal.SIGKILL
    fake_server.start(FAKE)
    client = team.openai()
    assert client.responses.retrieve(first.id).to_dict() == first.to_dict()
    found = client.responses.retrieve(dying.id)
    assert found.status == ends
    rows = {row["request"]: row for row in team.usage_rows()}
    row = rows[dying.id.replace("resp_", "req_")]
    if ends == "failed":
        assert (found.usage, found.output, row["cost_usd"]) == (None, [], "0.000000000")
    else:
        assert found.usage is not None
        assert found.usage.to_dict()["cost"] == row["cost_usd"]
        assert client.responses.create(input="More?", previous_response_id=dying.id, **ASKED).status == "incomplete"
    client.responses.delete(dying.id)
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve(dying.id)
    fake_server.assert_audit_clean()
