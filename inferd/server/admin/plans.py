"""Plans and tiers in force."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from inferd.ledger.operations import show_plans
from inferd.ledger.reports.plan_records import plan_record, tier_record
from inferd.server.admin.call import answer, operator_call


async def list_plans(request: Request) -> Response:
    catalog = await operator_call(request).read(show_plans)
    return answer({"plans": [plan_record(plan) for plan in catalog.plans.values()]})


async def list_tiers(request: Request) -> Response:
    catalog = await operator_call(request).read(show_plans)
    return answer({"tiers": [tier_record(tier) for tier in catalog.tiers]})
