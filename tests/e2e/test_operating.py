"""The command line beside a running server, and what the server prints."""

from __future__ import annotations

import stat
import subprocess
import sys

import openai
import pytest

from tests.e2e.models import FREE_MODEL, MODEL, ask
from tests.e2e.refold import nanousd
from tests.e2e.server_process import INFERD, PATIENCE_S, ROOT, Team


def test_a_team_made_by_the_command_line_is_served_at_once_and_a_revoked_key_is_not(server):
    assert server.command("teams", "create", "by-hand", "--plan", "academic").returncode == 0
    key = server.json("keys", "create", "--team", "by-hand")
    team = Team(server, "by-hand", key["id"], key["key"])
    client = team.openai()
    with pytest.raises(openai.APIStatusError, match="credit"):
        client.chat.completions.create(model=MODEL, messages=ask("Hi"), max_tokens=2)

    assert server.command("credits", "grant", "by-hand", "0.50", "--note", "first").returncode == 0
    done = client.chat.completions.create(model=MODEL, messages=ask("Hi"), max_tokens=2)
    credit = team.credit()
    assert nanousd(credit["balance_usd"]) == 500_000_000 - nanousd(done.usage.cost)
    assert credit["held_usd"] == "0.000000000"
    (row,) = server.json("usage", "--team", "by-hand", "--by", "key")["rows"]
    assert (row["key"], row["requests"], row["cost_usd"]) == (key["id"], 1, done.usage.cost)

    assert server.command("keys", "revoke", key["id"]).returncode == 0
    with pytest.raises(openai.AuthenticationError, match="revoked"):
        client.chat.completions.create(model=FREE_MODEL, messages=ask("Hi"), max_tokens=2)
    server.assert_audit_clean()


def test_a_project_and_a_user_of_the_key_are_in_the_books(server):
    team = server.team("studio", 10**9)
    assert server.command("projects", "create", "studio", "film").returncode == 0
    assert server.command("users", "create", "studio", "ada").returncode == 0
    key = server.json("keys", "create", "--team", "studio", "--project", "film", "--user", "ada")
    done = Team(server, "studio", key["id"], key["key"]).openai()
    request_id = done.chat.completions.create(model=MODEL, messages=ask("Hi"), max_tokens=2)._request_id
    row = server.export().usage[request_id]
    assert (row["team"], row["project"], row["user"], row["key_id"]) == ("studio", "film", "ada", key["id"])
    assert team.usage_rows()[0]["request"] == request_id


def snippet(output: str, title: str) -> str:
    """What stands under a heading of the banner, up to the next heading."""
    _, _, rest = output.partition(f"# {title}\n")
    body, _, _ = rest.partition("\n# ")
    assert body.strip(), output
    return body


def test_the_printed_curl_command_runs_as_printed(server):
    done = subprocess.run(
        ["bash", "-c", snippet(server.output, "curl")], capture_output=True, text=True, timeout=PATIENCE_S, check=True
    )
    assert '"object":"chat.completion"' in done.stdout
    assert '"finish_reason":"' in done.stdout


def test_the_printed_python_program_runs_as_printed(server):
    program = snippet(server.output, "Python (pip install openai)")
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=PATIENCE_S, check=True
    )
    assert done.stdout.strip(), done.stderr


def test_a_second_server_on_the_same_data_folder_exits_2_with_one_line(server):
    arguments = ["serve", "--config", str(server.config), "--data-dir", str(server.data_dir), "--port", "0"]
    done = subprocess.run([*INFERD, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE_S)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert "already serves" in done.stderr
    assert str(server.data_dir) in done.stderr
    assert server.is_running


def test_the_data_folder_is_its_owners_alone(server):
    assert stat.S_IMODE(server.data_dir.stat().st_mode) == 0o700
    inside = list(server.data_dir.rglob("*"))
    assert {"ledger.db", "default.key", "deployments.json"} <= {path.name for path in inside}
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in inside if path.is_file()}
    assert set(modes.values()) == {0o600}, modes
    assert {stat.S_IMODE(path.stat().st_mode) for path in inside if path.is_dir()} <= {0o700}


def test_no_word_of_a_conversation_and_no_key_is_in_the_log(server):
    team = server.team("private", 10**9)
    done = team.openai().chat.completions.create(model=MODEL, messages=ask("My name is Xylophonia."), max_tokens=8)
    log = server.log
    assert done._request_id in log
    assert "Xylophonia" not in log
    assert team.key not in log
    assert done.choices[0].message.content.strip()[:20] not in log
