"""`/openapi.json`: the document describes all routes, their bodies and their answers."""

from __future__ import annotations

import inspect
import json
import re
from typing import Any

import jsonschema
import pytest

from inferd.server.app import ROUTES
from inferd.server.openapi import SHAPES, document
from inferd.serving.endpoints.chat import ChatCompletions
from inferd.serving.endpoints.embeddings import Embeddings
from inferd.serving.endpoints.messages import Messages
from inferd.serving.endpoints.ollama import OllamaChat, OllamaGenerate
from inferd.serving.endpoints.ollama_embeddings import OllamaEmbed, OllamaEmbeddings
from inferd.serving.endpoints.rerank import Classify, Rerank
from inferd.serving.endpoints.responses import Responses
from inferd.serving.endpoints.text_completions import TextCompletions
from tests.serving.provider import PRICED, chat_body

OPERATIONS = [(method, route) for route in ROUTES for method in route.methods - {"HEAD"}]
# Where the handlers of one route have what they parse it with; those of the admin API say `body(TYPE)`.
PARSERS = {
    "parse_chat_request": "ChatRequest",
    "parse_responses_request": "ResponsesRequest",
    "parse_messages_request": "MessagesRequest",
    "parse_count_tokens_request": "CountTokensRequest",
    "parse_text_request": "TextRequest",
    "parse_embedding_request": "EmbeddingRequest",
    "parse_rerank_request": "RerankRequest",
    "parse_classify_request": "ClassifyRequest",
    "parse_tokenize_request": "TokenizeRequest",
    "parse_detokenize_request": "DetokenizeRequest",
    "parse_ollama_chat": "OllamaChatRequest",
    "parse_ollama_generate": "OllamaGenerateRequest",
    "parse_ollama_embed": "OllamaEmbedRequest",
    "parse_ollama_embeddings": "OllamaEmbeddingsRequest",
    "parse_ollama_show": "OllamaShowRequest",
    "store_upload": "UploadForm",
    "parse_create_batch": "CreateBatch",
}


GENERATION = {
    endpoint.path: endpoint
    for endpoint in (
        *(ChatCompletions, Responses, Messages, TextCompletions, Embeddings),
        *(OllamaChat, OllamaGenerate, OllamaEmbed, OllamaEmbeddings),
        *(Rerank, Classify),
    )
} | dict.fromkeys(("/rerank", "/v2/rerank"), Rerank)


@pytest.fixture(scope="module")
def described() -> dict[str, Any]:
    return json.loads(json.dumps(document(ROUTES)))


def plain(path: str) -> str:
    return path.replace(":path", "")


def test_document_describes_exactly_the_routes(described):
    found = {(method.upper(), path) for path, operations in described["paths"].items() for method in operations}
    assert found == {(method, plain(route.path)) for method, route in OPERATIONS}
    assert set(SHAPES) <= {(method, route.path) for method, route in OPERATIONS}


@pytest.mark.parametrize(("method", "route"), OPERATIONS, ids=lambda value: getattr(value, "path", value))
def test_document_describes_the_body_that_a_route_parses(described, method, route):
    source = inspect.getsource(GENERATION[route.path].parse if route.path in GENERATION else route.endpoint)
    parsed = re.findall(r"\.body\((\w+)\)", source) + [
        name for parser, name in PARSERS.items() if re.search(rf"\b{parser}\b", source)
    ]
    operation = described["paths"][plain(route.path)][method.lower()]
    if not parsed:
        assert "requestBody" not in operation
        return
    ((media, body),) = operation["requestBody"]["content"].items()
    assert media == ("multipart/form-data" if parsed == ["UploadForm"] else "application/json")
    assert [body["schema"]["$ref"].rpartition("/")[2]] == parsed


@pytest.mark.parametrize(("method", "route"), OPERATIONS, ids=lambda value: getattr(value, "path", value))
def test_document_describes_the_query_that_a_list_reads(described, method, route):
    if not route.path.startswith(("/v1/files", "/v1/batches", "/v1/responses")) or method != "GET":
        return
    read = re.findall(r"query\.\w+\(\s*\"(\w+)\"", inspect.getsource(route.endpoint))
    parameters = described["paths"][route.path]["get"]["parameters"]
    assert {parameter["name"] for parameter in parameters if parameter["in"] == "query"} == set(read)


def test_document_describes_path_parameters_and_keys(described):
    for path, operations in described["paths"].items():
        for operation in operations.values():
            named = [each["name"] for each in operation.get("parameters", []) if each["in"] == "path"]
            assert named == re.findall(r"\{(\w+)\}", path)
            assert (operation["security"] == []) == (path in ("/health", "/openapi.json", "/", "/api/version"))


