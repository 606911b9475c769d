"""Commands on a ledger that has not what they name, or is not there."""

from __future__ import annotations

import pytest


@pytest.mark.parametrize(
    "words",
    [
        *(("projects", "list", "nobody"), ("users", "list", "nobody"), ("teams", "suspend", "nobody")),
        *(("projects", "suspend", "acme", "nothing"), ("users", "resume", "acme", "nobody"), ("keys", "suspend", "x")),
        *(("log", "--team", "nobody"), ("keys", "create", "--team", "acme", "--scope", "root")),
    ],
)
def test_command_on_an_unknown_name_is_refused_in_one_line(inferd, words):
    inferd("teams", "create", "acme")
    ended = inferd(*words)
    assert (ended.status, ended.out, ended.err.count("\n")) == (1, "", 1)


READING = [
    *(("teams", "list"), ("teams", "show", "x"), ("keys", "list"), ("projects", "list", "x"), ("users", "list", "x")),
    *(("usage",), ("credits", "show", "x"), ("credits", "list", "x"), ("budgets", "list", "x"), ("statements", "list")),
    *(("plans", "list"), ("tiers", "list"), ("alerts",), ("log",), ("batches", "list"), ("batches", "show", "x")),
    *(("audit",), ("doctor",), ("backup", "x.db"), ("ledger", "export")),
    *(("keys", "create", "--team", "x"), ("credits", "grant", "x", "1"), ("teams", "suspend", "x", "--reason", "r")),
]


@pytest.mark.parametrize("words", READING, ids=" ".join)
def test_command_in_a_folder_without_a_ledger_makes_none(inferd, data_dir, words):
    refused = inferd(*words)
    assert (refused.status, refused.out) == (1, "")
    assert refused.err.startswith(f"inferd: {data_dir}: there is no ledger.db here; name its folder with --data-dir")
    assert not data_dir.exists()
