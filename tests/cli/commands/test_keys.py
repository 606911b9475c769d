"""`inferd keys`."""

from __future__ import annotations

import re
from contextlib import closing

import pytest

from inferd.errors import AuthenticationError
from inferd.instants import parse_instant_ms
from inferd.ledger.identity.authenticator import authenticate
from inferd.ledger.storage.data_dir import write_deployments
from inferd.ledger.storage.store import Store

KEY = re.compile(r"sk-inferd-[0-9A-Za-z]{12}-[0-9A-Za-z]{43}")
SHOWN = {
    *("id", "team", "project", "user", "name", "last4", "scopes", "models", "trusted", "status"),
    *("expires_at", "created_at", "created_by", "revoked_at", "revoked_by"),
}
NOW_MS = parse_instant_ms("2026-12-01")


@pytest.fixture
def acme(inferd):
    inferd("teams", "create", "acme")
    inferd("projects", "create", "acme", "website")
    inferd("users", "create", "acme", "alice")


@pytest.mark.usefixtures("acme")
def test_new_key_authenticates_as_its_team_project_and_user(inferd, data_dir):
    words = ("--team", "acme", "--project", "website", "--user", "alice", "--name", "laptop")
    made = inferd("keys", "create", *words, "--json").json
    assert set(made) == SHOWN | {"key", "warnings"}
    assert KEY.fullmatch(made["key"])
    assert made["id"] == made["key"].split("-")[2]
    assert (made["name"], made["status"], made["last4"]) == ("laptop", "active", made["key"][-4:])
    with closing(Store(data_dir).connect()) as conn:
        caller = authenticate(conn, made["key"], NOW_MS)
    assert (caller.team, caller.project, caller.user, caller.key_id) == ("acme", "website", "alice", made["id"])


@pytest.mark.usefixtures("acme")
def test_create_prints_the_key_on_its_own_line_and_how_to_use_it(inferd):
    made = inferd("keys", "create", "--team", "acme")
    (key,) = (line.strip() for line in made.out.splitlines() if KEY.fullmatch(line.strip()))
    assert "It is not shown again" in made.out
    assert f"OPENAI_API_KEY={key}" in made.out
    assert "no credit" not in made.out


@pytest.mark.usefixtures("acme")
def test_trusted_key_is_shown_as_such_with_a_cap_for_each_user(inferd):
    assert inferd("keys", "create", "--team", "acme", "--trusted", "--json").json["trusted"] is True
    assert "budgets set acme 5 --each-user" in inferd("keys", "create", "--team", "acme", "--trusted").out
    inferd("keys", "create", "--team", "acme", "--trusted", "--user", "alice")
    inferd("keys", "create", "--team", "acme")
    assert [key["trusted"] for key in inferd("keys", "list", "--json").json] == [True, True, True, False]
    shown = inferd("keys", "list").out
    assert shown.count("by header") == 3
    assert "alice or by header" in " ".join(shown.split())


@pytest.mark.usefixtures("acme")
def test_key_is_never_shown_again(inferd):
    key = inferd("keys", "create", "--team", "acme", "--json").json["key"]
    secret = key.split("-")[3]
    for words in (
        *(("keys", "list"), ("keys", "list", "--json"), ("teams", "show", "acme", "--json"), ("ledger", "export")),
        ("keys", "revoke", key.split("-")[2], "--json"),
    ):
        shown = inferd(*words)
        assert shown.status == 0
        assert secret not in shown.out


def test_create_for_a_team_without_credit_says_so(inferd):
    inferd("teams", "create", "lab", "--plan", "academic")
    out = inferd("keys", "create", "--team", "lab").out
    assert "it can call only free deployments" in out
    assert "inferd credits grant lab 10" in out


@pytest.mark.usefixtures("acme")
def test_list_is_oldest_first_for_one_team_or_all(inferd):
    inferd("teams", "create", "beta")
    ids = [inferd("keys", "create", "--team", team, "--json").json["id"] for team in ("beta", "acme", "beta")]
    listed = inferd("keys", "list", "--json").json
    assert [key["id"] for key in listed] == ids
    assert all(set(key) == SHOWN | {"budgets", "token_budgets", "compute_ms_budgets"} for key in listed)
    assert [key["id"] for key in inferd("keys", "list", "--team", "beta", "--json").json] == [ids[0], ids[2]]


@pytest.mark.usefixtures("acme")
def test_list_without_keys_is_empty_and_says_so(inferd):
    assert inferd("keys", "list", "--json").json == []
    assert "Team acme has no keys." in inferd("keys", "list", "--team", "acme").out


@pytest.mark.usefixtures("acme")
def test_label_is_text_not_markup(inferd):
    inferd("keys", "create", "--team", "acme", "--name", "[red]x[/]")
    assert "[red]x[/]" in inferd("keys", "list").out


