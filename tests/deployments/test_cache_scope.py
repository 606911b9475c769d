"""Who shares prefixes with whom."""

from __future__ import annotations

from typing import Any, cast

from inferd.deployments.deployment import Deployment


def deployment(*, shared_cache=False):
    return Deployment("o/m", cast(Any, None), None, 100, 0, {}, shared_cache=shared_cache)


def test_a_team_shares_with_itself_only():
    one = deployment()
    assert one.cache_scope("a", None) == one.cache_scope("a", None)
    assert one.cache_scope("a", None) != one.cache_scope("b", None)


def test_an_isolation_key_divides_a_team_and_never_joins_two():
    one = deployment()
    scopes = {one.cache_scope(team, key) for team in "ab" for key in (None, "x", "y")}
    assert len(scopes) == 6


def test_a_shared_cache_joins_teams_unless_they_isolate_themselves():
    one = deployment(shared_cache=True)
    assert one.cache_scope("a", None) == one.cache_scope("b", None)
    assert one.cache_scope("a", "x") != one.cache_scope("b", "x")
    assert one.cache_scope("a", None) not in {one.cache_scope("a", "x"), deployment().cache_scope("a", None)}
