"""Long lists of the admin API: in pages that follow each other without gap or overlap."""

from __future__ import annotations

import pytest

from inferd.attribution import Attribution
from inferd.instants import parse_instant_ms
from inferd.ledger import operations
from inferd.ledger.requests.holds import OpenHold
from inferd.ledger.requests.settlement import SettleHold
from inferd.price import Price
from inferd.usage import Usage
from tests.server.admin.calls import change

pytestmark = pytest.mark.anyio

MANY = 7
LISTS = {
    "teams": "team",
    "teams/acme/projects": "project",
    "teams/acme/users": "user",
    "teams/acme/keys": "id",
    "teams/acme/budgets": None,
    "teams/acme/credits/grants": "grant_id",
    "teams/acme/statements": "period",
    "teams/acme/alerts": "alert_id",
}


@pytest.fixture
def many(provider, admin):
    """Seven or more of everything. Keys of one moment, so that their order is not that of their ids."""
    with provider.store.immediate() as conn:
        who = {"by": operations.Author("cli:test", 1)}
        for number in range(MANY):
            operations.create_team(conn, f"team-{number}", **who)
        for number in range(MANY):
            operations.create_member(conn, "project", "acme", f"project-{number}", **who)
            operations.create_member(conn, "user", "acme", f"user-{number}", **who)
            operations.create_key(conn, "acme", **who)
            operations.create_key(conn, "team-1", **who)
            operations.grant_credit(conn, "acme", operations.NewGrant(1), **who)
            operations.grant_credit(conn, "team-1", operations.NewGrant(1), **who)
            for period in ("month", "lifetime"):
                operations.set_budget(conn, "acme", 10**9, period, operations.BudgetOwner(user=f"user-{number}"), **who)
        owe_in_many_months(provider, conn)
    return admin


def owe_in_many_months(provider, conn):
    """Each makes a statement, and an alert of a budget that is used up to half."""
    now_ms = parse_instant_ms("2026-11-20")
    who = {"by": operations.Author("cli:test", now_ms)}
    for (grant_id,) in conn.execute("SELECT grant_id FROM grants WHERE team = 'acme'").fetchall():
        operations.void_grant(conn, grant_id, reason="to owe", **who)
    operations.set_team(conn, "acme", operations.TeamChange(plan="pro"), **who)
    operations.set_budget(conn, "acme", 20, owner=operations.BudgetOwner(project="inference"), **who)
    (key_id, *_) = conn.execute("SELECT key_id FROM keys WHERE team = 'acme'").fetchone()
    for month in range(1, MANY + 1):
        request_id, at_ms = f"req-{month}", parse_instant_ms(f"2026-{month:02}-15")
        whose = Attribution("acme", "inference", None, key_id, "local/x", "default")
        OpenHold(request_id, whose, Price(1_000, 1_000), 10, 0, provider.epoch, at_ms).apply(conn)
        SettleHold(request_id, Usage(10, 0, 0, 1), "completed", at_ms).apply(conn)


@pytest.mark.parametrize("path", LISTS)
async def test_pages_follow_each_other_without_gap_or_overlap(many, path):
    noun = path.rpartition("/")[2]
    whole = await many.do("GET", path)
    assert (whole["has_more"], whole["next"]) == (False, None)
    assert len(whole[noun]) >= MANY
    for limit in (1, 3, len(whole[noun])):
        collected, after = [], ""
        for _ in range(100):
            page = await many.do("GET", f"{path}?limit={limit}{after}")
            assert len(page[noun]) == limit or not page["has_more"]
            collected += page[noun]
            if not page["has_more"]:
                break
            name = LISTS[path]
            if name is not None:
                assert page["next"] == page[noun][-1][name]
            after = f"&after={page['next']}"
        assert page["next"] is None
        assert collected == whole[noun]


