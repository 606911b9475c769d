"""Plans and tiers in force."""

from __future__ import annotations

from starlette.responses import Response

from inferd.ledger import operations
from inferd.ledger.reports import plan_record, tier_record
from inferd.server.admin.call import AdminCall, answer


async def list_plans(call: AdminCall) -> Response:
    catalog = await call.read(operations.show_plans)
    return answer({"plans": [plan_record(plan) for plan in catalog.plans.values()]})


async def list_tiers(call: AdminCall) -> Response:
    catalog = await call.read(operations.show_plans)
    return answer({"tiers": [tier_record(tier) for tier in catalog.tiers]})
