"""`GET /api/tags` and `/api/ps`, `POST /api/show`: the deployments as Ollama's models."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from inferd.wire.errors import missing
from inferd.wire.ignored_fields import IgnoredFields
from inferd.wire.json_body import decode
from inferd.wire.openai.request_fields import check_model

DEFAULT_TAG = ":latest"
API_VERSION = "0.32.15"
"""Version of Ollama whose API is spoken. Clients refuse older ones."""
NEVER = "2999-12-31T00:00:00Z"
"""`expires_at` of a model that stays loaded; Ollama's command line prints `Forever`."""
LABEL_COLUMNS = 30
"""Width of a name in `parameters`."""


class OllamaShowRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Body of `POST /api/show`. `name` is the older name of `model`."""

    model: str | None = None
    name: str | None = None
    verbose: bool | None = None

    # Known, but without effect: the answer describes the model as it is served.
    options: Any = None
    system: Any = None
    template: Any = None


class OllamaModelDetails(msgspec.Struct, frozen=True, kw_only=True):
    parent_model: str = ""
    format: Literal["gguf"] = "gguf"
    family: str
    families: list[str]
    parameter_size: str
    quantization_level: str
    context_length: int
    embedding_length: int


class OllamaModel(msgspec.Struct, frozen=True, kw_only=True):
    """Deployment in the list; `name` and `model` are equal and have a tag, as clients look them up with one."""

    name: str
    model: str
    modified_at: str
    size: int
    digest: str
    details: OllamaModelDetails
    capabilities: list[str]


class OllamaModelList(msgspec.Struct, frozen=True):
    models: list[OllamaModel]


class OllamaLoadedModel(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    model: str
    size: int
    digest: str
    details: OllamaModelDetails
    expires_at: str = NEVER
    size_vram: int
    context_length: int


class OllamaLoadedList(msgspec.Struct, frozen=True):
    models: list[OllamaLoadedModel]


class OllamaShowResponse(msgspec.Struct, frozen=True, kw_only=True):
    """`parameters` are lines of a name and a value, as in a Modelfile."""

    modelfile: str
    parameters: str
    template: str
    details: OllamaModelDetails
    model_info: dict[str, Any]
    capabilities: list[str]
    modified_at: str


class OllamaVersion(msgspec.Struct, frozen=True):
    """Version of Ollama whose API is spoken, and of this server."""

    version: str
    inferd: str


_SHOW_DECODER = msgspec.json.Decoder(OllamaShowRequest)


def parse_ollama_show(body: bytes, ignored: IgnoredFields | None = None) -> str:
    """Return the name of the model that a body asks for. Raises InvalidRequestError."""
    ignored = ignored or IgnoredFields()
    asked = decode(body, _SHOW_DECODER, ignored)
    for field in ("options", "system", "template"):
        if getattr(asked, field) not in (None, "", {}):
            ignored.add(field)
    name = asked.model or asked.name
    if not name:
        raise missing("model")
    check_model(name)
    return name


def tagged(name: str) -> str:
    """Return the name of a deployment as Ollama's clients look it up: with a tag."""
    return name if ":" in name else name + DEFAULT_TAG
