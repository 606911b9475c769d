"""`GET /v1/models` and `GET /v1/models/{id}`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from inferd.chat.reasoning_mode import ReasoningMode
from inferd.deployments.capabilities import Capabilities
from inferd.deployments.deployment import Deployment
from inferd.errors import InvalidRequestError
from inferd.instants import format_instant, wall_clock_ms
from inferd.price import PPM, ListedPrice
from inferd.server.auth import authenticate_request, require_model
from inferd.server.middleware.response_headers import remember_retirement
from inferd.server.query import Query
from inferd.server.services import services_of
from inferd.wire.model_capabilities import model_capabilities
from inferd.wire.models import (
    CHAT_PARAMETERS,
    REASONING_PARAMETERS,
    TEXT_PARAMETERS,
    Architecture,
    ModelMeta,
    ModelObject,
    ReasoningSupport,
    TopProvider,
    encode_model,
    encode_model_list,
)


async def list_models(request: Request) -> Response:
    """List the deployments that the caller may use. Anthropic's `limit`, `after_id` and `before_id` select a page."""
    services = services_of(request)
    caller = authenticate_request(request, services.authenticator, may_lack_key=True)
    allowed = [deployment for deployment in services.router.deployments() if caller.may_use(deployment.name)]
    page, has_more = _page(Query(request), allowed)
    most = services.ticket_issuer.issue(caller).max_output_tokens
    models = [_model(each, each.capabilities(most)) for each in page]
    return Response(encode_model_list(models, has_more=has_more), media_type="application/json")


async def get_model(request: Request) -> Response:
    """Answer with one deployment, also of an alias. Its id contains a slash."""
    services = services_of(request)
    caller = authenticate_request(request, services.authenticator, may_lack_key=True)
    if not request.path_params["model"]:  # `/v1/models/`
        raise HTTPException(404)
    deployment = services.router.find(request.path_params["model"], caller.may_use)
    require_model(caller, deployment.name)
    remember_retirement(request, deployment)
    most = services.ticket_issuer.issue(caller).max_output_tokens
    return Response(encode_model(_model(deployment, deployment.capabilities(most))), media_type="application/json")


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


def _model(deployment: Deployment, capabilities: Capabilities) -> ModelObject:
    retirement, facts = deployment.retirement, capabilities.facts
    context_length, max_output = capabilities.context_length, capabilities.max_output
    output = capabilities.output
    is_by_time = deployment.price is not None and deployment.price.is_by_time
    return ModelObject(
        id=deployment.name,
        name=deployment.name,
        display_name=deployment.name,
        created=deployment.created_s,
        created_at=format_instant(deployment.created_s * 1000),
        owned_by=deployment.owner,
        publisher=deployment.owner,
        aliases=list(capabilities.aliases),
        max_model_len=context_length,
        context_length=context_length,
        max_context_length=context_length,
        max_input_tokens=context_length,
        max_tokens=max_output,
        architecture=Architecture(modality=f"text->{output}", input_modalities=["text"], output_modalities=[output]),
        top_provider=TopProvider(context_length=context_length, max_completion_tokens=max_output),
        supported_parameters=_parameters(capabilities),
        capabilities=model_capabilities(
            thinks=capabilities.reasoning is not ReasoningMode.NONE,
            efforts=() if facts is None else facts.efforts,
            structured=capabilities.structured_output,
        ),
        reasoning=_reasoning(capabilities),
        reasoning_mode=capabilities.reasoning,
        state="loaded" if deployment.replica.is_ready else "not-loaded",
        arch=None if facts is None else facts.architecture,
        quantization=None if facts is None else facts.quantization,
        params_string=None if facts is None else facts.parameter_size,
        size_bytes=None if facts is None else facts.file_bytes,
        meta=_meta(capabilities),
        default_max_tokens=deployment.default_max_tokens,
        serverless=True,
        free=deployment.price is None,
        free_until=_instant(deployment.free_until_ms),
        **asdict(ListedPrice.of(deployment.price)),
        max_compute_ms=deployment.max_compute_ms if is_by_time else None,
        service_tiers={tier.value: ppm / PPM for tier, ppm in deployment.tiers_ppm.items()},
        lifecycle="deprecated" if retirement and retirement.announced_at_ms <= wall_clock_ms() else "active",
        deprecated_at=_instant(None if retirement is None else retirement.announced_at_ms),
        retires_at=_instant(None if retirement is None else retirement.gone_at_ms),
    )


def _parameters(capabilities: Capabilities) -> list[str]:
    has_effort = capabilities.facts is not None and bool(capabilities.facts.efforts)
    return [
        *(TEXT_PARAMETERS if capabilities.makes_text else ()),
        *(CHAT_PARAMETERS if capabilities.tools else ()),
        *(REASONING_PARAMETERS if has_effort else ()),
    ]


def _reasoning(capabilities: Capabilities) -> ReasoningSupport | None:
    mode, facts = capabilities.reasoning, capabilities.facts
    if mode is ReasoningMode.NONE or facts is None:
        return None
    return ReasoningSupport(
        mandatory=mode is ReasoningMode.ALWAYS,
        default_enabled=mode is not ReasoningMode.OFF,
        supported_efforts=list(facts.efforts),
    )


def _meta(capabilities: Capabilities) -> ModelMeta | None:
    facts = capabilities.facts
    if facts is None:
        return None
    return ModelMeta(
        n_vocab=facts.num_vocabulary,
        n_ctx_train=facts.trained_context,
        n_embd=facts.embedding_size,
        n_params=facts.num_parameters,
        size=facts.file_bytes,
    )


def _instant(at_ms: int | None) -> str | None:
    return None if at_ms is None else format_instant(at_ms)
