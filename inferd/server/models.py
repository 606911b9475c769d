"""`GET /v1/models` and `GET /v1/models/{id}`."""

from __future__ import annotations

from dataclasses import asdict

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from inferd.deployments.deployment import Deployment
from inferd.ledger.periods import format_instant
from inferd.openai.models import ModelObject, encode_model, encode_model_list
from inferd.price import PPM, ListedPrice
from inferd.server.auth import authenticate_request, require_model
from inferd.server.retirement_notice import remember_retirement
from inferd.server.services import services_of


async def list_models(request: Request) -> Response:
    """Every deployment that the caller may use."""
    services = services_of(request)
    caller = authenticate_request(request, services.authenticator)
    allowed = (deployment for deployment in services.router.deployments() if caller.may_use(deployment.name))
    models = [_model(deployment) for deployment in allowed]
    return Response(encode_model_list(models), media_type="application/json")


async def get_model(request: Request) -> Response:
    """One of them; its id contains a slash."""
    services = services_of(request)
    caller = authenticate_request(request, services.authenticator)
    if not request.path_params["model"]:  # `/v1/models/`
        raise HTTPException(404)
    deployment = services.router.find(request.path_params["model"])
    require_model(caller, deployment.name)
    remember_retirement(request, deployment)
    return Response(encode_model(_model(deployment)), media_type="application/json")


def _model(deployment: Deployment) -> ModelObject:
    retirement = deployment.retirement
    return ModelObject(
        id=deployment.name,
        created=deployment.created_s,
        owned_by=deployment.owner,
        max_model_len=deployment.replica.max_context,
        default_max_tokens=deployment.default_max_tokens,
        serverless=True,
        free=deployment.price is None,
        free_until=_instant(deployment.free_until_ms),
        **asdict(ListedPrice.of(deployment.price)),
        max_compute_ms=deployment.max_compute_ms,
        service_tiers={tier.value: ppm / PPM for tier, ppm in deployment.tiers_ppm.items()},
        deprecated_at=_instant(None if retirement is None else retirement.announced_at_ms),
        retires_at=_instant(None if retirement is None else retirement.gone_at_ms),
    )


def _instant(at_ms: int | None) -> str | None:
    return None if at_ms is None else format_instant(at_ms)
