"""Sessions in the user ids of Claude Code."""

from __future__ import annotations

import json

import pytest

from inferd.serving.endpoints.cache_hints import session_in

SESSION = "0f8fad5b-d9cb-469f-a165-70867728950e"


@pytest.mark.parametrize(
    ("user_id", "session"),
    [
        (f"user_{'ab' * 32}_account_7c9e6679-7425-40de-944b-e07fc1f90ae7_session_{SESSION}", SESSION),
        (f"user_{'ab' * 32}_account__session_{SESSION}", SESSION),
        (json.dumps({"device_id": "ab", "account_uuid": "", "session_id": SESSION}), SESSION),
        ("user_ab_account__session_", None),
        ("ada_session_1", None),
        ("ada", None),
        ("", None),
        ('{"device_id": "ab"}', None),
        ('{"session_id": ""}', None),
        ('{"session_id": 1}', None),
        ('{"session_id"', None),
        ("{" * 10_000, None),
    ],
)
def test_session_is_found_in_both_forms_and_nowhere_else(user_id, session):
    assert session_in(user_id) == session