async def test_a_page_is_of_a_hundred_unless_it_is_said(provider, admin):
    with provider.store.immediate() as conn:
        for number in range(101):
            operations.create_member(conn, "project", "acme", f"p{number:03}", by=operations.Author("cli:test", 1))
    page = await admin.do("GET", "teams/acme/projects")
    assert (len(page["projects"]), page["has_more"], page["next"]) == (100, True, "p098")
    rest = await admin.do("GET", "teams/acme/projects?after=p098")
    assert [project["project"] for project in rest["projects"]] == ["p099", "p100"]
    assert len((await admin.do("GET", "teams/acme/projects?limit=1000"))["projects"]) == 102


@pytest.mark.parametrize(
    ("query", "code"),
    [
        ("limit=0", "invalid_value"),
        ("limit=1001", "invalid_value"),
        ("limit=many", "invalid_value"),
        ("after=a&after=b", "invalid_value"),
        ("page=2", "unknown_parameter"),
    ],
)
@pytest.mark.parametrize("path", LISTS)
async def test_a_page_that_makes_no_sense_is_refused(admin, path, query, code):
    await admin.refused(400, code, "GET", f"{path}?{query}")


@pytest.mark.parametrize("path", ["teams/acme/credits/grants", "teams/acme/alerts"])
async def test_a_number_is_a_number(admin, path):
    for after in ("x", "-1", "1.5", str(2**53 + 1), "9" * 30):
        await admin.refused(400, "invalid_value", "GET", f"{path}?after={after}")


async def test_what_comes_after_another_teams_key_is_not_told(many, manager, provider):
    """R21: neither when it was made, nor that it exists."""
    (other, *_) = (await many.do("GET", "teams/team-1/keys"))["keys"]
    answers = [await manager.do("GET", f"teams/acme/keys?after={key}") for key in (other["id"], "nobody")]
    assert answers == [{"keys": [], "has_more": False, "next": None}] * 2


async def test_a_page_has_no_row_of_another_team(many, manager):
    """R21"""
    for path in LISTS.keys() - {"teams"}:
        noun = path.rpartition("/")[2]
        page = await manager.do("GET", f"{path}?limit=1000")
        assert {row.get("team", "acme") for row in page[noun]} == {"acme"}


async def test_lists_show_limits(provider, admin):
    """R1, R7, R10"""
    change(provider, operations.create_member, "user", "acme", "ada")
    change(provider, operations.set_budget, "acme", 2 * 10**9, owner=operations.BudgetOwner(user="ada"))
    change(provider, operations.set_budget, "acme", 3 * 10**9, "year", operations.BudgetOwner(project="inference"))
    change(provider, operations.set_team, "acme", operations.TeamChange(plan="pro", tier=3))
    await admin.do("PATCH", "teams/acme/users/ada", {"concurrency": 5})
    (user,) = (await admin.do("GET", "teams/acme/users"))["users"]
    assert user["budgets"] == {"month": "2.000000000"}
    assert (user["concurrency"], user["concurrency_source"]) == (5, "set by the operator")
    (project,) = (await admin.do("GET", "teams/acme/projects"))["projects"]
    assert project["budgets"] == {"year": "3.000000000"}
    assert (project["concurrency"], project["concurrency_source"]) == (64, "plan pro")
    tiers = {team["team"]: (team["tier"], team["tier_source"]) for team in (await admin.do("GET", "teams"))["teams"]}
    assert tiers["acme"] == (3, "set by the operator")


async def test_a_team_is_shown_with_the_first_of_what_it_has(many):
    """The lists have the rest."""
    whole = await many.do("GET", "teams/acme")
    for limit in (1, 3):
        shown = await many.do("GET", f"teams/acme?limit={limit}")
        for noun in ("projects", "users", "keys"):
            assert shown[noun] == whole[noun][:limit]
            assert (shown[f"has_more_{noun}"], whole[f"has_more_{noun}"]) == (True, False)
        of_budgets = [cap for cap in shown["limits"]["caps"] if cap["scope"].startswith("user:")]
        assert len({cap["scope"] for cap in of_budgets}) <= limit
    await many.refused(400, "invalid_value", "GET", "teams/acme?limit=1001")
