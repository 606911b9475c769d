"""ASGI application: the routes, the handlers of errors and the middleware of all responses."""

from __future__ import annotations

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from inferd.config import ServerConfig
from inferd.errors import InferdError
from inferd.server.admin.routes import ADMIN_ROUTES
from inferd.server.endpoints.batches import cancel_batch, create_batch, get_batch, list_batches
from inferd.server.endpoints.files import create_file, delete_file, get_content, get_file, list_files
from inferd.server.endpoints.generation import generation_route
from inferd.server.endpoints.models import get_model, list_models
from inferd.server.endpoints.ollama import (
    ollama_ps,
    ollama_root,
    ollama_show,
    ollama_tags,
    ollama_unsupported,
    ollama_version,
)
from inferd.server.endpoints.organization import costs, get_key, usage_completions
from inferd.server.endpoints.responses import (
    cancel_response,
    create_response,
    delete_response,
    get_response,
    list_input_items,
)
from inferd.server.endpoints.tokenize import apply_template, count_tokens, detokenize, tokenize, tokenizer_info
from inferd.server.errors import on_bug, on_http_exception, on_inferd_error
from inferd.server.keyless import KeylessAccess
from inferd.server.middleware.gate import Gate
from inferd.server.middleware.response_headers import ResponseHeaders
from inferd.server.openapi import encoded_document, openapi
from inferd.server.services import Services, services_of
from inferd.serving.endpoints.chat import ChatCompletions
from inferd.serving.endpoints.embeddings import Embeddings
from inferd.serving.endpoints.messages import Messages
from inferd.serving.endpoints.ollama import OllamaChat, OllamaGenerate
from inferd.serving.endpoints.ollama_embeddings import OllamaEmbed, OllamaEmbeddings
from inferd.serving.endpoints.rerank import Classify, Rerank
from inferd.serving.endpoints.responses import Responses
from inferd.serving.endpoints.text_completions import TextCompletions


async def health(request: Request) -> Response:
    """Answer `GET /health`, for supervisors and load balancers, without a key.

    200 while requests are accepted. 503 before every model is warm, after one has failed, and from the signal that
    stops the server, so that a load balancer sends requests elsewhere.
    """
    services = services_of(request)
    if services.router.is_ready and not services.completions.is_closed:
        return JSONResponse({"status": "ok"})
    return JSONResponse({"status": "unavailable"}, status_code=503, headers={"retry-after": "1"})


ROUTES = (
    generation_route(ChatCompletions),
    Route(Responses.path, create_response, methods=["POST"]),
    Route("/v1/responses/{response_id}", get_response, methods=["GET"]),
    Route("/v1/responses/{response_id}", delete_response, methods=["DELETE"]),
    Route("/v1/responses/{response_id}/cancel", cancel_response, methods=["POST"]),
    Route("/v1/responses/{response_id}/input_items", list_input_items, methods=["GET"]),
    generation_route(Messages),
    Route("/v1/messages/count_tokens", count_tokens, methods=["POST"]),
    generation_route(TextCompletions),
    generation_route(Embeddings),
    generation_route(Rerank),
    generation_route(Rerank, "/rerank"),
    generation_route(Rerank, "/v2/rerank"),
    generation_route(Classify),
    Route("/tokenize", tokenize, methods=["POST"]),
    Route("/detokenize", detokenize, methods=["POST"]),
    Route("/tokenizer_info", tokenizer_info, methods=["GET"]),
    Route("/apply-template", apply_template, methods=["POST"]),
    Route("/v1/files", create_file, methods=["POST"]),
    Route("/v1/files", list_files, methods=["GET"]),
    Route("/v1/files/{file_id}", get_file, methods=["GET"]),
    Route("/v1/files/{file_id}", delete_file, methods=["DELETE"]),
    Route("/v1/files/{file_id}/content", get_content, methods=["GET"]),
    Route("/v1/batches", create_batch, methods=["POST"]),
    Route("/v1/batches", list_batches, methods=["GET"]),
    Route("/v1/batches/{batch_id}", get_batch, methods=["GET"]),
    Route("/v1/batches/{batch_id}/cancel", cancel_batch, methods=["POST"]),
    Route("/v1/models", list_models, methods=["GET"]),
    Route("/v1/models/{model:path}", get_model, methods=["GET"]),
    Route("/v1/key", get_key, methods=["GET"]),
    Route("/v1/organization/usage/completions", usage_completions, methods=["GET"]),
    Route("/v1/organization/costs", costs, methods=["GET"]),
    Route("/health", health, methods=["GET"]),
    Route("/openapi.json", openapi, methods=["GET"]),
    generation_route(OllamaChat),
    generation_route(OllamaGenerate),
    generation_route(OllamaEmbed),
    generation_route(OllamaEmbeddings),
    Route("/api/tags", ollama_tags, methods=["GET"]),
    Route("/api/ps", ollama_ps, methods=["GET"]),
    Route("/api/show", ollama_show, methods=["POST"]),
    Route("/api/version", ollama_version, methods=["GET"]),
    Route("/api/pull", ollama_unsupported, methods=["POST"]),
    Route("/api/push", ollama_unsupported, methods=["POST"]),
    Route("/api/create", ollama_unsupported, methods=["POST"]),
    Route("/api/copy", ollama_unsupported, methods=["POST"]),
    Route("/api/delete", ollama_unsupported, methods=["DELETE"]),
    Route("/api/blobs/{digest}", ollama_unsupported, methods=["POST", "HEAD"]),
    Route("/", ollama_root, methods=["GET"]),
    *ADMIN_ROUTES,
)


def build_app(
    services: Services,
    config: ServerConfig | None = None,
    bound_host: str = "localhost",
    ollama_port: int | None = None,
) -> ASGIApp:
    """Return the application over `services`, which the caller starts and stops.

    Args:
        bound_host: the address or name that the server listens on, as the operator wrote it.
        ollama_port: further port that the server listens on, for clients of Ollama.

    Raises:
        ConfigError: the country database cannot be used.
    """
    config = config or ServerConfig()
    app = Starlette(
        routes=list(ROUTES),
        exception_handlers={InferdError: on_inferd_error, HTTPException: on_http_exception, Exception: on_bug},
    )
    # Behind a proxy a redirect has the wrong scheme, and clients drop body or key with it; a 404 names the path.
    app.router.redirect_slashes = False
    app.state.services = services
    app.state.strict = config.strict
    app.state.keyless = KeylessAccess.of(config)
    app.state.user_headers = config.user_headers
    app.state.ollama_port = ollama_port
    app.state.openapi = encoded_document(ROUTES)
    gated: ASGIApp = Gate(app, config, bound_host)
    if config.cors_origins:
        # Around the gate, so that web pages can read its refusals.
        gated = CORSMiddleware(
            gated,
            allow_origins=config.cors_origins,
            allow_methods=("GET", "POST", "PUT", "PATCH", "DELETE"),
            allow_headers=("*",),
            expose_headers=("*",),
        )
    # Around Starlette's error handling, so that a 500 has a request id too.
    return ResponseHeaders(gated)
