"""`GET /openapi.json`: OpenAPI 3.1, generated from the routes and from the types of requests and answers."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import UnionType
from typing import Any, get_args

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from inferd import __version__
from inferd.ledger.reports import GroupField
from inferd.server.admin import budgets, credits, keys, members, paging, suspensions, teams
from inferd.server.endpoints import batches, files, responses
from inferd.wire.anthropic.errors import MessagesError, speaks_messages
from inferd.wire.anthropic.requests import CountTokensRequest, MessagesRequest
from inferd.wire.anthropic.responses import AnthropicMessage, MessageEvent, TokensCount
from inferd.wire.classify import ClassifyRequest, ClassifyResponse
from inferd.wire.errors import ErrorBody
from inferd.wire.models import ModelList, ModelObject
from inferd.wire.ollama.embeddings import (
    OllamaEmbeddingsRequest,
    OllamaEmbeddingsResponse,
    OllamaEmbedRequest,
    OllamaEmbedResponse,
)
from inferd.wire.ollama.errors import OllamaError, speaks_ollama
from inferd.wire.ollama.models import (
    OllamaLoadedList,
    OllamaModelList,
    OllamaShowRequest,
    OllamaShowResponse,
    OllamaVersion,
)
from inferd.wire.ollama.requests import OllamaChatRequest, OllamaGenerateRequest
from inferd.wire.ollama.responses import OllamaChatResponse, OllamaGenerateResponse
from inferd.wire.openai.batches import (
    BatchList,
    BatchObject,
    CreateBatch,
    FileDeleted,
    FileList,
    FileObject,
    UploadForm,
)
from inferd.wire.openai.chat_request import ChatRequest
from inferd.wire.openai.chat_response import ChatChunk, ChatCompletion
from inferd.wire.openai.embeddings import EmbeddingList, EmbeddingRequest
from inferd.wire.openai.responses import objects as responses_api
from inferd.wire.openai.responses.events import ResponseEvent
from inferd.wire.openai.responses.requests import ResponsesRequest
from inferd.wire.openai.responses.stored import InputItemList, ResponseDeleted
from inferd.wire.openai.text_completions import TextCompletion, TextRequest
from inferd.wire.openai.tokenize import DetokenizeRequest, RenderedPrompt, Text, TokenizeRequest, TokenizerInfo, Tokens
from inferd.wire.rerank import RerankRequest, RerankResponse

_OPEN_PATHS = ("/health", "/openapi.json", "/", "/api/version")
_CLOSED_PATHS = ("/admin/", "/v1/batches", "/v1/files")
_REF = "#/components/schemas/{name}"
_PARAMETER = re.compile(r"\{(\w+)(?::\w+)?\}")
_TEAM = "/admin/teams/{team}"
_JSON = "application/json"

Parameters = Mapping[str, Mapping[str, Any]]
"""JSON schemas by name. Handlers read the parameters with `Query`, which refuses any other."""

_REQUIRED_PARAMETERS = ("start_time",)
_TEXT = {"type": "string"}
_TEXTS = {"type": "array", "items": _TEXT}
_COUNT = {"type": "integer", "minimum": 0}
_FLAG = {"type": "string", "enum": ["true", "false"]}
_ORDER = {"type": "string", "enum": ["asc", "desc"], "default": "desc"}


def _page(limit: int, maximum: int, after: Mapping[str, Any] = _TEXT) -> dict[str, Mapping[str, Any]]:
    return {
        "after": {**after, "description": "the last id of the page before"},
        "limit": {"type": "integer", "minimum": 1, "maximum": maximum, "default": limit},
    }


def _one_of(values: Sequence[str]) -> dict[str, Any]:
    return {"type": "string", "enum": list(values)}


def _usage(widths: Sequence[str], groups: Sequence[str]) -> dict[str, Mapping[str, Any]]:
    return {
        "start_time": _COUNT,
        "end_time": _COUNT,
        "bucket_width": _one_of(widths),
        "group_by": {"type": "array", "items": _one_of(groups)},
        "limit": _COUNT,
        "page": _TEXT,
        "project_ids": _TEXTS,
        "api_key_ids": _TEXTS,
    }


_PAGE = _page(paging.DEFAULT_LIMIT, paging.MAX_LIMIT)
_NUMBERED_PAGE = _page(paging.DEFAULT_LIMIT, paging.MAX_LIMIT, _COUNT)

_MODELS_QUERY: Parameters = {
    "limit": {"type": "integer", "minimum": 1, "maximum": 1000},
    "after_id": _TEXT,
    "before_id": _TEXT,
}
_QUERIES: Mapping[str, Parameters] = {
    "/v1/organization/usage/completions": {
        **_usage(("1m", "1h", "1d"), [name for name in get_args(GroupField) if name != "line_item"]),
        "user_ids": _TEXTS,
        "models": _TEXTS,
        "batch": _one_of(("true", "false")),
    },
    "/v1/organization/costs": _usage(("1d",), ("project_id", "line_item", "api_key_id")),
    "/admin/teams": _PAGE,
    _TEAM: {"limit": _PAGE["limit"]},
    f"{_TEAM}/projects": _PAGE,
    f"{_TEAM}/users": _PAGE,
    f"{_TEAM}/keys": _PAGE,
    f"{_TEAM}/budgets": _PAGE,
    f"{_TEAM}/credits/grants": _NUMBERED_PAGE,
    f"{_TEAM}/statements": _PAGE,
    f"{_TEAM}/alerts": _NUMBERED_PAGE,
    "/admin/log": {
        "team": _TEXT,
        "actor": _TEXT,
        "action": _TEXT,
        "since": _TEXT,
        "until": _TEXT,
        "before": _COUNT,
        "limit": _COUNT,
    },
}
"""Query parameters by path, of the GET routes whose answer has no type."""


@dataclass(frozen=True, slots=True)
class Shape:
    """Types of a route's body and answer.

    Attributes:
        takes: type of the body; None: there is no body.
        gives: type of the answer; None: any object.
        chunk: type of each event or line of a stream; None: the route does not stream.
        query: JSON schemas of query parameters, by name.
        takes_media, gives_media, chunk_media: media types.
    """

    takes: type | None = None
    gives: type | None = None
    chunk: type | UnionType | None = None
    query: Parameters = field(default_factory=dict)
    takes_media: str = _JSON
    gives_media: str = _JSON
    chunk_media: str = "text/event-stream"


_FILES_QUERY = {
    **_page(files.LIST_LIMIT, files.LIST_LIMIT),
    "purpose": {"type": "string"},
    "order": _ORDER,
}
_RESPONSE_QUERY: Parameters = {
    "include": _TEXTS,
    "stream": _FLAG,
    "starting_after": _COUNT,
    "include_obfuscation": _FLAG,
}

SHAPES: Mapping[tuple[str, str], Shape] = {
    ("POST", "/v1/chat/completions"): Shape(ChatRequest, ChatCompletion, ChatChunk),
    ("POST", "/v1/responses"): Shape(ResponsesRequest, responses_api.Response, ResponseEvent),
    ("GET", "/v1/responses/{response_id}"): Shape(
        gives=responses_api.Response, chunk=ResponseEvent, query=_RESPONSE_QUERY
    ),
    ("DELETE", "/v1/responses/{response_id}"): Shape(gives=ResponseDeleted),
    ("POST", "/v1/responses/{response_id}/cancel"): Shape(gives=responses_api.Response),
    ("GET", "/v1/responses/{response_id}/input_items"): Shape(
        gives=InputItemList,
        query=_page(responses.LIST_LIMIT, responses.LIST_LIMIT_MAX) | {"order": _ORDER, "include": _TEXTS},
    ),
    ("POST", "/v1/messages"): Shape(MessagesRequest, AnthropicMessage, MessageEvent),
    ("POST", "/v1/messages/count_tokens"): Shape(CountTokensRequest, TokensCount),
    ("POST", "/v1/completions"): Shape(TextRequest, TextCompletion, TextCompletion),
    ("POST", "/v1/embeddings"): Shape(EmbeddingRequest, EmbeddingList),
    **{("POST", path): Shape(RerankRequest, RerankResponse) for path in ("/v1/rerank", "/rerank", "/v2/rerank")},
    ("POST", "/classify"): Shape(ClassifyRequest, ClassifyResponse),
    ("POST", "/v1/files"): Shape(UploadForm, FileObject, takes_media="multipart/form-data"),
    ("GET", "/v1/files"): Shape(gives=FileList, query=_FILES_QUERY),
    ("GET", "/v1/files/{file_id}"): Shape(gives=FileObject),
    ("DELETE", "/v1/files/{file_id}"): Shape(gives=FileDeleted),
    ("GET", "/v1/files/{file_id}/content"): Shape(gives_media="application/jsonl"),
    ("POST", "/v1/batches"): Shape(CreateBatch, BatchObject),
    ("GET", "/v1/batches"): Shape(gives=BatchList, query=_page(batches.LIST_LIMIT, batches.LIST_LIMIT_MAX)),
    ("GET", "/v1/batches/{batch_id}"): Shape(gives=BatchObject),
    ("POST", "/v1/batches/{batch_id}/cancel"): Shape(gives=BatchObject),
    ("POST", "/tokenize"): Shape(TokenizeRequest, Tokens),
    ("POST", "/detokenize"): Shape(DetokenizeRequest, Text),
    ("GET", "/tokenizer_info"): Shape(gives=TokenizerInfo, query={"model": _TEXT}),
    ("POST", "/apply-template"): Shape(ChatRequest, RenderedPrompt),
    ("GET", "/v1/models"): Shape(gives=ModelList, query=_MODELS_QUERY),
    ("GET", "/v1/models/{model:path}"): Shape(gives=ModelObject),
    ("POST", "/api/chat"): Shape(
        OllamaChatRequest, OllamaChatResponse, OllamaChatResponse, chunk_media="application/x-ndjson"
    ),
    ("POST", "/api/generate"): Shape(
        OllamaGenerateRequest, OllamaGenerateResponse, OllamaGenerateResponse, chunk_media="application/x-ndjson"
    ),
    ("POST", "/api/embed"): Shape(OllamaEmbedRequest, OllamaEmbedResponse),
    ("POST", "/api/embeddings"): Shape(OllamaEmbeddingsRequest, OllamaEmbeddingsResponse),
    ("POST", "/api/show"): Shape(OllamaShowRequest, OllamaShowResponse),
    ("GET", "/api/tags"): Shape(gives=OllamaModelList),
    ("GET", "/api/ps"): Shape(gives=OllamaLoadedList),
    ("GET", "/api/version"): Shape(gives=OllamaVersion),
    ("GET", "/"): Shape(gives_media="text/plain"),
    ("POST", "/admin/teams"): Shape(teams.NewTeam),
    ("PATCH", _TEAM): Shape(teams.TeamChange),
    ("POST", f"{_TEAM}/suspend"): Shape(suspensions.Reason),
    ("POST", f"{_TEAM}/resume"): Shape(suspensions.Nothing),
    ("POST", f"{_TEAM}/projects"): Shape(members.NewProject),
    ("PATCH", f"{_TEAM}/projects/{{project}}"): Shape(members.Concurrency),
    ("POST", f"{_TEAM}/projects/{{project}}/suspend"): Shape(suspensions.Reason),
    ("POST", f"{_TEAM}/projects/{{project}}/resume"): Shape(suspensions.Nothing),
    ("POST", f"{_TEAM}/users"): Shape(members.NewUser),
    ("PATCH", f"{_TEAM}/users/{{user}}"): Shape(members.Concurrency),
    ("POST", f"{_TEAM}/users/{{user}}/suspend"): Shape(suspensions.Reason),
    ("POST", f"{_TEAM}/users/{{user}}/resume"): Shape(suspensions.Nothing),
    ("POST", f"{_TEAM}/keys"): Shape(keys.NewKeyBody),
    ("POST", f"{_TEAM}/keys/{{key_id}}/revoke"): Shape(suspensions.Nothing),
    ("POST", f"{_TEAM}/keys/{{key_id}}/suspend"): Shape(suspensions.Reason),
    ("POST", f"{_TEAM}/keys/{{key_id}}/resume"): Shape(suspensions.Nothing),
    ("PUT", f"{_TEAM}/budgets"): Shape(budgets.NewBudget),
    ("DELETE", f"{_TEAM}/budgets"): Shape(budgets.BudgetOf),
    ("POST", f"{_TEAM}/raises"): Shape(budgets.NewRaise),
    ("POST", f"{_TEAM}/credits/grants"): Shape(credits.NewGrant),
    ("POST", f"{_TEAM}/credits/grants/{{grant_id}}/void"): Shape(credits.VoidGrant),
    ("POST", f"{_TEAM}/credits/withdrawals"): Shape(credits.Withdraw),
    ("POST", f"{_TEAM}/requests/{{request_id}}/refund"): Shape(credits.RefundRequest),
    ("POST", f"{_TEAM}/statements/{{period}}/payments"): Shape(credits.PayStatement),
    **{("GET", path): Shape(query=parameters) for path, parameters in _QUERIES.items()},
}
"""By method and path of the route. A route that is not listed takes no body and answers with any object."""


async def openapi(request: Request) -> Response:
    """Answer with the document that `build_app` made. It needs no key: of this server it tells only the version."""
    return Response(request.app.state.openapi, media_type="application/json")


def encoded_document(routes: Iterable[BaseRoute]) -> bytes:
    return msgspec.json.encode(document(routes))


def document(routes: Iterable[BaseRoute]) -> dict[str, Any]:
    """Return the OpenAPI document of `routes`."""
    types: dict[type | UnionType, None] = {ErrorBody: None, MessagesError: None, OllamaError: None}
    for shape in SHAPES.values():
        types |= dict.fromkeys(kind for kind in (shape.takes, shape.gives, shape.chunk) if kind is not None)
    schemas, components = msgspec.json.schema_components(types, ref_template=_REF)
    _open_up(components)
    refs = dict(zip(types, schemas, strict=True))
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        assert isinstance(route, Route), "every route has a path and methods"
        for method in sorted((route.methods or set()) - {"HEAD"}):
            operations = paths.setdefault(_PARAMETER.sub(r"{\1}", route.path), {})
            operations[method.lower()] = _operation(route, SHAPES.get((method, route.path), Shape()), refs)
    return {
        "openapi": "3.1.0",
        "info": {"title": "inferd", "version": __version__},
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer", "description": "sk-inferd-..."}},
        },
    }


def _open_up(components: dict[str, Any]) -> None:
    """Allow unknown fields in the requests for text and embeddings, and in no other request."""
    bodies = [shape.takes for (_, path), shape in SHAPES.items() if path.startswith(_CLOSED_PATHS)]
    _, closed = msgspec.json.schema_components([body for body in bodies if body is not None])
    for name, schema in components.items():
        if name not in closed:
            schema.pop("additionalProperties", None)


def _operation(route: Route, shape: Shape, refs: Mapping[type | UnionType, Any]) -> dict[str, Any]:
    def content(kind: type | None, media: str = _JSON) -> dict[str, Any]:
        anything = {"type": "object"} if media == _JSON else {}
        return {media: {"schema": anything if kind is None else refs[kind]}}

    answers = content(shape.gives, shape.gives_media)
    if shape.chunk is not None:
        # OpenAPI 3.1 cannot describe the events of a stream.
        answers[shape.chunk_media] = {"schema": {"description": f"events; data: {_names(shape.chunk)}"}}
    operation: dict[str, Any] = {
        "summary": _summary(route.endpoint),
        "responses": {
            "200": {"description": "done", "content": answers},
            "default": {"description": "refused or failed", "content": content(_error_type(route.path))},
        },
        "security": [] if route.path in _OPEN_PATHS else [{"key": []}],
    }
    parameters: list[dict[str, Any]] = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
        for name in _PARAMETER.findall(route.path)
    ]
    parameters += [
        {"name": name, "in": "query", "required": name in _REQUIRED_PARAMETERS, "schema": schema}
        for name, schema in shape.query.items()
    ]
    if parameters:
        operation["parameters"] = parameters
    if shape.takes is not None:
        # If no field is required, an empty body stands for {}.
        is_required = any(field.required for field in msgspec.structs.fields(shape.takes))
        operation["requestBody"] = {"required": is_required, "content": content(shape.takes, shape.takes_media)}
    return operation


def _error_type(path: str) -> type:
    if speaks_ollama(path):
        return OllamaError
    return MessagesError if speaks_messages(path) else ErrorBody


def _names(kind: type | UnionType) -> str:
    return ", ".join(member.__name__ for member in get_args(kind) or (kind,))


def _summary(endpoint: Callable[..., Any]) -> str:
    """Return the handler's name in words."""
    return endpoint.__name__.replace("_", " ").capitalize()
