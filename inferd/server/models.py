"""`GET /v1/models` and `GET /v1/models/{id}`."""

from __future__ import annotations

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from inferd.deployments.deployment import Deployment
from inferd.openai.responses import ModelObject, encode_model, encode_model_list
from inferd.server.auth import authenticate_request, require_model
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
    return Response(encode_model(_model(deployment)), media_type="application/json")


def _model(deployment: Deployment) -> ModelObject:
    return ModelObject(id=deployment.name, created=deployment.created_s, owned_by=deployment.owner)
