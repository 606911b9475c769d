"""`GET /v1/models` and `GET /v1/models/{id}`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from inferd.deployments.deployment import Deployment
from inferd.errors import InvalidRequestError
from inferd.instants import format_instant, wall_clock_ms
from inferd.price import PPM, ListedPrice
from inferd.server.auth import authenticate_request, require_model
from inferd.server.middleware.response_headers import remember_retirement
from inferd.server.query import Query
from inferd.server.services import services_of
from inferd.wire.openai.models import ModelObject, encode_model, encode_model_list


async def list_models(request: Request) -> Response:
    """List the deployments that the caller may use. Anthropic's `limit`, `after_id` and `before_id` select a page."""
    services = services_of(request)
    caller = authenticate_request(request, services.authenticator)
    allowed = [deployment for deployment in services.router.deployments() if caller.may_use(deployment.name)]
    page, has_more = _page(Query(request), allowed)
    return Response(
        encode_model_list([_model(each) for each in page], has_more=has_more), media_type="application/json"
    )


async def get_model(request: Request) -> Response:
    """Answer with one deployment, also of an alias. Its id contains a slash."""
    services = services_of(request)
    caller = authenticate_request(request, services.authenticator)
    if not request.path_params["model"]:  # `/v1/models/`
        raise HTTPException(404)
    deployment = services.router.find(request.path_params["model"])
    require_model(caller, deployment.name)
    remember_retirement(request, deployment)
    return Response(encode_model(_model(deployment)), media_type="application/json")


def _page(query: Query, deployments: Sequence[Deployment]) -> tuple[Sequence[Deployment], bool]:
    """Return the page of deployments, and whether more follow. Raise InvalidRequestError for wrong parameters."""
    limit = query.integer("limit", 1, 1000)
    names = [deployment.name for deployment in deployments]
    start, end = 0, len(names)
    is_backward = False
    for parameter in ("after_id", "before_id"):
        name = query.text(parameter)
        if name is None:
            continue
        if name not in names:
            raise InvalidRequestError(
                f"The query parameter '{parameter}' must be the id of a model; GET /v1/models lists them.",
                param=parameter,
                code="invalid_value",
            )
        is_backward = parameter == "before_id"
        start, end = (start, names.index(name)) if is_backward else (names.index(name) + 1, end)
    between = deployments[start:end]
    if limit is None or limit >= len(between):
        return between, False
    return (between[-limit:] if is_backward else between[:limit]), True


def _model(deployment: Deployment) -> ModelObject:
    retirement = deployment.retirement
    return ModelObject(
        id=deployment.name,
        display_name=deployment.name,
        created=deployment.created_s,
        created_at=format_instant(deployment.created_s * 1000),
        owned_by=deployment.owner,
        aliases=list(deployment.aliases),
        max_model_len=deployment.replica.max_context,
        default_max_tokens=deployment.default_max_tokens,
        serverless=True,
        free=deployment.price is None,
        free_until=_instant(deployment.free_until_ms),
        **asdict(ListedPrice.of(deployment.price)),
        max_compute_ms=deployment.max_compute_ms,
        service_tiers={tier.value: ppm / PPM for tier, ppm in deployment.tiers_ppm.items()},
        lifecycle="deprecated" if retirement and retirement.announced_at_ms <= wall_clock_ms() else "active",
        deprecated_at=_instant(None if retirement is None else retirement.announced_at_ms),
        retires_at=_instant(None if retirement is None else retirement.gone_at_ms),
    )


def _instant(at_ms: int | None) -> str | None:
    return None if at_ms is None else format_instant(at_ms)