@pytest.mark.usefixtures("acme")
def test_revoked_key_is_refused(inferd, data_dir):
    made = inferd("keys", "create", "--team", "acme", "--json").json
    assert "Revoked key" in inferd("keys", "revoke", made["id"]).out
    with closing(Store(data_dir).connect()) as conn, pytest.raises(AuthenticationError, match="revoked"):
        authenticate(conn, made["key"], NOW_MS)
    (listed,) = inferd("keys", "list", "--json").json
    assert listed["status"] == "revoked"
    assert listed["revoked_by"].startswith("cli:")


@pytest.mark.usefixtures("acme")
def test_revoke_of_a_revoked_key_is_unchanged(inferd):
    key_id = inferd("keys", "create", "--team", "acme", "--json").json["id"]
    first = inferd("keys", "revoke", key_id, "--json").json
    assert inferd("keys", "revoke", key_id, "--json").json == first


@pytest.mark.usefixtures("acme")
def test_key_expires_on_its_date(inferd, data_dir):
    made = inferd("keys", "create", "--team", "acme", "--expires", "2999-01-01", "--json").json
    assert made["expires_at"] == "2999-01-01T00:00:00.000Z"
    end_ms = parse_instant_ms("2999-01-01")
    with closing(Store(data_dir).connect()) as conn:
        assert authenticate(conn, made["key"], end_ms - 1).team == "acme"
        with pytest.raises(AuthenticationError, match="expired"):
            authenticate(conn, made["key"], end_ms)


@pytest.mark.usefixtures("acme")
@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("create", "--team", "x"), "there is no team 'x'"),
        (("create", "--team", "acme", "--project", "p"), "`inferd projects create acme p` creates it"),
        (("create", "--team", "acme", "--user", "u"), "`inferd users create acme u` creates it"),
        (("create", "--team", "acme", "--expires", "2020-01-01"), "is in the past"),
        (("create", "--team", "acme", "--expires", "soon"), "is not a date"),
        (("create", "--team", "acme", "--name", ""), "label"),
        (("list", "--team", "x"), "there is no team 'x'"),
        (("revoke", "nokey"), "there is no key 'nokey'"),
    ],
)
def test_refused_command_changes_nothing_and_says_why(inferd, words, said):
    refused = inferd("keys", *words)
    assert (refused.status, refused.out) == (1, "")
    assert said in refused.err
    assert inferd("keys", "list", "--json").json == []


def test_create_without_team_is_wrong_usage(inferd):
    refused = inferd("keys", "create")
    assert refused.status == 2
    assert "--team" in refused.err


def test_create_for_an_unknown_deployment_prints_a_warning(inferd, data_dir, tmp_path, monkeypatch):
    inferd("teams", "create", "acme")
    write_deployments(data_dir, ["local/smollm2-135m", "local/other"])
    made = inferd("keys", "create", "--team", "acme", "--model", "local/smollm2-135", "--model", "local/other")
    assert made.status == 0
    assert "Warning: there is no deployment 'local/smollm2-135' now (did you mean 'local/smollm2-135m'?)" in made.out
    assert "'local/other'" not in made.out
    made = inferd("keys", "create", "--team", "acme", "--model", "x/y", "--json").json
    assert made["models"] == ["x/y"]
    assert made["warnings"] == [
        "there is no deployment 'x/y' now (there are: local/other, local/smollm2-135m); "
        "the key cannot call it until there is one"
    ]
    assert inferd("keys", "create", "--team", "acme", "--model", "local/other", "--json").json["warnings"] == []


@pytest.mark.parametrize(("config", "n_warnings"), [("", 1), ("broken [", 0)])
def test_create_before_the_first_start_compares_with_models_toml(inferd, tmp_path, monkeypatch, config, n_warnings):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models.toml").write_text(config)
    inferd("teams", "create", "acme")
    made = inferd("keys", "create", "--team", "acme", "--model", "x/y", "--json").json
    assert len(made["warnings"]) == n_warnings


def test_scope_with_a_typo_is_refused_with_the_nearest_scope(inferd):
    inferd("teams", "create", "acme")
    refused = inferd("keys", "create", "--team", "acme", "--scope", "inferance")
    assert refused.status == 1
    assert "there is no scope 'inferance'; did you mean 'inference'?" in refused.err


def test_create_with_scopes_and_models_shows_them(inferd):
    """R21"""
    inferd("teams", "create", "acme")
    words = ("--scope", "admin", "--scope", "inference", "--model", "local/a", "--model", "local/b")
    made = inferd("keys", "create", "--team", "acme", *words, "--json").json
    assert (made["scopes"], made["models"]) == (["inference", "admin"], ["local/a", "local/b"])
    shown = inferd("keys", "list").out
    assert "inference admin" in shown
    assert "local/a local/b" in shown