@pytest.mark.anyio
async def test_document_describes_every_query_parameter_that_is_accepted(provider, described):
    """Ask each route with query parameters for every name that one of the routes accepts."""
    queries = {
        path: {each["name"] for each in operations["get"].get("parameters", []) if each["in"] == "query"}
        for path, operations in described["paths"].items()
        if "get" in operations
    }
    key = provider.new_key("acme", scopes=("inference", "usage", "manage", "admin"))
    for path, known in queries.items():
        handlers = (route.endpoint for method, route in OPERATIONS if (method, plain(route.path)) == ("GET", path))
        source = inspect.getsource(next(handlers))
        assert bool(known) == any(
            reads in source for reads in ("Query(request)", "Query(call.request)", "Paging.of(call.request")
        ), path
        is_strict = path != "/v1/models"  # clients add parameters of their own there
        url = re.sub(r"\{\w+\}", lambda part: "acme" if part[0] == "{team}" else "nothing", path)
        for name in {"surprise"}.union(*queries.values()) if known else ():
            query = {"start_time": "1"} if "start_time" in known else {}
            response = await provider.client.get(
                url, params=query | {name: "1"}, headers={"authorization": f"Bearer {key}"}
            )
            code = None if response.is_success else response.json()["error"]["code"]
            assert (code == "unknown_parameter") == (is_strict and name not in known), (url, name, response.text)


def test_document_resolves_every_reference(described):
    names = set(re.findall(r'"\$ref": "#/components/schemas/([^"]+)"', json.dumps(described)))
    assert names
    assert names <= set(described["components"]["schemas"])


@pytest.mark.anyio
async def test_document_schemas_validate_requests_and_answers(provider):
    response = await provider.client.get("/openapi.json", headers={"authorization": ""})
    assert response.status_code == 200
    described = response.json()

    def check(name: str, value: Any) -> None:
        jsonschema.Draft202012Validator({"$ref": f"#/components/schemas/{name}", **described}).validate(value)

    request = chat_body(max_tokens=2, stop=["x"], logit_bias={"1": -1.5})
    check("ChatRequest", request)
    check("ChatCompletion", (await provider.client.post("/v1/chat/completions", json=request)).json())
    text = {"model": PRICED, "prompt": [[1, 2]], "max_tokens": 1}
    check("TextRequest", text)
    check("TextCompletion", (await provider.client.post("/v1/completions", json=text)).json())
    inputs = {"model": PRICED, "input": [[1, 2]], "encoding_format": "base64", "dimensions": 2}
    check("EmbeddingRequest", inputs)
    check("EmbeddingList", (await provider.client.post("/v1/embeddings", json=inputs)).json())
    check("ModelList", (await provider.client.get("/v1/models")).json())
    form = {"files": {"file": ("in.jsonl", b"{}")}, "data": {"purpose": "batch"}}
    file = (await provider.client.post("/v1/files", **form)).json()
    check("FileObject", file)
    check("FileList", (await provider.client.get("/v1/files")).json())
    wanted = {"input_file_id": file["id"], "endpoint": "/v1/responses", "completion_window": "24h"}
    check("CreateBatch", wanted)
    check("BatchObject", (await provider.client.post("/v1/batches", json=wanted)).json())
    check("BatchList", (await provider.client.get("/v1/batches")).json())
    for wrong in (wanted | {"endpoint": "/v1/moderations"}, wanted | {"x": 1}, wanted | {"metadata": {"a": 1}}):
        with pytest.raises(jsonschema.ValidationError):
            check("CreateBatch", wrong)
    ollama = {"model": PRICED, "stream": False, "messages": request["messages"]}
    check("OllamaChatRequest", ollama)
    check("OllamaChatResponse", (await provider.client.post("/api/chat", json=ollama)).json())
    completion = {"model": PRICED, "prompt": "a", "stream": False}
    check("OllamaGenerateResponse", (await provider.client.post("/api/generate", json=completion)).json())
    check(
        "OllamaEmbedResponse", (await provider.client.post("/api/embed", json={"model": PRICED, "input": "a"})).json()
    )
    check("OllamaShowResponse", (await provider.client.post("/api/show", json={"model": PRICED})).json())
    check("OllamaModelList", (await provider.client.get("/api/tags")).json())
    check("OllamaLoadedList", (await provider.client.get("/api/ps")).json())
    check("OllamaVersion", (await provider.client.get("/api/version")).json())
    check("OllamaError", (await provider.client.post("/api/chat", json={})).json())
    check("ErrorBody", (await provider.client.get("/v1/nothing")).json())
    check("MessagesError", (await provider.client.post("/v1/messages", json={})).json())
    check("ChatRequest", request | {"some_client_field": 1})
    for wrong in (request | {"max_tokens": "2"}, {"model": PRICED}):
        with pytest.raises(jsonschema.ValidationError):
            check("ChatRequest", wrong)
