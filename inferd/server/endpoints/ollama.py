"""Ollama's API beside its calls for text and vectors: models, version, and operations that are not there."""

from __future__ import annotations

from typing import Any

import msgspec
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from inferd import __version__
from inferd.chat.reasoning_mode import ReasoningMode
from inferd.deployments.capabilities import Capabilities
from inferd.deployments.deployment import Deployment
from inferd.errors import UnsupportedOperationError
from inferd.instants import format_instant
from inferd.server.auth import authenticate_request, require_model
from inferd.server.middleware.response_headers import remember_ignored, remember_retirement
from inferd.server.services import Services, services_of
from inferd.server.transport.body import read_body
from inferd.wire.ollama.models import (
    API_VERSION,
    LABEL_COLUMNS,
    OllamaLoadedList,
    OllamaLoadedModel,
    OllamaModel,
    OllamaModelDetails,
    OllamaModelList,
    OllamaShowResponse,
    OllamaVersion,
    parse_ollama_show,
    tagged,
)

RUNNING = "Ollama is running"
"""Answer of `/`, by which clients find an Ollama."""


async def ollama_root(request: Request) -> Response:
    """Answer `GET /` and `HEAD /` on the port for Ollama's clients, without a key; elsewhere there is nothing."""
    port = request.app.state.ollama_port
    if port is None or (request.scope.get("server") or (None, None))[1] != port:
        raise HTTPException(404)
    return PlainTextResponse(RUNNING)


async def ollama_version(request: Request) -> Response:
    """Answer with the version of Ollama whose API is spoken, without a key."""
    return _json(OllamaVersion(API_VERSION, __version__))


async def ollama_tags(request: Request) -> Response:
    """List the deployments that the caller may use."""
    return _json(OllamaModelList([_listed(deployment) for deployment in _allowed(request)]))


async def ollama_ps(request: Request) -> Response:
    """List the deployments that the caller may use and whose model is loaded."""
    ready = [deployment for deployment in _allowed(request) if deployment.replica.is_ready]
    return _json(OllamaLoadedList([_loaded(deployment) for deployment in ready]))


async def ollama_show(request: Request) -> Response:
    """Describe one deployment."""
    services = services_of(request)
    caller = authenticate_request(request, services.authenticator, may_lack_key=True)
    name = parse_ollama_show(await read_body(request), remember_ignored(request))
    deployment = services.router.find(name, caller.may_use)
    require_model(caller, deployment.name)
    remember_retirement(request, deployment)
    return _json(_shown(deployment))


async def ollama_unsupported(request: Request) -> Response:
    """Refuse an operation that changes the models."""
    authenticate_request(request, services_of(request).authenticator, may_lack_key=True)
    operation = request.url.path.split("/")[2]
    raise UnsupportedOperationError(
        f"This server has no operation '{operation}': its operator chooses the models, in models.toml. GET /api/tags "
        "lists the ones that you can use."
    )


def _allowed(request: Request) -> list[Deployment]:
    services: Services = services_of(request)
    caller = authenticate_request(request, services.authenticator, may_lack_key=True)
    return [deployment for deployment in services.router.deployments() if caller.may_use(deployment.name)]


def _listed(deployment: Deployment) -> OllamaModel:
    known = deployment.capabilities()
    name = tagged(deployment.name)
    return OllamaModel(
        name=name,
        model=name,
        modified_at=_modified_at(deployment, known),
        size=0 if known.facts is None else known.facts.file_bytes,
        digest=_digest(known),
        details=_details(known),
        capabilities=_capabilities(known),
    )


def _loaded(deployment: Deployment) -> OllamaLoadedModel:
    known = deployment.capabilities()
    name = tagged(deployment.name)
    size = 0 if known.facts is None else known.facts.file_bytes
    return OllamaLoadedModel(
        name=name,
        model=name,
        size=size,
        digest=_digest(known),
        details=_details(known),
        size_vram=size if deployment.replica.is_offloaded else 0,
        context_length=known.context_length,
    )


def _shown(deployment: Deployment) -> OllamaShowResponse:
    known = deployment.capabilities()
    facts = known.facts
    parameters = {"num_ctx": known.context_length, "num_predict": deployment.default_max_tokens}
    return OllamaShowResponse(
        modelfile=f"# Served by inferd as {deployment.name}.\nFROM {tagged(deployment.name)}\n",
        parameters="\n".join(f"{name:{LABEL_COLUMNS}} {value}" for name, value in parameters.items()),
        template="" if facts is None else facts.chat_template or "",
        details=_details(known),
        model_info=_model_info(known),
        capabilities=_capabilities(known),
        modified_at=_modified_at(deployment, known),
    )


def _details(known: Capabilities) -> OllamaModelDetails:
    facts = known.facts
    family = "" if facts is None else facts.architecture
    return OllamaModelDetails(
        family=family,
        families=[family] if family else [],
        parameter_size="" if facts is None else facts.parameter_size,
        quantization_level="unknown" if facts is None or facts.quantization is None else facts.quantization,
        context_length=known.context_length,
        embedding_length=0 if facts is None else facts.embedding_size,
    )


def _model_info(known: Capabilities) -> dict[str, Any]:
    """Return the fields of the file's header that clients read. The context length is that of requests here."""
    facts = known.facts
    if facts is None:
        return {}
    info: dict[str, Any] = {
        "general.architecture": facts.architecture,
        "general.parameter_count": facts.num_parameters,
        f"{facts.architecture}.context_length": known.context_length,
        f"{facts.architecture}.embedding_length": facts.embedding_size,
        f"{facts.architecture}.vocab_size": facts.num_vocabulary,
    }
    return info | ({} if facts.title is None else {"general.basename": facts.title})


def _capabilities(known: Capabilities) -> list[str]:
    """Return Ollama's words, and `rerank` or `classification`, for which it has none. A model that makes text has no
    `embedding`, although it makes vectors too: Ollama's command line asks such a model for vectors only."""
    if not known.makes_text:
        return ["embedding" if known.output == "embeddings" else known.output]
    found = {
        "completion": True,
        "tools": known.tools,
        "thinking": known.reasoning is not ReasoningMode.NONE,
    }
    return [name for name, has in found.items() if has]


def _digest(known: Capabilities) -> str:
    """Return 64 digits; the command line prints the first twelve."""
    return "0" * 64 if known.facts is None else known.facts.digest


def _modified_at(deployment: Deployment, known: Capabilities) -> str:
    return format_instant(deployment.created_s * 1000 if known.facts is None else known.facts.modified_ms)


def _json(value: msgspec.Struct) -> Response:
    return Response(msgspec.json.encode(value), media_type="application/json")
