"""Two headers on every answer that has to do with a deployment that goes: `Deprecation` (RFC 9745) and `Sunset` (RFC
8594)."""

from __future__ import annotations

from email.utils import formatdate

from starlette.requests import Request
from starlette.types import Scope

from inferd.deployments.deployment import Deployment

_KEY = "retirement"


def remember_retirement(request: Request, deployment: Deployment) -> None:
    """From now on the answer to this request, a refusal too, says when the deployment goes."""
    request.scope.setdefault("state", {})[_KEY] = deployment.retirement


def retirement_headers(scope: Scope) -> dict[str, str]:
    """{} where nothing goes."""
    retirement = scope.get("state", {}).get(_KEY)
    if retirement is None:
        return {}
    return {
        "deprecation": f"@{retirement.announced_at_ms // 1000}",
        "sunset": formatdate(retirement.gone_at_ms // 1000, usegmt=True),
    }
